"""Publisher: turns what the recorders and the daemon report into states and events on the bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msrecd
from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.control import payloads, statefile
from msrecd.control.bus import Bus
from msrecd.control.recorders import Recorders
from msrecd.control.reports import ErrorReports
from msrecd.recorder.controller import RecorderController
from msrecd.statefolder import report_unwritable
from msrecd.vocabulary.times import format_utc

if TYPE_CHECKING:
    from msrecd.recorder.watcher import Finding

log = logging.getLogger(__name__)

_BLOCK = 10_000


class Revisions:
    """The `rev` of every recorder state: grows with every change, also over restarts and kills.

    The state folder holds a number that no `rev` has passed. It is raised by blocks, so that a change costs no write.
    """

    def __init__(self, path: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = path
        self._clock = clock
        self._base = 0
        self._limit = 0
        self._given: dict[str, int] = {}
        self._saving: asyncio.Future[bool] | None = None

    def open(self) -> None:
        """Read the number and reserve the first block. Blocking."""
        try:
            value = statefile.load(self._path)
            known = value.get("rev") if isinstance(value, dict) else None
            if isinstance(known, bool) or not isinstance(known, int) or not 0 <= known < 2**53:
                raise ValueError("no rev in it")
            self._base = known
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as exc:
            self._base = self._clock.realtime_ns() // NS  # greater than what years of changes have reached
            log.warning("%s cannot be read (%s): rev continues from %d", self._path, exc, self._base)
        self._limit = self._base + _BLOCK
        if not self._save(self._limit):
            self._base = max(self._base, self._clock.realtime_ns() // NS)  # else the next start would begin here again
            self._limit = self._base + _BLOCK

    def next(self, recorder: str) -> int:
        """A number that no state of this recorder had."""
        rev = self._given[recorder] = self._given.get(recorder, self._base) + 1
        if rev > self._limit - _BLOCK // 2 and (self._saving is None or self._saving.done()):
            self._limit += _BLOCK
            self._saving = asyncio.ensure_future(asyncio.to_thread(self._save, self._limit))
        return rev

    def _save(self, limit: int) -> bool:
        try:
            statefile.save(self._path, {"rev": limit})
        except OSError as exc:
            report_unwritable(self._path.parent, self._path.name, exc)
            return False
        return True


class Publisher:
    """Every recorder's listener. Lives on the loop.

    A recorder's state is published once for all that changes in one step of the loop, so that the first state after a
    command holds everything the command set. Two different contents never have the same `rev`.
    """

    def __init__(
        self,
        bus: Bus,
        recorders: Recorders,
        revisions: Revisions,
        *,
        schedule: Callable[[], Mapping[str, object]],
        ended: Callable[[str], None],
        found: Callable[[RecorderController, Finding], None] = lambda unit, finding: None,
    ) -> None:
        """
        Args:
            schedule: next planned start and stop by recorder.
            ended: called with the name of a recorder whose input came to its regular end.
            found: called with what a trigger has found, or that it is over.
        """
        self.errors = ErrorReports(lambda event: bus.emit("error", event), self.stamp)
        self._bus = bus
        self._recorders = recorders
        self._revisions = revisions
        self._schedule = schedule
        self._ended = ended
        self._found = found
        self._started_ns = SYSTEM_CLOCK.monotonic_ns()
        self._changed: dict[str, RecorderController] = {}
        self._contents: dict[str, Mapping[str, Any]] = {}

    # --- what recorders report (their Listener) --------------------------------------------------------------------

    def state_changed(self, unit: RecorderController) -> None:
        """Publish its state at the end of this step of the loop."""
        if not self._changed:
            asyncio.get_running_loop().call_soon(self.flush)
        self._changed[unit.name] = unit

    def happened(self, unit: RecorderController, event_type: str, facts: Mapping[str, Any]) -> None:
        """Publish an event, write a log line."""
        if event_type in ("started", "stopped", "paused", "resumed"):
            recording_id = facts.get("recording_id", unit.files.recording_id)
            unit.log.info("%s%s", event_type, f" ({recording_id})" if recording_id else "")
        if event_type == "chunk":
            unit.log.info("chunk %s: %.2f s, %d bytes", facts["file"], facts.get("duration_s") or 0.0, facts["bytes"])
        self._bus.emit(f"recorder/{unit.name}", payloads.recorder_event(unit, event_type, facts, self.stamp()))

    def played_out(self, unit: RecorderController) -> None:
        """Its input came to its end."""
        self._ended(unit.name)

    def found(self, unit: RecorderController, finding: Finding) -> None:
        """One of its triggers has found something, or that is over."""
        self._found(unit, finding)

    # --- states ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Publish the states that have changed now."""
        changed, self._changed = self._changed, {}
        for unit in changed.values():
            self.recorder_state(unit)

    def recorder_state(self, unit: RecorderController) -> Mapping[str, Any]:
        """Publish the state of a recorder if it is another than before; the state."""
        content = payloads.recorder_state(unit, self.stamp)
        known = self._contents.get(unit.name)
        if known is not None and content == {name: known[name] for name in content}:
            return known
        state = content | {"rev": self._revisions.next(unit.name)}
        self._contents[unit.name] = state
        self._bus.set_state(f"recorder/{unit.name}", state)
        return state

    def forget(self, recorder: str) -> None:
        """A recorder is no longer configured."""
        self._changed.pop(recorder, None)
        self._contents.pop(recorder, None)
        self._bus.clear_state(f"recorder/{recorder}")

    def daemon_state(self) -> dict[str, Any]:
        """Publish state/daemon; the state."""
        walltime = self._recorders.walltime
        state = {
            "version": msrecd.__version__,
            "boot_id": f"{walltime.boot:04d}",
            "started": self.stamp(self._started_ns),
            "clock": self.clock_state(),
            "config_hash": self._recorders.config.hash,
            "recorders": sorted(self._recorders.units),
            "schedule": self._schedule(),
        }
        if state != self._bus.states.get("daemon"):
            self._bus.set_state("daemon", state)
        return state

    def publish_daemon(self) -> None:
        """Publish state/daemon if it is another than before."""
        self.daemon_state()

    def clock_state(self) -> str:
        return "synchronized" if self._recorders.walltime.trusted else "unsynchronized"

    def stamp(self, monotonic_ns: int | None = None) -> str:
        """RFC 3339 UTC with Z of a moment on CLOCK_MONOTONIC (default: now)."""
        return format_utc(self._recorders.walltime.stamp(monotonic_ns).utc_ns)

    # --- events that are not of a running recorder -----------------------------------------------------------------

    def late_chunk(self, recorder: str, line: Mapping[str, Any]) -> None:
        """The event of a chunk that was recovered, or finished just before a crash."""
        if line["recovered"]:
            log.warning("recovered %s: %.2f s, %.2f s lost", line["file"], line["duration_s"], line["lost_s"])
        else:
            log.info("%s was finished before the last shutdown; publishing its event now", line["file"])
        self._bus.emit(f"recorder/{recorder}", payloads.late_chunk_event(recorder, line, self.stamp()))

    def offloaded(self, recorder: str, facts: Mapping[str, Any]) -> None:
        """The event of a file that a store has proven."""
        self._bus.emit(f"recorder/{recorder}", payloads.offload_event(recorder, facts, self.stamp()))

    def report_error(self, code: str, message: str, *, recorder: str | None = None, logged: bool = False) -> None:
        """Publish an error that is not one of a recording, and log it unless `logged`; repetitions are counted."""
        self.errors.report(code, message, recorder, logged=logged)
