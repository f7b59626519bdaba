"""Errors of the daemon, for `event/error` and the log: the first of a kind at once, repetitions counted."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from msrecd.clock import NS, SYSTEM_CLOCK, Clock

log = logging.getLogger(__name__)

WINDOW_S = 10.0
LONGEST_WINDOW_S = 600.0
# Different kinds of messages of one code and recorder that are counted apart in a window; further ones share an event.
MESSAGES_LIMIT = 8
KINDS_LIMIT = 256
# What may differ between messages of one kind: words with a number of four digits and more in them (ids, file names,
# times), and figures with their units. `/dev/video0` and `cam1` stay what they are.
_NUMBER = re.compile(r"\d{4}")
_FIGURE = re.compile(r"(?<![\w/.-])\d+(?:[.,:]\d+)*(?:[KMGT]?i?B|%)?(?![\w/-])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`count` errors that differ in figures at most, between `first` and `ts` (texts as they are published).

    `message` is the last one's. `logged`: it stands in the log already.
    """

    code: str
    recorder: str | None
    message: str
    count: int
    first: str
    ts: str
    logged: bool = False

    def payload(self) -> dict[str, Any]:
        """event/error."""
        return {
            "event_type": "error",
            "code": self.code,
            "message": self.message,
            "recorder": self.recorder,
            "ts": self.ts,
            "count": self.count,
            "first": self.first,
        }


@dataclass(slots=True)
class _Window:
    until_ns: int
    length_ns: int
    waiting: Report | None = None


class Coalescer:
    """Which report to publish when. Pure: the time is given; bounded, whatever comes.

    An error opens a window of ten seconds, in which its like are counted. A window with some in it is followed by one
    twice as long, up to ten minutes; one that stayed empty is the end of it.
    """

    def __init__(self, *, window_s: float = WINDOW_S, longest_s: float = LONGEST_WINDOW_S) -> None:
        self._window_ns = round(window_s * NS)
        self._longest_ns = round(longest_s * NS)
        self._windows: dict[tuple[str, str | None, str], _Window] = {}

    def add(
        self, code: str, recorder: str | None, message: str, *, ts: str, now_ns: int, logged: bool = False
    ) -> Report | None:
        """Take an error; the report to publish now, None when it is only counted."""
        key = self._key(code, recorder, message)
        window = self._windows.get(key)
        fresh = Report(code=code, recorder=recorder, message=message, count=1, first=ts, ts=ts, logged=logged)
        if window is None:
            if len(self._windows) >= KINDS_LIMIT:
                key = ("", None, "")  # no program of ours has so many; what comes then is still counted
                window = self._windows.get(key)
            if window is None:
                self._windows[key] = _Window(now_ns + self._window_ns, self._window_ns)
                return fresh
        known = window.waiting
        if known is not None:
            fresh = replace(fresh, count=known.count + 1, first=known.first)
        window.waiting = fresh
        return None

    def due(self, now_ns: int) -> list[Report]:
        """The counted reports whose windows have ended, oldest first."""
        reports = []
        for key, window in list(self._windows.items()):
            if window.until_ns > now_ns:
                continue
            if window.waiting is None:
                del self._windows[key]
                continue
            reports.append(window.waiting)
            window.waiting = None
            window.length_ns = min(2 * window.length_ns, self._longest_ns)
            window.until_ns = now_ns + window.length_ns
        return reports

    def rest(self) -> list[Report]:
        """All that was counted and not published; everything is forgotten."""
        windows, self._windows = self._windows, {}
        return [window.waiting for window in windows.values() if window.waiting is not None]

    def next_ns(self) -> int | None:
        """When to ask `due` again; None while nothing waits."""
        return min((window.until_ns for window in self._windows.values()), default=None)

    def _key(self, code: str, recorder: str | None, message: str) -> tuple[str, str | None, str]:
        key = (code, recorder, _without_figures(message))
        if key in self._windows or sum(known[:2] == key[:2] for known in self._windows) < MESSAGES_LIMIT:
            return key
        return (code, recorder, "")


def _without_figures(message: str) -> str:
    return _FIGURE.sub("#", " ".join("#" if _NUMBER.search(word) else word for word in message.split()))


class ErrorReports:
    """The coalescer with its timer. Belongs to the loop."""

    def __init__(
        self,
        publish: Callable[[Mapping[str, Any]], None],
        stamp: Callable[[], str],
        *,
        clock: Clock = SYSTEM_CLOCK,
        window_s: float = WINDOW_S,
    ) -> None:
        """`publish` is given the payloads of event/error; `stamp` says the time as it is published."""
        self._publish = publish
        self._stamp = stamp
        self._clock = clock
        self._coalescer = Coalescer(window_s=window_s)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0  # when it goes off

    def report(self, code: str, message: str, recorder: str | None = None, *, logged: bool = False) -> None:
        """Publish an error and log it unless it is `logged`, now or counted with its like."""
        now_ns = self._clock.monotonic_ns()
        report = self._coalescer.add(code, recorder, message, ts=self._stamp(), now_ns=now_ns, logged=logged)
        if report is not None:
            self._say(report, "%s", message)
        self._arm()

    def close(self) -> None:
        """Publish what was only counted so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for report in self._coalescer.rest():
            self._say_again(report)

    def _say_again(self, report: Report) -> None:
        self._say(report, "%s (%d more since %s)", report.message, report.count, report.first)

    def _say(self, report: Report, line: str, *args: object) -> None:
        if not report.logged:
            log.error(line, *args)
        self._publish(report.payload())

    def _arm(self) -> None:
        next_ns = self._coalescer.next_ns()
        if next_ns is None or (self._timer is not None and self._timer_ns <= next_ns):
            return
        if self._timer is not None:  # a new window of ten seconds ends before another kind's of ten minutes
            self._timer.cancel()
        delay_s = max(0.0, (next_ns - self._clock.monotonic_ns()) / NS)
        self._timer, self._timer_ns = asyncio.get_running_loop().call_later(delay_s, self._look), next_ns

    def _look(self) -> None:
        self._timer = None
        for report in self._coalescer.due(self._clock.monotonic_ns()):
            self._say_again(report)
        self._arm()
