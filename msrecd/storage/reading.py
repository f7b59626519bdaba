"""Finished chunks and manifests for reading, named by recording and seq only: what a client of the network may name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msrecd.errors import StorageError
from msrecd.storage import files, layout, tree
from msrecd.storage.manifest import ManifestContents, ManifestLine
from msrecd.storage.store import Store


@dataclass(frozen=True, slots=True)
class OpenedChunk:
    """A chunk file open for reading; `fd` is the caller's within `open_chunk`."""

    fd: int
    bytes: int
    line: ManifestLine


def manifest_of(store: Store, recording_id: str) -> ManifestContents:
    """What the manifest of a recording says. Blocking.

    Raises:
        StorageError: `not_found`; or it cannot be read.
    """
    return _manifest(store, recording_id)[1]


def manifest_file(store: Store, recording_id: str) -> str:
    """Where the manifest lies, relative to the root.

    Raises:
        StorageError: `not_found`.
    """
    place = store.index.manifest_of(recording_id) if layout.parse_recording_id(recording_id) else None
    if place is None:
        raise StorageError("there is no such recording", "not_found")
    return place


@contextmanager
def open_chunk(store: Store, recording_id: str, seq: int) -> Iterator[OpenedChunk]:
    """A finished chunk, looked up in the index and the manifest; rotation leaves it alone meanwhile. Blocking.

    The file is opened below the root without following links; its name is the manifest's, never the caller's.

    Raises:
        StorageError: `not_found`: there is no such recording or chunk (any more); or it cannot be read.
    """
    with store.lease(recording_id, seq):
        root_name, contents = _manifest(store, recording_id)
        line = next((line for line in contents.chunks if line["seq"] == seq), None)
        split = layout.split_file(line["file"]) if line is not None else None
        if line is None or split is None:
            raise StorageError(f"{root_name} has no such chunk", "not_found")
        recorder, day, name = split
        try:
            with (
                files.closing_fd(store.root.open_root()) as root,
                files.closing_fd(files.open_folder(root, f"{recorder}/{day}")) as folder,
            ):
                fd = files.open_file(folder, name)
        except FileNotFoundError as exc:
            raise StorageError("this chunk is not there any more", "not_found") from exc
        except OSError as exc:
            raise files.storage_error(exc, "read a chunk") from exc
        with files.closing_fd(fd):
            yield OpenedChunk(fd, os.fstat(fd).st_size, line)


def _manifest(store: Store, recording_id: str) -> tuple[str, ManifestContents]:
    place = manifest_file(store, recording_id)
    try:
        with files.closing_fd(store.root.open_root()) as root:
            return recording_id, tree.read_manifest(root, place)
    except FileNotFoundError as exc:
        raise StorageError("there is no such recording", "not_found") from exc
    except OSError as exc:
        raise files.storage_error(exc, "read a manifest") from exc
