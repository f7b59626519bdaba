"""Ground: where recordings and state lie, and what must work there on a full disk. Any thread may call anything."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from msrecd.clock import Clock
from msrecd.clock.wall import WallTime
from msrecd.errors import StorageError
from msrecd.storage import checks, files, manifest
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

RESERVE_BYTES = 1 << 20
RESERVE = ".msrecd-reserve"
_PROBE = ".msrecd-probe"


class Ground:
    """The folder of the recordings and that of the state, with the clocks that name things in them."""

    def __init__(self, path: Path, state_path: Path, *, walltime: WallTime, clock: Clock) -> None:
        self.path = path
        self.state_path = state_path
        self.walltime = walltime
        self.clock = clock

    def open_root(self) -> int:
        """A descriptor of the recordings' folder; the caller closes it.

        Raises:
            OSError: the folder is not there.
        """
        return files.open_root(self.path)

    def status(self) -> os.statvfs_result:
        """
        Raises:
            StorageError: the file system does not answer.
        """
        with files.storage_errors(f"look at {self.path}"):
            return os.statvfs(self.path)

    def is_protected(self, recording_id: str) -> bool:
        return (self.state_path / "protected" / recording_id).exists()

    # --- the reserve ---

    def release_reserve(self) -> None:
        """Give back the kept space, so that what is open can be finished on a full disk."""
        with contextlib.suppress(OSError):
            (self.path / RESERVE).unlink(missing_ok=True)

    def with_reserve(self, doing: str, action: Callable[[], None]) -> None:
        """Do something small that must succeed on a full disk.

        Raises:
            StorageError: it failed, with the reserve as well.
        """
        try:
            action()
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise files.storage_error(exc, doing) from exc
            self.release_reserve()
            with files.storage_errors(doing):
                action()

    def ensure_reserve(self) -> None:
        """Keep the space again once there is enough of it."""
        try:
            status = os.statvfs(self.path)
            if (self.path / RESERVE).exists() or status.f_bavail * status.f_frsize < 4 * RESERVE_BYTES:
                return
            with files.closing_fd(self.open_root()) as root:
                fd = files.open_file(root, RESERVE, os.O_WRONLY | os.O_CREAT)
                with files.closing_fd(fd):
                    os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError as exc:
            log.info("no reserve can be kept in %s: %s", self.path, exc)

    def probe(self) -> None:
        """Write a small file, sync it and remove it: whether the storage takes anything, as free space does not tell.

        Raises:
            StorageError: it does not.
        """
        with files.storage_errors(f"write into {self.path}"), files.closing_fd(self.open_root()) as root:
            try:
                with files.closing_fd(files.open_file(root, _PROBE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)) as fd:
                    files.write_all(fd, [bytes(4096)])
                    os.fsync(fd)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_PROBE, dir_fd=root)

    # --- manifests ---

    def append_line(self, root: int, place: str, values: Mapping[str, object]) -> None:
        """Append to a manifest, with the reserve if need be.

        Raises:
            StorageError: the line is not there.
        """
        folder_name, _, name = place.rpartition("/")

        def action() -> None:
            with files.closing_fd(files.open_folder(root, folder_name, create=True)) as folder:
                manifest.append(folder, name, values)

        self.with_reserve(f"write {place}", action)

    def append_deletion(self, root: int, place: str, seq: int, reason: str) -> None:
        """
        Raises:
            StorageError: the line is not there.
        """
        at = format_utc(self.walltime.now_ns())
        self.append_line(root, place, {"deleted": seq, "at": at, "reason": reason})

    # --- the medium ---

    def check_mount(self, *, create: bool) -> None:
        """Refuse to record into the bare mount point of a medium that is away.

        Raises:
            StorageError: `missing_mount`: where a medium was, there is none now; `unsafe_path`: a symbolic link.
        """
        note = self.state_path / "storage.json"
        try:
            known = json.loads(note.read_bytes())
            was_mounted = bool(known["mounted"]) and known["path"] == str(self.path)
        except (OSError, ValueError, KeyError, TypeError):
            was_mounted = False
        if was_mounted and not checks.is_mount_point(self.path):
            raise StorageError(
                f"nothing is mounted at {self.path}, where the recordings' medium was; mount it, or remove {note}",
                "missing_mount",
            )
        if not create:
            if not self.path.is_dir():
                raise StorageError(f"the folder {self.path} is not there", "not_found")
            return
        with files.storage_errors(f"use the folder {self.path}"):
            self.path.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
            if self.path.resolve() != self.path.absolute():
                raise StorageError(f"storage.path: {self.path} leads through a symbolic link", "unsafe_path")
            mounted = checks.is_mount_point(self.path)
            with files.closing_fd(files.open_root(self.state_path)) as state:
                files.replace_file(state, note.name, json.dumps({"path": str(self.path), "mounted": mounted}).encode())
