"""The folders of a storage: day and boot folders of each recorder, and what of ours lies in them.

One folder that may not be read, or is none of ours, affects no other: it is skipped, which is logged once.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

from msrecd.storage import files, layout, manifest
from msrecd.vocabulary.names import NAME_PATTERN

log = logging.getLogger(__name__)

_MAX_SKIPPED = 1000
_skipped: set[str] = set()


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
        skip(relative, exc)
        return []


def skip(relative: str, exc: OSError) -> None:
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


def manifest_entries(root: int, file: str) -> Iterator[tuple[int, manifest.Said | None, manifest.Fault | None]]:
    """The lines of a manifest, one at a time (manifest.entries).

    Raises:
        OSError: it cannot be read.
    """
    split = layout.split_file(file)
    if split is None:
        raise FileNotFoundError(file)
    with files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder:
        opened = files.open_file(folder, split[2])
    with os.fdopen(opened, "rb") as lines:
        yield from manifest.entries(lines)


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
            skip(relative, exc)
        return []
    return sorted(names, key=lambda name: (len(name), name))


def recorders(root: int) -> list[str]:
    """Folders that can be a recorder's."""
    return _names(root, "", NAME_PATTERN)


def newest_days(root: int, recorder: str) -> list[str]:
    return _newest(root, recorder)


def highest_boot(root: int) -> int:
    """The highest number of a boot in whose folder something was recorded; 0: none."""
    numbers = [int(day[4:]) for recorder in recorders(root) for day in _names(root, recorder, _BOOT) if len(day) < 11]
    return max(numbers, default=0)


def has_recording(root: int, recording_id: str) -> bool:
    """Whether there is a manifest or an open chunk of it."""
    known = layout.parse_recording_id(recording_id)
    if known is None:
        return False
    return any(
        name.startswith((f"{recording_id}.", f"{recording_id}-"))
        for day in days(root, known.recorder)
        for name in names_in(root, f"{known.recorder}/{day}")
    )
