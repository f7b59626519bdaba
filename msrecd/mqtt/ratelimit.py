"""How many commands a second are listened to: a token bucket, pure but for its clock."""

from __future__ import annotations

from msrecd.clock import NS, Clock


class RateLimit:
    """At most `per_s` commands a second in the long run, `burst` at once. For one thread."""

    def __init__(self, clock: Clock, *, per_s: float = 10.0, burst: int = 20) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._last_ns = clock.monotonic_ns()
        self.refused = 0

    def take(self) -> bool:
        """Whether one more command may be acted on now; counts those that may not."""
        now_ns = self._clock.monotonic_ns()
        self._tokens = min(self._burst, self._tokens + (now_ns - self._last_ns) / NS * self._per_s)
        self._last_ns = now_ns
        if self._tokens < 1.0:
            self.refused += 1
            return False
        self._tokens -= 1.0
        return True
