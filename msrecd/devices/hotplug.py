"""Notices that devices came or went: the only importer of pyudev.

Where udev runs (a Pi) its events are read in a thread of its own; where it does not (a container) the kernel's lists
are compared every few seconds. Either way a burst of changes becomes one call: plugging in one USB camera makes a dozen
events.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from msrecd.clock import MS, SYSTEM_CLOCK, Clock
from msrecd.flow.source import SourceThread, ZombieThread

log = logging.getLogger(__name__)

SUBSYSTEMS = ("sound", "video4linux", "media")
_DEBOUNCE_NS = 300 * MS
_LONGEST_NS = 2000 * MS  # a device that flaps all the time must not keep the news back for ever
_POLL_S = 5.0
_WATCHED = ("proc/asound/cards", "proc/asound/pcm", "dev/v4l/by-path", "dev/video*", "dev/media*")


class EventSource(Protocol):
    """Where events come from. One thread calls `wait`, then `close`; `wake` may come from any thread."""

    def wait(self, timeout_s: float | None) -> bool:
        """Whether something changed; False after `timeout_s` seconds, or when woken up."""

    def wake(self) -> None:
        """Make a running or the next `wait` return."""

    def close(self) -> None:
        """Free what it holds."""


class UdevEvents:
    """Events of udev for some subsystems."""

    def __init__(self, subsystems: Sequence[str]) -> None:
        """
        Raises:
            OSError: there is no udev.
        """
        try:
            import pyudev

            self._context = pyudev.Context()
            self._monitor = pyudev.Monitor.from_netlink(self._context, source="udev")
            for subsystem in subsystems:
                self._monitor.filter_by(subsystem)
            self._monitor.start()
        except (ImportError, OSError, ValueError) as exc:
            raise OSError(f"no udev: {exc}") from exc
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)
        self._poll.register(self._monitor.fileno(), select.POLLIN)

    def wait(self, timeout_s: float | None) -> bool:
        ready = {fd for fd, _ in self._poll.poll(None if timeout_s is None else max(0, round(timeout_s * 1000)))}
        if self._wake_fd in ready:
            return False
        changed = False
        if ready:
            while (device := self._monitor.poll(timeout=0)) is not None:
                log.debug("udev: %s %s", device.action, device.device_path)
                changed = True
        return changed

    def wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        os.close(self._wake_fd)


class PolledEvents:
    """Compares the lists of sound cards and cameras every few seconds."""

    def __init__(self, *, root: Path = Path("/"), interval_s: float = _POLL_S) -> None:
        self._root = root
        self._interval_s = interval_s
        self._woken = threading.Event()
        self._seen = self._look()

    def wait(self, timeout_s: float | None) -> bool:
        interval = self._interval_s if timeout_s is None else min(timeout_s, self._interval_s)
        if self._woken.wait(interval):
            return False
        now = self._look()
        changed, self._seen = now != self._seen, now
        return changed

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        return None

    def _look(self) -> tuple[str, ...]:
        seen: list[str] = []
        for pattern in _WATCHED:
            for path in sorted(self._root.glob(pattern)):
                seen.append(str(path))
                try:
                    seen.append(path.read_text() if path.is_file() else " ".join(sorted(map(str, path.iterdir()))))
                except OSError:
                    continue  # a device node, or gone in between: its name is what counts
        return tuple(seen)


class HotplugWatcher:
    """Calls `changed()` in a thread of its own, once per burst: after 300 ms of quiet, after 2 s at the latest."""

    def __init__(
        self,
        *,
        changed: Callable[[], None],
        subsystems: Sequence[str] = SUBSYSTEMS,
        events: EventSource | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._events = events if events is not None else _best_events(subsystems)
        self._thread = SourceThread("hotplug", self._run, self._failed)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop; `changed` is not called any more. Idempotent."""
        if not self._thread.is_alive():
            return
        self._thread.stopping.set()
        self._events.wake()
        try:
            self._thread.stop(2.0)
        except ZombieThread as exc:
            log.error("watching for device changes failed: %s", exc)

    def _run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                if self._events.wait(None):
                    self._wait_for_quiet(stop)
                    if not stop.is_set():
                        self._changed()
        finally:
            self._events.close()

    def _wait_for_quiet(self, stop: threading.Event) -> None:
        latest = self._clock.monotonic_ns() + _LONGEST_NS
        quiet = self._clock.monotonic_ns() + _DEBOUNCE_NS
        while not stop.is_set():
            now = self._clock.monotonic_ns()
            until = min(quiet, latest)
            if now >= until:
                return
            if self._events.wait((until - now) / 1e9):
                quiet = self._clock.monotonic_ns() + _DEBOUNCE_NS

    def _failed(self, exc: Exception) -> None:
        log.error("watching for device changes ended; plugging in and out is no longer noticed: %s", exc)


def _best_events(subsystems: Sequence[str]) -> EventSource:
    if Path("/run/udev/control").exists():
        try:
            return UdevEvents(subsystems)
        except OSError as exc:
            log.warning("no hot-plug events; looking for device changes every %g s: %s", _POLL_S, exc)
    return PolledEvents()
