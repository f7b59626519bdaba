"""Medium: which disk, card or folder lies at a path. A path is no identity: another medium may lie there tomorrow.

A medium says who it is in a file of its own, `.msrecd/medium.json`: a random id, and the file system on which that was
written, for a copy has the same file. What is true of its recordings lies beside it (the journal of open recordings,
what is protected, the boots that used a number), so it goes where the medium goes. The state folder remembers which
medium was where, by which a missing mount is noticed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msrecd.errors import StorageError
from msrecd.statefolder import report_unwritable
from msrecd.storage import checks, files

log = logging.getLogger(__name__)

FOLDER = ".msrecd"
IDENTITY = "medium.json"
_LOCK = "lock"
_MEMORY = "media.json"
_FIRST_EDITION_NOTE = "storage.json"
_LOCK_TIMEOUT_S = 1.0  # a command that looks whether a daemon records holds the lock for a moment
_MAX_BOOTS = 200
_MAX_MEDIA = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the medium says of itself.

    boots: the kernel's boot ids by the numbers that names on this medium have; first_edition_boots: likewise, for
    manifest lines that carry no boot id.
    """

    id: str
    file_system: str = ""
    boots: dict[int, str] = field(default_factory=dict)
    first_edition_boots: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Where a medium was seen last, from the state folder."""

    id: str
    mount_point: str
    file_system: str


class Medium:
    """The medium that was at a path when it was opened, by a descriptor, wherever that is mounted meanwhile.

    Attributes:
        place: device and inode of its folder; another pair at the path is another medium, or another mount of this one.
        is_kept: whether its identity is on it; False where it takes no file (read-only, full).
    """

    def __init__(self, path: Path, fd: int, identity: Identity, *, is_kept: bool) -> None:
        self.path = path
        self.fd = fd
        self.identity = identity
        self.is_kept = is_kept
        status = os.fstat(fd)
        self.place = (status.st_dev, status.st_ino)
        self._lock_fd = -1

    @property
    def id(self) -> str:
        return self.identity.id

    def folder(self) -> int:
        """A descriptor of `.msrecd`, made when it is missing; the caller closes it.

        Raises:
            OSError: it cannot be made.
        """
        return files.open_folder(self.fd, FOLDER, create=True)

    def lock(self) -> None:
        """Keep other daemons from this medium, whatever state folder and path they have.

        Raises:
            StorageError: `locked`: one records here.
        """
        if self._lock_fd >= 0:
            return
        try:
            with files.closing_fd(self.folder()) as folder:
                fd = files.open_file(folder, _LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as exc:  # it takes no file, so nothing records here
            log.debug("no lock on %s: %s", self.path, exc)
            return
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise StorageError(f"another msrecd records into {self.path}", "locked") from exc
                time.sleep(0.02)
            except OSError as exc:  # a network file system without locks
                log.warning("%s cannot be locked; make sure that only one daemon records into it: %s", self.path, exc)
                break
            else:
                break
        self._lock_fd = fd

    def keep(self, identity: Identity) -> None:
        """Write down what the medium says of itself from now on; where that fails it holds for this process."""
        self.identity = identity
        values = {
            "id": identity.id,
            "file_system": identity.file_system,
            "boots": {str(number): boot_id for number, boot_id in list(identity.boots.items())[-_MAX_BOOTS:]},
            "first_edition_boots": {str(n): boot_id for n, boot_id in identity.first_edition_boots.items()},
        }
        try:
            with files.closing_fd(self.folder()) as folder:
                files.replace_file(folder, IDENTITY, json.dumps(values, indent=1).encode())
            self.is_kept = True
        except OSError as exc:
            self.is_kept = False
            log.warning("the identity of %s cannot be written onto it: %s", self.path, exc.strerror or exc)

    def use_boot(self, number: int, boot_id: str, highest: int) -> int:
        """The number that names of this boot get here: that one, unless another boot has used it or a higher one.

        Args:
            highest: of the boots whose folders are on the medium.
        """
        boots = self.identity.boots
        if boots.get(number) != boot_id:
            number = next((n for n, known in boots.items() if known == boot_id and n >= number), number)
        if boots.get(number) != boot_id:
            number = max(number, 1 + max(highest, *boots, 0)) if number <= max(highest, *boots, 0) else number
            self.keep(replace(self.identity, boots={**boots, number: boot_id}))
        return number

    def reopen(self) -> None:
        """Take it up again after `close`.

        Raises:
            OSError: another one is there, or none.
            StorageError: `locked`: another daemon has taken it meanwhile.
        """
        fd = files.open_root(self.path)
        status = os.fstat(fd)
        found = _read_identity(fd)
        if (status.st_dev, status.st_ino) != self.place or (self.is_kept and (found is None or found.id != self.id)):
            os.close(fd)
            self.place = (-1, -1)  # so that the next look sees that it has changed
            raise OSError(errno.ENODEV, "another medium is there")
        self.fd = fd
        self.lock()

    def close(self) -> None:
        """Let go of it and of the lock."""
        fds = [fd for fd in (self._lock_fd, self.fd) if fd >= 0]
        self._lock_fd = self.fd = -1
        for fd in fds:
            with contextlib.suppress(OSError):  # it is closed all the same
                os.close(fd)


def open_medium(path: Path, state_path: Path, *, create: bool) -> Medium:
    """The medium at a path.

    Args:
        create: for recording: the folder is made and the medium gets an identity where there are none.

    Raises:
        StorageError: `missing_mount`: the medium that was here is not mounted; `not_found`: the folder is not there.
    """
    memory, mount = _checked(path, state_path)
    if create:
        with files.storage_errors(f"make the folder {path}"):
            path.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
    elif not path.is_dir():
        raise StorageError(
            f"the folder {path} is not there: nothing was recorded yet, or it is not mounted", "not_found"
        )
    file_system = checks.file_system_id(path, mount)
    with files.storage_errors(f"open the folder {path}"):
        fd = files.open_root(path)
    found = _read_identity(fd)
    if found is not None and not _differ(found.file_system, file_system):
        medium = Medium(path, fd, found, is_kept=True)
    else:
        new = replace(found or Identity(id=""), id=uuid.uuid4().hex, file_system=file_system)
        medium = Medium(path, fd, new, is_kept=False)
        if create:
            medium.keep(new)
            if found is not None:
                log.warning(
                    "the recordings in %s were copied from another file system; treating them as a medium of their own",
                    path,
                )
    if create:
        last = memory.last
        if last is not None and last.id != medium.id:
            word = "known" if memory.knows(medium.id) else "new"
            log.warning("another medium lies at %s, a %s one; recordings go on there", path, word)
        memory.remember(
            Known(
                id=medium.id,
                mount_point=mount.point if mount is not None else "",
                file_system=file_system or (f"{mount.kind}:{mount.source}" if mount is not None else ""),
            )
        )
    return medium


def check_place(path: Path, state_path: Path) -> None:
    """Make sure that `open_medium` would record at a path, or make the folder there, as far as a look can tell.

    Raises:
        StorageError: `missing_mount`, `exists`.
    """
    _checked(path, state_path)


def _checked(path: Path, state_path: Path) -> tuple[_Memory, checks.Mount | None]:
    memory = _Memory(state_path, path)
    mount = checks.mount_at(path)
    _require_mounted(memory, path, mount, identity=None if not path.is_dir() else _look(path))
    files.require_no_file(path)
    return memory, mount


def is_in_use(path: Path) -> bool:
    """Whether a daemon records into the folder: it holds the medium's lock."""
    with (
        contextlib.suppress(OSError),
        files.closing_fd(files.open_root(path)) as root,
        files.closing_fd(files.open_folder(root, FOLDER)) as folder,
        files.closing_fd(files.open_file(folder, _LOCK)) as fd,
    ):
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once; a daemon's start waits for it
        except BlockingIOError:
            return True
    return False


