"""Recovery: what a crash, or a disk that failed, left unfinished becomes chunks: cut, named, listed; or is deleted.

At a start the journal on the medium says what was open; without one the newest folders are looked at. While the daemon
runs the janitor has those chunks finished whose finishing failed.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from msrecd.clock import NS
from msrecd.errors import StorageError
from msrecd.storage import files, fragments, layout, manifest, tree
from msrecd.storage.chunkfile import hash_prefix
from msrecd.storage.finishing import complete
from msrecd.storage.journal import Journal, OpenEntry, OpenRecording
from msrecd.storage.manifest_lines import ManifestLine, time_lapse_of
from msrecd.storage.recording import ChunkFacts, Recording, UnfinishedChunk
from msrecd.storage.root import StorageRoot
from msrecd.vocabulary.formats import TYPE_OF_SUFFIX
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

MAX_WAITING = 1000  # a failing disk may leave one every few seconds for days
_MARGIN_S = 1.0  # between the last write and what it held


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A chunk without one whole fragment: its `.part` is gone."""

    file: str
    seq: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A chunk that a crash left; `file`: its final name; `kept_bytes`: 0 when nothing of it can be played."""

    file: str
    bytes: int
    kept_bytes: int
    duration_s: float


class Recovery:
    """`recover` only while nothing is being recorded; the rest from any thread, `finish_unfinished` from one at a time.

    No more than MAX_WAITING unfinished chunks wait: what comes then stays a `.part` in the journal, for the next start.

    Attributes:
        lost: chunks of which nothing was left.
        touched: the recordings that were open, to be looked up in their manifests.
    """

    def __init__(
        self,
        root: StorageRoot,
        journal: Journal,
        *,
        sync_interval_s: float,
        listed: Callable[[Recording, ManifestLine], None],
    ) -> None:
        """
        Args:
            listed: called with each unfinished chunk that stands in its manifest now.
        """
        self.lost: list[Lost] = []
        self.touched: list[OpenRecording] = []
        self._root = root
        self._journal = journal
        self._sync_interval_s = sync_interval_s
        self._listed = listed
        self._lock = threading.Lock()
        self._waiting: list[UnfinishedChunk] = []
        self._problem = ""

    # --- at a start ---

    def unfinished(self, *, everywhere: bool = True) -> list[Unfinished]:
        """What `recover` would finish or delete, in the order of names; nothing is changed.

        Raises:
            StorageError: the storage cannot be read.
        """
        found: dict[str, Unfinished] = {}
        with files.storage_errors(f"read {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            entries = [entry for recording in self._journal.read_all(root) for entry in recording.chunks]
            for entry in (*entries, *self._strays(root, everywhere=everywhere)):
                unfinished = _look(root, entry)
                if unfinished is not None:
                    found[entry.file] = unfinished
        return [found[file] for file in sorted(found)]

    def recover(self, *, everywhere: bool) -> list[ManifestLine]:
        """Finish all that is unfinished; the lines of what became chunks.

        Raises:
            StorageError: the storage cannot be read.
        """
        recovered: list[ManifestLine] = []
        with files.storage_errors(f"recover {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            known: set[str] = set()
            for recording in self._journal.read_all(root):
                known.update(entry.file for entry in recording.chunks)
                if self._recover_recording(root, recording, recovered):
                    self._journal.remove(root, recording.recording_id)
            strays: dict[str, list[OpenEntry]] = {}
            for entry in self._strays(root, everywhere=everywhere):
                parsed = layout.parse_chunk_name(entry.file.rpartition("/")[2])
                if entry.file not in known and parsed is not None:
                    strays.setdefault(parsed.recording_id, []).append(entry)
            for recording_id, entries in strays.items():
                recorder = entries[0].file.partition("/")[0]
                place = tree.find_manifest(root, recorder, recording_id)
                stray = OpenRecording(
                    recording_id=recording_id, recorder=recorder, manifest=place or "", chunks=tuple(entries)
                )
                self._recover_recording(root, stray, recovered)
        return recovered

    def cut_torn_ends(self, places: Iterable[str]) -> None:
        """Cut the torn last lines of these manifests: a power cut may have come while a deletion was written down."""
        with files.storage_errors(f"read {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            for place in places:
                folder_name, _, name = place.rpartition("/")
                try:
                    with files.closing_fd(files.open_folder(root, folder_name)) as folder:
                        if manifest.cut_torn_end(folder, name):
                            log.warning("%s: removed a last line that a power cut had torn", place)
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    log.warning("the torn last line of %s cannot be removed: %s", place, exc)

    def _strays(self, root: int, *, everywhere: bool) -> Iterator[OpenEntry]:
        """`.part` files, whether the journal knows them or not: in the newest folders of each recorder, or in all."""
        for recorder in tree.recorders(root):
            for day in list(tree.days(root, recorder)) if everywhere else tree.newest_days(root, recorder):
                yield from _parts(root, f"{recorder}/{day}", self._root.medium.identity.boots)

    def _recover_recording(self, root: int, recording: OpenRecording, recovered: list[ManifestLine]) -> bool:
        """Finish a recording's chunks; whether nothing of it is left to do."""
        done = True
        place = recording.manifest
        for entry in sorted(recording.chunks, key=lambda entry: entry.seq):
            is_last = entry.seq == max(chunk.seq for chunk in recording.chunks)
            try:
                result = self._finish(root, place, entry, is_last=is_last)
                if result is None or isinstance(result, Lost):
                    continue
                own = entry.file.rpartition("/")[0] + "/" + layout.manifest_name(recording.recording_id)
                place = place or own
                self._root.append_line(root, place, dict(result))
                recovered.append(result)
                log.warning("recovered %s; about %.1f s are lost", entry.file, result["lost_s"])
            except (OSError, StorageError) as exc:
                log.warning("%s cannot be recovered now: %s", entry.file, getattr(exc, "strerror", None) or exc)
                done = False
        if place:
            self.touched.append(replace(recording, manifest=place))
        return done

    def _finish(self, root: int, place: str, entry: OpenEntry, *, is_last: bool) -> ManifestLine | Lost | None:
        """Finish one chunk; the caller lists it in the manifest `place`. None: nothing is there, or it is listed.

        Raises:
            OSError, StorageError: it is still unfinished.
        """
        if place and _is_listed(root, place, entry.seq):
            return None
        result = recover_chunk(root, entry, is_last=is_last, sync_interval_s=self._sync_interval_s)
        if isinstance(result, Lost):
            self.lost.append(result)
            log.warning("deleted %s.part: it held no complete fragment", entry.file)
            if not is_last and place:
                self._root.append_deletion(root, place, entry.seq, "lost")
        return result

    # --- while the daemon runs ---

    def leave(self, unfinished: UnfinishedChunk) -> None:
        """A chunk could not be finished; `finish_unfinished` tries again."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(unfinished)
                return
        log.warning("%s stays unfinished until the next start: %d wait already", unfinished.entry.file, MAX_WAITING)

    def unfinished_bytes(self) -> dict[str, int]:
        """What they take on the disk, by recorder."""
        found: dict[str, int] = {}
        with self._lock:
            for unfinished in self._waiting:
                recorder = unfinished.recording.recorder
                found[recorder] = found.get(recorder, 0) + unfinished.bytes
        return found

    def forget_unfinished(self) -> None:
        """Another medium lies here; theirs has a journal, and is recovered when it is back."""
        with self._lock:
            self._waiting.clear()

    def finish_unfinished(self) -> list[ManifestLine]:
        """Finish them as far as that goes now; the lines of what became chunks. A problem is logged once."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        finished: list[ManifestLine] = []
        problem = ""
        for unfinished in waiting:
            try:
                line = self._finish_one(unfinished)
            except (OSError, StorageError) as exc:
                problem = f"{unfinished.entry.file} is still unfinished: {exc}"
                self.leave(unfinished)
                continue
            if line is not None:
                log.warning("finished %s, whose finishing had failed before", unfinished.entry.file)
                finished.append(line)
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
        return finished

    def _finish_one(self, unfinished: UnfinishedChunk) -> ManifestLine | None:
        recording, entry, line = unfinished.recording, unfinished.entry, unfinished.line
        if self._root.check().id != unfinished.medium_id:  # an unmounted disk is not a deleted file
            return None
        is_last = recording.is_last(entry.seq)
        with files.closing_fd(self._root.open_root()) as root:
            if line is None:
                is_newest = recording.is_newest(entry.seq)
                found = self._finish(root, unfinished.manifest, entry, is_last=is_newest)
                if found is None or isinstance(found, Lost):
                    recording.settled(entry.seq, used=not (is_newest and isinstance(found, Lost)))
                    return None
                facts = unfinished.facts or ChunkFacts(final=False)
                line = {
                    **found,
                    "final": is_last,
                    "lost_s": round(found["lost_s"] + facts.lost_s, 3),
                    "gaps": [dict(gap) for gap in facts.gaps],
                }
            else:
                line = {**line, "final": is_last}
            self._root.append_line(root, unfinished.manifest, dict(line))
        self._listed(recording, line)
        recording.settled(entry.seq, used=True)
        return line


