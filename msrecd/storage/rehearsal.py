"""What a recovery would do, without doing it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msrecd.errors import StorageError
from msrecd.storage import files, fragments, layout, recovery
from msrecd.storage.journal import Journal, OpenEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A chunk that a crash left; `file`: its final name; `kept_bytes`: 0 when nothing of it can be played."""

    file: str
    bytes: int
    kept_bytes: int
    duration_s: float


def rehearse(path: Path, state_path: Path) -> list[Unfinished]:
    """The chunks that a recovery would finish or delete, in the order of their names. Blocking.

    Raises:
        StorageError: `locked`: a daemon records here, and what is unfinished is being written; or it cannot be read.
    """
    found: dict[str, Unfinished] = {}
    with _locked(state_path), files.storage_errors(f"read {path}"), files.closing_fd(files.open_root(path)) as root:
        for entry in _entries(root, state_path):
            unfinished = _look(root, entry)
            if unfinished is not None:
                found[entry.file] = unfinished
    return [found[file] for file in sorted(found)]


def _entries(root: int, state_path: Path) -> Iterator[OpenEntry]:
    for recording in Journal(state_path).read_all():
        yield from recording.chunks
    yield from recovery.stray_parts(root, everywhere=True)


def _look(root: int, entry: OpenEntry) -> Unfinished | None:
    split = layout.split_file(entry.file)
    parsed = layout.parse_chunk_name(split[2]) if split is not None else None
    if split is None or parsed is None:
        return None
    try:
        with (
            files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder,
            os.fdopen(files.open_file(folder, parsed.final + layout.PART), "rb") as file,
        ):
            size = os.fstat(file.fileno()).st_size
            scanned = fragments.scan(file, size, parsed.extension)
    except FileNotFoundError:
        return None  # finished, or gone
    return Unfinished(file=entry.file, bytes=size, kept_bytes=scanned.cut, duration_s=scanned.duration_s)


@contextmanager
def _locked(state_path: Path) -> Iterator[None]:
    """Hold the lock of the state while looking, if there is a state."""
    try:
        fd = os.open(state_path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    except OSError as exc:
        raise files.storage_error(exc, f"lock the state directory {state_path}") from exc
    with files.closing_fd(fd):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StorageError(f"another msrecd uses {state_path}", "locked") from exc
        yield