def _look(path: Path) -> Identity | None:
    with contextlib.suppress(OSError), files.closing_fd(files.open_root(path)) as fd:
        return _read_identity(fd)
    return None


def _read_identity(fd: int) -> Identity | None:
    """None: there is none, or it says nothing that could be ours."""
    try:
        with files.closing_fd(files.open_folder(fd, FOLDER)) as folder:
            values = json.loads(files.read_at(folder, IDENTITY))
        identity = Identity(
            id=_text(values["id"]),
            file_system=_text(values.get("file_system", "")),
            boots=_boots(values.get("boots", {})),
            first_edition_boots=_boots(values.get("first_edition_boots", {})),
        )
        if not identity.id.isalnum() or len(identity.id) > 64:
            raise ValueError("id")
        return identity
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        log.warning("the identity of the recordings' medium cannot be read: %s", exc)
        return None


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 512 or not value.isprintable():
        raise TypeError("text")
    return value


def _boots(values: dict[str, Any]) -> dict[int, str]:
    return {int(number): _text(boot_id) for number, boot_id in values.items() if 0 <= int(number) <= 999_999}


def _differ(one: str, other: str) -> bool:
    """Whether two ids of file systems are known, of one kind, and not the same."""
    return bool(one and other) and one.partition(":")[0] == other.partition(":")[0] and one != other


