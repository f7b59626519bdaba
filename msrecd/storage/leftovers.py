"""Leftovers: chunks whose finishing failed while the daemon runs, and are tried again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from msrecd.errors import StorageError
from msrecd.storage import files
from msrecd.storage.ground import Ground
from msrecd.storage.manifest import ManifestLine
from msrecd.storage.recording import ChunkFacts, Leftover, Recording
from msrecd.storage.recovery import Lost
from msrecd.storage.repair import Repair

log = logging.getLogger(__name__)

MAX_WAITING = 1000  # a failing disk may leave one every few seconds for days


class Leftovers:
    """Any thread may add and ask; `finish` is called by one at a time.

    No more than MAX_WAITING wait: what comes then stays a `.part` in the journal, which the next start finishes.
    """

    def __init__(self, ground: Ground, repair: Repair, listed: Callable[[Recording, ManifestLine], None]) -> None:
        """
        Args:
            listed: told of each chunk that stands in its manifest now.
        """
        self._ground = ground
        self._repair = repair
        self._listed = listed
        self._lock = threading.Lock()
        self._waiting: list[Leftover] = []
        self._problem = ""
        self.refused = 0

    def add(self, leftover: Leftover) -> None:
        with self._lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(leftover)
                return
            self.refused += 1
        log.warning("%s stays unfinished until the next start: %d wait already", leftover.entry.file, MAX_WAITING)

    def bytes_by_recorder(self) -> dict[str, int]:
        """What they take on the disk."""
        found: dict[str, int] = {}
        with self._lock:
            for leftover in self._waiting:
                recorder = leftover.recording.recorder
                found[recorder] = found.get(recorder, 0) + leftover.bytes
        return found

    def finish(self) -> list[ManifestLine]:
        """Finish them as far as that goes now; the lines of what became chunks. A problem is logged once."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        finished: list[ManifestLine] = []
        problem = ""
        for leftover in waiting:
            try:
                line = self._finish(leftover)
            except (OSError, StorageError) as exc:
                problem = f"{leftover.entry.file} is still unfinished: {exc}"
                self.add(leftover)
                continue
            if line is not None:
                log.warning("%s is finished after all", leftover.entry.file)
                finished.append(line)
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
        return finished

    def _finish(self, leftover: Leftover) -> ManifestLine | None:
        self._ground.check_mount(create=False)  # what is away is not gone
        recording, entry, line = leftover.recording, leftover.entry, leftover.line
        is_last = recording.is_last(entry.seq)
        with files.closing_fd(self._ground.open_root()) as root:
            if line is None:
                is_newest = recording.is_newest(entry.seq)
                found = self._repair.finish(root, recording.manifest, entry, is_last=is_newest)
                if found is None or isinstance(found, Lost):
                    recording.settled(entry.seq, used=not (is_newest and isinstance(found, Lost)))
                    return None
                facts = leftover.facts or ChunkFacts(final=False)
                line = {
                    **found,
                    "final": is_last,
                    "lost_s": round(found["lost_s"] + facts.lost_s, 3),
                    "gaps": [dict(gap) for gap in facts.gaps],
                }
            else:
                line = {**line, "final": is_last}
            self._ground.append_line(root, recording.manifest, dict(line))
        self._listed(recording, line)
        recording.settled(entry.seq, used=True)
        return line
