"""The unit of the service as far as devices and memory are concerned."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "msrecd.service"
FIXED_MAJORS = {"video4linux": 81, "alsa": 116}  # Documentation/admin-guide/devices.txt of the kernel


@pytest.fixture
def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return found


def test_devices_whose_driver_comes_later_are_allowed(settings: dict[str, list[str]]) -> None:
    """systemd reads /proc/devices when the unit starts: a name that is not there then allows nothing for good."""
    allowed = [value.split()[0] for value in settings["DeviceAllow"]]
    assert {f"char-{major}" for major in FIXED_MAJORS.values()} <= set(allowed)
    assert not {f"char-{name}" for name in FIXED_MAJORS} & set(allowed)


def test_drivers_are_loaded_before_the_service(settings: dict[str, list[str]]) -> None:
    wanted, after = (" ".join(settings[name]).split() for name in ("Wants", "After"))
    for module in ("snd", "videodev", "mc"):  # mc: the major of /dev/media* is a dynamic one
        assert f"modprobe@{module}.service" in wanted
        assert f"modprobe@{module}.service" in after


@pytest.mark.promise("memory-of-the-unit")
def test_memory_is_bounded_by_the_size_of_the_board(settings: dict[str, list[str]]) -> None:
    (high,), (limit,) = settings["MemoryHigh"], settings["MemoryMax"]
    assert 50 <= int(high.removesuffix("%")) < int(limit.removesuffix("%")) <= 80


def test_an_input_that_takes_too_much_does_not_end_the_service(settings: dict[str, list[str]]) -> None:
    """Without it systemd stops the whole unit when the kernel has ended one process of it."""
    assert settings["OOMPolicy"] == ["continue"]
    assert settings["OOMScoreAdjust"] == ["-200"]
