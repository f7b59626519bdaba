"""A sender of aiortc's that sends what an Outgoing gives."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any, cast

import aiortc
from aiortc import rtcrtpsender, rtp
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket

from msrecd.clock import SYSTEM_CLOCK
from msrecd.flow.units import Kind
from msrecd.rtc.packetline import Extension, PacketLine, bursts
from msrecd.rtc.peertimes import ntp_of
from msrecd.rtc.sending import Outgoing, Unit

log = logging.getLogger(__name__)

# What reports call the wall clock: peers compare those of two tracks, and between them the wall clock may be set.
_WALL_NS = time.time_ns() - SYSTEM_CLOCK.monotonic_ns()


class Edge(aiortc.MediaStreamTrack):
    """Stands for a track of ours in aiortc, which asks it for nothing."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind

    async def recv(self) -> Any:
        raise MediaStreamError


class Sending:
    """One sender of aiortc's, made to send what an Outgoing gives."""

    def __init__(self, sender: Any) -> None:
        self.sender = sender
        self.outgoing: Outgoing | None = None
        self._changed = asyncio.Event()
        self._line: PacketLine | None = None
        self._origin = random.getrandbits(32)
        self._packets = self._octets = 0
        self._send_rtcp, self._retransmit = sender._send_rtcp, sender._retransmit
        sender._next_encoded_frame = self._next
        sender._send_keyframe = self._key_frame_asked
        sender._send_rtcp = self._report
        sender._retransmit = self._send_again

    def set(self, outgoing: Outgoing | None) -> None:
        if self.outgoing is not None:
            self.outgoing.close()
        self.outgoing = outgoing
        self._changed.set()

    async def _next(self, codec: Any) -> None:
        """In place of RTCRtpSender._next_encoded_frame, and of the loop around it, which takes twice the time.

        One that raises would end the sender for good.
        """
        name = codec.mimeType.partition("/")[2].lower()
        while True:
            outgoing = self.outgoing
            if outgoing is not None and name in ("h264", "vp8", "opus"):
                try:
                    unit = await outgoing.next(name)
                    if outgoing is self.outgoing and self.sender._enabled:
                        await self._send(unit, codec.payloadType)
                    continue
                except EOFError:
                    pass  # until there is another track
                except (asyncio.CancelledError, ConnectionError):
                    raise
                except Exception:
                    log.exception("sending a track failed; it is no longer sent")
            while outgoing is self.outgoing:
                self._changed.clear()
                await self._changed.wait()

    async def _send(self, unit: Unit, payload_type: int) -> None:
        """
        Raises:
            ConnectionError: the peer has gone; aiortc ends the sender then.
        """
        sender, line = self.sender, self._line
        if line is None or line.payload_type != payload_type:
            number = random.getrandbits(15) if line is None else line.number
            line = self._line = PacketLine(payload_type, sender._ssrc, number, self._extension())
        timestamp = (self._origin + unit.rtp_time) & 0xFFFFFFFF
        send = sender.transport._send_rtp
        parts, pause_s = bursts(unit.payloads)
        for index, part in enumerate(parts):
            if index:
                await asyncio.sleep(pause_s)
            send_time = ntp_of(time.time_ns()) >> 14 & 0xFFFFFF
            for packet in line.packets(part, timestamp, index + 1 == len(parts), send_time):
                await send(packet)
        is_first = not self._packets
        self._packets += len(unit.payloads)
        self._octets += sum(map(len, unit.payloads))
        sender._RTCRtpSender__rtp_timestamp = timestamp
        sender._RTCRtpSender__packet_count, sender._RTCRtpSender__octet_count = self._packets, self._octets
        if is_first:  # aiortc's own first report takes up to 1.5 s, and until then peers guess
            info = RtcpSenderInfo(
                ntp_timestamp=0, rtp_timestamp=timestamp, packet_count=self._packets, octet_count=self._octets
            )
            await self._report([RtcpSrPacket(ssrc=sender._ssrc, sender_info=info)])

    def _extension(self) -> Extension:
        """As the peer has agreed to it."""
        values = rtp.HeaderExtensions(mid=self.sender._RTCRtpSender__mid, abs_send_time=0xA5A5A5)
        profile, data = self.sender._RTCRtpSender__rtp_header_extensions_map.set(values)
        if not data:
            return Extension(b"", -1)
        whole = profile.to_bytes(2, "big") + (len(data) // 4).to_bytes(2, "big") + data
        return Extension(whole, whole.rfind(b"\xa5\xa5\xa5"))

    async def _send_again(self, number: int) -> None:
        """In place of _retransmit, whose packets are not kept by aiortc."""
        kept = None if self._line is None else self._line.sent(number)
        if self._line is None or kept is None:
            return
        packet = rtp.RtpPacket(
            payload_type=self._line.payload_type,
            marker=kept.marker,
            sequence_number=number,
            timestamp=kept.timestamp,
            ssrc=self.sender._ssrc,
            payload=kept.payload,
        )
        packet.extensions.mid = self.sender._RTCRtpSender__mid
        size = cast(Any, rtcrtpsender).RTP_HISTORY_SIZE
        self.sender._RTCRtpSender__rtp_history = {number % size: packet}
        await self._retransmit(number)

    def _key_frame_asked(self) -> None:
        if self.outgoing is not None:
            self.outgoing.request_key_frame()

    async def _report(self, packets: list[Any]) -> None:
        """In place of _send_rtcp: what is captured now has this RTP time. Nothing before the first frame."""
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                info = packet.sender_info
                if not info.packet_count or self.outgoing is None:
                    return
                now_ns = SYSTEM_CLOCK.monotonic_ns()
                wall_ns = _WALL_NS + now_ns
                info.ntp_timestamp = ntp_of(wall_ns)
                info.rtp_timestamp = (self._origin + self.outgoing.rtp_time_of(now_ns)) & 0xFFFFFFFF
                # By these the round-trip time is known when the peer answers.
                self.sender._RTCRtpSender__lsr = info.ntp_timestamp >> 16 & 0xFFFFFFFF
                self.sender._RTCRtpSender__lsr_time = time.time()
        await self._send_rtcp(packets)
