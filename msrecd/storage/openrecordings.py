"""OpenRecordings: what is being recorded now: their ids, the room that they take and want, what was written."""

from __future__ import annotations

import threading
from collections.abc import Callable

from msrecd.errors import StorageError
from msrecd.storage.janitor import OpenSpace
from msrecd.storage.journal import Journal
from msrecd.storage.listing import Listing
from msrecd.storage.manifest_lines import ManifestLine
from msrecd.storage.meter import Meter
from msrecd.storage.naming import Names
from msrecd.storage.recording import Recording, UnfinishedChunk
from msrecd.storage.root import StorageRoot
from msrecd.storage.triggerlines import TriggerNotes
from msrecd.vocabulary.formats import extension_for
from msrecd.vocabulary.lapse import TimeLapse


class OpenRecordings:
    """Any thread. What a Recording and its OpenChunk need of the storage, they ask here."""

    def __init__(
        self,
        root: StorageRoot,
        journal: Journal,
        listing: Listing,
        *,
        sync_interval_s: float,
        require_room: Callable[[], None],
        leave: Callable[[UnfinishedChunk], None],
    ) -> None:
        """
        Args:
            require_room: raises StorageError where no chunk can begin.
            leave: takes a chunk that could not be finished, for a later try.
        """
        self.root = root
        self.journal = journal
        self.triggers = TriggerNotes(root.walltime)
        self.sync_interval_s = sync_interval_s
        self.require_room = require_room
        self.leave = leave
        self._listing = listing
        self._lock = threading.RLock()
        self._open: dict[str, Recording] = {}
        self._names = Names(root.walltime, lambda recorder, below: listing.index.last_recording_id(recorder, below))
        self.meter = Meter(root.clock, lambda recorder, count: listing.index.last_sizes(recorder, count))

    def begin(self, recorder: str, mime_type: str, time_lapse: TimeLapse | None) -> Recording:
        """
        Raises:
            StorageError: the type has no file format, or the name is none.
        """
        try:
            extension = extension_for(mime_type).removeprefix(".")
            medium_id = self.root.medium.id
            recording_id = self.draw(recorder)
        except ValueError as exc:
            raise StorageError(str(exc), "bad_args") from exc
        recording = Recording(self, recorder, recording_id, mime_type, extension, time_lapse, medium_id=medium_id)
        with self._lock:
            self._open[recording_id] = recording
        return recording

    def draw(self, recorder: str) -> str:
        """An id that no recording or album has.

        Raises:
            ValueError: no name of a recorder.
            StorageError: what is on the disk cannot be read.
        """
        with self._lock:
            return self._names.draw(recorder)

    def rename(self, recording: Recording) -> str:
        """Draw another id for a recording that continues on another medium."""
        with self._lock:
            self._open.pop(recording.recording_id, None)
            recording_id = self._names.draw(recording.recorder)
            self._open[recording_id] = recording
            return recording_id

    def forget(self, recording: Recording) -> None:
        """A recording has ended."""
        with self._lock:
            self._open.pop(recording.recording_id, None)

    def list_chunk(self, recorder: str, recording_id: str, manifest_file: str, line: ManifestLine) -> None:
        """A chunk is finished and stands in its manifest."""
        self.meter.finished(recorder, line["bytes"])
        self._listing.add(recorder, recording_id, manifest_file, line)

    def list_recovered(self, recording: Recording, line: ManifestLine) -> None:
        """As list_chunk, for one that was finished later."""
        self.list_chunk(recording.recorder, recording.recording_id, recording.manifest, line)

    def let_go(self) -> None:
        """Leave what is still being written to the next start."""
        with self._lock:
            chunks = [recording.chunk for recording in self._open.values()]
        for chunk in chunks:
            if chunk is not None:
                chunk.let_go()

    def has(self, recording_id: str) -> bool:
        return recording_id in self._open

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._open)

    @property
    def unsynced_s(self) -> float:
        """For how long written data has been waiting to be on the disk."""
        with self._lock:
            recordings = list(self._open.values())
        return max((recording.unsynced_s for recording in recordings), default=0.0)

    def space(self) -> OpenSpace:
        """What their chunks take, and what each may still grow by: so much room is made before it is needed."""
        by_recorder: dict[str, int] = {}
        headrooms: list[int] = []
        with self._lock:
            for recording in self._open.values():
                size = recording.open_bytes
                by_recorder[recording.recorder] = by_recorder.get(recording.recorder, 0) + size
                headrooms.append(max(0, self.meter.largest_of(recording.recorder) - size))
        return OpenSpace(by_recorder=by_recorder, headrooms=tuple(headrooms))
