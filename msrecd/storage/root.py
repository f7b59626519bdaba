"""StorageRoot: where recordings and state lie, on which medium, and what must work there on a full disk.

Any thread may call anything.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msrecd.clock import Clock
from msrecd.clock.wall import WallTime
from msrecd.errors import StorageError
from msrecd.storage import files, manifest
from msrecd.storage.medium import FOLDER, Medium, open_medium
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

RESERVE_BYTES = 1 << 20
RESERVE = ".msrecd-reserve"
_PROBE = ".msrecd-probe"
_PROTECTED = f"{FOLDER}/protected"
Ranges = Sequence[tuple[int, int]]
ALL_CHUNKS: Ranges = ((1, 1 << 31),)


class StorageRoot:
    """The folder of the recordings, the medium that lies there, that of the state, and the clocks that name things."""

    def __init__(self, path: Path, state_path: Path, *, walltime: WallTime, clock: Clock) -> None:
        self.path = path
        self.state_path = state_path
        self.walltime = walltime
        self.clock = clock
        self.on_change: Callable[[Medium], None] = lambda _: None
        self._medium: Medium | None = None
        self._lock = threading.RLock()

    # --- the medium ---

    @property
    def medium(self) -> Medium:
        """
        Raises:
            StorageError: none has been opened.
        """
        if self._medium is None:
            raise StorageError("the store is not open")
        return self._medium

    def open(self, *, create: bool) -> Medium:
        """See `open_medium`; it replaces the one before.

        Raises:
            StorageError: `missing_mount`, `not_found`, …
        """
        with self._lock:
            before, self._medium = self._medium, open_medium(self.path, self.state_path, create=create)
            if before is not None:
                before.close()
            return self._medium

    def close(self) -> None:
        with self._lock:
            if self._medium is not None:
                self._medium.close()
                self._medium = None

    def check(self) -> Medium:
        """The medium, if it is still the one at the path; else the one that is there now, once `on_change` has it.

        Raises:
            StorageError: `missing_mount`: there is none; `not_found`.
        """
        medium = self._medium
        if medium is None or self._place() == medium.place:
            return self.medium
        with self._lock:
            medium = self.medium
            if self._place() != medium.place:
                opened = open_medium(self.path, self.state_path, create=True)
                try:
                    if opened.id != medium.id:
                        opened.lock()
                    else:
                        log.info("the medium at %s was mounted again", self.path)
                except BaseException:
                    opened.close()
                    raise
                self._medium = opened
                medium.close()
                if opened.id == medium.id:
                    opened.lock()
                self.on_change(opened)
            return self.medium

    def _place(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def open_root(self) -> int:
        """A descriptor of the medium's folder; the caller closes it.

        Raises:
            OSError: there is none.
        """
        with self._lock:
            if self._medium is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
            if self._medium.fd < 0:
                self._medium.reopen()
            return os.dup(self._medium.fd)

    def release(self) -> None:
        """Hold no descriptor of a medium that fails, so that it can be unmounted; it is taken up again when needed."""
        with self._lock:
            if self._medium is not None:
                self._medium.close()

    def status(self) -> os.statvfs_result:
        """
        Raises:
            StorageError: the medium is not there, or its file system does not answer.
        """
        self.check()
        with files.storage_errors(f"look at {self.path}"), files.closing_fd(self.open_root()) as root:
            return os.fstatvfs(root)

    # --- protection: a file for each recording, with the ranges of chunks that are kept; empty: all of it ---

    def protected_ranges(self, recording_id: str) -> Ranges | None:
        """Inclusive ranges of seq; None: nothing of it is protected."""
        try:
            with files.closing_fd(self.open_root()) as root:
                return protected_ranges(root, recording_id)
        except OSError:
            return ALL_CHUNKS  # it cannot be read, so it is not deleted

    def is_protected(self, recording_id: str, seq: int) -> bool:
        """Whether a chunk is; a snapshot (seq below zero), whether anything of its recording is."""
        ranges = self.protected_ranges(recording_id)
        return bool(ranges) and (seq < 0 or any(low <= seq <= high for low, high in ranges or ()))

    def protect(self, recording_id: str, ranges: Ranges | None) -> None:
        """Write down what of a recording is protected; None: nothing.

        Raises:
            OSError: it is as it was.
        """
        with (
            files.closing_fd(self.open_root()) as root,
            files.closing_fd(files.open_folder(root, _PROTECTED, create=True)) as folder,
        ):
            if ranges is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(recording_id, dir_fd=folder)
                os.fsync(folder)
                return
            is_whole = any(low <= 1 and high >= ALL_CHUNKS[0][1] for low, high in ranges)
            data = b"" if is_whole else json.dumps({"chunks": [list(pair) for pair in ranges]}).encode()
            files.replace_file(folder, recording_id, data)

    # --- the reserve ---

    def release_reserve(self) -> None:
        """Give back the kept space, so that what is open can be finished on a full disk."""
        with contextlib.suppress(OSError), files.closing_fd(self.open_root()) as root:
            os.unlink(RESERVE, dir_fd=root)

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
            with files.closing_fd(self.open_root()) as root:
                status = os.fstatvfs(root)
                if files.exists(root, RESERVE) or status.f_bavail * status.f_frsize < 4 * RESERVE_BYTES:
                    return
                fd = files.open_file(root, RESERVE, os.O_WRONLY | os.O_CREAT)
                with files.closing_fd(fd):
                    os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError as exc:
            log.info("no reserve can be kept in %s: %s", self.path, exc)

    def probe(self, folder_name: str = "") -> None:
        """Write a small file, sync it and remove it: whether the storage takes anything, as free space does not tell.

        Args:
            folder_name: where, below the root; made if it is not there.

        Raises:
            StorageError: it does not.
        """
        where = self.path / folder_name
        with (
            files.storage_errors(f"write into {where}"),
            files.closing_fd(self.open_root()) as root,
            files.closing_fd(files.open_folder(root, folder_name, create=True)) as folder,
        ):
            try:
                with files.closing_fd(files.open_file(folder, _PROBE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)) as fd:
                    files.write_all(fd, [bytes(4096)])
                    os.fsync(fd)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_PROBE, dir_fd=folder)

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
        Args:
            seq: below zero: that of a snapshot.

        Raises:
            StorageError: the line is not there.
        """
        at = format_utc(self.walltime.now_ns())
        kind = {"kind": "snapshot"} if seq < 0 else {}
        self.append_line(root, place, {"deleted": abs(seq), **kind, "at": at, "reason": reason})


def protected_ranges(root: int, recording_id: str) -> Ranges | None:
    """Which chunks of a recording are protected on a medium, as inclusive ranges of seq; None: none.

    What cannot be read protects all of it.
    """
    try:
        with files.closing_fd(files.open_folder(root, _PROTECTED)) as folder:
            data = files.read_at(folder, recording_id)
    except FileNotFoundError:
        return None
    except OSError:
        return ALL_CHUNKS
    if not data.strip():
        return ALL_CHUNKS
    try:
        return [(int(low), int(high)) for low, high in json.loads(data)["chunks"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return ALL_CHUNKS
