"""KeyFrameRequests: the moments at which a key frame is wanted of an encoder."""

from __future__ import annotations

import threading

MAX_ASKED = 64


class KeyFrameRequests:
    """Any thread asks; the one that encodes takes. No more than MAX_ASKED wait: the latest moment gives way then, for
    who wants one now waits for it, and a cut can be a little later.
    """

    def __init__(self) -> None:
        self._moments: list[int] = []
        self._lock = threading.Lock()

    def ask(self, at_ns: int) -> None:
        """The first frame at or after this time is to be a key frame."""
        with self._lock:
            if at_ns not in self._moments:
                self._moments.append(at_ns)
                if len(self._moments) > MAX_ASKED:
                    self._moments.remove(max(self._moments))

    @property
    def is_any(self) -> bool:
        return bool(self._moments)

    def take(self, pts_ns: int) -> bool:
        """Whether one is wanted at or before the frame of this time; that is settled then."""
        if not self._moments:
            return False
        with self._lock:
            before = len(self._moments)
            self._moments = [at_ns for at_ns in self._moments if at_ns > pts_ns]
            return len(self._moments) != before
