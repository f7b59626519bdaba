"""Delays between tries, values that a constraint takes, types of media as texts."""

from __future__ import annotations

import pytest

from msrecd.vocabulary.backoff import BackOff
from msrecd.vocabulary.constraints import ValueType
from msrecd.vocabulary.formats import codec_of, extension_for, parse_mime_type


def test_delays_double_up_to_the_limit_and_begin_again() -> None:
    delays = BackOff(1.0, 5.0)
    assert [delays.next_s() for _ in range(5)] == [1, 2, 4, 5, 5]
    assert [delays.next_s(lasted_s=5) for _ in range(3)] == [2, 2, 2], "what lasts some seconds keeps them short"
    assert [delays.next_s(lasted_s=0.1), delays.next_s(lasted_s=600), delays.next_s()] == [4, 1, 2]
    delays.reset()
    assert delays.next_s() == 1


def test_delays_of_a_fleet_are_drawn_from_a_range() -> None:
    ranges: list[tuple[float, float]] = []
    delays = BackOff(2.0, 10.0, spread=lambda low, high: ranges.append((low, high)) or high)
    assert [delays.next_s() for _ in range(3)] == [4, 8, 10]
    assert ranges == [(0.5, 4), (0.5, 8), (0.5, 10)]


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (ValueType.ULONG, [0, 30], [True, "30", [30], float("nan"), float("inf"), 10**400]),
        (ValueType.DOUBLE_OR_BOOLEAN, [True, 1.5], ["yes", None]),
        (ValueType.BOOLEAN, [False], [1, "true"]),
        (ValueType.BOOLEAN_OR_STRING, [True, "all"], [1.0, ["all"]]),
        (ValueType.STRING, ["user", ["user", "environment"]], [True, 1, [1], b"user"]),
    ],
)
def test_values_of_constraints(kind: ValueType, taken: list[object], refused: list[object]) -> None:
    assert [kind.takes(value) for value in taken] == [True] * len(taken)
    assert [kind.takes(value) for value in refused] == [False] * len(refused)


def test_types_of_media() -> None:
    found = parse_mime_type('Video/MP4; x; codecs="avc1.42E01E, mp4a.40.2"; codecs=vp8; n="a;b"')
    assert found is not None
    assert (found.essence, found.codecs) == ("video/mp4", ("avc1.42E01E", "mp4a.40.2"))
    assert parse_mime_type("video") is parse_mime_type("video/m p") is None
    assert codec_of("mp4v.6C") == ("mjpeg", "video")
    assert codec_of("theora") is None
    with pytest.raises(ValueError, match="no file format for 'text/plain'"):
        extension_for("text/plain")
    with pytest.raises(ValueError, match="no file format for 'mp4'"):
        extension_for("mp4")
