"""A memory card for tests: an ext4 image that can be taken out, put in again, frozen and broken. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self


def run(*command: str) -> None:
    """
    Raises:
        RuntimeError: the command failed, or is not there; the message is what it said.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError as exc:
        raise RuntimeError(str(exc)) from exc
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Card:
    """Mounted at `path`; turns read-only at an error, as cards do."""

    def __init__(self, image: Path, path: Path) -> None:
        self._image = image
        self.path = path

    @classmethod
    @contextlib.contextmanager
    def inserted(cls, image: Path, path: Path) -> Iterator[Self]:
        """Two GiB, sparse, with a new file system.

        Raises:
            RuntimeError: this machine cannot make or mount it; says why.
        """
        with image.open("wb") as file:
            file.truncate(2 << 30)
        run("mkfs.ext4", "-q", "-F", str(image))
        path.mkdir()
        card = cls(image, path)
        card.insert()
        try:
            yield card
        finally:
            for command in (("fsfreeze", "--unfreeze"), ("umount", "--lazy")):
                with contextlib.suppress(RuntimeError):  # most tests leave it unfrozen, one leaves it unmounted
                    run(*command, str(path))

    def insert(self) -> None:
        run("mount", "-t", "ext4", "-o", "loop,errors=remount-ro", str(self._image), str(self.path))

    def remove(self) -> None:
        """As a person would: while somebody is just looking at it, try again.

        Raises:
            RuntimeError: it is still in use after half a minute.
        """
        deadline = time.monotonic() + 30
        while True:
            try:
                run("umount", str(self.path))
            except RuntimeError as exc:
                if "busy" not in str(exc) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """No write and no sync returns while this lasts.

        Raises:
            RuntimeError: this machine cannot do that.
        """
        run("fsfreeze", "--freeze", str(self.path))
        try:
            yield
        finally:
            run("fsfreeze", "--unfreeze", str(self.path))

    @property
    def error_trigger(self) -> Path:
        """What is written to this file of the kernel becomes an error of the file system; not every kernel has it."""
        device = self.path.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        return Path(f"/sys/fs/ext4/{name}/trigger_fs_error")
