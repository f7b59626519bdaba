"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrecd.vocabulary.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("1h30m", 5400), ("500ms", 0.5), ("1.5s", 1.5), (" 2 h ", 7200), ("1d12h", 129600), ("2w", 1209600)],
)
@pytest.mark.promise("durations")
@pytest.mark.promise("durations-and-sizes")
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("60", "60s"),
        ("", "not a duration"),
        ("m", "not a duration"),
        ("10y", '"y"'),
        ("1m1m", "twice"),
        ("1m1min", "twice"),
        ("-5s", "not a duration"),
        ("1e9s", "not a unit of time"),
        ("5s\n6", "lacks a unit"),
        ("0", 'write for example "10s"'),
        ("9" * 50 + "s", "not a duration"),
    ],
)
def test_wrong_durations_say_what_is_wrong(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint) as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 2**30),
        ("20GB", 20 * 10**9),
        ("1.5MiB", 1572864),
        ("500 kB", 500_000),
        ("1024b", 1024),
        ("1TiB", 2**40),
    ],
)
@pytest.mark.promise("sizes")
@pytest.mark.promise("durations-and-sizes")
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "hint"), [("20", "20MiB"), ("", "not a size"), ("2G", '"G"'), ("-1GB", "not a size")])
def test_wrong_sizes_say_what_is_wrong(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_size(text)


@given(st.integers(0, 10**10))
def test_formatted_durations_are_read_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 2**50))
def test_formatted_sizes_are_near(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.05, abs=1)
