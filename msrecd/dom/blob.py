"""Blob: an immutable sequence of bytes with a type (https://w3c.github.io/FileAPI/#blob-section)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Union

BlobPart = Union[bytes, bytearray, memoryview, str, "Blob"]
# The methods below hide the builtins in the class body.
_bytes = bytes
_slice = slice
_PIECE = 64 << 10


class Blob:
    """Bytes and their MIME type; the parts are kept as they came and joined only when asked for."""

    __slots__ = ("_parts", "_size", "_type")
    _parts: tuple[_bytes, ...]

    def __init__(self, parts: Iterable[BlobPart] = (), options: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            parts: bytes-like objects (of which copies are made), strings (encoded as UTF-8) or blobs.
            options: `{"type": MIME type, "endings": "transparent" | "native"}`; the type is put in lower case, and ""
                if it is not printable ASCII. With "native" the lines of strings end as the system's do: in a newline.

        Raises:
            TypeError: `parts` is not an iterable of such parts.
        """
        if isinstance(parts, (str, bytes, bytearray, memoryview)):
            raise TypeError("Blob parts must be a list of parts, not a single one")
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"Blob options must be a mapping, not {type(options).__name__}")
        endings = (options or {}).get("endings", "transparent")
        if endings not in ("transparent", "native"):
            raise TypeError(f"endings of a Blob must be 'transparent' or 'native', not {endings!r}")
        kept: list[bytes] = []
        for part in parts:
            if isinstance(part, Blob):
                kept.extend(part._parts)
            elif isinstance(part, str):
                text = part.replace("\r\n", "\n").replace("\r", "\n") if endings == "native" else part
                kept.append(text.encode())
            else:
                kept.append(part if isinstance(part, bytes) else _copied(part))
        type_ = (options or {}).get("type")
        if type_ is None:
            type_ = ""
        if not isinstance(type_, str):
            raise TypeError("Blob type must be a str")
        self._parts = tuple(kept)
        self._size = sum(map(len, kept))
        self._type = _normalized(type_)

    @classmethod
    def _of(cls, parts: tuple[_bytes, ...], type: str) -> Blob:
        """What a recorder made, with its type as it is: codec strings have capitals."""
        blob = cls.__new__(cls)  # nothing has to be checked or copied
        blob._parts, blob._size, blob._type = parts, sum(map(len, parts)), type
        return blob

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

    async def array_buffer(self) -> _bytes:
        """The content, under the name that browsers had first."""
        return await self.bytes()

    async def text(self) -> str:
        """The content as UTF-8; what is none becomes U+FFFD."""
        return (await self.bytes()).decode(errors="replace")

    async def stream(self) -> AsyncIterator[_bytes]:
        """The content piece by piece, none of them larger than 64 KiB: `async for piece in blob.stream()`."""
        for part in self._parts:
            for begin in range(0, len(part), _PIECE):
                await asyncio.sleep(0)
                yield part[begin : begin + _PIECE]

    def slice(self, start: int | None = 0, end: int | None = None, content_type: str | None = "") -> Blob:
        """The bytes from `start` up to `end`, counted from the end where negative, as a blob of its own.

        Raises:
            TypeError: `start` or `end` is no int, or `content_type` no str.
        """
        return Blob([self.__bytes__()[_slice(start, end)]], {"type": content_type})

    def __repr__(self) -> str:
        return f"<Blob {self._size} bytes {self._type!r}>"


def _normalized(type: str) -> str:
    return type.lower() if all(" " <= char <= "~" for char in type) else ""


def _copied(part: object) -> bytes:
    try:
        return bytes(memoryview(part))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"Blob part must be bytes, str or Blob, not {type(part).__name__}") from None
