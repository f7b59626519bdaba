"""One peer connection of aiortc's, in the thread of WebRTC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import aiortc
from aioice import stun
from aiortc import sdp
from aiortc.exceptions import InternalError
from aiortc.exceptions import InvalidAccessError as _InvalidAccessError
from aiortc.exceptions import InvalidStateError as _InvalidStateError
from aiortc.exceptions import OperationError as _OperationError

from msrecd.clock import SYSTEM_CLOCK
from msrecd.dom.exceptions import DOMException, InvalidAccessError, InvalidStateError, OperationError
from msrecd.flow.units import Kind
from msrecd.rtc.aio.aioreceiver import Receiving
from msrecd.rtc.aio.aiosender import Edge, Sending
from msrecd.rtc.aio.icerestart import IceWay
from msrecd.rtc.aio.peerstates import Snapshot, TransceiverState, candidates_of, plain_stats
from msrecd.rtc.loop import RtcLoop
from msrecd.rtc.peertimes import PeerTimes
from msrecd.rtc.sending import Outgoing

# Of aiortc's codecs the ones that pass through, the best first. All peers have Opus: no other sound is offered.
_WANTED = {"video": ("video/h264", "video/vp8", "video/rtx"), "audio": ("audio/opus",)}
_LOOKS_EVERY_S = 0.5

for _name in ("aiortc", "aioice"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.ERROR)  # their warnings are tracebacks; what matters is a state here


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
        self._configuration = _configuration(configuration)
        self.connection = aiortc.RTCPeerConnection(self._configuration)
        self._transceivers: dict[int, Any] = {}
        self._senders: dict[int, Sending] = {}
        self._receivers: dict[int, Receiving] = {}
        self._streams: dict[str, tuple[str, ...]] = {}  # ids of the peer's streams, by media section
        self._ways: dict[Any, IceWay] = {}  # by transport of aiortc's
        self._restarts: dict[IceWay, Any] = {}  # what the peer says of itself, until our answer is set
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

    def configure(self, configuration: dict[str, Any]) -> None:
        """For what is gathered from now on; aiortc's connection has the same object."""
        new = _configuration(configuration)
        self._configuration.iceServers = new.iceServers
        self._configuration.iceTransportPolicy = new.iceTransportPolicy

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
            candidates=candidates_of(local.sdp)
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
        transceiver.sender.replaceTrack(Edge(transceiver.kind))
        self._senders[key] = Sending(transceiver.sender)
        self._receivers[key] = Receiving(transceiver.receiver, transceiver.kind, self._loop)

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

    def set_stream(self, key: int, stream_id: str) -> None:
        """As the peer is to see it in the next description."""
        self._transceivers[key].sender._stream_id = stream_id

    async def stop_transceiver(self, key: int) -> None:
        self._senders[key].set(None)
        await self._transceivers[key].stop()
        self._receivers[key].source.finish(None)
        self.publish()

    # --- negotiation -------------------------------------------------------------------------------------------------

    async def create(self, type_: str, *, restarts_ice: bool = False) -> tuple[str, str]:
        """An offer or an answer: (type, SDP)."""
        with _dom_errors():
            if type_ == "offer":
                made = await self._offer(restarts_ice)
            else:
                made = await self.connection.createAnswer()
        return made.type, made.sdp

    async def _offer(self, restarts_ice: bool) -> Any:
        credentials: tuple[str, str] | None = None
        in_use = dict.fromkeys(self._ways_in_use().values()) if restarts_ice else {}  # sections share one
        ways = [way for way in in_use if way.has_begun and not way.is_restarting]
        for way in ways:
            credentials = way.offer(credentials)
        try:
            return await self.connection.createOffer()
        finally:
            for way in ways:
                way.offered()

    async def set_local(self, description: tuple[str, str] | None, *, restarts_ice: bool = False) -> None:
        with _dom_errors():
            if description is None:  # aiortc 1.11 does not make one
                answers = self.connection.signalingState == "have-remote-offer"
                description = await self.create("answer" if answers else "offer", restarts_ice=restarts_ice)
            type_, text = description
            ways = self._ways_in_use()
            for media in sdp.SessionDescription.parse(text).media if type_ == "offer" else ():
                if media.rtp.muxId in ways:
                    ways[media.rtp.muxId].begin_if_offered(media.ice, self._gathering)
            await self.connection.setLocalDescription(aiortc.RTCSessionDescription(text, type_))
            self._ways_in_use()
        if type_ == "answer":
            self._finish_restarts()
        self._begin_receiving()
        self.publish()

    async def set_remote(self, type_: str, text: str) -> None:
        with _dom_errors():
            if not text.startswith("v=0"):
                raise OperationError("the description is no SDP: it does not begin with v=0")
            parsed = sdp.SessionDescription.parse(text)
            if type_ == "offer":
                self._make_room(parsed)
            ways = self._ways_in_use()
            for media in parsed.media:
                ids = (media.msid or "").split()[:1]
                self._streams[media.rtp.muxId] = tuple(one for one in ids if one != "-")
                way = ways.get(media.rtp.muxId)
                if way is not None and type_ == "offer" and way.is_new(media.ice) and not way.is_restarting:
                    way.begin(self._gathering)
                if way is not None and way.is_restarting:
                    self._restarts.setdefault(way, media.ice)
            await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(text, type_))
            self._ways_in_use()
        if type_ == "answer":
            self._finish_restarts()
        self._begin_receiving()
        self.publish()

    def _ways_in_use(self) -> dict[str, IceWay]:
        """By media section; of each transport, from before it is connected."""
        transports = {one.mid: one.receiver.transport.transport for one in self.connection.getTransceivers()}
        if self.connection.sctp is not None:
            transports[self.connection.sctp.mid] = self.connection.sctp.transport.transport
        known = self._ways
        self._ways = {one: known.get(one) or IceWay(one, self._configuration) for one in transports.values()}
        return {mid: self._ways[transport] for mid, transport in transports.items() if mid is not None}

    def _finish_restarts(self) -> None:
        restarts, self._restarts = self._restarts, {}
        for way, ice in restarts.items():
            self._loop.tasks.spawn(way.finish(ice), "an ICE restart")

    def _gathering(self) -> None:
        self.connection._RTCPeerConnection__updateIceGatheringState()  # type: ignore[attr-defined]

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
        stats = {id_: plain_stats(one) for id_, one in report.items()}
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
