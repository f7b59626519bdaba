"""Byte ranges and conditions of a request for a file that never changes (RFC 9110, 13 and 14). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to answer: status 200, 206, 304 or 416, and which bytes; offset and length are 0 without a body."""

    status: int
    offset: int = 0
    length: int = 0


def select(headers: Mapping[str, str], etag: str, size: int) -> Selection:
    """
    Args:
        headers: of the request, names in lower case.
        etag: of the file, with its quotes.
    """
    known = headers.get("if-none-match")
    if known is not None and (
        known.strip() == "*" or etag in [one.strip().removeprefix("W/") for one in known.split(",")]
    ):
        return Selection(status=304)
    asked = headers.get("range")
    condition = headers.get("if-range")
    if asked is None or (condition is not None and condition.strip() != etag):
        return Selection(status=200, length=size)
    match = _RANGE.match(asked.strip())
    if match is None or not (match[1] or match[2]):  # several ranges, other units: the whole is a right answer (14.2)
        return Selection(status=200, length=size)
    if not match[1]:  # the last so many
        count = min(int(match[2]), size)
        return Selection(status=206, offset=size - count, length=count) if count else Selection(status=416)
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return Selection(status=200, length=size)
    if first >= size:
        return Selection(status=416)
    return Selection(status=206, offset=first, length=last - first + 1)
