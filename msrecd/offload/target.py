"""Where files go, whatever it speaks: what a sender may ask of it, and why something is not there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, Protocol


class StoreError(Exception):
    """Something is not in the store. `message` names no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unreachable(StoreError):
    """The store does not answer, answers that it cannot now, or says that it got other bytes: try again."""


class Refused(StoreError):
    """The store does not want it: rights, keys, bucket, room. A person has to do something."""


class Unfit(StoreError):
    """This file cannot be stored: it is not what was recorded, or the key has other content. Others can."""


class Stopped(StoreError):
    """The program ends."""


class Target(Protocol):
    """Where files go."""

    name: str

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: str, mime_type: str) -> str:
        """Store a file under a key that has none, or has the same; how that was proven.

        Raises:
            StoreError: it is not proven to be there.
        """

    def stop(self) -> None:
        """Give up what is being sent, from another thread."""

    def close(self) -> None:
        """Let go of the connection."""


class Readable(Protocol):
    """A store whose contents can be proven: what `verify` needs of it. Each raises StoreError."""

    name: str

    def keys(self) -> Iterable[str]:
        """All keys with the prefix, without it."""

    def head(self, key: str) -> tuple[int, str] | None:
        """Size and SHA-256 (hex, "" where there is none) of an object; None: there is none."""

    def get(self, key: str) -> bytes:
        """A small object."""
