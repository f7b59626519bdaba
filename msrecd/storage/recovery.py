"""What a `.part` that was left behind becomes: cut at its last whole fragment, finished, listed; or deleted.

The work is that of the open chunks: they stand in the journal. Without one, the newest folders are looked at.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from msrecd.clock import NS
from msrecd.storage import files, fragments, layout, manifest
from msrecd.storage.chunkfile import hash_prefix
from msrecd.storage.finishing import complete
from msrecd.storage.journal import OpenEntry
from msrecd.storage.manifest import ManifestLine
from msrecd.vocabulary.formats import TYPE_OF_SUFFIX
from msrecd.vocabulary.names import NAME_PATTERN
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

_MAX_SKIPPED = 1000
_skipped: set[str] = set()
_MARGIN_S = 5.0  # between the last write and what it held


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A chunk without one whole fragment: its `.part` is gone."""

    file: str
    seq: int
    bytes: int


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
            status = os.fstat(file.fileno())
            found = fragments.scan(file, status.st_size, parsed.extension)
            if is_part and not found.cut:
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
                return Lost(file=entry.file, seq=entry.seq, bytes=status.st_size)
            size = found.cut if is_part else status.st_size
            if is_part:
                os.ftruncate(file.fileno(), size)
                size, _ = complete(file.fileno(), size, parsed.final)
            digest = hash_prefix(file.fileno(), size).hexdigest()
            os.fsync(file.fileno())
            if is_part:
                files.rename_new(folder, name, parsed.final)
                os.fsync(file.fileno())  # as in ChunkFile.finish
        os.fsync(folder)
    lost_s = _lost_s(entry, found.duration_s, size, status.st_size, status.st_mtime_ns, sync_interval_s)
    line = ManifestLine(
        seq=entry.seq,
        file=entry.file,
        bytes=size,
        sha256=digest,
        mime_type=entry.mime_type,
        started=format_utc(entry.started_ns),
        ended=format_utc(entry.started_ns + round(found.duration_s * NS)),
        duration_s=found.duration_s,
        clock="synchronized" if entry.trusted else "unsynchronized",
        final=is_last,
        recovered=True,
        lost_s=lost_s if is_part else 0.0,
        tracks=found.manifest_tracks(),
        gaps=[],
    )
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


def stray_parts(root: int, *, everywhere: bool = False) -> Iterator[OpenEntry]:
    """`.part` files that no journal knows: in the newest folders of each recorder, or in all."""
    for recorder in _names(root, "", NAME_PATTERN):
        folders = list(days(root, recorder)) if everywhere else _newest(root, recorder)
        for day in folders:
            yield from _parts(root, f"{recorder}/{day}")


def manifest_files(root: int) -> Iterator[str]:
    """All manifests below the root, relative; in the order of names within each recorder."""
    for recorder in _names(root, "", NAME_PATTERN):
        for day in days(root, recorder):
            yield from _manifests_in(root, f"{recorder}/{day}")


def manifests_by_day(root: int) -> Iterator[str]:
    """All manifests below the root, relative: those of one day, of all recorders, in the order of their beginnings."""
    recorders = _names(root, "", NAME_PATTERN)
    by_day: dict[str, list[str]] = {}
    for recorder in recorders:
        for day in days(root, recorder):
            by_day.setdefault(day, []).append(recorder)
    # Nobody knows when a boot folder was: as names are given they come behind.
    for day in sorted(by_day, key=lambda day: (day.startswith("boot"), len(day), day)):
        found = [file for recorder in by_day[day] for file in _manifests_in(root, f"{recorder}/{day}")]
        yield from sorted(found, key=lambda file: file.rpartition("/")[2])


def _manifests_in(root: int, day: str) -> list[str]:
    files_ = [f"{day}/{name}" for name in names_in(root, day) if layout.parse_manifest_name(name) is not None]
    return [file for file in files_ if layout.split_file(file) is not None]


def names_in(root: int, relative: str) -> list[str]:
    """What lies in a folder below the root, sorted; nothing where it may not be read, which is logged, or has gone."""
    try:
        with files.closing_fd(files.open_folder(root, relative)) as folder:
            return sorted(os.listdir(folder))  # noqa: PTH208  # a descriptor
    except FileNotFoundError:
        return []
    except OSError as exc:
        _skip(relative, exc)
        return []


def _skip(relative: str, exc: OSError) -> None:
    """Leave out what is no folder of ours or may not be read; said once for each."""
    if relative not in _skipped and len(_skipped) < _MAX_SKIPPED:
        _skipped.add(relative)
        log.warning("skipping %s in the storage folder: %s", ascii(relative), exc.strerror or exc)


