"""Where one broker ends: mosquitto alone under many connections that do what a device's does, without the devices.

    python benchmarks/fleet_broker.py [--connections 1000 --connections 5000 --connections 10000]

Each connection is a socket that speaks as much MQTT 5 as it needs: it connects, subscribes to its commands and to the
groups', acknowledges a command to all, and publishes one event with QoS 1. A broker of its own for each number. CPU
and memory are the broker's, read from /proc; the times include this program, which shares the machine with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from broker import Broker
from fleet import resident_mib, used_s

AT_ONCE = 200
DEADLINE_S = 240.0
GROUP = "msrecd/v1/group/all/cmd/recorder/cam0/start"
EVENT = b'{"event_type":"started","recording_id":"20261120T180000Z-cam0-7f3a","event_id":"x/1/000001"}'.ljust(400)
CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def packet(kind: int, body: bytes) -> bytes:
    """A control packet (MQTT 5, section 2.1): `kind` is type and flags."""
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([kind]) + bytes(length) + body


class Connection(asyncio.Protocol):
    """One device's connection. Each answer of the broker is a turn of `answered`."""

    def __init__(self, number: int, heard: Callable[[], None]) -> None:
        """`heard` is called for every command."""
        self.name = f"limit-{number:06d}"
        self._heard = heard
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._awaited = (0, asyncio.get_running_loop().create_future())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._awaited[1].done():
            self._awaited[1].set_exception(exc or ConnectionError("closed by the broker"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2:
            length, at = self._buffer[1] & 127, 2
            if self._buffer[1] & 128:
                if len(self._buffer) < 3:
                    return
                length, at = length | self._buffer[2] << 7, 3
            if len(self._buffer) < at + length:
                return
            kind, body = self._buffer[0] >> 4, self._buffer[at : at + length]
            self._buffer = self._buffer[at + length :]
            if kind == PUBLISH:
                self._heard()
                topic_length = struct.unpack_from(">H", body)[0]
                self.write(packet(0x40, body[2 + topic_length : 4 + topic_length]))
            if kind == self._awaited[0] and not self._awaited[1].done():
                self._awaited[1].set_result(None)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, data: bytes, answer: int) -> None:
        """Send a packet and wait for the broker's."""
        self._awaited = (answer, asyncio.get_running_loop().create_future())
        self.write(data)
        await self._awaited[1]

    async def begin(self) -> None:
        connect = text("MQTT") + b"\x05\x02" + struct.pack(">H", 600) + b"\x00" + text(self.name)
        await self.ask(packet(0x10, connect), CONNACK)
        filters = text(f"msrecd/v1/{self.name}/cmd/#") + b"\x29" + text("msrecd/v1/group/all/cmd/#") + b"\x29"
        await self.ask(packet(0x82, b"\x00\x01\x00" + filters), SUBACK)

    async def publish(self, topic: str, payload: bytes) -> None:
        await self.ask(packet(0x32, text(topic) + b"\x00\x01\x00" + payload), PUBACK)


async def run(count: int, folder: Path) -> None:
    """One broker, `count` connections, all stages."""
    loop = asyncio.get_running_loop()
    config = "max_queued_messages 100000\n"
    with Broker(folder, config=config, log_type="error") as broker, contextlib.ExitStack() as stack:
        used = used_s(broker.pid)
        begun = time.monotonic()

        def say(what: str) -> None:
            nonlocal used, begun
            took, now = time.monotonic() - begun, used_s(broker.pid)
            print(
                f"{count} connections, {what}: {took:.1f} s, the broker's processor {now - used:.2f} s "
                f"({(now - used) / count * 1e6:.0f} us each), {resident_mib(broker.pid):.0f} MiB",
                flush=True,
            )
            used, begun = now, time.monotonic()

        limit = asyncio.Semaphore(AT_ONCE)
        left, all_heard = count, asyncio.Event()

        def heard() -> None:
            nonlocal left
            left -= 1
            if not left:
                all_heard.set()

        async def open_one(number: int) -> Connection:
            async with limit:
                _, connection = await loop.create_connection(
                    lambda: Connection(number, heard), broker.host, broker.port
                )
                stack.callback(connection.close)
                await connection.begin()
                return connection

        async with asyncio.timeout(DEADLINE_S):
            connections = await asyncio.gather(*(open_one(number) for number in range(count)))
            say("connected and subscribed")
            await connections[0].publish(GROUP, b'{"id":"limit"}')
            await all_heard.wait()
            say("a command to all")
            await asyncio.gather(*(c.publish(f"msrecd/v1/{c.name}/event/recorder/cam0", EVENT) for c in connections))
            say("an event of each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, action="append")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the broker inherits it
    with tempfile.TemporaryDirectory(prefix="msrecd-fleet-") as name:
        for count in options.connections or [1_000, 5_000, 10_000]:
            if hard != resource.RLIM_INFINITY and count + 100 > hard:
                sys.exit(f"{count} connections: only {hard} files may be open here")
            asyncio.run(run(count, Path(name) / str(count)))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