def _require_mounted(memory: _Memory, path: Path, mount: checks.Mount | None, identity: Identity | None) -> None:
    """
    Raises:
        StorageError: `missing_mount`.
    """
    last = memory.last
    if mount is None or (identity is not None and last is not None and identity.id == last.id):
        return
    if last is None:
        is_away = identity is None and memory.first_edition_was_mounted and not checks.is_mount_point(path)
    else:
        now = checks.file_system_id(path, mount) or f"{mount.kind}:{mount.source}"
        # A part of another file system at the mount point itself: a container whose host lacks the medium.
        is_other_bind = identity is None and mount.point == last.mount_point and mount.root != "/"
        is_away = _is_above(mount.point, last.mount_point) or (is_other_bind and now != last.file_system)
    if is_away:
        raise StorageError(
            f"the medium with the recordings is not mounted at {path}; mount it, or remove {memory.file}",
            "missing_mount",
        )


def _is_above(point: str, other: str) -> bool:
    return point != other and Path(point) in Path(other).parents


class _Memory:
    """Which media were at a path: `media.json` in the state folder. Where that cannot be written, it is not."""

    def __init__(self, state_path: Path, path: Path) -> None:
        self.file = state_path / _MEMORY
        self._path = str(path)
        self._values: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            values = json.loads(files.read_path(self.file))
            if isinstance(values, dict):
                self._values = values
        self.first_edition_was_mounted = False
        note = state_path / _FIRST_EDITION_NOTE
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            values = json.loads(files.read_path(note))
            self.first_edition_was_mounted = values["mounted"] is True and values["path"] == self._path
            if not self._values:
                self.file = note

    @property
    def last(self) -> Known | None:
        """The medium that was last at this path."""
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            values = self._values["paths"][self._path]
            return Known(
                id=_text(values["id"]),
                mount_point=_text(values["mount_point"]),
                file_system=_text(values["file_system"]),
            )
        return None

    def knows(self, medium_id: str) -> bool:
        known = self._values.get("known")
        return isinstance(known, list) and medium_id in known

    def remember(self, known: Known) -> None:
        if self.last == known and self.knows(known.id):
            return
        ids = [i for i in self._values.get("known") or [] if isinstance(i, str) and i != known.id]
        paths = self._values.get("paths")
        place = {"id": known.id, "mount_point": known.mount_point, "file_system": known.file_system}
        values = {
            "paths": {**(paths if isinstance(paths, dict) else {}), self._path: place},
            "known": [*ids, known.id][-_MAX_MEDIA:],
        }
        try:
            with files.closing_fd(files.open_root(self.file.parent)) as state:
                files.replace_file(state, _MEMORY, json.dumps(values, indent=1).encode())
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_FIRST_EDITION_NOTE, dir_fd=state)
        except OSError as exc:
            report_unwritable(self.file.parent, f"which medium is at {self._path}", exc)


def move_first_edition(
    medium: Medium, state_path: Path, *, has_recording: Callable[[str], bool], boots: dict[int, str]
) -> None:
    """Move what the state of the first edition says about this medium's recordings onto it. Nothing happens twice.

    Args:
        has_recording: whether a recording id has files here.
        boots: the boot ids by number, from the clock's history.
    """
    moved = 0
    for kind in ("protected", "open"):
        with contextlib.suppress(OSError):
            for source in sorted((state_path / kind).iterdir()):
                if has_recording(source.name.removesuffix(".json")):
                    with files.closing_fd(files.open_folder(medium.fd, f"{FOLDER}/{kind}", create=True)) as folder:
                        files.replace_file(folder, source.name, files.read_path(source))
                    source.unlink()
                    moved += 1
    index = state_path / "index.sqlite"
    if moved or index.exists():
        medium.keep(replace(medium.identity, first_edition_boots=boots))
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                index.with_name(index.name + suffix).unlink(missing_ok=True)
        log.info("the state of an older version was moved: %d entries belong to %s", moved, medium.path)
