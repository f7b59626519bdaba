"""When and how fast files are sent: windows of the local day, a rate, and how long a backlog takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import time
from typing import Literal

_WINDOW = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
BLOCK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Window:
    """From a time of the local day to another one; over midnight where that is earlier. Equal: the whole day."""

    begin: time
    end: time

    def holds(self, now: time) -> bool:
        now = now.replace(second=0, microsecond=0, tzinfo=None)
        if self.begin < self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end


def parse_window(text: str) -> Window:
    """
    Raises:
        ValueError: it is none.
    """
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is no window; write for example "22:00-05:00"')
    begin_hour, begin_minute, end_hour, end_minute = map(int, match.groups())
    return Window(time(begin_hour, begin_minute), time(end_hour, end_minute))


def may_send(windows: Sequence[Window], now: time) -> bool:
    """Whether files may be sent at a time of the local day; without windows always."""
    return not windows or any(window.holds(now) for window in windows)


def pause_of(windows: Sequence[Window], now: time, *, is_metered: bool) -> Literal["closed", "metered"] | None:
    """Why no file may begin now, in the words of `state/health`; None: one may."""
    if not may_send(windows, now):
        return "closed"
    return "metered" if is_metered else None


class TokenBucket:
    """So many bytes a second on the average, and no more than a quarter of a second's worth at once."""

    def __init__(self, rate: int | None) -> None:
        """
        Args:
            rate: bytes a second; None: no limit.
        """
        self._rate = rate
        self._free_at_s = 0.0

    @property
    def block_bytes(self) -> int:
        """How much is sent at a time."""
        return BLOCK_BYTES if self._rate is None else max(1024, min(BLOCK_BYTES, self._rate // 4))

    def delay_s(self, count: int, now_s: float) -> float:
        """How long to wait before `count` more bytes may be sent; they count as sent."""
        if self._rate is None:
            return 0.0
        begin_s = max(now_s, self._free_at_s)
        self._free_at_s = begin_s + count / self._rate
        return begin_s - now_s


def hours_to_clear(backlog_bytes: int, bytes_per_s: float | None) -> float | None:
    """Hours that a backlog takes at a rate; None: there is none yet."""
    if not backlog_bytes:
        return 0.0
    return round(backlog_bytes / bytes_per_s / 3600, 2) if bytes_per_s else None
