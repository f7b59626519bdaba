"""What is there: recordings, chunks and gaps of a time range, with corrected times; what an export needs."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msrecd.clock import NS
from msrecd.clock.wall import Corrections
from msrecd.errors import StorageError
from msrecd.storage import files, layout, manifest, tree
from msrecd.storage.index import Index
from msrecd.storage.listing import first_edition_boot_id, index_path
from msrecd.storage.manifest_lines import ManifestLine
from msrecd.storage.medium import Medium, open_medium
from msrecd.storage.root import protected_ranges
from msrecd.vocabulary.times import parse_utc

_JOINT_NS = NS // 2  # times of consecutive chunks are rounded; less than this between them is no gap


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkEntry:
    """A finished chunk; `corrected`: its times are not those in the manifest, which was written by a wrong clock."""

    seq: int
    file: str
    bytes: int
    mime_type: str
    started_ns: int
    ended_ns: int
    duration_s: float
    clock: str
    corrected: bool
    final: bool
    recovered: bool
    lost_s: float
    exists: bool
    protected: bool
    is_time_lapse: bool = False  # played in duration_s, captured from started to ended
    offloaded: OffloadEntry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadEntry:
    """That a store has proven a file: when, how, which one."""

    at: str
    proof: str
    store: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotEntry:
    """A snapshot that was not deleted."""

    number: int
    file: str
    bytes: int
    taken_ns: int
    exists: bool
    is_doubtful: bool = False  # whether the clock was not trusted, and nothing known since corrects it
    offloaded: OffloadEntry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GapEntry:
    started_ns: int
    duration_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerEntry:
    """What a trigger found; score: when it began."""

    kind: str
    score: float
    started_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEntry:
    recording_id: str
    recorder: str
    manifest: str
    started_ns: int
    ended_ns: int
    protected: bool
    chunks: tuple[ChunkEntry, ...]
    gaps: tuple[GapEntry, ...]
    snapshots: tuple[SnapshotEntry, ...] = ()
    triggers: tuple[TriggerEntry, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(chunk.bytes for chunk in self.chunks) + sum(shot.bytes for shot in self.snapshots)


class Catalog:
    """Reads beside a running daemon: the index says where to look, the manifests what is there. Blocking."""

    def __init__(self, medium: Medium, index: Index | None, corrections: Corrections) -> None:
        """
        Args:
            index: None: look at all manifests.
        """
        self.problems: list[str] = []  # what the last question had to skip
        self._path = medium.path
        self._medium = medium
        self._index = index
        self._corrections = corrections

    @property
    def is_indexed(self) -> bool:
        """Whether there is a complete index; without one all manifests are read, which takes longer."""
        return self._index is not None

    def close(self) -> None:
        """Let go of index and medium."""
        if self._index is not None:
            self._index.close()
        self._medium.close()

    def recordings(
        self, *, recorder: str | None = None, since_ns: int | None = None, until_ns: int | None = None
    ) -> list[RecordingEntry]:
        """Recordings with the chunks that touch the range, in order of their beginning.

        Raises:
            StorageError: they cannot be read.
        """
        found = []
        self.problems.clear()
        with files.storage_errors(f"read {self._path}"), files.closing_fd(os.dup(self._medium.fd)) as root:
            for recording_id, place in self._candidates(root, recorder, since_ns, until_ns):
                try:
                    contents = tree.read_manifest(root, place)
                except FileNotFoundError:  # deleted meanwhile
                    continue
                except OSError as exc:
                    self.problems.append(f"{place}: skipped, it cannot be read: {exc.strerror or exc}")
                    continue
                if contents.unreadable:
                    which = ", ".join(map(str, contents.unreadable[:5]))
                    more = f" and {len(contents.unreadable) - 5} more" if len(contents.unreadable) > 5 else ""
                    self.problems.append(f"{place}: skipped line {which}{more}, which is no line of a manifest")
                entry = self._entry(recording_id, place, contents, since_ns, until_ns)
                if entry is not None:
                    found.append(entry)
        return sorted(found, key=lambda entry: (entry.started_ns, entry.recording_id))

    def export_plan(self, recorder: str, from_ns: int, to_ns: int) -> tuple[list[ChunkEntry], list[GapEntry]]:
        """The chunks that hold a time range, in order, and what is missing of the range between, before and behind."""
        chunks = [
            chunk
            for recording in self.recordings(recorder=recorder, since_ns=from_ns, until_ns=to_ns)
            for chunk in recording.chunks
            if chunk.exists
        ]
        chunks.sort(key=lambda chunk: (chunk.started_ns, chunk.seq))
        gaps = []
        at_ns = from_ns
        for chunk in chunks:
            if chunk.started_ns - at_ns > _JOINT_NS:
                gaps.append(_gap(at_ns, chunk.started_ns, "not_recorded"))
            at_ns = max(at_ns, chunk.ended_ns)
        if to_ns - at_ns > _JOINT_NS:
            gaps.append(_gap(at_ns, to_ns, "not_recorded"))
        return chunks, gaps

    def _candidates(
        self, root: int, recorder: str | None, since_ns: int | None, until_ns: int | None
    ) -> list[tuple[str, str]]:
        if self._index is not None:
            with contextlib.suppress(StorageError):  # else all manifests are read
                return self._index.recordings(since_ns, until_ns, recorder)
        pairs = [(layout.parse_manifest_name(file.rpartition("/")[2]), file) for file in tree.manifest_files(root)]
        return [
            (recording_id, file)
            for recording_id, file in pairs
            if recording_id is not None and recorder in (None, file.partition("/")[0])
        ]

    def _entry(
        self,
        recording_id: str,
        place: str,
        contents: manifest.ManifestContents,
        since_ns: int | None,
        until_ns: int | None,
    ) -> RecordingEntry | None:
        known = layout.parse_recording_id(recording_id)
        if known is None:
            return None
        gone = {deletion.seq: deletion.reason for deletion in contents.deletions}
        chunks: list[ChunkEntry] = []
        gaps: list[GapEntry] = []
        ranges = protected_ranges(self._medium.fd, recording_id) or ()
        offloaded = {
            -one.seq if one.is_snapshot else one.seq: OffloadEntry(at=one.at, proof=one.proof, store=one.store)
            for one in contents.offloaded
        }
        end_ns: int | None = None
        for line in sorted(contents.chunks, key=lambda line: line["seq"]):
            try:
                started_ns, ended_ns, corrected = self._times(line)
            except ValueError:
                continue
            if (since_ns is not None and ended_ns < since_ns) or (until_ns is not None and started_ns > until_ns):
                end_ns = ended_ns
                continue
            hole_ns = 0 if end_ns is None else max(0, started_ns - end_ns)
            within = [gap for gap in line["gaps"] if {"at_s", "duration_s", "reason"} <= gap.keys()]
            before = next((gap for gap in within if _fills(gap, hole_ns)), None)
            if end_ns is not None and before is not None:
                within.remove(before)
                gaps.append(_gap(end_ns, started_ns, str(before["reason"])))
            elif end_ns is not None and hole_ns - round(line.get("paused_s", 0.0) * NS) > _JOINT_NS:
                gaps.append(_gap(end_ns, started_ns, "between_chunks"))
            end_ns = ended_ns
            if line["seq"] in gone:
                gaps.append(_gap(started_ns, ended_ns, f"deleted:{gone[line['seq']]}"))
                continue
            gaps += [
                GapEntry(
                    started_ns=started_ns + round(float(gap["at_s"]) * NS),
                    duration_s=float(gap["duration_s"]),
                    reason=str(gap["reason"]),
                )
                for gap in within
            ]
            gaps += [
                GapEntry(
                    started_ns=ended_ns, duration_s=float(gap.get("duration_s", 0.0)), reason=str(gap.get("reason", ""))
                )
                for ending in contents.endings
                if ending.after == line["seq"]
                for gap in ending.gaps
            ]
            is_protected = any(low <= line["seq"] <= high for low, high in ranges)
            entry = self._chunk(line, started_ns, ended_ns, corrected=corrected, protected=is_protected)
            chunks.append(replace(entry, offloaded=offloaded.get(line["seq"])))
        snapshots = self._snapshots(contents, offloaded, since_ns, until_ns)
        if not chunks and not snapshots:
            return None
        times = [shot.taken_ns for shot in snapshots]
        return RecordingEntry(
            recording_id=recording_id,
            recorder=known.recorder,
            manifest=place,
            started_ns=chunks[0].started_ns if chunks else min(times),
            ended_ns=max(chunk.ended_ns for chunk in chunks) if chunks else max(times),
            protected=bool(ranges) if not chunks else any(chunk.protected for chunk in chunks),
            chunks=tuple(chunks),
            gaps=tuple(gaps),
            snapshots=snapshots,
            triggers=self._triggers(contents, since_ns, until_ns),
        )

    def _triggers(
        self, contents: manifest.ManifestContents, since_ns: int | None, until_ns: int | None
    ) -> tuple[TriggerEntry, ...]:
        found = []
        for line in contents.triggers:
            started_ns, ended_ns = parse_utc(line["started"]), parse_utc(line["ended"])
            if line["clock"] != "synchronized":
                truth = self._corrections.correct(line.get("boot_id", ""), started_ns)
                if truth is not None:
                    started_ns, ended_ns = truth, truth + ended_ns - started_ns
            if (since_ns is None or ended_ns >= since_ns) and (until_ns is None or started_ns <= until_ns):
                entry = TriggerEntry(
                    kind=line["trigger"], score=line["score"], started_ns=started_ns, ended_ns=ended_ns
                )
                found.append(entry)
        return tuple(found)

    def _snapshots(
        self,
        contents: manifest.ManifestContents,
        offloaded: Mapping[int, OffloadEntry],
        since_ns: int | None,
        until_ns: int | None,
    ) -> tuple[SnapshotEntry, ...]:
        found = []
        for line in manifest.live_snapshots(contents):
            taken_ns, is_doubtful = parse_utc(line["taken"]), False
            if line["clock"] != "synchronized":
                corrected_ns = self._corrections.correct(line.get("boot_id", ""), taken_ns)
                is_doubtful = not corrected_ns
                taken_ns = corrected_ns or taken_ns
            if (since_ns is not None and taken_ns < since_ns) or (until_ns is not None and taken_ns > until_ns):
                continue
            found.append(
                SnapshotEntry(
                    number=line["snapshot"],
                    file=line["file"],
                    bytes=line["bytes"],
                    taken_ns=taken_ns,
                    exists=self._is_there(line["file"]),
                    is_doubtful=is_doubtful,
                    offloaded=offloaded.get(-line["snapshot"]),
                )
            )
        return tuple(found)

    def _times(self, line: ManifestLine) -> tuple[int, int, bool]:
        started_ns, ended_ns = parse_utc(line["started"]), parse_utc(line["ended"])
        if line["clock"] != "synchronized":
            boots = self._medium.identity.first_edition_boots
            boot_id = line.get("boot_id") or first_edition_boot_id(boots, line)
            truth = self._corrections.correct(boot_id, started_ns)
            if truth is not None:
                return truth, truth + ended_ns - started_ns, True
        return started_ns, ended_ns, False

    def _chunk(
        self, line: ManifestLine, started_ns: int, ended_ns: int, *, corrected: bool, protected: bool
    ) -> ChunkEntry:
        return ChunkEntry(
            seq=line["seq"],
            file=line["file"],
            bytes=line["bytes"],
            mime_type=line["mime_type"],
            started_ns=started_ns,
            ended_ns=ended_ns,
            duration_s=line["duration_s"],
            clock=line["clock"],
            corrected=corrected,
            final=line["final"],
            recovered=line["recovered"],
            lost_s=line["lost_s"],
            exists=self._is_there(line["file"]),
            protected=protected,
            is_time_lapse="time_lapse" in line,
        )

    def _is_there(self, file: str) -> bool:
        """Whether a regular file lies there, reached through folders alone."""
        split = layout.split_file(file)
        if split is None:
            return False
        with (
            contextlib.suppress(OSError),
            files.closing_fd(files.open_folder(self._medium.fd, f"{split[0]}/{split[1]}")) as folder,
        ):
            return stat.S_ISREG(os.stat(split[2], dir_fd=folder, follow_symlinks=False).st_mode)
        return False


def _fills(gap: Mapping[str, Any], hole_ns: int) -> bool:
    """Whether a gap at the beginning of a chunk is the hole before it, which is no part of its own time line."""
    return hole_ns > _JOINT_NS and not gap["at_s"] and abs(float(gap["duration_s"]) * NS - hole_ns) <= _JOINT_NS


def _gap(started_ns: int, ended_ns: int, reason: str) -> GapEntry:
    return GapEntry(started_ns=started_ns, duration_s=round((ended_ns - started_ns) / NS, 3), reason=reason)


def open_catalog(path: Path, state_path: Path, corrections: Corrections) -> Catalog:
    """A catalog with the index where there is a good one, without it otherwise.

    Raises:
        StorageError: `not_found`, `missing_mount`: there is nothing to read.
    """
    medium = open_medium(path, state_path, create=False)
    index: Index | None = None
    database = index_path(state_path, medium.id)
    if medium.is_kept and database.exists() and not database.with_name("index.stale").exists():
        try:
            index = Index(database, read_only=True)
        except StorageError:
            index = None
    return Catalog(medium, index, corrections)
