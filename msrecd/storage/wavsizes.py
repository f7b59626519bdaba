"""The two sizes in a WAV file's header, which its writer did not know when it wrote them.

libav writes 0xFFFFFFFF for both to what cannot seek. Players read on to the end of the file then; ffprobe says
"Ignoring maximum wav data size, file may be invalid" and calls the last packet corrupt; others see a file of 4 GiB.
"""

from __future__ import annotations

import os
import struct

_LARGEST = 0xFFFFFFFF
_HEAD_BYTES = 4096


def write_wav_sizes(fd: int, size: int) -> bool:
    """Write the sizes of a WAV file of `size` bytes into it; whether anything was written. Others are left alone.

    A file of 4 GiB and more keeps the largest size there is.

    Raises:
        OSError: it cannot be read or written.
    """
    head = os.pread(fd, _HEAD_BYTES, 0)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return False
    at = 12
    while at + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, at)
        if kind == b"data":
            places = ((at + 4, min(size - at - 8, _LARGEST)), (4, min(size - 8, _LARGEST)))
            wanted = [(place, struct.pack("<I", value)) for place, value in places]
            changes = [(place, value) for place, value in wanted if head[place : place + 4] != value]
            for place, value in changes:
                os.pwrite(fd, value, place)
            return bool(changes)
        at += 8 + length + (length & 1)
    return False
