"""A fleet on brokers: how long until all devices are back after a restart, and until all have answered a group.

    python benchmarks/fleet.py [--devices 1000] [--processes 10] [--brokers 1]
    python benchmarks/fleet.py --devices 10000 --brokers 4        # 84 processes, 20 GiB

Each device is the daemon's own MQTT client with its spool and its commands, without media; the processes share the
machine with the broker and with the person who counts, so the figures are upper bounds of what the broker needs.
At most 120 devices go into a process: paho waits with select(), which takes no descriptor above 1023. With several
brokers each has its share of the devices, as sites have; a restart is one of all of them, the worst case.
Every figure is measured from outside: by a client that reads `availability`, replies and states; what the broker used
of the processor and of memory is read from /proc. Nothing is left behind, however it ends: a process of devices ends
with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import paho.mqtt.client as paho
from broker import Broker

from msrecd.control.bus import Bus
from msrecd.control.commands import Commands
from msrecd.control.messages import Address, Result
from msrecd.mqtt.service import MqttService
from msrecd.mqtt.settings import MqttSettings

DEADLINE_S = 180.0  # for each thousand devices, at least
DEVICES_OF_PROCESS = 120


class Device:
    """Answers as the daemon would: a state and an event for each change."""

    def __init__(self, number: int, port: int, folder: Path) -> None:
        self._state = "inactive"
        settings = MqttSettings(
            host="127.0.0.1", port=port, device_id=f"fleet-{number:05d}", groups=("field",), allow_plaintext=True
        )
        path = folder / settings.device_id
        path.mkdir()
        self._bus = Bus()
        commands = Commands(self.act, lambda: ("cam0",), clock_trusted=lambda: False)
        self.service = MqttService(settings, self._bus, commands, state_path=path, boot_counter=1)

    async def start(self) -> None:
        await self.service.start()
        self._tell()

    async def act(self, address: Address, args: Mapping[str, object], cause: str) -> Result:
        """The commands start and stop; the others change nothing."""
        state = {"start": "recording", "stop": "inactive"}.get(address.verb, self._state)
        changed, self._state = state != self._state, state
        if changed:
            self._tell()
            self._bus.emit("recorder/cam0", {"event_type": "started" if state == "recording" else "stopped"})
        return Result(changed=changed, data={"state": state})

    def _tell(self) -> None:
        self._bus.set_state("recorder/cam0", {"state": self._state, "rev": 1})


def run_devices(numbers: range, port: int, folder: Path, parent: Connection) -> None:
    """One process of devices, until the parent closes its end of the pipe: on purpose, or because it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    logging.disable(logging.WARNING)  # a thousand devices say that the broker is away

    def wait_for_the_end() -> None:
        with contextlib.suppress(EOFError, OSError):
            parent.recv_bytes()

    async def run() -> None:
        devices = [Device(number, port, folder) for number in numbers]
        ended = asyncio.ensure_future(asyncio.to_thread(wait_for_the_end))
        for device in devices:
            await device.start()
            await asyncio.sleep(0.005)
            if ended.done():
                break
        await ended
        await asyncio.gather(*(device.service.stop(10.0) for device in devices))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard) if hard > soft else (soft, hard))
    asyncio.run(run())


