"""The only importer of aiortc and aioice: one peer connection, in the thread of WebRTC.

aiortc decodes whatever it receives and encodes whatever it sends. Frames pass through by these of its private seams,
the same from 1.11 to 1.16 (`tests/rtc/test_aiortc_seams.py` holds them):

- `RTCRtpSender._next_encoded_frame(codec)` gives the next frame to a loop that sends it; ours comes from an `Outgoing`,
  and is sent without that loop, by `transport._send_rtp`. So `_retransmit(number)` is ours as well.
- `RTCRtpSender._send_keyframe()` is called when the peer asks for a key frame; aiortc's own asks its encoder.
- `RTCRtpSender._send_rtcp(packets)` sends reports: theirs say when a packet was sent, and are zeros at first; ours say
  when it was captured.
- `RTCRtpReceiver.__jitter_buffer.add(packet)` is given each packet behind decryption and retransmission; ours gives
  aiortc no frame back, so that nothing is decoded.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiortc
from aioice import stun
from aiortc import rtcrtpsender, rtp, sdp
from aiortc.exceptions import InternalError
from aiortc.exceptions import InvalidAccessError as _InvalidAccessError
from aiortc.exceptions import InvalidStateError as _InvalidStateError
from aiortc.exceptions import OperationError as _OperationError
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpByePacket, RtcpSenderInfo, RtcpSrPacket

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.dom.exceptions import DOMException, InvalidAccessError, InvalidStateError, OperationError
from msrecd.flow.units import Kind
from msrecd.rtc.loop import RtcLoop, Spaced
from msrecd.rtc.packetline import Extension, PacketLine, bursts
from msrecd.rtc.peertimes import PeerTimes
from msrecd.rtc.receiving import SILENT_NS, Incoming, ReceivedSource
from msrecd.rtc.sending import Outgoing, Unit

log = logging.getLogger(__name__)

# Of aiortc's codecs the ones that pass through, the best first. All peers have Opus: no other sound is offered.
_WANTED = {"video": ("video/h264", "video/vp8", "video/rtx"), "audio": ("audio/opus",)}
_NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970
_LOOKS_EVERY_S = 0.5

for _name in ("aiortc", "aioice"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.ERROR)  # their warnings are tracebacks; what matters is a state here


@dataclass(frozen=True, slots=True)
class TransceiverState:
    """key: of our own, given when it is made; on either side of the threads."""

    key: int
    kind: Kind
    mid: str | None
    direction: str
    current_direction: str | None
    stopped: bool
    received: ReceivedSource | None
    track_id: str
    stream_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the owner of a connection may know of it."""

    signaling: str
    connection: str
    ice_connection: str
    ice_gathering: str
    local: tuple[str, str] | None  # type, SDP
    remote: tuple[str, str] | None
    candidates: tuple[tuple[str, str | None, int], ...]  # candidate, mid, index of its media section
    transceivers: tuple[TransceiverState, ...]


class _Edge(aiortc.MediaStreamTrack):
    """Stands for a track of ours in aiortc, which asks it for nothing."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind

    async def recv(self) -> Any:
        raise MediaStreamError


class _Sending:
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
                except EOFError:
                    pass  # until there is another track
                except asyncio.CancelledError:
                    raise
                except Exception:
                    log.exception("sending a track failed; it is no longer sent")
                else:
                    if outgoing is self.outgoing and self.sender._enabled:
                        await self._send(unit, codec.payloadType)
                    continue
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
                wall_ns, now_ns = time.time_ns(), SYSTEM_CLOCK.monotonic_ns()
                info.ntp_timestamp = ntp_of(wall_ns)
                info.rtp_timestamp = (self._origin + self.outgoing.rtp_time_of(now_ns)) & 0xFFFFFFFF
                # By these the round-trip time is known when the peer answers.
                self.sender._RTCRtpSender__lsr = info.ntp_timestamp >> 16 & 0xFFFFFFFF
                self.sender._RTCRtpSender__lsr_time = wall_ns / NS
        await self._send_rtcp(packets)


class _PassingBuffer:
    """In place of a receiver's jitter buffer."""

    def __init__(self, receiving: _Receiving) -> None:
        self._receiving = receiving

    def add(self, packet: Any) -> tuple[bool, None]:
        self._receiving.add(packet)
        return False, None


