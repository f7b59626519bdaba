"""What STREAMINFO wants to know of a FLAC file: decoded in a process of its own where others may have written it.

What this program has encoded itself it decodes itself, for a recorder of a microphone needs no second process: as long
as it has read no input. A file on a card is never one's own.
"""

from __future__ import annotations

import struct

from msrecd.inputs import wire
from msrecd.inputs.decoder import DONE, FACTS, FAILED, SOUND
from msrecd.inputs.processes import Process, ReaderError, helpers
from msrecd.libav.decoders import FlacFacts, flac_facts
from msrecd.libav.values import LibavError

_SILENCE_S = 10.0


def facts_of_flac(fd: int, *, is_foreign: bool) -> FlacFacts:
    """Decode all of it; blocking, a second or so for an hour.

    Args:
        fd: open for reading; its position is not used.
        is_foreign: it was found on a card.

    Raises:
        LibavError: it is no FLAC, is damaged, or has ended the process that decodes it.
    """
    if not is_foreign and not helpers.were_used:
        return flac_facts(fd)
    process = Process((DONE, SOUND, FAILED))
    try:
        process.ask({"flac": True}, (fd,))
        while True:
            kind, body = process.read(_SILENCE_S)
            if kind == SOUND:
                samples, smallest, largest, md5 = FACTS.unpack(body)
                return FlacFacts(samples=samples, smallest=smallest, largest=largest, md5=md5)
            if kind == FAILED:
                raise LibavError("it is no FLAC, or is damaged")
    except (wire.WireError, OSError, struct.error) as exc:
        process.kill()
        raise ReaderError(f"the process that decodes it has ended or hangs: {exc}") from None
    finally:
        process.close()
