"""A gate that opens and closes faster than key frames come: what is recorded can be decoded all the same."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from still_camera import StillCamera

from msrecd.clock import NS
from msrecd.flow.encoded import EncodedFeed, EncodingRequest, StreamParameters
from msrecd.flow.source import Gate
from msrecd.flow.units import Packet
from msrecd.muxing import videoinput
from msrecd.muxing.input import Arrival
from msrecd.muxing.videoinput import VideoInput

FRAME_NS = NS // 10
PARAMETERS = StreamParameters(kind="video", codec="mjpeg", header=b"", codec_string="mjpeg")
REQUEST = EncodingRequest(kind="video", codec="mjpeg")


class Lease:
    def __init__(self) -> None:
        self.output = EncodedFeed()
        self.output.set_parameters(PARAMETERS)
        self.request_key_frame = self.output.request_key_frame

    def close(self) -> None:
        return None


@pytest.fixture
def track(monkeypatch: pytest.MonkeyPatch) -> VideoInput:
    monkeypatch.setattr(videoinput.hub, "acquire", lambda *_, **__: Lease())
    monkeypatch.setattr(videoinput, "blank_for", lambda *_, **__: (SimpleNamespace(), REQUEST))
    made = VideoInput(0, StillCamera(label="Front"), Gate(), REQUEST)
    made.connect(lambda _: True, lambda: None)
    return made


def packet(at_ns: int, *, is_keyframe: bool) -> Packet:
    return Packet(pts_ns=at_ns, dts_ns=at_ns, duration_ns=FRAME_NS, is_keyframe=is_keyframe, data=b"x")


class Judge:
    """Knows what a decoder could do with what passes."""

    def __init__(self, track: VideoInput) -> None:
        self._track = track
        self._last: dict[bool, int] = {}  # by lane: number of the last picture that was offered
        self._shown: tuple[bool, int] | None = None  # the last that passed
        self.passed: list[tuple[int, bool]] = []

    def offer(self, lane: bool, at_ns: int, *, is_keyframe: bool) -> None:
        number = self._last[lane] = self._last.get(lane, 0) + 1
        if not self._track.accept(Arrival(0, lane, packet(at_ns, is_keyframe=is_keyframe))):
            return
        assert is_keyframe or self._shown == (lane, number - 1), (
            f"refers to what is not there, after {self.passed[-5:]}"
        )
        self._shown = (lane, number)
        self.passed.append((at_ns // FRAME_NS, lane))


def test_closed_again_before_the_key_frame_came(track: VideoInput) -> None:
    """Seen with a camera that stalled twice: after black its pictures passed without the one they refer to."""
    judge = Judge(track)
    judge.offer(False, 0, is_keyframe=True)
    judge.offer(False, 1 * FRAME_NS, is_keyframe=False)
    track.set_gate(False, 2 * FRAME_NS)
    judge.offer(True, 2 * FRAME_NS, is_keyframe=True)
    track.set_gate(True, 3 * FRAME_NS)
    judge.offer(False, 4 * FRAME_NS, is_keyframe=False)
    track.set_gate(False, 8 * FRAME_NS)
    judge.offer(False, 5 * FRAME_NS, is_keyframe=False)  # before the gate closed, but nobody saw its key frame
    judge.offer(False, 6 * FRAME_NS, is_keyframe=True)
    judge.offer(False, 7 * FRAME_NS, is_keyframe=False)
    judge.offer(True, 9 * FRAME_NS, is_keyframe=True)
    assert judge.passed == [(0, False), (1, False), (2, True), (6, False), (7, False), (9, True)]


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_gates_and_key_frames(track: VideoInput, seed: int) -> None:
    dice = random.Random(seed)
    judge = Judge(track)
    late = dice.randrange(0, 6)  # pictures that the camera is behind
    is_open = True
    for number in range(300):
        at_ns = number * FRAME_NS
        if dice.random() < 0.08:
            is_open = not is_open
            track.set_gate(is_open, at_ns - dice.randrange(0, 4) * FRAME_NS)
        if number >= late:
            judge.offer(False, at_ns - late * FRAME_NS, is_keyframe=dice.random() < 0.1 or number == late)
        if dice.random() < 0.9:
            judge.offer(True, at_ns, is_keyframe=dice.random() < 0.1)
    assert {lane for _, lane in judge.passed} == {False, True}
    times = [at for at, _ in judge.passed]
    assert len(times) > 100
