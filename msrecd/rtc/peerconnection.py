"""RTCPeerConnection (https://w3c.github.io/webrtc-pc/#rtcpeerconnection-interface).

Belongs to the loop's thread; aiortc's connection lives in the thread of WebRTC and answers with snapshots. Calls reach
it in their order.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from msrecd.dom.dictionaries import warn_of_unknown
from msrecd.dom.events import Event, queue_task
from msrecd.dom.exceptions import InvalidAccessError, InvalidModificationError, InvalidStateError, NotSupportedError
from msrecd.flow.units import Kind
from msrecd.media.inits import RTCConfiguration, RTCDataChannelInit, RTCRtpTransceiverInit
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack
from msrecd.rtc.channel import RTCDataChannel, RTCDataChannelEvent, channel_options
from msrecd.rtc.descriptions import (
    CONFIGURATION,
    Description,
    RTCIceCandidate,
    RTCPeerConnectionIceEvent,
    RTCSessionDescription,
    RTCTrackEvent,
    check_configuration,
    description_of,
    ice_name_of,
)
from msrecd.rtc.peerattributes import PeerAttributes
from msrecd.rtc.peerlink import PeerLink
from msrecd.rtc.transceiver import DIRECTIONS, RTCRtpReceiver, RTCRtpSender, RTCRtpTransceiver

if TYPE_CHECKING:
    from msrecd.rtc.aio.aiopeer import Peer
    from msrecd.rtc.aio.peerstates import Snapshot, TransceiverState

_connected: set[RTCPeerConnection] = set()  # they can still be heard of


class RTCPeerConnection(PeerAttributes):
    """A connection to one peer. Close it: one that is connected is kept until its peer goes, as in a page.

    Events: track (RTCTrackEvent), negotiationneeded, icecandidate (RTCPeerConnectionIceEvent, all of them when they
    have been gathered), datachannel (RTCDataChannelEvent), connectionstatechange, iceconnectionstatechange,
    icegatheringstatechange, signalingstatechange.
    """

    def __init__(self, configuration: RTCConfiguration | None = None) -> None:
        """
        Args:
            configuration: `ice_servers` ([{"urls", "username", "credential"}]; none by default: no server is asked),
                `ice_transport_policy` ("all", "relay"), `bundle_policy` ("balanced", "max-compat", "max-bundle").

        Raises:
            NotSupportedError: aiortc is not installed.
            TypeError: a member has a wrong type or value.
            DOMException: SyntaxError: a URL of an ICE server is none; InvalidAccessError: one of TURN has no login.
            RuntimeError: there is no running loop.
        """
        given: dict[str, Any] = dict(configuration or {})
        warn_of_unknown("RTCPeerConnection", given, CONFIGURATION, stacklevel=3)
        check_configuration(given)
        if importlib.util.find_spec("aiortc") is None:
            raise NotSupportedError("WebRTC needs aiortc: pip install 'msrecd[rtc]', or Debian's python3-aiortc")
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._configuration = given
        self._announced: tuple[tuple[str, str | None, int], ...] = ()
        self._transceivers: dict[int, RTCRtpTransceiver] = {}
        self._streams: dict[str, MediaStream] = {}  # of the peer
        self._keys = itertools.count(1)
        self._has_channels = self._channels_negotiated = False
        self._asks_negotiation = False
        self._wants_ice_restart = False
        self._operations = asyncio.Lock()
        self._is_closed = False
        self._link = PeerLink(self, given, changed="_take", channel_opened="_channel_opened")

    def get_configuration(self) -> dict[str, Any]:
        return dict(self._configuration)

    def set_configuration(self, configuration: RTCConfiguration | None = None) -> None:
        """Other ICE servers, or another policy: for what is gathered from now on, by the next `restart_ice` at latest.

        Raises:
            TypeError, DOMException: as the constructor.
            InvalidStateError: the connection is closed.
            InvalidModificationError: `bundle_policy` is another one.
        """
        given: dict[str, Any] = dict(configuration or {})
        warn_of_unknown("set_configuration", given, CONFIGURATION, stacklevel=3)
        check_configuration(given)
        self._refuse_closed()
        if given.get("bundle_policy", "balanced") != self._configuration.get("bundle_policy", "balanced"):
            raise InvalidModificationError("bundle_policy cannot change")
        self._configuration = given
        self._link.do(lambda peer: peer.configure(given))

    def get_senders(self) -> list[RTCRtpSender]:
        return [one.sender for one in self._transceivers.values() if not one._is_stopped]

    def get_receivers(self) -> list[RTCRtpReceiver]:
        return [one.receiver for one in self._transceivers.values() if not one._is_stopped]

    def get_transceivers(self) -> list[RTCRtpTransceiver]:
        return list(self._transceivers.values())

    # --- tracks ------------------------------------------------------------------------------------------------------

    def add_track(self, track: MediaStreamTrack, *streams: MediaStream) -> RTCRtpSender:
        """Send a track, by a transceiver that has none yet, or by a new one.

        Raises:
            TypeError: it is no MediaStreamTrack, or one of `streams` no MediaStream.
            InvalidStateError: the connection is closed.
            InvalidAccessError: the track is sent already.
        """
        self._check_track(track)
        if not all(isinstance(stream, MediaStream) for stream in streams):
            raise TypeError("streams must be MediaStreams")
        stream_id = streams[0].id if streams else ""
        for transceiver in self._transceivers.values():
            sender = transceiver.sender
            if (
                transceiver._kind == track.kind
                and sender.track is None
                and not sender._was_used
                and not transceiver._is_stopped
            ):
                self._send(transceiver, track, stream_id)
                direction = transceiver._direction
                transceiver._set_direction({"recvonly": "sendrecv", "inactive": "sendonly"}.get(direction, direction))
                self._update_negotiation()
                return sender
        transceiver = self._new_transceiver(track.kind, "sendrecv")
        self._send(transceiver, track, stream_id)
        self._update_negotiation()
        return transceiver.sender

    def add_transceiver(
        self, track_or_kind: MediaStreamTrack | Kind, init: RTCRtpTransceiverInit | None = None
    ) -> RTCRtpTransceiver:
        """A new transceiver for a track or a kind.

        Args:
            track_or_kind: what it sends, or "audio" or "video".
            init: `{"direction": "sendrecv" | "sendonly" | "recvonly" | "inactive", "streams": [MediaStream]}`.

        Raises:
            TypeError: a value is wrong.
            InvalidStateError: the connection is closed.
            InvalidAccessError: the track is sent already.
        """
        given: dict[str, Any] = dict(init or {})
        warn_of_unknown("add_transceiver", given, ("direction", "streams", "send_encodings"), stacklevel=3)
        direction = given.get("direction", "sendrecv")
        if direction not in DIRECTIONS:
            raise TypeError(f"direction must be one of {', '.join(DIRECTIONS)}, not {direction!r}")
        streams = list(given.get("streams", ()))
        if not all(isinstance(stream, MediaStream) for stream in streams):
            raise TypeError("streams must be MediaStreams")
        if isinstance(track_or_kind, MediaStreamTrack):
            self._check_track(track_or_kind)
            transceiver = self._new_transceiver(track_or_kind.kind, direction)
            self._send(transceiver, track_or_kind, streams[0].id if streams else "")
        elif track_or_kind in ("audio", "video"):
            self._refuse_closed()
            transceiver = self._new_transceiver(track_or_kind, direction)
        else:
            raise TypeError(f"a track, 'audio' or 'video' is sent, not {track_or_kind!r}")
        self._update_negotiation()
        return transceiver

    def remove_track(self, sender: RTCRtpSender) -> None:
        """Send its track no more; the peer is told by the next negotiation.

        Raises:
            TypeError: it is no RTCRtpSender.
            InvalidStateError: the connection is closed.
            InvalidAccessError: it is another connection's.
        """
        if not isinstance(sender, RTCRtpSender):
            raise TypeError(f"sender must be an RTCRtpSender, not {type(sender).__name__}")
        self._refuse_closed()
        if sender._connection is not self:
            raise InvalidAccessError("it is the sender of another connection")
        transceiver = self._transceivers[sender._key]
        if sender.track is None or transceiver._is_stopped:
            return
        sender._set_track(None)
        transceiver._set_direction(
            {"sendrecv": "recvonly", "sendonly": "inactive"}.get(transceiver._direction, "inactive")
        )
        self._update_negotiation()

    def create_data_channel(self, label: str, options: RTCDataChannelInit | None = None) -> RTCDataChannel:
        """A channel for messages; it is `open` once the peers are connected.

        Args:
            label: for the program's own use.
            options: `ordered`, `max_packet_life_time` (ms), `max_retransmits`, `protocol`, `negotiated`, `id`.

        Raises:
            TypeError: `label` is no str, or an option is wrong.
            InvalidStateError: the connection is closed.
        """
        if not isinstance(label, str) or len(label.encode()) > 65_535:
            raise TypeError("label must be a str of at most 65535 bytes")
        given = channel_options(options)
        self._refuse_closed()
        channel = RTCDataChannel._create(self._link.rtc, label, given)
        self._link.do(lambda peer: channel._bind(peer.create_data_channel(label, given)))
        self._has_channels = True
        self._update_negotiation()
        return channel

    # --- negotiation -------------------------------------------------------------------------------------------------

    async def create_offer(self, options: Mapping[str, Any] | None = None) -> RTCSessionDescription:
        """
        Args:
            options: `{"ice_restart": True}`: as after `restart_ice`; the rest is retired.

        Raises:
            InvalidStateError: the connection is closed.
        """
        restarts = bool((options or {}).get("ice_restart", (options or {}).get("iceRestart", False)))
        restarts = restarts or self._wants_ice_restart
        made_type, text = await self._operate(lambda peer: peer.create("offer", restarts_ice=restarts))
        return RTCSessionDescription({"type": made_type, "sdp": text})

    def restart_ice(self) -> None:
        """Look for a way to the peer again; `negotiationneeded` follows, and the next offer says so to the peer.

        What is sent and received goes on, on the way that was found before until there is another one.
        """
        if self._is_closed or self._local is None:
            return
        self._wants_ice_restart = True
        self._update_negotiation()

    async def create_answer(self, options: Mapping[str, Any] | None = None) -> RTCSessionDescription:
        """Raises: InvalidStateError (closed, or there is no offer)."""
        del options
        made_type, text = await self._operate(lambda peer: peer.create("answer"))
        return RTCSessionDescription({"type": made_type, "sdp": text})

    async def set_local_description(self, description: Description | None = None) -> None:
        """Take a description of `create_offer` or `create_answer`, or make one; done when candidates are gathered.

        Raises:
            TypeError: it is no description.
            InvalidStateError: it does not fit the signaling state, or the connection is closed.
            OperationError: it cannot be used.
        """
        given = None if description is None else description_of(description)
        before, restarts = self._local, self._wants_ice_restart
        await self._operate(lambda peer: peer.set_local(given, restarts_ice=restarts))
        if before is not None and self._local is not None and ice_name_of(before.sdp) != ice_name_of(self._local.sdp):
            self._wants_ice_restart = False
        for transceiver in self._transceivers.values():
            transceiver._negotiated = transceiver._direction
        self._channels_negotiated = self._has_channels
        self._asks_negotiation = False
        self._update_negotiation()

    async def set_remote_description(self, description: Description) -> None:
        """Take the peer's description; `track` events come before it is done.

        Raises:
            TypeError, InvalidStateError, OperationError: as `set_local_description`.
        """
        type_, text = description_of(description)
        await self._operate(lambda peer: peer.set_remote(type_, text))
        self._update_negotiation()

    async def add_ice_candidate(self, candidate: RTCIceCandidate | Mapping[str, Any] | None = None) -> None:
        """Take a candidate of the peer; None, or an empty one, is the end of them.

        Raises:
            TypeError: it is no candidate.
            InvalidStateError: there is no remote description, or the connection is closed.
            OperationError: it cannot be used.
        """
        given = candidate
        if isinstance(given, Mapping):
            given = RTCIceCandidate(given) if given.get("candidate") else None
        elif given is not None and not isinstance(given, RTCIceCandidate):
            raise TypeError(f"a candidate is an RTCIceCandidate or a mapping, not {type(given).__name__}")
        text = None if given is None else given.candidate
        mid, index = (None, None) if given is None else (given.sdp_mid, given.sdp_m_line_index)
        await self._operate(lambda peer: peer.add_candidate(text, mid, index))

    async def get_stats(self, selector: MediaStreamTrack | None = None) -> dict[str, dict[str, Any]]:
        """Statistics by id: `type`, `timestamp` (ms since 1970) and the specification's members in snake_case.

        Args:
            selector: a track that is sent or received; all of the connection by default.

        Raises:
            InvalidAccessError: it is neither.
        """
        if selector is None:
            return await self._stats(None, "")
        for key, transceiver in self._transceivers.items():
            if transceiver.sender.track is selector:
                return await self._stats(key, "sender")
            if transceiver.receiver.track is selector:
                return await self._stats(key, "receiver")
        raise InvalidAccessError("the track is neither sent nor received by this connection")

    def close(self) -> None:
        """End the connection at once; the peer is told. No event is fired for it, as specified. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        _connected.discard(self)
        self._signaling = self._connection = self._ice_connection = "closed"
        for transceiver in self._transceivers.values():
            transceiver._is_stopped = True
            transceiver.sender._close()
            track = transceiver.receiver.track
            if track is not None:
                track.stop()
        self._link.close()

    # --- between the threads -----------------------------------------------------------------------------------------

    async def _operate(self, call: Callable[[Peer], Coroutine[Any, Any, Any]]) -> Any:
        """One after the other (https://w3c.github.io/webrtc-pc/#dfn-chain)."""
        self._refuse_closed()
        async with self._operations:
            self._refuse_closed()
            return await self._link.ask(call)

    async def _stats(self, key: int | None, part: str) -> dict[str, dict[str, Any]]:
        if self._is_closed:
            return {}
        report: dict[str, dict[str, Any]] = await self._link.ask(lambda peer: peer.stats(key, part))
        return report

    def _take(self, snapshot: Snapshot) -> None:
        """The connection has changed; on the loop."""
        if self._is_closed:
            return
        self._take_descriptions(snapshot)
        new = [state for state in snapshot.transceivers if self._apply(state)]
        changes = (
            ("_signaling", snapshot.signaling, "signalingstatechange"),
            ("_ice_gathering", snapshot.ice_gathering, "icegatheringstatechange"),
            ("_ice_connection", snapshot.ice_connection, "iceconnectionstatechange"),
            ("_connection", snapshot.connection, "connectionstatechange"),
        )
        changed = [
            (attribute, value, event) for attribute, value, event in changes if getattr(self, attribute) != value
        ]
        for attribute, value, _ in changed:
            setattr(self, attribute, value)
        for state in new:
            self._announce(state)
        for candidate, mid, index in snapshot.candidates:
            if (candidate, mid, index) not in self._announced:
                init = {"candidate": candidate, "sdp_mid": mid, "sdp_m_line_index": index}
                self._fire(RTCPeerConnectionIceEvent("icecandidate", {"candidate": RTCIceCandidate(init)}))
        if snapshot.candidates and snapshot.candidates != self._announced:
            self._announced = snapshot.candidates
            self._fire(RTCPeerConnectionIceEvent("icecandidate"))
        for _, _, event in changed:
            self._fire(Event(event))
        if snapshot.connection == "closed":  # by the peer
            self.close()
        elif snapshot.connection == "connected":
            _connected.add(self)

    def _apply(self, state: TransceiverState) -> bool:
        """Whether a track has come."""
        transceiver = self._transceivers.get(state.key)
        if transceiver is None:
            transceiver = RTCRtpTransceiver(self, state.key, state.kind, state.direction)
            self._transceivers[state.key] = transceiver
        transceiver._apply(state)
        return state.received is not None and transceiver.receiver.track is None

    def _announce(self, state: TransceiverState) -> None:
        assert state.received is not None
        transceiver = self._transceivers[state.key]
        track = transceiver.receiver._begin(state.received)
        streams = []
        for id_ in state.stream_ids:
            stream = self._streams.setdefault(id_, MediaStream())
            stream._id = id_
            stream.add_track(track)
            streams.append(stream)
        self._fire(
            RTCTrackEvent(
                "track",
                {
                    "receiver": transceiver.receiver,
                    "track": track,
                    "streams": streams,
                    "transceiver": transceiver,
                },
            )
        )

    def _channel_opened(self, opened: tuple[Any, list[Any]]) -> None:
        inner, early = opened
        options = {
            "ordered": inner.ordered,
            "maxPacketLifeTime": inner.maxPacketLifeTime,
            "maxRetransmits": inner.maxRetransmits,
            "protocol": inner.protocol,
            "id": inner.id,
        }
        channel = RTCDataChannel._create(self._link.rtc, inner.label, options)
        self._has_channels = self._channels_negotiated = True
        self._link.rtc.post(lambda: channel._bind(inner, early))
        self._fire(RTCDataChannelEvent("datachannel", {"channel": channel}))

    # --- little helpers ----------------------------------------------------------------------------------------------

    def _new_transceiver(self, kind: Kind, direction: str) -> RTCRtpTransceiver:
        key = next(self._keys)
        transceiver = self._transceivers[key] = RTCRtpTransceiver(self, key, kind, direction)
        self._link.do(lambda peer: peer.add_transceiver(key, kind, direction))
        return transceiver

    def _send(self, transceiver: RTCRtpTransceiver, track: MediaStreamTrack, stream_id: str) -> None:
        transceiver.sender._was_used = True
        transceiver.sender._set_track(track, stream_id)

    def _check_track(self, track: object) -> None:
        if not isinstance(track, MediaStreamTrack):
            raise TypeError(f"track must be a MediaStreamTrack, not {type(track).__name__}")
        self._refuse_closed()
        if any(one.sender.track is track for one in self._transceivers.values() if not one._is_stopped):
            raise InvalidAccessError("the track is sent already")

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise InvalidStateError("the connection is closed")

    def _update_negotiation(self) -> None:
        """https://w3c.github.io/webrtc-pc/#dfn-update-the-negotiation-needed-flag"""
        if self._asks_negotiation or not self._needs_negotiation():
            return
        self._asks_negotiation = True
        queue_task(self._ask_negotiation, self._loop)

    def _ask_negotiation(self) -> None:
        if not self._asks_negotiation:
            return
        if self._is_closed or self._signaling != "stable" or self._operations.locked():
            self._asks_negotiation = False  # looked at again when this negotiation is over
            return
        if not self._needs_negotiation():
            self._asks_negotiation = False
            return
        self._fire(Event("negotiationneeded"))

    def _needs_negotiation(self) -> bool:
        if self._is_closed or self._signaling != "stable":
            return False
        if self._wants_ice_restart or (self._has_channels and not self._channels_negotiated):
            return True
        return any(
            one._negotiated is None or one._negotiated != one._direction
            for one in self._transceivers.values()
            if not one._is_stopped
        )
