"""Repair: unfinished chunks become chunks, at the start and, when finishing one failed, later on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from msrecd.errors import StorageError
from msrecd.storage import files, layout, manifest, recovery
from msrecd.storage.ground import Ground
from msrecd.storage.journal import Journal, OpenEntry, OpenRecording
from msrecd.storage.manifest import ManifestLine
from msrecd.storage.recovery import Lost

log = logging.getLogger(__name__)


class Repair:
    """What the journal names as open is finished; without a journal the newest folders are looked at.

    Attributes:
        lost: chunks of which nothing was left.
        touched: the recordings that were open, to be looked up in their manifests.
    """

    def __init__(self, ground: Ground, journal: Journal, *, sync_interval_s: float) -> None:
        self.lost: list[Lost] = []
        self.touched: list[OpenRecording] = []
        self._ground = ground
        self._journal = journal
        self._sync_interval_s = sync_interval_s

    def recover(self, *, everywhere: bool) -> list[ManifestLine]:
        """Finish all that is unfinished; the lines of what became chunks. Only while nothing is being recorded.

        Raises:
            StorageError: the storage cannot be read.
        """
        recovered: list[ManifestLine] = []
        with files.storage_errors(f"recover {self._ground.path}"), files.closing_fd(self._ground.open_root()) as root:
            known: set[str] = set()
            for recording in self._journal.read_all():
                known.update(entry.file for entry in recording.chunks)
                if self._recover_recording(root, recording, recovered):
                    self._journal.remove(recording.recording_id)
            strays: dict[str, list[OpenEntry]] = {}
            for entry in recovery.stray_parts(root, everywhere=everywhere):
                parsed = layout.parse_chunk_name(entry.file.rpartition("/")[2])
                if entry.file not in known and parsed is not None:
                    strays.setdefault(parsed.recording_id, []).append(entry)
            for recording_id, entries in strays.items():
                recorder = entries[0].file.partition("/")[0]
                place = recovery.find_manifest(root, recorder, recording_id)
                stray = OpenRecording(
                    recording_id=recording_id, recorder=recorder, manifest=place or "", chunks=tuple(entries)
                )
                self._recover_recording(root, stray, recovered)
        return recovered

    def finish(self, root: int, place: str, entry: OpenEntry, *, is_last: bool) -> ManifestLine | Lost | None:
        """Finish one chunk; the caller lists it in the manifest `place`. None: nothing is there, or it is listed.

        Raises:
            OSError, StorageError: it is still unfinished.
        """
        if place and self._is_listed(root, place, entry.seq):
            return None
        result = recovery.recover_chunk(root, entry, is_last=is_last, sync_interval_s=self._sync_interval_s)
        if isinstance(result, Lost):
            self.lost.append(result)
            log.warning("%s.part held not one whole fragment and is deleted", entry.file)
            if not is_last and place:
                self._ground.append_deletion(root, place, entry.seq, "lost")
        return result

    def mend_ends(self, places: Iterable[str]) -> None:
        """Cut the torn last lines of these manifests: a power cut may have come while a deletion was written down.

        Only while nothing is being recorded.
        """
        with files.storage_errors(f"read {self._ground.path}"), files.closing_fd(self._ground.open_root()) as root:
            for place in places:
                folder_name, _, name = place.rpartition("/")
                try:
                    with files.closing_fd(files.open_folder(root, folder_name)) as folder:
                        if manifest.cut_torn_end(folder, name):
                            log.warning("%s: a line that a power cut had torn is taken away", place)
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    log.warning("%s cannot be mended: %s", place, exc)

    def _recover_recording(self, root: int, recording: OpenRecording, recovered: list[ManifestLine]) -> bool:
        """Finish a recording's chunks; whether nothing of it is left to do."""
        done = True
        place = recording.manifest
        for entry in sorted(recording.chunks, key=lambda entry: entry.seq):
            is_last = entry.seq == max(chunk.seq for chunk in recording.chunks)
            try:
                result = self.finish(root, place, entry, is_last=is_last)
                if result is None or isinstance(result, Lost):
                    continue
                own = entry.file.rpartition("/")[0] + "/" + layout.manifest_name(recording.recording_id)
                place = place or own
                self._ground.append_line(root, place, dict(result))
                recovered.append(result)
                log.warning("%s is recovered; about %.1f s are lost", entry.file, result["lost_s"])
            except (OSError, StorageError) as exc:
                log.warning("%s cannot be recovered now: %s", entry.file, exc)
                done = False
        if place:
            self.touched.append(replace(recording, manifest=place))
        return done

    def _is_listed(self, root: int, place: str, seq: int) -> bool:
        try:
            return any(line["seq"] == seq for line in recovery.read_manifest(root, place).chunks)
        except FileNotFoundError:
            return False
