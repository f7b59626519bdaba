"""A recorder that was started before its file begins to play has the first frame, however late its thread begins."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from judge import read_chunk

from msrecd.muxing.videoinput import VideoInput
from tests.inputs.matrix import NUMBERED, VIDEO, Entry, make
from tests.inputs.test_matrix_whole import OUTS, _record

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here (apt install ffmpeg)")


@pytest.mark.promise("first-frame-of-a-file")
@pytest.mark.parametrize(
    "entry",
    [
        Entry("h264.ts", [*NUMBERED, *VIDEO["h264"]], "video"),
        Entry("h264-cut.mp4", [*NUMBERED, *VIDEO["h264"]], "video", "cut"),
    ],
    ids=str,
)
def test_a_thread_that_begins_late_loses_no_frame(
    tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine: each recorder's thread connects half a second after the one before."""
    source = make(entry, tmp_path)
    numbers = read_chunk(source).numbers
    connect, late = VideoInput.connect, iter((0.0, 0.5, 1.0))

    def connect_late(self: VideoInput, *arguments: Any) -> None:
        time.sleep(next(late))
        connect(self, *arguments)

    monkeypatch.setattr(VideoInput, "connect", connect_late)
    found = asyncio.run(_record(source, tmp_path, OUTS["video"]))
    assert {
        suffix: [number for path in paths for number in read_chunk(path).numbers] for suffix, paths in found.items()
    } == dict.fromkeys(OUTS["video"], numbers)
