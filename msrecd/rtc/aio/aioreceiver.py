"""A receiver of aiortc's that gives its packets to an Incoming."""

from __future__ import annotations

import logging
from typing import Any

import aiortc
from aiortc.rtp import RtcpByePacket, RtcpSrPacket

from msrecd.dom.exceptions import OperationError
from msrecd.flow.units import Kind
from msrecd.rtc.loop import RtcLoop, Spaced
from msrecd.rtc.peertimes import PeerTimes, wall_of
from msrecd.rtc.receiving import SILENT_NS, Incoming, ReceivedSource

log = logging.getLogger(__name__)


class _PassingBuffer:
    """In place of a receiver's jitter buffer."""

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving

    def add(self, packet: Any) -> tuple[bool, None]:
        self._receiving.add(packet)
        return False, None


class Receiving:
    """One receiver of aiortc's, made to give its packets to an Incoming."""

    def __init__(self, receiver: Any, kind: Kind, loop: RtcLoop) -> None:
        self.receiver = receiver
        self._loop = loop
        self.source = ReceivedSource(kind, lambda: loop.post(self._requests.ask))
        self._incoming: Incoming | None = None
        self.ssrc: int | None = None
        self.packets = 0
        self._requests = Spaced(self._send_pli)
        if not hasattr(receiver, "_RTCRtpReceiver__jitter_buffer"):
            raise OperationError(f"aiortc {aiortc.__version__} is not supported")
        receiver._RTCRtpReceiver__jitter_buffer = _PassingBuffer(self)
        self._handle_rtcp, self._handle_disconnect = receiver._handle_rtcp_packet, receiver._handle_disconnect
        receiver._handle_rtcp_packet = self._rtcp
        receiver._handle_disconnect = self._disconnected

    def begin(self, times: PeerTimes, index: int, codecs: dict[int, str]) -> None:
        self._incoming = Incoming(self.source, times, index, codecs)

    @property
    def has_begun(self) -> bool:
        return self._incoming is not None

    def add(self, packet: Any) -> None:
        """One that raises would end all tracks of the connection, and tell nobody."""
        self.ssrc = packet.ssrc
        self.packets += 1
        try:
            if self._incoming is not None and self._incoming.add(packet):
                self._requests.ask()
        except Exception as exc:
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        self._incoming = None
        log.error("receiving a track failed; it ends", exc_info=exc)
        self.source.finish(exc)

    def look(self, now_ns: int) -> None:
        if self._incoming is not None and now_ns - self._incoming.last_ns > SILENT_NS:
            self.source.silent()

    def _send_pli(self) -> None:
        if self.ssrc is not None:
            self._loop.tasks.spawn(self.receiver._send_rtcp_pli(self.ssrc), "asking for a key frame")

    async def _rtcp(self, packet: Any) -> None:
        if isinstance(packet, RtcpSrPacket) and self._incoming is not None:
            info = packet.sender_info
            self._incoming.report(wall_of(info.ntp_timestamp), info.rtp_timestamp)
        await self._handle_rtcp(packet)
        if isinstance(packet, RtcpByePacket):
            self.source.finish(None)

    def _disconnected(self) -> None:
        self._handle_disconnect()
        self.source.finish(None)