def recover_chunk(root: int, entry: OpenEntry, *, is_last: bool, sync_interval_s: float) -> ManifestLine | Lost | None:
    """Finish one chunk; None when there is nothing of it. The caller writes the manifest line.

    Raises:
        OSError: the file is still a `.part`, and the next start tries again.
    """
    split = layout.split_file(entry.file)
    parsed = layout.parse_chunk_name(split[2]) if split is not None else None
    if split is None or parsed is None:
        return None
    try:
        folder = files.open_folder(root, f"{split[0]}/{split[1]}")
    except FileNotFoundError:
        return None
    with files.closing_fd(folder):
        is_part = files.exists(folder, parsed.final + layout.PART)
        if is_part and files.exists(folder, parsed.final):
            is_part = _keep_one(folder, parsed.final)
        if not is_part and not files.exists(folder, parsed.final):
            return None
        name = parsed.final + (layout.PART if is_part else "")
        with os.fdopen(
            files.open_file(folder, name, os.O_RDWR if is_part else os.O_RDONLY), "rb", buffering=65536
        ) as file:
            if is_part and not files.claim(file.fileno()):
                raise OSError(errno.EBUSY, "it is being written")
            status = os.fstat(file.fileno())
            whole = files.size_without_holes(file.fileno())
            if not is_part and whole < status.st_size:
                return None  # whoever made it, it was not this program
            found = fragments.scan(file, whole, parsed.extension)
            if is_part and not found.cut:
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
                return Lost(file=entry.file, seq=entry.seq, bytes=status.st_size)
            size = found.cut if is_part else status.st_size
            if is_part:
                os.ftruncate(file.fileno(), size)
                size, _ = complete(file.fileno(), size, parsed.final, is_foreign=True)
            digest = hash_prefix(file.fileno(), size).hexdigest()
            os.fsync(file.fileno())
            if is_part:
                files.rename_new(folder, name, parsed.final)
                os.fsync(file.fileno())  # as in ChunkFile.finish
        os.fsync(folder)
    kept = found.cut if is_part else status.st_size  # without what completing it has added
    lapse = entry.time_lapse
    captured_s = found.duration_s if lapse is None else lapse.captured_s(found.duration_s)
    lost_s = _lost_s(entry, captured_s, kept, status.st_size, status.st_mtime_ns, sync_interval_s)
    line = ManifestLine(
        seq=entry.seq,
        file=entry.file,
        bytes=size,
        sha256=digest,
        mime_type=entry.mime_type,
        started=format_utc(entry.started_ns),
        ended=format_utc(entry.started_ns + round(captured_s * NS)),
        duration_s=found.duration_s,
        clock="synchronized" if entry.trusted else "unsynchronized",
        final=is_last,
        recovered=True,
        lost_s=lost_s if is_part else 0.0,
        tracks=found.manifest_tracks(),
        gaps=[],
    )
    if lapse is not None:
        line["time_lapse"] = time_lapse_of(lapse, captured_s)
    return line if entry.trusted or not entry.boot_id else {**line, "boot_id": entry.boot_id}


