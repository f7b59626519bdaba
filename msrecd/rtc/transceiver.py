"""RTCRtpTransceiver, RTCRtpSender, RTCRtpReceiver (https://w3c.github.io/webrtc-pc/#rtp-media-api)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msrecd.dom.exceptions import InvalidAccessError, InvalidModificationError, InvalidStateError
from msrecd.flow.shape import same_shape
from msrecd.flow.units import AudioFormat, Kind
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack, ReadyState
from msrecd.rtc.receiving import ReceivedSource
from msrecd.rtc.sending import Outgoing, Sent

if TYPE_CHECKING:
    from msrecd.rtc.aio.peerstates import TransceiverState
    from msrecd.rtc.peerconnection import RTCPeerConnection

DIRECTIONS = ("inactive", "sendonly", "recvonly", "sendrecv")
_CAPABILITIES: dict[str, list[dict[str, Any]]] = {
    "video": [{"mime_type": "video/H264", "clock_rate": 90_000}, {"mime_type": "video/VP8", "clock_rate": 90_000}],
    "audio": [{"mime_type": "audio/opus", "clock_rate": 48_000, "channels": 2}],
}


def capabilities(kind: str) -> dict[str, Any] | None:
    """The codecs that can be sent and received; None for a kind that there is not."""
    codecs = _CAPABILITIES.get(kind)
    return None if codecs is None else {"codecs": [dict(one) for one in codecs]}


class Binding:
    """A track and what is sent of it. The track knows of it, and of nothing else: a connection can be forgotten."""

    def __init__(self, track: MediaStreamTrack, outgoing: Outgoing) -> None:
        self._track = track
        self.outgoing = outgoing
        track._observe(self._ended)

    def _ended(self, _: MediaStreamTrack) -> None:
        """Nothing follows; the sender keeps its track, as specified."""
        self.outgoing.let_go()

    def release(self) -> None:
        """On the loop of the track. Idempotent."""
        self._track._unobserve(self._ended)
        self.outgoing.let_go()


class RTCRtpSender:
    """Sends a track, or nothing. Belongs to the loop's thread."""

    def __init__(self, connection: RTCPeerConnection, key: int, kind: Kind) -> None:
        self._connection = connection
        self._key = key
        self._kind = kind
        self._track: MediaStreamTrack | None = None
        self._binding: Binding | None = None
        self._encoding: dict[str, Any] = {"active": True}
        self._transaction = ""
        self._was_used = False  # a track was sent by it: `add_track` takes another one then

    @property
    def track(self) -> MediaStreamTrack | None:
        return self._track

    @staticmethod
    def get_capabilities(kind: str) -> dict[str, Any] | None:
        """`{"codecs": [{"mime_type", "clock_rate", …}, …]}`; None for an unknown kind."""
        return capabilities(kind)

    async def replace_track(self, track: MediaStreamTrack | None) -> None:
        """Send another track of the same kind, or none, without negotiation.

        Raises:
            TypeError: it is of the other kind, or no track.
            InvalidStateError: the connection is closed.
        """
        if track is not None and (not isinstance(track, MediaStreamTrack) or track.kind != self._kind):
            raise TypeError(f"an {self._kind} sender cannot send {getattr(track, 'kind', type(track).__name__)}")
        if self._connection.connection_state == "closed":
            raise InvalidStateError("the connection is closed")
        self._set_track(track)

    def get_parameters(self) -> dict[str, Any]:
        """`{"transaction_id", "codecs", "encodings": [{"active", "max_bitrate"}], …}`, to be changed and set."""
        self._transaction = str(uuid.uuid4())
        codecs = [dict(one) for one in _CAPABILITIES[self._kind]]
        return {"transaction_id": self._transaction, "encodings": [dict(self._encoding)], "codecs": codecs}

    async def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Send nothing for a while (`active`), or with at most so many bits a second (`max_bitrate`).

        An encoding that runs already, of a recorder or for other peers, is shared as it is: no rate is set there.

        Raises:
            TypeError: a member has a wrong type.
            InvalidStateError: they are not those of the last `get_parameters`, or the connection is closed.
            InvalidModificationError: there is not one encoding; simulcast is not there.
        """
        if self._connection.connection_state == "closed":
            raise InvalidStateError("the connection is closed")
        if not self._transaction or parameters.get("transaction_id") != self._transaction:
            raise InvalidStateError("set_parameters takes what get_parameters gave before, in the same turn")
        encodings = parameters.get("encodings")
        if not isinstance(encodings, (list, tuple)) or not all(isinstance(one, Mapping) for one in encodings):
            raise TypeError("encodings must be a list of mappings")
        if len(encodings) != 1:
            raise InvalidModificationError("a sender has one encoding")
        active, most = encodings[0].get("active", True), encodings[0].get("max_bitrate")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise TypeError(f"max_bitrate must be a positive int, not {most!r}")
        before = self._encoding
        self._transaction, self._encoding = "", {"active": bool(active)}
        if most is not None:
            self._encoding["max_bitrate"] = most
        if before != self._encoding and self._track is not None:
            self._set_track(self._track)

    def set_streams(self, *streams: MediaStream) -> None:
        """The streams that the peer is to find the track in, from the next negotiation on; the first one counts.

        Raises:
            TypeError: one is no MediaStream. InvalidStateError: the connection is closed.
        """
        if not all(isinstance(stream, MediaStream) for stream in streams):
            raise TypeError("streams must be MediaStreams")
        if self._connection.connection_state == "closed":
            raise InvalidStateError("the connection is closed")
        stream_id = streams[0].id if streams else str(uuid.uuid4())
        self._connection._link.do(lambda peer: peer.set_stream(self._key, stream_id))
        transceiver = self._connection._transceivers[self._key]
        transceiver._negotiated = None
        self._connection._update_negotiation()

    async def get_stats(self) -> dict[str, dict[str, Any]]:
        return await self._connection._stats(self._key, "sender")

    def _set_track(self, track: MediaStreamTrack | None, stream_id: str = "") -> None:
        self._close()
        self._track = track
        outgoing = None
        if track is not None and track.ready_state is ReadyState.LIVE and self._encoding["active"]:
            outgoing = Outgoing(sent(track, self._encoding.get("max_bitrate")), self._connection._link.rtc)
            self._binding = Binding(track, outgoing)
            self._connection._link.bindings.add(self._binding)
        track_id = "" if track is None else track.id
        self._connection._link.do(lambda peer: peer.set_track(self._key, outgoing, track_id, stream_id))

    def _close(self) -> None:
        if self._binding is not None:
            self._connection._link.bindings.discard(self._binding)
            self._binding.release()
            self._binding = None


class RTCRtpReceiver:
    """Receives a track. Belongs to the loop's thread."""

    def __init__(self, connection: RTCPeerConnection, key: int, kind: Kind) -> None:
        self._connection = connection
        self._key = key
        self._kind = kind
        self._track: MediaStreamTrack | None = None

    @property
    def track(self) -> MediaStreamTrack | None:
        """None until the peer has offered one."""
        return self._track

    @staticmethod
    def get_capabilities(kind: str) -> dict[str, Any] | None:
        """`{"codecs": [{"mime_type", "clock_rate", …}, …]}`; None for an unknown kind."""
        return capabilities(kind)

    async def get_stats(self) -> dict[str, dict[str, Any]]:
        return await self._connection._stats(self._key, "receiver")

    def _begin(self, source: ReceivedSource) -> MediaStreamTrack:
        """The track of what is received."""
        loop = self._connection._loop
        track = MediaStreamTrack._create(source, settings={}, capabilities={}, on_last_ended=source.close)
        track._shared.listen()

        def describe() -> None:
            track._settings = settings_of(source)

        def in_thread() -> None:
            try:
                loop.call_soon_threadsafe(describe)
            except RuntimeError:
                return

        source.on_format = in_thread
        describe()
        self._track = track
        return track