def last_recording_id(root: int, recorder: str, below: str) -> str | None:
    """The greatest id in a recorder's newest folders that sorts before `below`: for when there is no index."""
    if not files.exists(root, recorder):
        return None
    names = [name for day in _newest(root, recorder) for name in names_in(root, f"{recorder}/{day}")]
    ids = [layout.parse_manifest_name(name) for name in names]
    return max((known for known in ids if known is not None and known < below), default=None)


def is_empty(root: int) -> bool:
    """Whether no recorder has ever had a folder here."""
    return not _names(root, "", NAME_PATTERN)


def find_manifest(root: int, recorder: str, recording_id: str) -> str | None:
    """Where a recording's manifest lies, looked for from the newest folder back."""
    for day in reversed(list(days(root, recorder))):
        if layout.manifest_name(recording_id) in names_in(root, f"{recorder}/{day}"):
            return f"{recorder}/{day}/{layout.manifest_name(recording_id)}"
    return None


def read_manifest(root: int, file: str) -> manifest.ManifestContents:
    """
    Raises:
        OSError: it cannot be read.
    """
    split = layout.split_file(file)
    if split is None:
        raise FileNotFoundError(file)
    with files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder:
        return manifest.read_at(folder, split[2])


def _parts(root: int, day: str) -> Iterator[OpenEntry]:
    for name in names_in(root, day):
        parsed = layout.parse_chunk_name(name)
        if parsed is None or not parsed.is_part or not day.startswith(parsed.recorder + "/"):
            continue
        try:
            with (
                files.closing_fd(files.open_folder(root, day)) as folder,
                os.fdopen(files.open_file(folder, name), "rb") as file,
            ):
                status = os.fstat(file.fileno())
                duration_s = fragments.scan(file, status.st_size, parsed.extension).duration_s
        except OSError as exc:
            _skip(f"{day}/{name}", exc)
            continue
        known = layout.parse_recording_id(parsed.recording_id)
        yield OpenEntry(
            seq=parsed.seq,
            file=f"{day}/{parsed.final}",
            mime_type=TYPE_OF_SUFFIX[f".{parsed.extension}"],
            started_ns=status.st_mtime_ns - round(duration_s * NS),
            trusted=known is not None and known.utc_s is not None,
        )


_BOOT = re.compile(r"boot\d{4,}\Z", re.ASCII)
_FOUR, _TWO = re.compile(r"\d{4}\Z", re.ASCII), re.compile(r"\d{2}\Z", re.ASCII)


def days(root: int, recorder: str) -> Iterator[str]:
    """Day and boot folders in the order of recording, as far as names tell."""
    for year in _names(root, recorder, _FOUR):
        for month in _names(root, f"{recorder}/{year}", _TWO):
            for day in _names(root, f"{recorder}/{year}/{month}", _TWO):
                yield f"{year}/{month}/{day}"
    yield from _names(root, recorder, _BOOT)


def _newest(root: int, recorder: str) -> list[str]:
    found: list[str] = []
    years = _names(root, recorder, _FOUR)
    if years:
        months = _names(root, f"{recorder}/{years[-1]}", _TWO)
        if months:
            days = _names(root, f"{recorder}/{years[-1]}/{months[-1]}", _TWO)
            found += [f"{years[-1]}/{months[-1]}/{day}" for day in days[-2:]]
    return found + _names(root, recorder, _BOOT)[-1:]


def _names(root: int, relative: str, pattern: re.Pattern[str]) -> list[str]:
    try:
        with files.closing_fd(files.open_folder(root, relative)) as folder, os.scandir(folder) as entries:
            names = [e.name for e in entries if pattern.match(e.name) and e.is_dir(follow_symlinks=False)]
    except OSError as exc:
        if not relative:  # without the root there is nothing
            raise
        if not isinstance(exc, FileNotFoundError):
            _skip(relative, exc)
        return []
    return sorted(names, key=lambda name: (len(name), name))


def _lost_s(
    entry: OpenEntry, duration_s: float, kept: int, size: int, written_ns: int, sync_interval_s: float
) -> float:
    """An estimate of what was recorded and is not in the file: up to the last write, or by what was cut off."""
    by_bytes = (size - kept) * duration_s / kept if kept else 0.0
    by_time = (written_ns - entry.started_ns) / NS - duration_s
    plausible = by_bytes <= by_time <= sync_interval_s + _MARGIN_S
    return round(by_time if plausible else by_bytes, 3)
