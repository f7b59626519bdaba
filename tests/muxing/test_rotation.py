"""When a chunk ends."""

from __future__ import annotations

import pytest
from simulated_recording import START_NS, Camera, Microphone, SimulatedRecording, steady

from msrecd.muxing.rotation import ChunkLimits, cut_before, wants_key_frame_at

S = 1_000_000_000


@pytest.mark.parametrize(
    ("elapsed_s", "written", "key", "asked", "cut"),
    [
        (9.9, 0, True, False, False),
        (10.0, 0, True, False, True),
        (9.9999, 0, True, False, True),  # within the grace of half a millisecond
        (10.0, 0, False, False, False),  # never inside a group of pictures
        (0.0, 0, True, True, False),  # a chunk has at least one picture
        (0.5, 0, True, True, True),
        (0.5, 0, False, True, False),
        (5.0, 990, True, False, True),  # 990 + 20 > 1000
        (5.0, 980, True, False, False),
    ],
)
def test_cut_before(elapsed_s: float, written: int, key: bool, asked: bool, cut: bool) -> None:
    limits = ChunkLimits(duration_ns=10 * S, size_bytes=1000)
    assert (
        cut_before(
            limits,
            elapsed_ns=int(elapsed_s * S),
            written_bytes=written,
            packet_bytes=20,
            is_cut_point=key,
            asked=asked,
        )
        is cut
    )


def test_without_limits_nothing_is_cut() -> None:
    assert not cut_before(
        ChunkLimits(), elapsed_ns=10**15, written_bytes=1 << 50, packet_bytes=1, is_cut_point=True, asked=False
    )


def test_a_key_frame_is_wanted_exactly_at_the_end_of_the_chunk() -> None:
    at = wants_key_frame_at(ChunkLimits(duration_ns=10 * S), chunk_start_ns=7 * S, written_bytes=0, bytes_per_ns=0.0)
    assert at == 17 * S


def test_the_size_limit_is_foreseen_from_the_rate() -> None:
    limits = ChunkLimits(size_bytes=10_000_000)
    far = wants_key_frame_at(limits, chunk_start_ns=0, written_bytes=1_000_000, bytes_per_ns=1e6 / S)
    near = wants_key_frame_at(limits, chunk_start_ns=0, written_bytes=9_000_000, bytes_per_ns=1e6 / S)
    assert far is None
    assert near is not None
    assert 9 * S < near < 10 * S


def sound_alone() -> SimulatedRecording:
    microphone = Microphone(48_000, steady(0.0))
    return SimulatedRecording(microphone, Camera(frame_rate=None), mime_type="audio/mp4", chunk_s=2.0)


@pytest.mark.promise("no-stump-chunk")
def test_what_little_comes_before_the_stop_is_no_chunk_of_its_own() -> None:
    """Sound is cut at any packet: a stop just behind the end of a chunk made a file of one packet."""
    recording = sound_alone()
    recording._recording.stop(START_NS + 8 * S + S // 20)
    lengths = [info.duration_s for info, _ in recording.run(8.05)]
    assert lengths == pytest.approx([2, 2, 2, 2.05], abs=0.03)


def test_what_is_long_enough_before_the_stop_is_one() -> None:
    recording = sound_alone()
    recording._recording.stop(START_NS + 4 * S + S // 2)
    lengths = [info.duration_s for info, _ in recording.run(4.5)]
    assert lengths == pytest.approx([2, 2, 0.5], abs=0.03)
