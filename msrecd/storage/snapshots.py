"""Snapshots: JPEG and DNG files beside the chunks, each with its line in the manifest. Everything here blocks.

The line is written before the file has its name: after a power cut in between, a start finds the `.part` that the
line speaks of, and gives it its name. So there is no snapshot that no manifest knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from msrecd.clock.wall import Stamp
from msrecd.storage import files, layout, tree
from msrecd.storage.listing import Listing
from msrecd.storage.manifest_lines import SnapshotLine
from msrecd.storage.recording import Place, Recording
from msrecd.storage.root import StorageRoot
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

_EXTENSIONS = {"image/jpeg": "jpg", "image/x-adobe-dng": "dng"}
_LARGEST_BYTES = 256 << 20  # 64 megapixels of 16 bits are half of it


class Albums:
    """The snapshots of idle recorders: one recording id for each recorder and day. One thread at a time."""

    def __init__(self, draw: Callable[[str], str]) -> None:
        """
        Args:
            draw: a new recording id for a recorder.
        """
        self._draw = draw
        self._open: dict[str, tuple[str, Place]] = {}  # by recorder: the medium, and where its last one lies

    def next(self, recorder: str, stamp: Stamp, medium_id: str) -> Place:
        """Where the next one goes.

        Raises:
            StorageError, ValueError: see Names.draw.
        """
        folder = f"{recorder}/{layout.day_folder(stamp)}"
        medium, last = self._open.get(recorder, ("", None))
        if last is None or medium != medium_id or last.folder != folder:
            id_ = self._draw(recorder)
            manifest = f"{folder}/{layout.manifest_name(id_)}"
            place = Place(recording_id=id_, folder=folder, manifest=manifest, number=1)
        else:
            place = Place(recording_id=last.recording_id, folder=folder, manifest=last.manifest, number=last.number + 1)
        self._open[recorder] = (medium_id, place)
        return place

    def has(self, recording_id: str) -> bool:
        """Whether more may be added to it."""
        return any(place.recording_id == recording_id for _, place in self._open.values())


@dataclass(frozen=True, slots=True)
class Written:
    """A snapshot that is on the disk."""

    recording_id: str
    line: SnapshotLine


def write(
    root: StorageRoot, listing: Listing, recording: Recording | Place, data: bytes, mime_type: str, stamp: Stamp
) -> Written:
    """Put a file on the disk, with its line.

    Args:
        recording: of the recorder, while it records; else the place that `Albums` has given.
        stamp: when it was taken.

    Raises:
        StorageError: it is not there.
    """
    place = recording.place_snapshot(stamp) if isinstance(recording, Recording) else recording
    name = layout.snapshot_name(place.recording_id, place.number, _EXTENSIONS[mime_type])
    line = SnapshotLine(
        snapshot=place.number,
        file=f"{place.folder}/{name}",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        mime_type=mime_type,
        taken=format_utc(stamp.utc_ns),
        clock=stamp.clock,
    )
    if not stamp.trusted:
        line = {**line, "boot_id": stamp.boot_id}
    with (
        files.storage_errors(f"write {line['file']}"),
        files.closing_fd(root.open_root()) as top,
        files.closing_fd(files.open_folder(top, place.folder, create=True)) as folder,
    ):
        part = name + layout.PART
        try:
            with files.closing_fd(files.open_file(folder, part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)) as fd:
                files.write_all(fd, [data])
                os.fsync(fd)
            os.fsync(folder)
            root.append_line(top, place.manifest, dict(line))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=folder)
            raise
        files.rename_new(folder, part, name)
        os.fsync(folder)
    recorder = place.folder.partition("/")[0]
    listing.add_snapshot(recorder, place.recording_id, place.manifest, line)
    return Written(place.recording_id, line)


def recover(root: StorageRoot) -> None:
    """Name or remove what a power cut left unnamed in the newest folders; before the index is opened.

    Raises:
        StorageError: the storage cannot be read.
    """
    with files.storage_errors(f"recover {root.path}"), files.closing_fd(root.open_root()) as top:
        for recorder in tree.recorders(top):
            for day in tree.newest_days(top, recorder):
                at = f"{recorder}/{day}"
                for name in tree.names_in(top, at):
                    if name.endswith(layout.PART):
                        _recover(top, at, name)


def _recover(top: int, at: str, part: str) -> None:
    name = part.removesuffix(layout.PART)
    known = layout.parse_snapshot_name(name)
    if known is None:
        return
    recording_id, number = known
    try:
        place = tree.find_manifest(top, at.partition("/")[0], recording_id)
        lines = tree.read_manifest(top, place).snapshots if place is not None else ()
        listed = next((line for line in lines if line["snapshot"] == number), None)
        with files.closing_fd(files.open_folder(top, at)) as folder:
            data = files.read_at(folder, part, _LARGEST_BYTES) if listed is not None else b""
            if listed is not None and hashlib.sha256(data).hexdigest() == listed["sha256"]:
                files.rename_new(folder, part, name)
            else:
                os.unlink(part, dir_fd=folder)
            os.fsync(folder)
    except OSError as exc:
        log.warning("%s/%s cannot be recovered: %s", at, part, exc)
