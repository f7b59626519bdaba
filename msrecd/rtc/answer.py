"""Showing a stream to who sends an offer: one request, one answer (WHEP, draft-ietf-wish-whep; also WHIP's roles)."""

from __future__ import annotations

import asyncio

from msrecd.dom.exceptions import InvalidStateError, OperationError
from msrecd.media.stream import MediaStream
from msrecd.rtc.peerconnection import RTCPeerConnection

ANSWER_S = 15.0  # gathering candidates included
CONNECT_S = 30.0  # an offer whose peer does not come is forgotten


class WhepSession:
    """One viewer. Belongs to the loop's thread."""

    def __init__(self, connection: RTCPeerConnection, sdp: str) -> None:
        self.sdp = sdp
        self.connection = connection
        self._over = asyncio.Event()
        self._waiting = asyncio.get_running_loop().call_later(CONNECT_S, self._give_up)
        connection.add_event_listener("connectionstatechange", self._changed)

    async def close(self) -> None:
        """End it; idempotent."""
        self._waiting.cancel()
        self.connection.close()
        self._over.set()

    async def wait_closed(self) -> None:
        """Wait until the viewer has gone, or `close` was called."""
        await self._over.wait()

    def _changed(self, _: object) -> None:
        state = self.connection.connection_state
        if state == "connected":
            self._waiting.cancel()
        elif state in ("failed", "closed"):
            self._end()

    def _give_up(self) -> None:
        if self.connection.connection_state != "connected":
            self._end()

    def _end(self) -> None:
        self._waiting.cancel()
        self.connection.close()
        self._over.set()


async def answer(stream: MediaStream, sdp_offer: str) -> WhepSession:
    """The session of a viewer that offers to receive; its answer has all candidates.

    Raises:
        NotSupportedError: aiortc is not installed.
        TypeError: `sdp_offer` is no str.
        OperationError: the offer cannot be used: no SDP, nothing to be received, no codec in common.
        InvalidStateError: the stream has no live track.
    """
    if not isinstance(sdp_offer, str):
        raise TypeError(f"sdp_offer must be a str, not {type(sdp_offer).__name__}")
    tracks = [track for track in stream.get_tracks() if track.ready_state == "live"]
    if not tracks:
        raise InvalidStateError("the stream has no live track")
    connection = RTCPeerConnection()
    try:
        async with asyncio.timeout(ANSWER_S):
            await connection.set_remote_description({"type": "offer", "sdp": sdp_offer})
            wanted = [one._kind for one in connection.get_transceivers()]
            for track in tracks:
                if track.kind in wanted:
                    wanted.remove(track.kind)
                    connection.add_track(track, stream)
            if not any(sender.track is not None for sender in connection.get_senders()):
                raise OperationError("the offer asks for no track that there is")
            for transceiver in connection.get_transceivers():  # what the viewer would send is not taken
                transceiver.direction = "sendonly" if transceiver.sender.track is not None else "inactive"
            await connection.set_local_description(await connection.create_answer())
        description = connection.local_description
        assert description is not None
        return WhepSession(connection, description.sdp)
    except TimeoutError:
        connection.close()
        raise OperationError(f"no answer could be made within {ANSWER_S:g} s") from None
    except BaseException:
        connection.close()
        raise
