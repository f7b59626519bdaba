"""One chunk file from its creation as `.part` to its final name."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence

from msrecd.clock import NS, Clock
from msrecd.storage import files
from msrecd.storage.finishing import complete
from msrecd.storage.layout import PART

log = logging.getLogger(__name__)


class ChunkFile:
    """A `.part` file that grows. One thread at a time; `finish`, `keep` or `discard` ends it.

    Attributes:
        size: bytes of whole writes.
        failed: a write failed; the file holds what was whole before.
        sync_s_max: the longest fdatasync so far.
    """

    def __init__(self, folder: int, name: str, *, sync_interval_s: float, clock: Clock) -> None:
        """Create `name`.part.

        Args:
            folder: descriptor of its folder; the file takes it over.
            name: final name.

        Raises:
            OSError: it exists, or cannot be created. The folder is closed then.
        """
        self.name = name
        self.size = 0
        self.failed = False
        self.sync_s_max = 0.0
        self._clock = clock
        self._sync_interval_ns = round(sync_interval_s * NS)
        self._hash = hashlib.sha256()
        self._folder = folder
        self._unsynced_since_ns: int | None = None
        self._is_in_folder = False
        self._last_write_ns: int | None = None
        try:
            self._fd = files.open_file(folder, name + PART, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError:
            os.close(folder)
            raise
        files.claim(self._fd)  # a start that finds it on this medium leaves it alone

    def write(self, parts: Sequence[bytes]) -> None:
        """Append; after a failure the file ends with the last whole write.

        Raises:
            StorageError: nothing of `parts` is in the file.
        """
        now_ns = self._clock.monotonic_ns()
        if self._unsynced_since_ns is None:  # before the write, which may hang as well
            self._unsynced_since_ns = now_ns
        try:
            self.size += files.write_all(self._fd, parts)
        except OSError as exc:
            self._take_back()
            raise files.storage_error(exc, f"write {self.name}{PART}") from exc
        for part in parts:
            self._hash.update(part)
        # The next write comes about as late as this one came; what would be too old by then is synced now.
        pause_ns = 0 if self._last_write_ns is None else now_ns - self._last_write_ns
        self._last_write_ns = now_ns
        if now_ns + pause_ns - self._unsynced_since_ns >= self._sync_interval_ns:
            self.sync()

    def let_go(self) -> None:
        """Leave it to the next start."""
        if self._fd >= 0:
            files.unclaim(self._fd)

    def sync(self) -> None:
        """Put what is written onto the disk.

        Raises:
            StorageError: it may not be there.
        """
        if self._unsynced_since_ns is None:
            return
        with files.storage_errors(f"sync {self.name}{PART}"), self._measured():
            os.fdatasync(self._fd)
            if not self._is_in_folder:  # a long name on FAT lies in more than the entry that belongs to the file
                os.fsync(self._folder)
                self._is_in_folder = True
        self._unsynced_since_ns = None

    @property
    def unsynced_s(self) -> float:
        """For how long data has been waiting to be on the disk; 0.0: all of it is. Any thread."""
        since_ns = self._unsynced_since_ns
        return 0.0 if since_ns is None else max(0.0, (self._clock.monotonic_ns() - since_ns) / NS)

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        """Measure a sync, also one that fails."""
        begun_ns = self._clock.monotonic_ns()
        try:
            yield
        finally:
            self.sync_s_max = max(self.sync_s_max, (self._clock.monotonic_ns() - begun_ns) / NS)

    @property
    def fd(self) -> int:
        """For reading what is there."""
        return self._fd

    def cut(self, size: int) -> None:
        """Shorten to `size` bytes; the hash is computed again.

        Raises:
            OSError: the file is as it was.
        """
        os.ftruncate(self._fd, size)
        self.size = size
        os.lseek(self._fd, size, os.SEEK_SET)
        self._hash = hash_prefix(self._fd, size)
        self._unsynced_since_ns = 0

    def finish(self, reopen: Callable[[], int]) -> str:
        """Sync, give the final name, sync the folder; returns the sha256. May be tried again after a failure.

        Args:
            reopen: a descriptor of its folder, which is made anew where it is gone.

        Raises:
            OSError: it is still the `.part` (or already has its name, when only the folder's sync failed).
        """
        self.size, is_changed = complete(self._fd, self.size, self.name)
        if is_changed:
            self._hash = hash_prefix(self._fd, self.size)
        if self._unsynced_since_ns is None:
            self._unsynced_since_ns = self._clock.monotonic_ns()
        with self._measured():
            os.fsync(self._fd)
            os.fsync(self._folder)
        if files.exists(self._folder, self.name + PART):
            files.rename_new(self._folder, self.name + PART, self.name)
        elif not files.exists(self._folder, self.name):
            self._write_again(reopen())
            files.rename_new(self._folder, self.name + PART, self.name)
        os.fsync(self._fd)  # FAT notes length and place under the new name only when the file is synced again
        os.fsync(self._folder)
        self._unsynced_since_ns = None
        return self._hash.hexdigest()

    def _write_again(self, folder: int) -> None:
        """Another program has removed the `.part`, or its whole folder: what is still open here is copied.

        Raises:
            OSError: it could not be; nothing has changed.
        """
        fd = -1
        try:
            fd = files.open_file(folder, self.name + PART, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            files.claim(fd)
            for at in range(0, self.size, 1 << 20):
                files.write_all(fd, [os.pread(self._fd, min(1 << 20, self.size - at), at)])
            os.fsync(fd)
            os.fsync(folder)
        except OSError:
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.unlink(self.name + PART, dir_fd=folder)
                os.close(fd)
            os.close(folder)
            raise
        for old in (self._fd, self._folder):
            os.close(old)
        self._fd, self._folder = fd, folder
        log.warning("%s%s was removed by another program; it has been written again", self.name, PART)

    def close(self) -> None:
        """Let go of the file as it is; an error of the close is logged: all has been synced, or is a `.part`."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # it was synced; its pages would push out those that are needed
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for fd in (self._fd, self._folder):
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError as exc:
                    log.warning("closing %s: %s", self.name, exc)
        self._fd = self._folder = -1

    def discard(self) -> None:
        """Remove the `.part` and close.

        Raises:
            OSError: it is still there; the file is closed all the same.
        """
        try:
            os.unlink(self.name + PART, dir_fd=self._folder)
        finally:
            self.close()

    def _take_back(self) -> None:
        self.failed = True
        try:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
        except OSError as exc:  # finishing cuts at the last whole fragment in any case
            log.warning("%s%s cannot be cut back to its last whole write: %s", self.name, PART, exc)


def hash_prefix(fd: int, size: int) -> hashlib._Hash:
    """SHA-256 of the first `size` bytes.

    Raises:
        OSError: they cannot be read.
    """
    digest = hashlib.sha256()
    at = 0
    while at < size:
        block = os.pread(fd, min(1 << 20, size - at), at)
        if not block:
            break
        digest.update(block)
        at += len(block)
    return digest