class Fleet:
    """The processes of devices; use as a context manager."""

    def __init__(self, count: int, processes: int, ports: Sequence[int], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        processes = max(processes, -(-count // DEVICES_OF_PROCESS))
        step = -(-count // processes)
        self._workers: list[tuple[SpawnProcess, Connection, Connection]] = []
        for turn, at in enumerate(range(0, count, step)):
            theirs, ours = context.Pipe(duplex=False)
            arguments = (range(at, min(at + step, count)), ports[turn % len(ports)], folder, theirs)
            self._workers.append((context.Process(target=run_devices, args=arguments, daemon=True), theirs, ours))

    def __enter__(self) -> None:
        for worker, theirs, _ in self._workers:
            worker.start()
            theirs.close()

    def __exit__(self, *_: object) -> None:
        for _, _, ours in self._workers:
            ours.close()
        deadline = time.monotonic() + 30
        for worker, _, _ in self._workers:
            if worker.pid is None:
                continue
            worker.join(max(0.1, deadline - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join(5)


def used_s(pid: int) -> float:
    """Seconds of processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


class Watcher:
    """Counts devices by what they say, and when they said it; the brokers by what they use meanwhile."""

    def __init__(self, brokers: Sequence[Broker]) -> None:
        self._brokers = brokers
        self._used_s = [0.0] * len(brokers)
        self._seen: dict[str, float] = {}
        self._wanted: Callable[[str, bytes], bool] = lambda _topic, _payload: False
        self._arrived = threading.Condition()
        self._clients = [self._client_of(broker) for broker in brokers]

    def _client_of(self, broker: Broker) -> paho.Client:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.connect_async("127.0.0.1", broker.port)
        client.loop_start()
        return client

    def _on_connect(self, client: Any, *_: object) -> None:
        client.subscribe([("msrecd/v1/+/availability", 1), ("msrecd/v1/+/reply/#", 1), ("msrecd/v1/+/event/#", 1)])

    def _on_message(self, _client: object, _data: object, message: Any) -> None:
        with self._arrived:
            if self._wanted(message.topic, message.payload):
                self._seen.setdefault(message.topic.split("/")[2], time.monotonic())
                self._arrived.notify_all()

    def expect(self, wanted: Callable[[str, bytes], bool]) -> float:
        """Count from now on what `wanted` takes; the time of now."""
        with self._arrived:
            self._seen.clear()
            self._wanted = wanted
            self.broker_anew()
            return time.monotonic()

    def broker_anew(self) -> None:
        """Count what the brokers use from now on."""
        with contextlib.suppress(OSError):  # they are down
            self._used_s = [used_s(broker.pid) for broker in self._brokers]

    def wait_all(self, count: int, since: float, what: str) -> None:
        """Until so many devices were seen; prints when."""
        deadline = time.monotonic() + DEADLINE_S * max(1, count / 2500)
        with self._arrived:
            while len(self._seen) < count:
                if not self._arrived.wait(max(0.0, deadline - time.monotonic())):
                    sys.exit(f"{what}: {len(self._seen)} of {count} devices are here when the time is over")
            times = sorted(moment - since for moment in self._seen.values())
        middle, late = statistics.median(times), times[int(len(times) * 0.99) - 1]
        used = sum(used_s(broker.pid) for broker in self._brokers) - sum(self._used_s)
        memory = sum(resident_mib(broker.pid) for broker in self._brokers)
        who = "the broker" if len(self._brokers) == 1 else f"{len(self._brokers)} brokers"
        print(
            f"{what}: {count} devices; half in {middle:.1f} s, 99 % in {late:.1f} s, all in {times[-1]:.1f} s; "
            f"{who} used {used:.2f} s of a processor ({used / count * 1e6:.0f} us a device) and {memory:.0f} MiB",
            flush=True,
        )

    def publish(self, topic: str, payload: dict[str, object]) -> None:
        sent = [client.publish(topic, json.dumps(payload), qos=1) for client in self._clients]
        for info in sent:
            info.wait_for_publish(30)

    def close(self) -> None:
        for client in self._clients:
            client.disconnect()
            client.loop_stop()


def is_online(topic: str, payload: bytes) -> bool:
    return topic.endswith("/availability") and payload == b"online"


def command(watcher: Watcher, devices: int, verb: str) -> None:
    """A command to the group, until everybody's reply and everybody's event are here."""
    id_ = f"{verb}-{time.monotonic_ns()}"
    for what, wanted in (
        ("replies", lambda topic, payload: "/reply/" in topic and id_.encode() in payload),
        ("events", lambda topic, payload: topic.endswith("/event/recorder/cam0")),
    ):
        since = watcher.expect(wanted)
        name = id_ if what == "replies" else f"{id_}-e"
        sent = verb if what == "replies" else {"start": "stop", "stop": "start"}[verb]
        watcher.publish(f"msrecd/v1/group/field/cmd/recorder/cam0/{sent}", {"id": name})
        watcher.wait_all(devices, since, f"group {sent}, {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--brokers", type=int, default=1)
    options = parser.parse_args()
    count: int = options.devices
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msrecd-fleet-")))
        config = f"max_queued_messages 100000\npersistence true\npersistence_location {folder}/%d/\n"
        brokers = [
            stack.enter_context(Broker(folder / str(number), config=config % number, log_type="error"))
            for number in range(options.brokers)
        ]
        watcher = Watcher(brokers)
        stack.callback(watcher.close)
        since = watcher.expect(is_online)
        stack.enter_context(Fleet(count, options.processes, [broker.port for broker in brokers], folder))
        watcher.wait_all(count, since, "first connection")
        command(watcher, count, "start")
        for kill in (False, True):
            for broker in brokers:
                broker.stop() if not kill else broker.kill()
            time.sleep(3)
            watcher.expect(is_online)
            for broker in brokers:
                broker.start()
            watcher.broker_anew()
            whose = "the broker" if len(brokers) == 1 else "all brokers"
            watcher.wait_all(count, time.monotonic(), f"back after {'a kill' if kill else 'a restart'} of {whose}")
        command(watcher, count, "start")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
