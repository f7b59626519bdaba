"""Lines of a manifest that say what a trigger found: when it began and ended, of which kind, how strong.

They are written before the line of the next chunk that is finished, so a manifest never holds them alone, and a store
that gets the chunk gets them, too.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict

from msrecd.clock.wall import Stamp, WallTime
from msrecd.storage.manifest_values import is_number, is_text, is_time
from msrecd.vocabulary.times import format_utc

NOTES_LIMIT = 256  # of one recorder, between two chunks


class TriggerLine(TypedDict):
    """Exactly as in the file; `score` is that of the beginning, as in the event."""

    trigger: str
    score: float
    started: str
    ended: str
    clock: str
    boot_id: NotRequired[str]


def trigger_line(values: dict[str, object]) -> TriggerLine:
    """
    Raises:
        KeyError, TypeError: a field is missing, or its value can be none of ours.
    """
    texts, times = (values["trigger"], values["clock"], values.get("boot_id", "")), (values["started"], values["ended"])
    if not (all(map(is_text, texts)) and all(map(is_time, times)) and is_number(values["score"])):
        raise TypeError("trigger")
    return values  # type: ignore[return-value]  # its fields have just been checked


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    """began_ns, ended_ns: CLOCK_MONOTONIC; ended_ns None: it lasts."""

    kind: str
    score: float
    began_ns: int
    ended_ns: int | None = None


class TriggerNotes:
    """What triggers have found and no manifest says yet. Any thread.

    Of one recorder NOTES_LIMIT are kept; where there are more the two oldest become one.
    """

    def __init__(self, walltime: WallTime) -> None:
        self._walltime = walltime
        self._lock = threading.Lock()
        self._lasting: dict[str, dict[Hashable, _Note]] = {}
        self._ended: dict[str, deque[_Note]] = {}

    def begin(self, recorder: str, key: Hashable, *, kind: str, score: float, at_ns: int) -> None:
        """A trigger has found something that lasts. `key` names the trigger among those of the recorder."""
        with self._lock:
            self._lasting.setdefault(recorder, {})[key] = _Note(kind=kind, score=score, began_ns=at_ns)

    def end(self, recorder: str, key: Hashable, *, at_ns: int) -> None:
        """What it had found is over."""
        with self._lock:
            note = self._lasting.get(recorder, {}).pop(key, None)
            if note is None:
                return
            ended = self._ended.setdefault(recorder, deque())
            ended.append(replace(note, ended_ns=max(at_ns, note.began_ns)))
            if len(ended) > NOTES_LIMIT:
                first, second = ended.popleft(), ended.popleft()
                ended.appendleft(replace(first, ended_ns=second.ended_ns, score=max(first.score, second.score)))

    def take(self, recorder: str, *, since_ns: int, until_ns: int | None) -> list[TriggerLine]:
        """The lines to write now; the caller keeps them until they are written.

        Args:
            since_ns: of what ended before, nothing was recorded.
            until_ns: the recording ends then, and with it what lasts; None: it continues.
        """
        with self._lock:
            notes = [note for note in self._ended.pop(recorder, ()) if (note.ended_ns or 0) >= since_ns]
            if until_ns is not None:
                lasting = self._lasting.pop(recorder, {}).values()
                notes += [replace(note, ended_ns=max(until_ns, note.began_ns)) for note in lasting]
        notes.sort(key=lambda note: note.began_ns)
        return [self._line(note) for note in notes]

    def _line(self, note: _Note) -> TriggerLine:
        began: Stamp = self._walltime.stamp(note.began_ns)
        ended_ns = began.utc_ns + (note.ended_ns or note.began_ns) - note.began_ns
        line = TriggerLine(
            trigger=note.kind,
            score=round(note.score, 2),
            started=format_utc(began.utc_ns),
            ended=format_utc(ended_ns),
            clock=began.clock,
        )
        return line if began.trusted else {**line, "boot_id": began.boot_id}
