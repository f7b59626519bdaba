"""A file whose sound begins before its first frame is recorded whole."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from judge import onsets, read_chunk

from msrecd.clock import MS
from msrecd.devices.virtual.testframe import TestFrame
from msrecd.flow.units import Packet
from msrecd.muxing.earlysound import EarlySound
from tests.inputs.matrix import FRAMES, NUMBERED, RATE, VIDEO, _run
from tests.inputs.test_matrix import TYPES, _record

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here (apt install ffmpeg)")

LATE_S = 0.6  # the first frame


@pytest.mark.promise("sound-before-the-first-frame-of-a-file")
def test_sound_before_the_first_frame_is_recorded(tmp_path: Path) -> None:
    painted = TestFrame(320, 240)
    raw = tmp_path / "numbered.yuv"
    raw.write_bytes(b"".join(painted.paint(number, flash=False) for number in range(FRAMES)))
    source, beeps = tmp_path / "late.mp4", "aevalsrc='sin(2*PI*1000*t)*0.5*lt(mod(t,1),0.1)':sample_rate=48000"
    numbered = [str(raw) if word.endswith(".yuv") else word for word in NUMBERED]
    _run(*numbered, *VIDEO["h264"], tmp_path / "frames.mp4")
    _run(
        "-itsoffset", str(LATE_S), "-i", tmp_path / "frames.mp4", "-f", "lavfi", "-i", f"{beeps}:duration=2", "-c:v",
        "copy", "-c:a", "aac", source,
    )  # fmt: skip
    paths = {tmp_path / f"out.{TYPES[out][1]}": TYPES[out][0] for out in ("mp4", "mkv", "webm")}
    asyncio.run(_record(source, paths))
    for path in paths:
        after = read_chunk(path)
        assert after.numbers == list(range(FRAMES)), path.name
        assert len(after.samples) >= 2 * 48000 - 1024, path.name
        begins_s = after.times[0] - LATE_S  # of the source, in the recording
        heard = [after.audio_start + at - begins_s for at in onsets(after.samples[:, 0], after.sample_rate)]
        assert any(abs(at - 1) < 0.012 for at in heard), (path.name, heard)
        assert after.times[0] > LATE_S - 1 / RATE, "the sound before it is there"


class _Track:
    def __init__(self, kind: str, *, is_whole: bool) -> None:
        self.kind, self.is_whole = kind, is_whole


def _packet(at_ms: int) -> Packet:
    return Packet(pts_ns=at_ms * MS, dts_ns=at_ms * MS, duration_ns=20 * MS, is_keyframe=True, data=b"x")


def test_of_a_live_input_and_a_packet_before_the_first_frame_nothing_is_kept() -> None:
    for is_whole, begin_ms, count in ((True, 60, 3), (True, 50, 0), (True, None, 3), (False, 60, 0)):
        early = EarlySound([_Track("video", is_whole=is_whole), _Track("audio", is_whole=is_whole)])  # type: ignore[list-item]
        for at_ms in (0, 20, 40):
            early.keep(0, _packet(at_ms))
            early.keep(1, _packet(at_ms))
        taken = early.take(None if begin_ms is None else begin_ms * MS)
        assert [index for index, _ in taken] == [1] * count
        assert early.take() == []
