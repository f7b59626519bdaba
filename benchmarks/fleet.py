"""A fleet on one broker: how long until all devices are back after a restart, and until all have answered a group.

    python benchmarks/fleet.py [--devices 1000] [--processes 10]

Each device is the daemon's own MQTT client with its spool and its commands, without media; the processes share the
machine with the broker and with the person who counts, so the figures are upper bounds of what the broker needs.
At most some 120 devices go into a process: paho waits with select(), which takes no descriptor above 1023.
Every figure is measured from outside: by a client that reads `availability`, replies and states.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import paho.mqtt.client as paho
from broker import Broker

from msrecd.mqtt.service import CommandResult, MqttService, MqttSettings

DEADLINE_S = 180.0


class Device:
    """Answers as the daemon would: a state and an event for each change."""

    def __init__(self, number: int, port: int, folder: Path) -> None:
        self._state = "inactive"
        settings = MqttSettings(
            host="127.0.0.1", port=port, device_id=f"fleet-{number:05d}", groups=("field",), allow_plaintext=True
        )
        path = folder / settings.device_id
        path.mkdir()
        self.service = MqttService(
            settings,
            self,
            recorders=lambda: ("cam0",),
            state_path=path,
            boot_counter=1,
            clock_trusted=lambda: False,
        )

    async def start(self) -> None:
        await self.service.start()
        self._tell()

    async def command(
        self, target: str, name: str | None, verb: str, args: Mapping[str, object], cause: str
    ) -> CommandResult:
        """The commands start and stop; the others change nothing."""
        state = {"start": "recording", "stop": "inactive"}.get(verb, self._state)
        changed, self._state = state != self._state, state
        if changed:
            self._tell()
            self.service.publish_event(
                "event/recorder/cam0", {"event_type": "started" if state == "recording" else "stopped"}
            )
        return CommandResult(changed=changed, data={"state": state})

    def _tell(self) -> None:
        self.service.publish_state("state/recorder/cam0", {"state": self._state, "rev": 1})


def run_devices(numbers: range, port: int, folder: Path, ended: Event) -> None:
    """One process of devices; until `ended`."""

    async def run() -> None:
        devices = [Device(number, port, folder) for number in numbers]
        for device in devices:
            await device.start()
            await asyncio.sleep(0.005)
        await asyncio.to_thread(ended.wait)
        await asyncio.gather(*(device.service.stop(10.0) for device in devices))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard) if hard > soft else (soft, hard))
    asyncio.run(run())


class Watcher:
    """Counts devices by what they say, and when they said it."""

    def __init__(self, port: int) -> None:
        self._seen: dict[str, float] = {}
        self._wanted: Callable[[str, bytes], bool] = lambda _topic, _payload: False
        self._arrived = threading.Condition()
        self._connected = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._connected.set()
        self._client.on_disconnect = lambda *_: self._connected.clear()
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

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
            return time.monotonic()

    def wait_all(self, count: int, since: float, what: str) -> None:
        """Until so many devices were seen; prints when."""
        deadline = time.monotonic() + DEADLINE_S
        with self._arrived:
            while len(self._seen) < count:
                if not self._arrived.wait(max(0.0, deadline - time.monotonic())):
                    sys.exit(f"{what}: {len(self._seen)} of {count} devices after {DEADLINE_S:g} s")
            times = sorted(moment - since for moment in self._seen.values())
        middle, late = statistics.median(times), times[int(len(times) * 0.99) - 1]
        print(f"{what}: {count} devices; half in {middle:.1f} s, 99 % in {late:.1f} s, all in {times[-1]:.1f} s")

    def publish(self, topic: str, payload: dict[str, object]) -> None:
        self._client.publish(topic, json.dumps(payload), qos=1).wait_for_publish(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


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
    options = parser.parse_args()
    count: int = options.devices
    context = multiprocessing.get_context("spawn")
    ended = context.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = "max_queued_messages 100000\npersistence true\npersistence_location " + f"{folder}/\n"
        with Broker(folder / "broker", config=config.replace("log_type all", "")) as broker:
            watcher = Watcher(broker.port)
            since = watcher.expect(is_online)
            step = -(-count // options.processes)
            workers = [
                context.Process(target=run_devices, args=(range(at, min(at + step, count)), broker.port, folder, ended))
                for at in range(0, count, step)
            ]
            for worker in workers:
                worker.start()
            watcher.wait_all(count, since, "first connection")
            command(watcher, count, "start")
            for kill in (False, True):
                broker.stop() if not kill else broker.kill()
                time.sleep(3)
                watcher.expect(is_online)
                broker.start()
                watcher.wait_all(
                    count, time.monotonic(), "back after the broker " + ("was killed" if kill else "restarted")
                )
            command(watcher, count, "start")
            ended.set()
            for worker in workers:
                worker.join(60)
            watcher.close()


if __name__ == "__main__":
    main()