def _keep_one(folder: int, final: str) -> bool:
    """Whether the `.part` is kept of two files of one chunk that no manifest lists.

    A rename on FAT that a power cut interrupts leaves both names for one place on the medium, and fsck empties one.
    """
    part = final + layout.PART
    sizes = [os.stat(name, dir_fd=folder, follow_symlinks=False).st_size for name in (final, part)]
    is_part = sizes[1] >= sizes[0]
    os.unlink(final if is_part else part, dir_fd=folder)
    os.fsync(folder)
    return is_part


def _is_listed(root: int, place: str, seq: int) -> bool:
    try:
        entries = tree.manifest_entries(root, place)
        return any(isinstance(said, dict) and said["seq"] == seq for _, said, _ in entries)
    except FileNotFoundError:
        return False


def _look(root: int, entry: OpenEntry) -> Unfinished | None:
    """None: it is finished, gone, being written, or cannot be read."""
    split = layout.split_file(entry.file)
    parsed = layout.parse_chunk_name(split[2]) if split is not None else None
    if split is None or parsed is None:
        return None
    try:
        with (
            files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder,
            os.fdopen(files.open_file(folder, parsed.final + layout.PART), "rb") as file,
        ):
            if not files.claim(file.fileno()):
                return None
            size = os.fstat(file.fileno()).st_size
            scanned = fragments.scan(file, files.size_without_holes(file.fileno()), parsed.extension)
    except FileNotFoundError:
        return None
    except OSError as exc:
        tree.skip(f"{entry.file}{layout.PART}", exc)
        return None
    return Unfinished(file=entry.file, bytes=size, kept_bytes=scanned.cut, duration_s=scanned.duration_s)


