"""A store that rclone reaches: files are put once, and count as stored when they have been proven.

What is there already is compared, never overwritten (`--immutable` does not hold for single files). Stores whose names
show before all bytes are there get `<key>.part` first, which is renamed when its hash is right. The proof is the hash
that the store's own side gives, or, where there is none, that the file has been read back whole. Everything blocks.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msrecd.offload.rcloneconfig import RcloneSettings, local_folder, read_kind, recordings_problem, split_remote
from msrecd.offload.rclonedaemon import QUICK_S, Rclone
from msrecd.offload.target import Refused, StoreError, Unfit, Unreachable

SLOWEST_BYTES_PER_S = 4096  # of a transfer; a slower one is given up
_SMALL_BYTES = 1 << 20
# Of which kinds of store the hashes are computed on the store's side from the bytes that it has, best first; those that
# only repeat what the sender said (Azure's, ownCloud's) prove nothing. https://rclone.org/overview/#features
OWN_HASHES: Mapping[str, tuple[str, ...]] = {
    "local": ("sha256",),
    "sftp": ("sha256", "sha1", "md5"),
    "s3": ("md5",),
    "b2": ("sha1",),
    "box": ("sha1",),
    "drive": ("sha256", "sha1", "md5"),
    "dropbox": ("dropbox",),
    "google cloud storage": ("md5",),
    "onedrive": ("quickxor", "sha1"),
}
_ATOMIC = frozenset({"s3", "b2", "box", "drive", "dropbox", "google cloud storage", "onedrive"})
_PART = ".part"


class RcloneStore:
    """One thread at a time."""

    def __init__(self, settings: RcloneSettings, *, idle: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            idle: called several times a second while something is waited for; may raise to give up.

        Raises:
            ConfigError: rclone's configuration does not know the remote.
        """
        self.name = f"rclone:{settings.remote}"
        self._kind = read_kind(settings.remote, settings.config_file)
        self._folder = local_folder(settings.remote, settings.config_file)
        self._settings = settings
        self._rclone = Rclone(settings, idle=idle)
        self._hash: str | None = None
        self._is_known = False

    def close(self) -> None:
        self._rclone.close()

    def put(self, key: str, source: tuple[str, str], *, size: int, sha256: str) -> str:
        """Store a file under a key that has none, or has the same.

        Args:
            source: folder and name of the file on this machine.

        Returns:
            How it was proven: the name of the store's hash, or "download".

        Raises:
            StoreError: it is not proven to be there.
        """
        self._check_place(key, Path(source[0]))
        own = self._own_hash()
        local = self._found(*source, hashes=["sha256"] if own is None else ["sha256", own])
        if local is None:
            raise Unfit("it is not there any more")
        if local[0] != size or local[1].get("sha256") != sha256:
            raise Unfit("the file is not what was recorded: its SHA-256 is not the manifest's")
        wanted = sha256 if own is None else local[1].get(own, "")
        place = self._settings.prefix + key
        if (found := self._found(self._settings.remote, place, hashes=[])) is not None:
            if found[0] != size or not self._is_same(place, size, own, wanted):
                raise Unfit(f"{key} is in the store with other content, and is not overwritten")
            return own or "download"
        self._copy(source, place, size, own, wanted)
        return own or "download"

    def _check_place(self, key: str, root: Path) -> None:
        """A store in the folder of the recordings would prove each file by itself, and rotation would delete it.

        Raises:
            Refused: it is one.
        """
        if problem := recordings_problem(self._folder, self._settings.prefix + key, root):
            raise Refused(f"offload.remote {problem}")

    def _copy(self, source: tuple[str, str], place: str, size: int, own: str | None, wanted: str) -> None:
        target = place if self._kind in _ATOMIC else place + _PART
        config = {"IgnoreExisting": True} if self._kind in _ATOMIC else {"IgnoreTimes": True}
        self._hold_rate()
        self._move("copyfile", source, target, size, config)
        if not self._is_same(target, size, own, wanted):
            raise Unreachable(f"{place} arrived with another hash")
        if target != place:
            self._sync_local(target)
            self._move("movefile", (self._settings.remote, target), place, size, {"IgnoreExisting": True})
            found = self._found(self._settings.remote, place, hashes=[])
            if found is None or found[0] != size:
                raise Unreachable(f"{place} is not there after it was renamed")

    def _hold_rate(self) -> None:
        """Begin anew to count: rclone saves up to 4 MiB of what it did not send while it had nothing to do, and a file
        after a pause would go as fast as the line lets it."""
        if self._settings.rate is not None:
            self._rclone.call("core/bwlimit", {"rate": f"{self._settings.rate}B"})

    def _move(self, verb: str, source: tuple[str, str], place: str, size: int, config: Mapping[str, bool]) -> None:
        self._rclone.call(
            f"operations/{verb}",
            {
                "srcFs": source[0],
                "srcRemote": source[1],
                "dstFs": self._settings.remote,
                "dstRemote": place,
                "_config": config,
            },
            within_s=self._within_s(size),
        )

    def _within_s(self, size: int) -> float:
        rate = self._settings.rate
        return 2 * QUICK_S + 2 * size / max(1, min(rate or SLOWEST_BYTES_PER_S, SLOWEST_BYTES_PER_S))

    def _is_same(self, place: str, size: int, own: str | None, wanted: str) -> bool:
        """Whether the store has these bytes: by its own hash, or read back."""
        if own is None:
            return self._digest(place, size) == wanted
        found = self._found(self._settings.remote, place, hashes=[own])
        if found is None:
            raise Unreachable(f"{place} is not in the store after it was sent")
        if not found[1].get(own):
            raise Unreachable(f"the store gives no {own} of {place}")
        return found[0] == size and found[1][own] == wanted

    def _digest(self, place: str, size: int) -> str:
        digest = hashlib.sha256()
        for block in self._rclone.read(self._settings.remote, place, within_s=self._within_s(size)):
            digest.update(block)
        return digest.hexdigest()

    def _own_hash(self) -> str | None:
        """The hash that proves, of those that the store computes itself; None: what is stored must be read back."""
        if not self._is_known:
            known = self._rclone.call("operations/fsinfo", {"fs": self._settings.remote}).get("Hashes") or []
            self._hash = next((name for name in OWN_HASHES.get(self._kind, ()) if name in known), None)
            self._is_known = True
        return self._hash

    def _found(self, fs: str, name: str, *, hashes: list[str]) -> tuple[int, Mapping[str, str]] | None:
        """Size and hashes of a file; None: there is none."""
        options: dict[str, Any] = {"noModTime": True, "noMimeType": True}
        if hashes:
            options |= {"showHash": True, "hashTypes": hashes}
        answer = self._rclone.call("operations/stat", {"fs": fs, "remote": name, "opt": options}, within_s=3600)
        item = answer.get("item")
        if not isinstance(item, dict) or item.get("IsDir"):
            return None
        found = item.get("Hashes")
        return int(item.get("Size", -1)), found if isinstance(found, dict) else {}

    def _sync_local(self, place: str) -> None:
        """A disk of this machine has to have what is called stored after a power cut, too."""
        if self._kind != "local":
            return
        path = Path(split_remote(self._settings.remote)[1]) / place
        try:
            for one in (path, path.parent):
                descriptor = os.open(one, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as exc:
            raise Unreachable(f"sync {path}: {exc.strerror}") from exc

    # --- for a proof from the store alone ----------------------------------------------------------------------------

    def keys(self) -> Iterator[str]:
        """All keys with the prefix, without it."""
        prefix = self._settings.prefix
        folder = prefix.rpartition("/")[0]
        options = {"recurse": True, "filesOnly": True, "noModTime": True, "noMimeType": True}
        asked = {"fs": self._settings.remote, "remote": folder, "opt": options}
        for entry in self._rclone.call("operations/list", asked, within_s=3600).get("list") or []:
            path = str(entry.get("Path", ""))
            if path.startswith(prefix):
                yield path.removeprefix(prefix)

    def head(self, key: str) -> tuple[int, str] | None:
        """Size and SHA-256 of an object: the store's own, else of what it gives back; None: there is none."""
        place = self._settings.prefix + key
        hashes = ["sha256"] if self._own_hash() == "sha256" else []
        found = self._found(self._settings.remote, place, hashes=hashes)
        if found is None:
            return None
        return found[0], found[1].get("sha256") or self._digest(place, found[0])

    def get(self, key: str) -> bytes:
        """A small object."""
        content = b""
        for block in self._rclone.read(self._settings.remote, self._settings.prefix + key, within_s=QUICK_S):
            content += block
            if len(content) > _SMALL_BYTES:
                raise StoreError(f"{key} is larger than a line of a manifest")
        return content


def line_file(content: bytes) -> tempfile.TemporaryDirectory[str]:
    """A folder with a file `line` that holds these bytes, until it is closed."""
    folder = tempfile.TemporaryDirectory(prefix="msrecd-line-")
    (Path(folder.name) / "line").write_bytes(content)
    return folder
