"""Devices without media: the daemon's own MQTT client with spool and commands, and real manifests.

    python devices.py --prefix north --count 100 --port 1883 --folder F --chunk-s 5

A device that is told to start records: every `chunk-s` seconds it finishes a chunk of a minute of its own time, which
begins shortly before midnight, writes its manifest line, and tells it; now and then it has a gap. At the end of
standard input all stop, wait until the broker has every event, write what they told to F/told.json, and leave.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msrecd.control.bus import Bus
from msrecd.control.commands import Commands
from msrecd.control.messages import Address, Result
from msrecd.mqtt.service import MqttService
from msrecd.mqtt.settings import MqttSettings
from msrecd.storage import manifest

BEGINNING = datetime(2026, 11, 29, 23, 0, tzinfo=UTC)  # of the devices' own time; a minute passes with each chunk
CHUNK = timedelta(seconds=60)
REASONS = ("storage_stalled", "device_missing", "overload")
LEAVE_S = 300.0  # until the broker has everything


def utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Device:
    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self.told: list[str] = []  # event types, in the order in which they were told
        self._options = options
        self._folder = options.folder / name
        self._manifests = self._folder / "recordings"
        self._manifests.mkdir(parents=True)
        self._fd = os.open(self._manifests, os.O_RDONLY)
        self._random = random.Random(name)
        self._rev = 0
        self._now = BEGINNING + timedelta(seconds=self._random.uniform(0, 59))
        self._recording: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._bus = Bus()
        settings = MqttSettings(
            host="127.0.0.1", port=options.port, device_id=name, groups=(options.prefix,), allow_plaintext=True
        )
        commands = Commands(self.act, lambda: ("cam0",), clock_trusted=lambda: True)
        self.service = MqttService(settings, self._bus, commands, state_path=self._folder, boot_counter=1)

    async def start(self) -> None:
        await self.service.start()
        self._tell_state("inactive", None)

    async def act(self, address: Address, args: Mapping[str, object], cause: str) -> Result:
        if address.verb == "start" and self._recording is None:
            self._recording = asyncio.ensure_future(self._record(cause))
            return Result(changed=True, data={"state": "recording"})
        if address.verb == "stop" and self._recording is not None:
            await self.stop()
            return Result(changed=True, data={"state": "inactive"})
        return Result(changed=False, data={})

    async def stop(self) -> None:
        if self._recording is not None:
            self._stopping.set()
            await self._recording
            self._recording = None
            self._stopping.clear()

    def health(self) -> None:
        disk = {"free_bytes": 10**9 - len(self.told), "total_bytes": 10**10, "recordings_bytes": len(self.told),
                "seconds_left_estimate": 86400.0}  # fmt: skip
        self._bus.set_state(
            "health",
            {"ts": utc(datetime.now(UTC)), "clock": "synchronized", "disk": disk, "mqtt": self.service.health()},
        )

    def _tell(self, event_type: str, recording_id: str, **more: object) -> None:
        self.told.append(event_type)
        head = {
            "event_type": event_type,
            "ts": utc(datetime.now(UTC)),
            "recorder": "cam0",
            "recording_id": recording_id,
        }
        self._bus.emit("recorder/cam0", {**head, **more, "nth": len(self.told)})

    def _tell_state(self, state: str, recording_id: str | None) -> None:
        self._rev += 1
        self._bus.set_state(
            "recorder/cam0",
            {"state": state, "recording_id": recording_id, "since": utc(datetime.now(UTC)), "rev": self._rev},
        )

    async def _record(self, cause: str) -> None:
        recording_id = f"{self._now:%Y%m%dT%H%M%SZ}-cam0-{self._random.randrange(16**4):04x}"
        self._tell("started", recording_id, cause=cause, tracks=[])
        self._tell_state("recording", recording_id)
        seq = 0
        while not await self._stopped_within(self._options.chunk_s * self._random.uniform(0.8, 1.2)):
            if self._random.random() < 0.05:
                lost = round(self._random.uniform(0.1, 9), 3)
                self._now += timedelta(seconds=lost)
                self._tell("gap", recording_id, duration_s=lost, reason=self._random.choice(REASONS))
            seq += 1
            chunk = self._chunk(recording_id, seq)
            await asyncio.to_thread(manifest.append, self._fd, f"{recording_id}.jsonl", chunk)
            self._tell("chunk", recording_id, **{key: chunk[key] for key in chunk if key not in ("lost_s", "gaps")})
            self._tell_state("recording", recording_id)
        self._tell("stopped", recording_id, cause=cause, chunks=seq, bytes=1000 * seq)
        self._tell_state("inactive", None)

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    def _chunk(self, recording_id: str, seq: int) -> dict[str, Any]:
        started, self._now = self._now, self._now + CHUNK
        file = f"cam0/{started:%Y/%m/%d}/{recording_id}-{seq:04d}.mp4"
        return {
            "seq": seq, "file": file, "bytes": 1000, "sha256": hashlib.sha256(file.encode()).hexdigest(),
            "mime_type": "video/mp4", "started": utc(started), "ended": utc(self._now),
            "duration_s": CHUNK.total_seconds(), "clock": "synchronized", "final": False, "recovered": False,
            "lost_s": 0.0, "tracks": {"video": {"frames": 1800, "dropped": 0}}, "gaps": [],
        }  # fmt: skip


async def run(options: argparse.Namespace) -> None:
    devices = [Device(f"{options.prefix}-{number:04d}", options) for number in range(options.count)]
    for device in devices:
        await device.start()
        await asyncio.sleep(0.01)

    async def tell_health() -> None:
        while True:
            for device in devices:
                device.health()
                await asyncio.sleep(10 / len(devices))

    health = asyncio.ensure_future(tell_health())
    await asyncio.to_thread(sys.stdin.read)  # until the parent closes it, or is gone
    health.cancel()
    for device in devices:
        await device.stop()
    deadline = time.monotonic() + LEAVE_S
    while any(device.service.health()["spooled"] for device in devices) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    left = {device.name: device.service.health() for device in devices}
    (options.folder / "told.json").write_text(json.dumps({device.name: device.told for device in devices}))
    (options.folder / "left.json").write_text(json.dumps(left))
    await asyncio.gather(*(device.service.stop(10.0) for device in devices))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--chunk-s", type=float, default=5.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