def _parts(root: int, day: str, boots: Mapping[int, str]) -> Iterator[OpenEntry]:
    for name in tree.names_in(root, day):
        parsed = layout.parse_chunk_name(name)
        if parsed is None or not parsed.is_part or not day.startswith(parsed.recorder + "/"):
            continue
        try:
            with (
                files.closing_fd(files.open_folder(root, day)) as folder,
                os.fdopen(files.open_file(folder, name), "rb") as file,
            ):
                status = os.fstat(file.fileno())
                duration_s = fragments.scan(file, files.size_without_holes(file.fileno()), parsed.extension).duration_s
        except OSError as exc:
            tree.skip(f"{day}/{name}", exc)
            continue
        known = layout.parse_recording_id(parsed.recording_id)
        yield OpenEntry(
            seq=parsed.seq,
            file=f"{day}/{parsed.final}",
            mime_type=TYPE_OF_SUFFIX[f".{parsed.extension}"],
            started_ns=status.st_mtime_ns - round(duration_s * NS),
            trusted=known is not None and known.utc_s is not None,
            boot_id=boots.get(known.boot, "") if known is not None and known.boot is not None else "",
        )


def _lost_s(
    entry: OpenEntry, duration_s: float, kept: int, size: int, written_ns: int, sync_interval_s: float
) -> float:
    """An estimate of what was recorded and is not in the file: up to the last write, or by what was cut off."""
    by_bytes = (size - kept) * duration_s / kept if kept else 0.0
    by_time = (written_ns - entry.started_ns) / NS - duration_s
    plausible = by_bytes <= by_time <= sync_interval_s + _MARGIN_S
    return round(by_time if plausible else by_bytes, 3)
