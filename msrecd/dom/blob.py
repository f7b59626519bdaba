"""Blob: an immutable sequence of bytes with a type (https://w3c.github.io/FileAPI/#blob-section)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Union

BlobPart = Union[bytes, bytearray, memoryview, str, "Blob"]
_bytes = bytes  # the method below hides the builtin in the class body


class Blob:
    """Bytes and their MIME type; the parts are kept as they came and joined only when asked for."""

    __slots__ = ("_parts", "_size", "_type")
    _parts: tuple[_bytes, ...]

    def __init__(self, parts: Iterable[BlobPart] = (), options: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            parts: bytes-like objects, strings (encoded as UTF-8) or blobs.
            options: `{"type": MIME type}`.

        Raises:
            TypeError: `parts` is not an iterable of such parts.
        """
        if isinstance(parts, (str, bytes, bytearray, memoryview)):
            raise TypeError("Blob parts must be a list of parts, not a single one")
        kept: list[bytes] = []
        for part in parts:
            if isinstance(part, Blob):
                kept.extend(part._parts)
            elif isinstance(part, str):
                kept.append(part.encode())
            elif isinstance(part, (bytes, bytearray, memoryview)):
                kept.append(bytes(part))
            else:
                raise TypeError(f"Blob part must be bytes, str or Blob, not {type(part).__name__}")
        type_ = (options or {}).get("type", "")
        if not isinstance(type_, str):
            raise TypeError("Blob type must be a str")
        self._parts = tuple(kept)
        self._size = sum(map(len, kept))
        self._type = type_ if type_.isascii() else ""

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    @property
    def type(self) -> str:
        """MIME type, "" when unknown."""
        return self._type

    @property
    def parts(self) -> tuple[_bytes, ...]:
        """The pieces, for a writer that can take several at once (`os.writev`); an extension."""
        return self._parts

    def __bytes__(self) -> _bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return True

    async def bytes(self) -> _bytes:
        """The content; joined in a later turn of the loop as the specification has it."""
        await asyncio.sleep(0)
        return self.__bytes__()

    def __repr__(self) -> str:
        return f"<Blob {self._size} bytes {self._type!r}>"