class RTCRtpTransceiver:
    """A sender and a receiver that share a media section. Belongs to the loop's thread."""

    def __init__(self, connection: RTCPeerConnection, key: int, kind: Kind, direction: str) -> None:
        self._connection = connection
        self._key = key
        self._kind: Kind = kind
        self._direction = direction
        self._sender = RTCRtpSender(connection, key, kind)
        self._receiver = RTCRtpReceiver(connection, key, kind)
        self._mid: str | None = None
        self._current: str | None = None
        self._negotiated: str | None = None  # the direction that the last description of ours had
        self._is_stopped = False

    @property
    def mid(self) -> str | None:
        return self._mid

    @property
    def sender(self) -> RTCRtpSender:
        return self._sender

    @property
    def receiver(self) -> RTCRtpReceiver:
        return self._receiver

    @property
    def direction(self) -> str:
        """`sendrecv`, `sendonly`, `recvonly`, `inactive`, `stopped`; settable, for the next negotiation."""
        return "stopped" if self._is_stopped else self._direction

    @direction.setter
    def direction(self, direction: str) -> None:
        if direction not in DIRECTIONS:
            raise TypeError(f"direction must be one of {', '.join(DIRECTIONS)}, not {direction!r}")
        if self._is_stopped:
            raise InvalidStateError("the transceiver is stopped")
        self._set_direction(direction)
        self._connection._update_negotiation()

    @property
    def current_direction(self) -> str | None:
        """What was negotiated; None before."""
        return "stopped" if self._is_stopped else self._current

    def stop(self) -> None:
        """Send and receive nothing any more. Idempotent."""
        if not self._is_stopped:
            self._is_stopped = True
            self._sender._close()
            self._connection._link.do_async(lambda peer: peer.stop_transceiver(self._key))

    def set_codec_preferences(self, codecs: Sequence[Mapping[str, Any]]) -> None:
        """Which codecs are to be negotiated, the best first; of those that `get_capabilities` names.

        Raises:
            InvalidAccessError: one of them cannot be used.
        """
        known = {one["mime_type"].lower() for one in _CAPABILITIES[self._kind]}
        wanted = [str(one.get("mime_type", "")).lower() for one in codecs] or sorted(known)
        for name in wanted:
            if name not in known:
                raise InvalidAccessError(f"{name!r} cannot be sent or received here")
        self._connection._link.do(lambda peer: peer.prefer(self._key, wanted))

    def _set_direction(self, direction: str) -> None:
        self._direction = direction
        self._connection._link.do(lambda peer: peer.set_direction(self._key, direction))

    def _apply(self, state: TransceiverState) -> None:
        self._mid, self._current = state.mid, state.current_direction
        self._is_stopped = self._is_stopped or state.stopped


