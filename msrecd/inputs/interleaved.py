"""What may begin between two packets of RTP on a connection of RTSP: a message, another packet, or nothing. Pure.

The rules: RFC 2326 (4, 6.1, 7.1, 10.12). Some cameras write other bytes between them: those are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MAX_LINE = 4096
_FIRST_LINE = re.compile(rb"RTSP/\d\.\d \d{3}\b|[A-Z_]{3,20} \S{1,4000} RTSP/\d\.\d\s*$")
_BEGIN_OF_IT = re.compile(rb"[A-Z_]{1,20}(?:[ /][\x20-\x7e]*\r?)?$")  # as far as it has come
_BEGUN = re.compile(rb"(?:RTSP/[\d. ]{0,7}|[A-Z_]{1,20} ?(?:rtsp)?)$")
_BEGINS = re.compile(rb"\$|RTSP/\d\.\d \d{3}\b|[A-Z_]{3,20} (?:rtsp:|\*)")


def message_head(data: bytes, at: int, most: int) -> bytes | None:
    """The head of a message that begins here; b"" where none does; None: more has to come.

    most: bytes that a head may have.
    """
    line, ends, _ = data[at : at + _MAX_LINE].partition(b"\r\n")
    if not ends:
        return None if len(line) < _MAX_LINE and _BEGIN_OF_IT.match(line) else b""
    if not _FIRST_LINE.match(line):
        return b""
    end = data.find(b"\r\n\r\n", at, at + most)
    head = data[at : end if end >= 0 else at + most]
    if b"\0" in head or (end < 0 and len(head) >= most):
        return b""  # packets follow a line that looks like one
    return head if end >= 0 else None


def beginnings(data: bytes, at: int) -> Iterator[int]:
    """Where a packet or a message may begin."""
    return (found.start() for found in _BEGINS.finditer(data, at))


def begun_at_end(data: bytes) -> int:
    """Where a message may begin of which too little has come; the end of the data for none."""
    begin = max(0, len(data) - 32)
    found = _BEGUN.search(data, begin)
    return len(data) if found is None else found.start()
