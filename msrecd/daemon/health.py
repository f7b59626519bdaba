"""The state of the machine, from /proc and /sys; None where the machine does not have the figure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

_THROTTLED_BITS = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")


def cpu_temperature_c(sys: Path = Path("/sys")) -> float | None:
    """Degrees Celsius of the first thermal zone."""
    text = _read(sys / "class/thermal/thermal_zone0/temp")
    return round(int(text) / 1000, 1) if text and text.lstrip("-").isdigit() else None


def throttled(sys: Path = Path("/sys")) -> dict[str, object]:
    """Under-voltage and throttling as words: `now` and `since_boot` (raspberrypi.com, get_throttled)."""
    raw: int | None = None
    for path in sorted(sys.glob("devices/platform/soc*/soc*:firmware/get_throttled")):
        text = _read(path)
        if text:
            raw = int(text, 16)
    now = [word for bit, word in enumerate(_THROTTLED_BITS) if raw is not None and raw >> bit & 1]
    since = [word for bit, word in enumerate(_THROTTLED_BITS) if raw is not None and raw >> (bit + 16) & 1]
    if under_voltage(sys) and "under_voltage" not in now:
        now.append("under_voltage")
    return {"raw": None if raw is None else hex(raw), "now": now, "since_boot": since}


def under_voltage(sys: Path = Path("/sys")) -> bool:
    """Whether the supply is too low right now (hwmon rpi_volt)."""
    for name in sys.glob("class/hwmon/hwmon*/name"):
        if _read(name) == "rpi_volt":
            return _read(name.parent / "in0_lcrit_alarm") == "1"
    return False


def memory(proc: Path = Path("/proc")) -> dict[str, int | None]:
    """Bytes: available memory, free contiguous memory of the camera (CMA), and what this process has resident."""
    info = _read(proc / "meminfo") or ""
    status = _read(proc / "self/status") or ""
    return {
        "mem_available_bytes": _kib(info, "MemAvailable"),
        "cma_free_bytes": _kib(info, "CmaFree"),
        "rss_bytes": _kib(status, "VmRSS"),
    }


def anonymous_bytes(proc: Path = Path("/proc")) -> int | None:
    """What this process has resident and no file backs: its heap and stacks."""
    return _kib(_read(proc / "self/status") or "", "RssAnon")


def load1() -> float | None:
    """Load average of one minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def uptime_s(proc: Path = Path("/proc")) -> float | None:
    """Seconds since boot."""
    text = _read(proc / "uptime")
    return float(text.split()[0]) if text else None


def seconds_left(free_bytes: int, rates: Iterable[float]) -> float | None:
    """How long the free space lasts at these rates (bytes a second); None while nothing is recorded."""
    total = sum(rates)
    return None if total <= 0 else round(free_bytes / total)


def _kib(text: str, name: str) -> int | None:
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
