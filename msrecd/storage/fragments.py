"""Where the last whole fragment of a broken-off file ends, and what is in it up to there.

Pure over a binary file; reads headers and skips over media, so the work is small against the file. Formats: fragmented
MP4 (ISO/IEC 14496-12), Matroska and WebM (RFC 9559), Ogg (RFC 3533), FLAC (RFC 9639), WAV.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import BinaryIO

from msrecd.storage.fragments_mkv import scan_matroska
from msrecd.storage.fragments_mp4 import scan_mp4
from msrecd.storage.fragments_sound import scan_flac, scan_ogg, scan_wav
from msrecd.storage.scan import Scan, TrackScan
from msrecd.vocabulary.formats import CONTAINER_OF_SUFFIX

_LONGEST_S = 1e8  # three years

# libav's name of the container -> how its files are scanned.
_SCANS: Mapping[str, Callable[[BinaryIO, int], Scan]] = {
    "mp4": scan_mp4,
    "webm": scan_matroska,
    "matroska": scan_matroska,
    "ogg": scan_ogg,
    "flac": scan_flac,
    "wav": scan_wav,
}


def scan(file: BinaryIO, size: int, extension: str) -> Scan:
    """Find the last whole fragment in the first `size` bytes of a file; broken data ends it, and is no error.

    `Scan.cut` is 0 when not one fragment is whole.

    Raises:
        ValueError: no format of ours.
        OSError: the file cannot be read.
    """
    container = CONTAINER_OF_SUFFIX.get(f".{extension}")
    if container is None:
        raise ValueError(f"no format has the extension {extension!r}")
    try:
        found = _SCANS[container.muxer](file, size)
        is_plausible = found.cut <= size and all(map(_is_plausible, found.tracks.values()))
    except (struct.error, IndexError, ZeroDivisionError, ValueError, OverflowError):
        return Scan()
    return found if is_plausible else Scan(cut=min(found.cut, size), fragments=found.fragments)


def _is_plausible(track: TrackScan) -> bool:
    """Whether a track's figures can be a recording's: they go into the manifest, and a header may say anything."""
    return (
        0 <= track.units < 1 << 53
        and math.isfinite(track.start_s)
        and math.isfinite(track.end_s)
        and -_LONGEST_S <= track.start_s <= track.end_s <= _LONGEST_S
    )
