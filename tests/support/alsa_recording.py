"""Records from a simulated microphone and prints what came as JSON; run as a program with `AlsaSim.env`.

python -m alsa_recording DEVICE '{"seconds": 2, "settings": {}, "stall_at": 10, "stall_s": 1.2}'

"hang": FILE makes the microphone mic_plug hang until it is muted, and ends when it has gone on for a second.
"""

from __future__ import annotations

import array
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msrecd.devices.alsa.backend import AlsaBackend
from msrecd.flow.units import AudioBlock

LOUD = 1500
QUIET_SAMPLES = 10_000
DEADLINE_S = 30.0


class Sink:
    """Keeps the blocks; blocks the source's thread for a while at one of them, as nobody must."""

    def __init__(self, *, stall_at: int, stall_s: float) -> None:
        self.blocks: list[AudioBlock] = []
        self.ended: list[str | None] = []
        self._stall_at = stall_at
        self._stall_s = stall_s

    def put(self, unit: AudioBlock) -> None:
        self.blocks.append(unit)
        if len(self.blocks) == self._stall_at:
            time.sleep(self._stall_s)

    def end(self, error: BaseException | None) -> None:
        self.ended.append(None if error is None else str(error))


def onsets(blocks: list[AudioBlock]) -> list[dict[str, float]]:
    """Where sound begins after silence: by its block's own time, and by counting samples from the first block."""
    found = []
    position, quiet = 0, 0
    for block in blocks:
        position += block.lost_before
        quiet += block.lost_before
        samples = array.array("h", block.data)[:: block.format.channels]
        for index, value in enumerate(samples):
            if abs(value) < LOUD:
                quiet += 1
                continue
            if quiet > QUIET_SAMPLES:
                rate = block.format.sample_rate
                found.append(
                    {
                        "stamped_s": block.pts_ns / 1e9 + index / rate,
                        "counted_s": blocks[0].pts_ns / 1e9 + (position + index) / rate,
                    }
                )
            quiet = 0
        position += block.samples
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hang(stall: Path, sink: Sink, muted: list[bool]) -> float:
    """Seconds that the microphone gave nothing, as seen from outside."""
    until(lambda: len(sink.blocks) >= 20)
    stall.touch()
    began = time.monotonic()
    until(lambda: muted == [True])
    stall.unlink()
    hung_s = time.monotonic() - began
    count = len(sink.blocks)
    until(lambda: muted == [True, False] and len(sink.blocks) >= count + 50)  # the beep of a whole second among them
    return hung_s


def record(device: str, options: dict[str, Any]) -> dict[str, Any]:
    backend = AlsaBackend(extra_pcms=[device])
    description = backend.describe()[0]
    ended: list[str | None] = []
    muted: list[bool] = []
    source = backend.open(description, options.get("settings", {}))
    source.on_ended = lambda error: ended.append(None if error is None else str(error))
    source.on_muted = muted.append
    sink = Sink(stall_at=options.get("stall_at", 0), stall_s=options.get("stall_s", 0))
    source.raw().add(sink)
    hung_s = 0.0
    if "hang" in options:
        hung_s = hang(Path(options["hang"]), sink, muted)
    else:
        deadline = time.monotonic() + options["seconds"]
        while time.monotonic() < deadline and not ended:
            time.sleep(0.02)
    began = time.monotonic()
    source.close()
    source.close()
    blocks = sink.blocks
    return {
        "format": {name: value for name, value in asdict(source.format).items() if value},
        "blocks": [{"pts_ns": b.pts_ns, "samples": b.samples, "lost": b.lost_before} for b in blocks],
        "onsets": onsets(blocks) if source.format.sample_format == "s16" else [],
        "head": blocks[0].data[:64].hex() if blocks else "",
        "stats": asdict(source.stats),
        "fallbacks": source.timestamp_fallbacks,
        "ended": ended,
        "muted": muted,
        "hung_s": hung_s,
        "feed_ended": sink.ended,
        "close_s": time.monotonic() - began,
        "threads": [thread.name for thread in threading.enumerate()],
    }


if __name__ == "__main__":
    print(json.dumps(record(sys.argv[1], json.loads(sys.argv[2]))))
