"""What is being written: bytes, the rate of the last ten minutes, the slowest sync, the size of a recorder's chunks."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from msrecd.clock import NS, Clock
from msrecd.errors import StorageError

_RATE_WINDOW_NS = 600 * NS
_SIZES = 4


class Meter:
    """Any thread.

    Attributes:
        written_bytes: since the start.
        sync_s_max: the longest sync since the start.
    """

    def __init__(self, clock: Clock, last_sizes: Callable[[str, int], list[int]]) -> None:
        """
        Args:
            last_sizes: bytes of the last so many chunks of a recorder, from the index.
        """
        self.written_bytes = 0
        self.sync_s_max = 0.0
        self._clock = clock
        self._last_sizes = last_sizes
        self._lock = threading.RLock()
        self._written: deque[tuple[int, int]] = deque()  # (begin, bytes) of each second in which something came
        self._chunk_sizes: dict[str, deque[int]] = {}

    def account(self, written: int, sync_s: float) -> None:
        """Count a write."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            if self._written and now_ns - self._written[-1][0] < NS:
                self._written[-1] = (self._written[-1][0], self._written[-1][1] + written)
            else:
                self._written.append((now_ns, written))
            self.written_bytes += written
            self.sync_s_max = max(self.sync_s_max, sync_s)
            while self._written[0][0] < now_ns - _RATE_WINDOW_NS:
                self._written.popleft()

    def seconds_for(self, room: int) -> float | None:
        """How long `room` bytes last at the present rate; None: nothing is written, or it is not known yet."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            recent = [(at, size) for at, size in self._written if at >= now_ns - _RATE_WINDOW_NS]
        if not recent or now_ns - recent[0][0] < NS:
            return None
        rate = sum(size for _, size in recent) / ((now_ns - recent[0][0]) / NS)
        return round(max(0, room) / rate, 1) if rate else None

    def finished(self, recorder: str, size: int) -> None:
        """A chunk of that size is finished."""
        with self._lock:
            self._sizes_of(recorder).append(size)

    def largest_of(self, recorder: str) -> int:
        """Of its last chunks: the next one may become as large."""
        with self._lock:
            return max(self._sizes_of(recorder), default=0)

    def _sizes_of(self, recorder: str) -> deque[int]:
        if recorder not in self._chunk_sizes:
            sizes: list[int] = []
            with contextlib.suppress(StorageError):  # an estimate, without which things go on
                sizes = self._last_sizes(recorder, _SIZES)
            self._chunk_sizes[recorder] = deque(sizes, maxlen=_SIZES)
        return self._chunk_sizes[recorder]
