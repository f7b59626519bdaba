"""What a program holds: our threads, file descriptors, objects of ours that are alive, memory."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Every thread of docs/architecture.md that belongs to media. The executor's (asyncio_0 …) grow up to their bound when
# the machine is busy, and say nothing about us.
_PREFIXES = (
    "record-",
    "encode-",
    "blank",
    "virtual ",
    "play-",
    "canvas timer",
    "alsa ",
    "camera ",
    "packets ",
    "write-",
)
_PAGE = os.sysconf("SC_PAGE_SIZE")


def own_threads() -> list[str]:
    """Names of the threads that media objects have started and that still run."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(_PREFIXES))


def open_files() -> int:
    """How many file descriptors are open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def own_objects() -> Counter[str]:
    """Live instances of the classes of `msrecd.media`, `flow`, `codecs`, `muxing` and `libav`, by class."""
    gc.collect()
    classes = (type(thing) for thing in gc.get_objects())
    packages = ("msrecd.media", "msrecd.flow", "msrecd.codecs", "msrecd.muxing", "msrecd.libav")
    return Counter(
        f"{one.__module__}.{one.__qualname__}" for one in classes if str(one.__module__).startswith(packages)
    )


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


@dataclass(frozen=True, slots=True)
class Held:
    """One look at everything."""

    threads: tuple[str, ...]
    files: int
    objects: Counter[str]
    bytes: int


def held() -> Held:
    return Held(threads=tuple(own_threads()), files=open_files(), objects=own_objects(), bytes=resident_bytes())


def _stands(name: str) -> str:
    """Where a thread is at this moment."""
    frames = sys._current_frames()
    places = [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for thread in threading.enumerate()
        if thread.name == name and thread.ident in frames
        for frame in traceback.extract_stack(frames[thread.ident])
    ]
    return f"{name}: {', '.join(places)}"


async def until(what: Callable[[], bool], deadline_s: float = 60.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, "\n".join(map(_stands, own_threads()))
        await asyncio.sleep(0.05)
