"""What can be read of an RTCPeerConnection: states, descriptions, handlers of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msrecd.dom.events import EventTarget, event_handler
from msrecd.rtc.descriptions import RTCSessionDescription

if TYPE_CHECKING:
    from msrecd.rtc.aio.peerstates import Snapshot


class PeerAttributes(EventTarget):
    """Belongs to the loop's thread; follows the snapshots of the connection."""

    ontrack = event_handler("track")
    onnegotiationneeded = event_handler("negotiationneeded")
    onicecandidate = event_handler("icecandidate")
    ondatachannel = event_handler("datachannel")
    onconnectionstatechange = event_handler("connectionstatechange")
    oniceconnectionstatechange = event_handler("iceconnectionstatechange")
    onicegatheringstatechange = event_handler("icegatheringstatechange")
    onsignalingstatechange = event_handler("signalingstatechange")

    def __init__(self) -> None:
        super().__init__()
        self._signaling = "stable"
        self._connection = "new"
        self._ice_connection = "new"
        self._ice_gathering = "new"
        self._local: RTCSessionDescription | None = None
        self._remote: RTCSessionDescription | None = None
        # Local and remote, as they were when signaling was stable for the last time.
        self._agreed: tuple[RTCSessionDescription | None, RTCSessionDescription | None] = (None, None)

    @property
    def connection_state(self) -> str:
        """`new`, `connecting`, `connected`, `failed`, `closed`."""
        return self._connection

    @property
    def ice_connection_state(self) -> str:
        """`new`, `checking`, `completed`, `failed`, `closed`."""
        return self._ice_connection

    @property
    def ice_gathering_state(self) -> str:
        """`new`, `gathering`, `complete`."""
        return self._ice_gathering

    @property
    def signaling_state(self) -> str:
        """`stable`, `have-local-offer`, `have-remote-offer`, `closed`."""
        return self._signaling

    @property
    def local_description(self) -> RTCSessionDescription | None:
        """With all candidates, once `set_local_description` is done."""
        return self._local

    @property
    def remote_description(self) -> RTCSessionDescription | None:
        return self._remote

    @property
    def can_trickle_ice_candidates(self) -> bool | None:
        """None before there is a remote description."""
        return None if self._remote is None else "trickle" in self._remote.sdp

    @property
    def current_local_description(self) -> RTCSessionDescription | None:
        """Of the negotiation that was finished last."""
        return self._agreed[0]

    @property
    def current_remote_description(self) -> RTCSessionDescription | None:
        """Of the negotiation that was finished last."""
        return self._agreed[1]

    @property
    def pending_local_description(self) -> RTCSessionDescription | None:
        """An offer of ours that has no answer yet."""
        return self._local if self._signaling == "have-local-offer" else None

    @property
    def pending_remote_description(self) -> RTCSessionDescription | None:
        """An offer of the peer's that has no answer yet."""
        return self._remote if self._signaling == "have-remote-offer" else None

    def _take_descriptions(self, snapshot: Snapshot) -> None:
        self._local = _description(snapshot.local, self._local)
        self._remote = _description(snapshot.remote, self._remote)
        if snapshot.signaling == "stable":
            self._agreed = (self._local, self._remote)


def _description(found: tuple[str, str] | None, before: RTCSessionDescription | None) -> RTCSessionDescription | None:
    if found is None:
        return None
    if before is not None and (before.type, before.sdp) == found:
        return before
    return RTCSessionDescription({"type": found[0], "sdp": found[1]})
