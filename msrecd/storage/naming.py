"""Drawing the ids of recordings: never twice, and in the order of recording whatever the clock does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from msrecd.clock import MS, NS
from msrecd.clock.wall import Stamp, WallTime
from msrecd.storage import layout

LARGEST_STEP_BACK_NS = 86_400 * NS


class Names:
    """One thread at a time."""

    def __init__(self, walltime: WallTime, last_id: Callable[[str, str], str | None]) -> None:
        """
        Args:
            last_id: the greatest id of a recorder on the disk that sorts before another text.
        """
        self._walltime = walltime
        self._last_id = last_id
        self._last_ids: dict[str, str] = {}

    def draw(self, recorder: str) -> str:
        """A new recording id, which sorts behind all of the same form unless the clock was days ahead.

        Raises:
            ValueError: no name of a recorder.
            StorageError: what is on the disk cannot be read.
        """
        recording_id = self._draw(recorder)
        self._last_ids[recorder] = recording_id
        return recording_id

    def _draw(self, recorder: str) -> str:
        stamp = self._walltime.stamp()
        previous = self._last_ids.get(recorder)
        if previous is None or not _is_followed(previous, stamp):
            # Ids of one form sort below: boot numbers, or times that are not far ahead.
            far = replace(stamp, utc_ns=stamp.utc_ns + LARGEST_STEP_BACK_NS)
            below = layout.make_recording_id(recorder, far, 0) if stamp.trusted else "c"
            previous = self._last_id(recorder, below)
            if previous is not None and not _is_followed(previous, stamp):
                previous = None
        known = layout.parse_recording_id(previous) if previous is not None else None
        if known is not None and known.utc_s is not None and known.utc_s * NS > stamp.utc_ns:
            stamp = replace(stamp, utc_ns=known.utc_s * NS)  # the clock went back: names do not
        while True:
            prefix = layout.make_recording_id(recorder, stamp, 0)[:-4]
            suffix = layout.next_suffix(previous, prefix, int.from_bytes(os.urandom(2), "big"))
            if suffix is not None:
                return f"{prefix}{suffix:04x}"
            stamp = replace(stamp, utc_ns=stamp.utc_ns + NS, monotonic_ns=stamp.monotonic_ns + MS)


def _is_followed(previous: str, stamp: Stamp) -> bool:
    """Whether an id drawn at `stamp` has to sort behind `previous`: of the same form, and not days ahead."""
    known = layout.parse_recording_id(previous)
    if known is None or (known.utc_s is None) == stamp.trusted:
        return False
    return known.utc_s is None or known.utc_s * NS - stamp.utc_ns < LARGEST_STEP_BACK_NS