class _Receiving:
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
        self.ssrc = packet.ssrc
        self.packets += 1
        if self._incoming is not None and self._incoming.add(packet):
            self._requests.ask()

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


class Peer:
    """One aiortc.RTCPeerConnection and what is sent and received over it. Everything in the thread of WebRTC.

    changed: called with a Snapshot after each change; channel: with a data channel that the peer has opened.
    """

    def __init__(
        self,
        loop: RtcLoop,
        configuration: dict[str, Any],
        changed: Callable[[Snapshot], None],
        channel: Callable[[Any], None],
    ) -> None:
        self._loop = loop
        self._changed = changed
        self.connection = aiortc.RTCPeerConnection(_configuration(configuration))
        self._transceivers: dict[int, Any] = {}
        self._senders: dict[int, _Sending] = {}
        self._receivers: dict[int, _Receiving] = {}
        self._streams: dict[str, tuple[str, ...]] = {}  # ids of the peer's streams, by media section
        self._next_remote = -1  # keys of those that the peer has asked for
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False
        for event in (
            "connectionstatechange",
            "iceconnectionstatechange",
            "icegatheringstatechange",
            "signalingstatechange",
        ):
            self.connection.on(event, self.publish)
        self.connection.on("datachannel", channel)

    def publish(self, *_: object) -> None:
        self._changed(self.snapshot())

    def snapshot(self) -> Snapshot:
        connection = self.connection
        local, remote = connection.localDescription, connection.remoteDescription
        return Snapshot(
            signaling=connection.signalingState,
            connection=connection.connectionState,
            ice_connection=connection.iceConnectionState,
            ice_gathering=connection.iceGatheringState,
            local=None if local is None else (local.type, local.sdp),
            remote=None if remote is None else (remote.type, remote.sdp),
            candidates=_candidates(local.sdp)
            if local is not None and connection.iceGatheringState == "complete"
            else (),
            transceivers=tuple(self._state_of(key) for key in self._transceivers),
        )

    def _state_of(self, key: int) -> TransceiverState:
        transceiver = self._transceivers[key]
        receiving = self._receivers.get(key)
        has_track = transceiver.receiver.track is not None
        return TransceiverState(
            key=key,
            kind=transceiver.kind,
            mid=transceiver.mid,
            direction=transceiver.direction,
            current_direction=transceiver.currentDirection,
            stopped=transceiver.stopped,
            received=receiving.source if receiving is not None and has_track else None,
            track_id=transceiver.receiver.track.id if has_track else "",
            stream_ids=self._streams.get(transceiver.mid or "", ()),
        )

    # --- transceivers ------------------------------------------------------------------------------------------------

    def add_transceiver(self, key: int, kind: Kind, direction: str) -> None:
        self._adopt(key, self.connection.addTransceiver(kind, direction=direction))

    def _adopt(self, key: int, transceiver: Any) -> None:
        self._transceivers[key] = transceiver
        capabilities = aiortc.RTCRtpSender.getCapabilities(transceiver.kind).codecs
        wanted = _WANTED[transceiver.kind]
        chosen = [one for one in capabilities if one.mimeType.lower() in wanted]
        transceiver.setCodecPreferences(sorted(chosen, key=lambda one: wanted.index(one.mimeType.lower())))
        transceiver.sender.replaceTrack(_Edge(transceiver.kind))
        self._senders[key] = _Sending(transceiver.sender)
        self._receivers[key] = _Receiving(transceiver.receiver, transceiver.kind, self._loop)

    def prefer(self, key: int, mime_types: Sequence[str]) -> None:
        """Which codecs are wanted, in this order; retransmission always."""
        transceiver = self._transceivers[key]
        wanted = [*(one.lower() for one in mime_types), "video/rtx"]
        capabilities = aiortc.RTCRtpSender.getCapabilities(transceiver.kind).codecs
        chosen = [one for one in capabilities if one.mimeType.lower() in wanted]
        transceiver.setCodecPreferences(sorted(chosen, key=lambda one: wanted.index(one.mimeType.lower())))

    def set_direction(self, key: int, direction: str) -> None:
        if not self._is_closed and not self._transceivers[key].stopped:
            self._transceivers[key].direction = direction

    def set_track(self, key: int, outgoing: Outgoing | None, track_id: str, stream_id: str) -> None:
        """What a sender sends from now on; ids as the peer is to see them, "" for those that stay."""
        if self._is_closed:
            if outgoing is not None:
                outgoing.close()
            return
        self._senders[key].set(outgoing)
        sender = self._transceivers[key].sender
        if track_id:
            sender._track_id = track_id
        if stream_id:
            sender._stream_id = stream_id

    async def stop_transceiver(self, key: int) -> None:
        self._senders[key].set(None)
        await self._transceivers[key].stop()
        self._receivers[key].source.finish(None)
        self.publish()

    # --- negotiation -------------------------------------------------------------------------------------------------

    async def create(self, type_: str) -> tuple[str, str]:
        """An offer or an answer: (type, SDP)."""
        with _dom_errors():
            if type_ == "offer":
                made = await self.connection.createOffer()
            else:
                made = await self.connection.createAnswer()
        return made.type, made.sdp

    async def set_local(self, description: tuple[str, str] | None) -> None:
        with _dom_errors():
            if description is None:  # aiortc 1.11 does not make one
                answers = self.connection.signalingState == "have-remote-offer"
                description = await self.create("answer" if answers else "offer")
            given = aiortc.RTCSessionDescription(description[1], description[0])
            await self.connection.setLocalDescription(given)
        self._begin_receiving()
        self.publish()

    async def set_remote(self, type_: str, text: str) -> None:
        with _dom_errors():
            if not text.startswith("v=0"):
                raise OperationError("the description is no SDP: it does not begin with v=0")
            parsed = sdp.SessionDescription.parse(text)
            if type_ == "offer":
                self._make_room(parsed)
            for media in parsed.media:
                ids = (media.msid or "").split()[:1]
                self._streams[media.rtp.muxId] = tuple(one for one in ids if one != "-")
            await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(text, type_))
        self._begin_receiving()
        self.publish()

    def _make_room(self, offer: Any) -> None:
        """Transceivers for what the peer offers, before aiortc makes them: codecs must be chosen before."""
        if self.connection.signalingState not in ("stable", "have-remote-offer"):
            return  # it will be refused
        free = list(self._transceivers.values())
        for media in offer.media:
            if media.kind not in _WANTED:
                continue
            for transceiver in free:
                if transceiver.kind == media.kind and transceiver.mid in (None, media.rtp.muxId):
                    free.remove(transceiver)
                    break
            else:
                self.add_transceiver(self._next_remote, media.kind, "recvonly")
                self._next_remote -= 1

    def _begin_receiving(self) -> None:
        """Give the tracks of one stream a time line that they share."""
        new: dict[tuple[str, ...], list[int]] = {}
        for key, transceiver in self._transceivers.items():
            direction = transceiver.currentDirection or ""
            if direction in ("recvonly", "sendrecv") and not self._receivers[key].has_begun:
                new.setdefault(self._streams.get(transceiver.mid or "", ()), []).append(key)
        for keys in new.values():
            times = PeerTimes({index: self._transceivers[key].kind for index, key in enumerate(keys)})
            for index, key in enumerate(keys):
                codecs = {codec.payloadType: codec.name.lower() for codec in self._transceivers[key]._codecs}
                known = {number: name for number, name in codecs.items() if name in ("h264", "vp8", "opus")}
                self._receivers[key].begin(times, index, known)
        if new and self._looking is None:
            self._looking = self._loop.tasks.spawn(self._look(), "watching received tracks")

    async def _look(self) -> None:
        while not self._is_closed:
            await asyncio.sleep(_LOOKS_EVERY_S)
            now_ns = SYSTEM_CLOCK.monotonic_ns()
            for receiving in self._receivers.values():
                receiving.look(now_ns)

    async def add_candidate(self, text: str | None, mid: str | None, index: int | None) -> None:
        with _dom_errors():
            if self.connection.remoteDescription is None:
                raise InvalidStateError("there is no remote description yet")
            if not text:
                await self.connection.addIceCandidate(None)
                return
            candidate = sdp.candidate_from_sdp(text.removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = mid, index
            await self.connection.addIceCandidate(candidate)

    # --- the rest ----------------------------------------------------------------------------------------------------

    def create_data_channel(self, label: str, options: dict[str, Any]) -> Any:
        with _dom_errors():
            return self.connection.createDataChannel(label, **options)

    async def stats(self, key: int | None = None, part: str = "") -> dict[str, dict[str, Any]]:
        """Of the connection, or of a transceiver's "sender" or "receiver"."""
        with _dom_errors():
            if key is None:
                report = await self.connection.getStats()
            else:
                report = await getattr(self._transceivers[key], part).getStats()
        stats = {id_: _plain(one) for id_, one in report.items()}
        for receiving in self._receivers.values():
            # aiortc writes the counts of retransmissions over those of the stream itself.
            one = stats.get(f"inbound-rtp_{id(receiving.receiver)}")
            if one is not None and receiving.ssrc is not None:
                counts = receiving.source.stats
                one |= {
                    "ssrc": receiving.ssrc,
                    "packets_received": receiving.packets,
                    "frames_received": counts.delivered,
                    "frames_dropped": counts.dropped,
                }
        for number, sending in self._senders.items():
            if key not in (None, number) or sending.outgoing is None:
                continue
            ours = sending.outgoing.stats
            for one in stats.values():
                if one["type"] == "outbound-rtp" and one["ssrc"] == sending.sender._ssrc:
                    one |= {
                        "frames_sent": ours.frames,
                        "key_frames_encoded": ours.key_frames,
                        "frames_dropped": ours.dropped,
                        "pli_count": ours.key_frames_asked,
                        "key_frames_ignored": ours.key_frames_ignored,
                    }
        return stats

    async def close(self) -> None:
        """End everything; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for sending in self._senders.values():
            sending.set(None)
        try:
            await self.connection.close()
        finally:
            for receiving in self._receivers.values():
                receiving.source.finish(None)
            if self._looking is not None:
                self._looking.cancel()


class _dom_errors:  # noqa: N801 - reads like a statement
    """aiortc's errors as those of the DOM."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        if exc is None or isinstance(exc, (DOMException, asyncio.CancelledError)):
            return
        text = str(exc) or type(exc).__name__
        if isinstance(exc, _InvalidStateError):
            raise InvalidStateError(text) from exc
        if isinstance(exc, _InvalidAccessError):
            raise InvalidAccessError(text) from exc
        if isinstance(exc, (_OperationError, InternalError, ValueError, AssertionError, AttributeError, LookupError)):
            # What is wrong in an SDP shows in many ways.
            raise OperationError(text) from exc
        if isinstance(exc, (TypeError, OSError, stun.TransactionError)):
            raise OperationError(text) from exc


def ntp_of(wall_ns: int) -> int:
    """NTP time stamp, 32.32 bits."""
    seconds, rest = divmod(wall_ns, NS)
    return (seconds + _NTP_EPOCH_S << 32) | (rest << 32) // NS


def wall_of(ntp: int) -> int:
    """The reverse; 0 for a time stamp that is none."""
    return 0 if not ntp else ((ntp >> 32) - _NTP_EPOCH_S) * NS + ((ntp & 0xFFFFFFFF) * NS >> 32)


def _configuration(given: dict[str, Any]) -> Any:
    servers = [
        aiortc.RTCIceServer(urls=one["urls"], username=one.get("username"), credential=one.get("credential"))
        for one in given.get("ice_servers", ())
    ]
    # An empty list, for without one aiortc asks a server of Google's.
    made = aiortc.RTCConfiguration(iceServers=servers)
    if "bundle_policy" in given:
        made.bundlePolicy = aiortc.RTCBundlePolicy(given["bundle_policy"])
    if given.get("ice_transport_policy", "all") != "all":
        from aiortc.rtcconfiguration import RTCIceTransportPolicy

        made.iceTransportPolicy = RTCIceTransportPolicy(given["ice_transport_policy"])
    return made


def _candidates(text: str) -> tuple[tuple[str, str | None, int], ...]:
    """The candidates of a description."""
    found: list[tuple[str, str | None, int]] = []
    index, mid = -1, None
    own: list[str] = []
    for line in [*text.splitlines(), "m="]:
        if line.startswith("m="):
            found += [(one, mid, index) for one in own]
            index, mid, own = index + 1, None, []
        elif line.startswith("a=mid:"):
            mid = line[6:]
        elif line.startswith("a=candidate:"):
            own.append(line[2:])
    return tuple(found)


def _plain(stats: Any) -> dict[str, Any]:
    """A dataclass of aiortc's by the W3C's names in snake_case; times in ms since 1970."""
    plain: dict[str, Any] = {}
    for name, value in vars(stats).items():
        snake = "".join(f"_{one.lower()}" if one.isupper() else one for one in name)
        plain[snake] = value.timestamp() * 1000 if hasattr(value, "timestamp") else value
    return plain
