"""The file system below one root folder, by directory descriptors; its errors as StorageError.

No symbolic link is followed below the root, nothing is overwritten, and what has been created survives a power cut
once the function has returned.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from msrecd.errors import StorageError

FILE_MODE = 0o640
FOLDER_MODE = 0o750
SMALL_FILE_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = _READ | os.O_DIRECTORY
_IOV_MAX = 1024
_RENAME_NOREPLACE = 1
_KINDS = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISSOCK, "socket"),
)
_LOCKS = Path("/proc/locks")

_CODES = {
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EROFS: "read_only",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EFBIG: "too_large",
    errno.EEXIST: "exists",
    errno.ELOOP: "unsafe_path",
    errno.ENOTDIR: "unsafe_path",
    errno.ENODEV: "missing_mount",
    errno.ENXIO: "missing_mount",
    errno.ENOTCONN: "missing_mount",
    errno.ESTALE: "missing_mount",
    errno.ENOENT: "not_found",
}
_ADVICE = {
    "no_space": "; free some space or lower the limits of [storage]",
    "read_only": "; the file system is read-only: look for errors in the kernel's log and remount it",
    "io_error": "; the medium may be failing: look at the kernel's log",
    "missing_mount": "; connect and mount the medium",
    "permission": "; let the service's user write there",
    "read_permission": "; let the user who runs this read there",
    "too_large": "; the file system allows no larger files: lower chunk_max_size",
    "unsafe_path": "; move it away: the storage holds folders and regular files only, no links",
}

_READING = ("read", "look")  # first words of what was tried


def storage_error(exc: OSError, doing: str) -> StorageError:
    """The error to raise `from exc`; `doing` says what was tried with which file."""
    code = _CODES.get(exc.errno or 0, "io_error")
    is_reading = code == "permission" and doing.partition(" ")[0] in _READING
    advice = _ADVICE.get("read_permission" if is_reading else code, "")
    return StorageError(f"cannot {doing}: {exc.strerror or exc}{advice}", code)


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn OSErrors inside into StorageErrors."""
    try:
        yield
    except OSError as exc:
        raise storage_error(exc, doing) from exc


@contextlib.contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def require_no_file(path: Path) -> None:
    """Make sure that a folder is at `path`, or can be made there.

    Raises:
        StorageError: `exists`: a file, or a link to nothing, is there or in the place of a folder above it.
    """
    for at in (path, *path.parents):
        try:
            is_folder = stat.S_ISDIR(at.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            if at.is_symlink():
                what = f"{at} is a link to a place that is not there; mount that, or name another folder"
                raise StorageError(f"{path} cannot be a folder: {what}", "exists") from None
            continue
        except OSError:
            return  # opening it says why
        if is_folder:
            return
        what = f"{at} is a file; move it away, or name another folder"
        raise StorageError(f"{path} cannot be a folder: {what}", "exists")


def open_root(path: Path) -> int:
    """A descriptor of the root folder itself."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_folder(root: int, relative: str, *, create: bool = False) -> int:
    """A descriptor of a folder below `root`, made step by step when asked; the caller closes it."""
    at = os.dup(root)
    try:
        parts = relative.split("/") if relative else []
        for number, name in enumerate(parts, 1):
            if name in ("", ".", ".."):
                raise OSError(errno.ELOOP, "unsafe path", relative)
            try:
                below = os.open(name, _FOLDER, dir_fd=at)
            except FileNotFoundError:
                if not create:
                    raise
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, FOLDER_MODE, dir_fd=at)
                    os.fsync(at)
                below = os.open(name, _FOLDER, dir_fd=at)
            except OSError as exc:
                where = "/".join(parts[:number])
                if exc.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise OSError(exc.errno, f"{where} is a file or a link, and no folder") from exc
                raise OSError(exc.errno, f"{where}: {exc.strerror}") from exc
            os.close(at)
            at = below
    except BaseException:
        os.close(at)
        raise
    return at


def open_file(folder: int, name: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file in `folder`.

    Raises:
        OSError: also for a symbolic link, a pipe, a device, a socket or a folder, none of which is opened.
    """
    with contextlib.suppress(FileNotFoundError):  # to open a pipe may block, to open a device may start it
        _require_regular(os.stat(name, dir_fd=folder, follow_symlinks=False), name)
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE, dir_fd=folder)
    try:
        _require_regular(os.fstat(fd), name)  # it may have been replaced since
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((word for test, word in _KINDS if test(status.st_mode)), "special file")
        raise OSError(errno.ELOOP, f"a {kind}, not a regular file", name)


