"""How far the events of each recorder have come: kept with the spool, so that a kill costs no event and doubles none.

A chunk whose file was finished, but whose event was not on the disk yet, stands in its manifest behind the mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

Mark = tuple[str, int]  # recording_id, seq of its last chunk that was told; 0: none yet


class Marks:
    """The greatest mark of each topic. Ids of recordings sort within one form: by time, or by boot."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, bool], Mark] = {}

    def load(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Rows of topic, recording_id and seq; what is known already and greater stays."""
        for topic, recording_id, seq in rows:
            self._raise(topic, (recording_id, seq))

    def note(self, topic: str, payload: Mapping[str, object]) -> None:
        """Take what an event says of its recording."""
        recording_id, seq = payload.get("recording_id"), payload.get("seq", 0)
        if isinstance(recording_id, str) and isinstance(seq, int):
            self._raise(topic, (recording_id, seq))

    def rows(self) -> Iterator[tuple[str, int, str, int]]:
        """Topic, form, recording_id, seq: what is to be kept."""
        for (topic, form), (recording_id, seq) in self._marks.items():
            yield topic, int(form), recording_id, seq

    def of(self, prefix: str) -> dict[str, list[Mark]]:
        """What stands behind `prefix` in each topic below it, with its marks."""
        found: dict[str, list[Mark]] = {}
        for (topic, _), mark in self._marks.items():
            if topic.startswith(prefix):
                found.setdefault(topic.removeprefix(prefix), []).append(mark)
        return found

    def _raise(self, topic: str, mark: Mark) -> None:
        key = (topic, mark[0].startswith("boot"))
        self._marks[key] = max(mark, self._marks.get(key, mark))
