"""What packets say beside their data: what of them is hidden, what is missing before them, when they were sent."""

from __future__ import annotations

import struct
from typing import Any

from msrecd.libav.common import NS
from msrecd.libav.words import hear


class RtpLosses:
    """Hears libav say that packets of RTP over UDP did not come; it marks nothing that is built from the others."""

    def __init__(self) -> None:
        self.heard = False
        hear(self._hear)

    def _hear(self, message: str) -> None:
        self.heard = self.heard or "missed" in message


class HiddenSound:
    """What of a stream of sound is decoded and not heard: what an edit list hides, and the priming of its encoder.

    What the header of Opus says to skip (RFC 7845, 4.2) comes with the stream, for the header says so wherever it goes.
    """

    def __init__(self, stream: Any) -> None:
        context = stream.codec_context
        self._rate = context.sample_rate or 48000
        self._until_ns: int | None = None
        self._skipped_anyway_ns = 0
        head = bytes(context.extradata or b"")
        if context.name in ("opus", "libopus") and len(head) >= 12:
            self._skipped_anyway_ns = int.from_bytes(head[10:12], "little") * NS // 48000

    def of(self, packet: Any, pts_ns: int | None, duration_ns: int) -> tuple[bool, int]:
        """(whether all of a packet is hidden, how much of its beginning is)."""
        if pts_ns is None:
            return packet.is_discard, 0
        if hasattr(packet, "has_sidedata") and packet.has_sidedata(
            "skip_samples"
        ):  # AV_PKT_DATA_SKIP_SAMPLES: from the beginning, from the end, reasons
            (samples,) = struct.unpack_from("<I", bytes(packet.get_sidedata("skip_samples")))
            self._until_ns = pts_ns + samples * NS // self._rate
        if self._until_ns is None or pts_ns >= self._until_ns:
            return packet.is_discard, 0
        hidden_ns = self._until_ns - pts_ns
        return 0 < duration_ns <= hidden_ns - self._skipped_anyway_ns, hidden_ns


def wall_ns(packet: Any) -> int | None:
    """The sender's wall clock at this packet: libav's AVProducerReferenceTime, from RTCP sender reports.

    PyAV gives it from version 15 on; before, streams lie to each other as they arrive.
    """
    if not hasattr(packet, "has_sidedata") or not packet.has_sidedata("prft"):
        return None
    (microseconds,) = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))
    return int(microseconds) * 1000