def sent(track: MediaStreamTrack, max_bitrate: int | None = None) -> Sent:
    """What is sent of a track: with its own size and rate, as recorders take it."""
    source = track._source
    format = source.format
    if isinstance(format, AudioFormat):
        sound = Sent(source=source, gate=track._gate)
        return replace(sound, audio_bit_rate=min(max_bitrate or sound.audio_bit_rate, sound.audio_bit_rate))
    settings = track.get_settings()
    size = (int(settings.get("width") or format.width), int(settings.get("height") or format.height))
    rate = settings.get("frame_rate")
    frames = Sent(
        source=source,
        gate=track._gate,
        width=size[0],
        height=size[1],
        crops=not same_shape(size, (format.width, format.height)),
        frame_rate=None if rate is None else float(rate),
    )
    return replace(frames, video_bit_rate=min(max_bitrate or frames.video_bit_rate, frames.video_bit_rate))


def settings_of(source: ReceivedSource) -> dict[str, Any]:
    """Of a received track; of frames only once their size is known."""
    format = source.format
    if isinstance(format, AudioFormat):
        return {"sample_rate": format.sample_rate, "channel_count": format.channels, "sample_size": 16}
    if source.codec is None:
        return {}
    return {
        "width": format.width,
        "height": format.height,
        "aspect_ratio": format.width / format.height,
        "resize_mode": "none",
    }
