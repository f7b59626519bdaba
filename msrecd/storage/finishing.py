"""A file is completed before it gets its name: what only its end knows (muxing/finish.py) is written into it."""

from __future__ import annotations

import logging
import os
from pathlib import PurePath

from msrecd.muxing.finish import CHANGED, finish

log = logging.getLogger(__name__)


def complete(fd: int, size: int, name: str, *, is_foreign: bool = False) -> tuple[int, bool]:
    """Complete the media file of `size` bytes; its size from then on, and whether its bytes may have changed.

    A disk that has no room even for that leaves the file without its length and its cues, but whole.

    Args:
        name: final name; its suffix tells the format.
        is_foreign: it was found on the card, where others may have written it.

    Raises:
        OSError: the file cannot be cut back to its media.
    """
    suffix = PurePath(name).suffix
    if suffix not in CHANGED:
        return size, False
    try:
        return finish(fd, size, suffix, is_foreign=is_foreign), True
    except OSError as exc:
        log.warning("%s is finished without its length in the header: %s", name, exc)
        os.ftruncate(fd, size)
        return size, True
