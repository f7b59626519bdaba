"""What peers tell each other, and the events of a connection (https://w3c.github.io/webrtc-pc/)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from msrecd.dom.events import Event, init_members
from msrecd.dom.exceptions import DOMException, InvalidAccessError
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack

if TYPE_CHECKING:
    from msrecd.rtc.transceiver import RTCRtpReceiver, RTCRtpTransceiver

SdpType = Literal["offer", "pranswer", "answer", "rollback"]
_TYPES = ("offer", "pranswer", "answer", "rollback")


class RTCSessionDescription:
    """An offer or an answer (https://w3c.github.io/webrtc-pc/#rtcsessiondescription-class)."""

    def __init__(self, init: Mapping[str, str]) -> None:
        """
        Args:
            init: `{"type": "offer" | "answer", "sdp": str}`.

        Raises:
            TypeError: `type` is missing or none of the specification's, or `sdp` no str.
        """
        type_, text = description_of(init)
        self._type, self._sdp = type_, text

    @property
    def type(self) -> str:
        return self._type

    @property
    def sdp(self) -> str:
        return self._sdp

    def to_json(self) -> dict[str, str]:
        return {"type": self._type, "sdp": self._sdp}

    def __repr__(self) -> str:
        return f"<RTCSessionDescription {self._type}>"


Description = RTCSessionDescription | Mapping[str, str]


def description_of(given: object) -> tuple[str, str]:
    """(type, SDP) of a description or its dictionary.

    Raises:
        TypeError: it is neither, or a member is wrong.
    """
    if isinstance(given, RTCSessionDescription):
        return given.type, given.sdp
    if not isinstance(given, Mapping):
        raise TypeError(f"a description is an RTCSessionDescription or a mapping, not {type(given).__name__}")
    type_, text = given.get("type"), given.get("sdp", "")
    if type_ not in _TYPES:
        raise TypeError(f"type must be one of {', '.join(_TYPES)}, not {type_!r}")
    if not isinstance(text, str):
        raise TypeError(f"sdp must be a str, not {type(text).__name__}")
    return str(type_), text


def ice_name_of(sdp: str) -> str:
    """The name under which the side of this description is reached; a restart has another one."""
    return next((line for line in sdp.splitlines() if line.startswith("a=ice-ufrag:")), "")


_CANDIDATE = re.compile(  # RFC 8839, section 5.1
    r"(?:a=)?(?:candidate:)?(?P<foundation>\S+) (?P<component>\d+) (?P<protocol>\S+) (?P<priority>\d+) "
    r"(?P<address>\S+) (?P<port>\d+) (?P<rest>typ .*)"
)


class RTCIceCandidate:
    """A way by which a peer may be reached (https://w3c.github.io/webrtc-pc/#rtcicecandidate-interface)."""

    def __init__(self, init: Mapping[str, Any]) -> None:
        """
        Args:
            init: `{"candidate": str, "sdp_mid": str, "sdp_m_line_index": int}`; "" is the end of the candidates. A
                browser's names, `sdpMid` and `sdpMLineIndex`, are taken too: its JSON can be handed on as it is.

        Raises:
            TypeError: a member has a wrong type, or neither `sdp_mid` nor `sdp_m_line_index` is there.
        """
        if not isinstance(init, Mapping):
            raise TypeError(f"init must be a mapping, not {type(init).__name__}")
        candidate = init.get("candidate", "")
        mid = init.get("sdp_mid", init.get("sdpMid"))
        index = init.get("sdp_m_line_index", init.get("sdpMLineIndex"))
        if not isinstance(candidate, str):
            raise TypeError(f"candidate must be a str, not {type(candidate).__name__}")
        if mid is not None and not isinstance(mid, str):
            raise TypeError(f"sdp_mid must be a str, not {type(mid).__name__}")
        if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
            raise TypeError(f"sdp_m_line_index must be an int, not {type(index).__name__}")
        if mid is None and index is None:
            raise TypeError("a candidate needs sdp_mid or sdp_m_line_index")
        self._candidate, self._mid, self._index = candidate, mid, index
        found = _CANDIDATE.fullmatch(candidate)
        self._parts: dict[str, str] = {} if found is None else {k: v for k, v in found.groupdict().items() if v}
        rest = self._parts.pop("rest", "").split()
        self._parts |= dict(zip(rest[::2], rest[1::2], strict=False))

    @property
    def candidate(self) -> str:
        return self._candidate

    @property
    def sdp_mid(self) -> str | None:
        return self._mid

    @property
    def sdp_m_line_index(self) -> int | None:
        return self._index

    @property
    def foundation(self) -> str | None:
        """This and what follows: None where the candidate does not say."""
        return self._parts.get("foundation")

    @property
    def component(self) -> str | None:
        """`rtp` or `rtcp`."""
        return {"1": "rtp", "2": "rtcp"}.get(self._parts.get("component", ""))

    @property
    def protocol(self) -> str | None:
        """`udp` or `tcp`."""
        protocol = self._parts.get("protocol")
        return None if protocol is None else protocol.lower()

    @property
    def priority(self) -> int | None:
        return self._number("priority")

    @property
    def address(self) -> str | None:
        return self._parts.get("address")

    @property
    def port(self) -> int | None:
        return self._number("port")

    @property
    def type(self) -> str | None:
        """`host`, `srflx`, `prflx`, `relay`."""
        return self._parts.get("typ")

    @property
    def tcp_type(self) -> str | None:
        """`active`, `passive`, `so`; None over UDP."""
        return self._parts.get("tcptype")

    @property
    def related_address(self) -> str | None:
        return self._parts.get("raddr")

    @property
    def related_port(self) -> int | None:
        return self._number("rport")

    @property
    def username_fragment(self) -> str | None:
        return self._parts.get("ufrag")

    def _number(self, name: str) -> int | None:
        value = self._parts.get(name, "")
        return int(value) if value.isdecimal() else None

    def to_json(self) -> dict[str, Any]:
        return {"candidate": self._candidate, "sdp_mid": self._mid, "sdp_m_line_index": self._index}

    def __repr__(self) -> str:
        return f"<RTCIceCandidate {self._candidate!r}>"


class RTCTrackEvent(Event):
    """The peer has offered a track: `track`."""

    def __init__(self, type: str, init: Mapping[str, object] | None = None, **keywords: object) -> None:
        """
        Args:
            type: of the event.
            init: `{"receiver", "track", "streams", "transceiver"}`; streams may be absent.

        Raises:
            TypeError: a member is missing or of a wrong type.
        """
        from msrecd.rtc.transceiver import RTCRtpReceiver, RTCRtpTransceiver

        super().__init__(type, init)
        members = init_members("RTCTrackEvent", init, keywords)
        receiver, track, transceiver = members.get("receiver"), members.get("track"), members.get("transceiver")
        streams = members.get("streams", ())
        if not isinstance(receiver, RTCRtpReceiver) or not isinstance(transceiver, RTCRtpTransceiver):
            raise TypeError("RTCTrackEvent needs its members receiver and transceiver")
        if not isinstance(track, MediaStreamTrack):
            raise TypeError("RTCTrackEvent needs its member track, a MediaStreamTrack")
        if not isinstance(streams, (list, tuple)) or not all(isinstance(one, MediaStream) for one in streams):
            raise TypeError("streams must be a list of MediaStreams")
        self._receiver, self._track, self._transceiver = receiver, track, transceiver
        self._streams: list[MediaStream] = list(streams)

    @property
    def receiver(self) -> RTCRtpReceiver:
        return self._receiver

    @property
    def track(self) -> MediaStreamTrack:
        return self._track

    @property
    def streams(self) -> list[MediaStream]:
        return list(self._streams)

    @property
    def transceiver(self) -> RTCRtpTransceiver:
        return self._transceiver


class RTCPeerConnectionIceEvent(Event):
    """A candidate was gathered, or, without one, all of them: `icecandidate`."""

    def __init__(self, type: str, init: Mapping[str, object] | None = None, **keywords: object) -> None:
        """
        Args:
            type: of the event.
            init: `{"candidate": RTCIceCandidate}`; may be absent.

        Raises:
            TypeError: `candidate` is no RTCIceCandidate.
        """
        super().__init__(type, init)
        candidate = init_members("RTCPeerConnectionIceEvent", init, keywords).get("candidate")
        if candidate is not None and not isinstance(candidate, RTCIceCandidate):
            raise TypeError("candidate must be an RTCIceCandidate")
        self._candidate = candidate

    @property
    def candidate(self) -> RTCIceCandidate | None:
        return self._candidate


CONFIGURATION = ("ice_servers", "ice_transport_policy", "bundle_policy")


_ICE_URL = re.compile(  # RFC 7064, RFC 7065
    r"(?:(?P<stun>stuns?)|turns?):(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<transport>\?transport=(?:udp|tcp))?",
    re.IGNORECASE,
)


def _is_ice_url(url: str) -> bool:
    match = _ICE_URL.fullmatch(url)
    return (
        match is not None
        and not (match["stun"] and match["transport"])
        and (match["port"] is None or 0 < int(match["port"]) < 1 << 16)
    )


def check_configuration(configuration: Mapping[str, Any]) -> None:
    """https://w3c.github.io/webrtc-pc/#set-the-configuration

    Raises:
        TypeError: a member has a wrong type or value.
        DOMException: SyntaxError: a URL of an ICE server is none; InvalidAccessError: one of TURN has no login.
    """
    servers = configuration.get("ice_servers", ())
    if not isinstance(servers, (list, tuple)):
        raise TypeError(f"ice_servers must be a list, not {type(servers).__name__}")
    for server in servers:
        urls = server.get("urls") if isinstance(server, Mapping) else None
        if not isinstance(urls, (str, list)):
            raise TypeError("each of ice_servers must be a mapping with urls")
        urls = [urls] if isinstance(urls, str) else urls
        if not urls:
            raise DOMException("urls of an ICE server has no URL", "SyntaxError")
        for url in urls:
            if not isinstance(url, str):
                raise TypeError(f"urls of an ICE server must be texts, not {type(url).__name__}")
            if not _is_ice_url(url):
                raise DOMException(f"{url!r} is no URL of an ICE server, such as stun:192.0.2.1:3478", "SyntaxError")
            login = [server.get(name) for name in ("username", "credential")]
            if url.lower().startswith("turn") and not all(isinstance(one, str) for one in login):
                raise InvalidAccessError(f"{url} needs username and credential")
    for name, allowed in (
        ("ice_transport_policy", ("all", "relay")),
        ("bundle_policy", ("balanced", "max-compat", "max-bundle")),
    ):
        if configuration.get(name, allowed[0]) not in allowed:
            raise TypeError(f"{name} must be one of {', '.join(allowed)}, not {configuration[name]!r}")
