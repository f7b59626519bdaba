"""DriverRestart: whether to restart the service to free a device whose driver hangs. Only the end of the process does.

It is due when a recorder waits for a device, a driver has not returned for a minute, and nothing is lost by a restart:
every recording under way begins again by itself. At most three times in 24 hours: a driver that hangs again each time
must not interrupt the other recorders for ever.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK, Clock

log = logging.getLogger(__name__)

STUCK_NS = 60 * NS
LIMIT = 3
WITHIN_NS = 24 * 3600 * NS
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def is_due(now_ns: int, stuck_since_ns: int | None, taken_ns: Sequence[int]) -> bool:
    """Whether it is time; all on CLOCK_MONOTONIC, which continues from one process to the next. Pure."""
    if stuck_since_ns is None or now_ns - stuck_since_ns < STUCK_NS:
        return False
    return sum(1 for at_ns in taken_ns if now_ns - at_ns < WITHIN_NS) < LIMIT


class DriverRestart:
    """Call `look` every few seconds; restarts are remembered in the state folder. Lives on the loop."""

    def __init__(self, state_path: Path, *, clock: Clock = SYSTEM_CLOCK, boot_id: Path = _BOOT_ID) -> None:
        self._file = state_path / "restarts.json"
        self._clock = clock
        self._boot_id = boot_id
        self._since_ns: int | None = None

    def look(self, stuck: Sequence[str], *, is_waited_for: bool, begins_again: bool) -> bool:
        """Whether to end the process now.

        Args:
            stuck: devices whose driver hangs.
            is_waited_for: whether a recorder waits for a device.
            begins_again: whether all that is being recorded begins again by itself.
        """
        now_ns = self._clock.monotonic_ns()
        if not stuck or not is_waited_for:
            self._since_ns = None
            return False
        if self._since_ns is None:
            self._since_ns = now_ns
        if not begins_again:
            return False
        taken = self._taken()
        if not is_due(now_ns, self._since_ns, taken):
            return False
        return self._take([*taken, now_ns][-LIMIT:])

    def _taken(self) -> list[int]:
        try:
            known = json.loads(self._file.read_text())
            return [int(at) for at in known["taken_ns"]] if known["boot_id"] == self._boot() else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _take(self, taken: list[int]) -> bool:
        try:
            self._file.write_text(json.dumps({"boot_id": self._boot(), "taken_ns": taken}))
        except OSError as exc:  # without a memory of it, it would be restarted again and again
            log.warning("not restarting to free the device: the restart could not be recorded: %s", exc)
            return False
        return True

    def _boot(self) -> str:
        try:
            return self._boot_id.read_text().strip()
        except OSError:
            return ""
