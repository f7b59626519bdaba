"""What a finished chunk leaves in the page cache, which on a Raspberry Pi lies in the camera's memory (CMA) as well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from msrecd.clock import SYSTEM_CLOCK
from msrecd.storage.chunkfile import ChunkFile

MIB = 1 << 20
SIZE = 8 * MIB


def cached_share(path: Path) -> float:
    """The share of a file that can be read without waiting for the disk (preadv2 with RWF_NOWAIT)."""
    fd = os.open(path, os.O_RDONLY)
    places = range(SIZE - 4096, 0, -MIB // 4)
    found = 0
    try:
        for place in places:
            try:
                found += os.preadv(fd, [bytearray(4096)], place, os.RWF_NOWAIT) == 4096
            except BlockingIOError:
                continue
            except OSError as exc:
                pytest.skip(f"this file system cannot say what is cached: {exc}")
    finally:
        os.close(fd)
    return found / len(places)


def test_a_finished_chunk_gives_its_pages_back(tmp_path: Path) -> None:
    """Else an hour of recording fills CMA, and the next start finds little memory for the camera."""
    plain = tmp_path / "plain"
    plain.write_bytes(os.urandom(SIZE))
    os.sync()
    assert cached_share(plain) > 0.9, "any other file stays"
    chunk = ChunkFile(os.open(tmp_path, os.O_RDONLY), "chunk.mp4", sync_interval_s=1.0, clock=SYSTEM_CLOCK)
    for _ in range(SIZE // MIB):
        chunk.write([os.urandom(MIB)])
    chunk.finish(lambda: os.open(tmp_path, os.O_RDONLY))
    chunk.close()
    assert cached_share(tmp_path / "chunk.mp4") < 0.3