def size_without_holes(fd: int) -> int:
    """Where a file ends, or where its first hole begins: what is written here has none, and a file of a few kilobytes
    can claim terabytes that take hours to read.

    Raises:
        OSError: it cannot be read.
    """
    size = os.fstat(fd).st_size
    try:
        hole = os.lseek(fd, 0, os.SEEK_HOLE) if size else 0
    except OSError:  # a file system that does not know
        return size
    os.lseek(fd, 0, os.SEEK_SET)
    return min(size, hole)


def claim(fd: int) -> bool:
    """Mark an open file as being written, until it is closed; False: it is, by another descriptor or process.

    Where the file system has no locks, nothing is known of others: True.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def unclaim(fd: int) -> None:
    """Take back `claim`."""
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)


def write_all(fd: int, parts: Sequence[bytes]) -> int:
    """Write all of `parts` at the file's position; returns the bytes."""
    views = [memoryview(part) for part in parts if len(part)]
    total = sum(map(len, views))
    left = total
    while left:
        written = os.writev(fd, views[:_IOV_MAX])
        if written <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        left -= written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
    return total


def rename_new(folder: int, old: str, new: str) -> None:
    """Give a file its name in one step; never replaces another (FileExistsError)."""
    result = _renameat2(folder, os.fsencode(old), folder, os.fsencode(new))
    if result == 0:
        return
    if result not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(result, os.strerror(result), new)
    # This file system cannot refuse to replace. A link does; where there are no links (old FAT drivers) look first:
    # names are drawn by one process and never twice.
    try:
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.unlink(old, dir_fd=folder)
    except FileExistsError:
        raise
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if exists(folder, new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from exc
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)


def exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def replace_file(folder: int, name: str, data: bytes) -> None:
    """Put a small file into place as a whole, over an older one."""
    temporary = f"{name}.tmp"
    with closing_fd(open_file(folder, temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)) as fd:
        write_all(fd, [data])
        os.fsync(fd)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(fd)  # FAT notes length and place under the new name only then
    os.fsync(folder)


def read_at(folder: int, name: str, limit: int = SMALL_FILE_BYTES) -> bytes:
    """All of a regular file.

    Raises:
        OSError: it is no regular file, or larger than `limit`.
    """
    with open(open_file(folder, name), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
    return data


def read_path(path: Path, limit: int = SMALL_FILE_BYTES) -> bytes:
    """All of a small regular file of the state, likewise."""
    with closing_fd(open_root(path.parent)) as folder:
        return read_at(folder, path.name, limit)


def remove_empty_folders(root: int, relative: str) -> None:
    """Remove a folder below `root` and those above it, as far as they are empty."""
    while relative:
        above, _, name = relative.rpartition("/")
        try:
            with closing_fd(open_folder(root, above)) as folder:
                os.rmdir(name, dir_fd=folder)
        except OSError:
            return
        relative = above


def is_locked(path: Path, locks: Path = _LOCKS) -> bool:
    """Whether a process holds the lock on a file. Taking it to find out could keep a daemon from starting."""
    try:
        status = path.stat()
        lines = locks.read_text("ascii").splitlines()
    except OSError:
        return False
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(" FLOCK " in line and place in line.split() for line in lines)


def _renameat2(old_folder: int, old: bytes, new_folder: int, new: bytes) -> int:
    """0 or the errno."""
    function = getattr(_libc, "renameat2", None)
    if function is None:
        return errno.ENOSYS
    if function(old_folder, old, new_folder, new, _RENAME_NOREPLACE) == 0:
        return 0
    return ctypes.get_errno()


_libc = ctypes.CDLL(None, use_errno=True)
