"""Two peer connections of this program: states and events in their order, what is refused, data channels."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from peers import Peers, negotiate, sent_to, until
from recording import Scene, run

import msrecd
from msrecd.rtc.loop import RtcLoop

pytest.importorskip("aiortc")


def test_events_and_states() -> None:
    """An offer and its answer: each state and event, on the loop, in the specification's order."""

    async def scenario() -> None:
        async with Peers() as peers:
            caller, callee = peers.new(), peers.new()
            said: dict[str, list[str]] = {"caller": [], "callee": []}
            for name, one in (("caller", caller), ("callee", callee)):
                for type_ in ("signalingstatechange", "track", "negotiationneeded", "connectionstatechange"):
                    one.add_event_listener(type_, lambda event, name=name: said[name].append(event.type))
            candidates: list[Any] = []
            caller.onicecandidate = lambda event: candidates.append(event.candidate)
            with Scene("av") as scene:
                for track in scene.stream.get_tracks():
                    caller.add_track(track, scene.stream)
                assert said["caller"] == []  # never inside the call
                await until(caller, "negotiationneeded", lambda: "negotiationneeded" in said["caller"])
                await negotiate(caller, callee)
                for one in (caller, callee):
                    await until(one, "connectionstatechange", lambda one=one: one.connection_state == "connected")
                assert said["caller"][:3] == ["negotiationneeded", "signalingstatechange", "signalingstatechange"]
                assert [one for one in said["callee"] if one != "connectionstatechange"] == [
                    "track",
                    "track",
                    "signalingstatechange",
                    "signalingstatechange",
                ]
                assert candidates[-1] is None
                assert all(one.candidate.startswith("candidate:") and one.sdp_mid for one in candidates[:-1])
                assert {one.current_direction for one in caller.get_transceivers()} == {"sendonly"}
                assert {one.current_direction for one in callee.get_transceivers()} == {"recvonly"}
                assert [one.track for one in caller.get_senders()] == scene.stream.get_tracks()
                streams = {stream.id for stream in _streams_of(callee)}
                assert streams <= {scene.stream.id}
                callee.close()
                assert callee.connection_state == "closed"
                await until(caller, "connectionstatechange", lambda: caller.connection_state == "closed")

    run(scenario())


def _streams_of(connection: msrecd.RTCPeerConnection) -> list[msrecd.MediaStream]:
    return list(connection._streams.values())


def test_both_ways_and_again() -> None:
    """The answering side adds a track later: it is asked to negotiate, and the tracks go both ways."""

    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("a") as one, Scene("a", signal="tone") as other:
                caller, callee, _ = await sent_to(peers, one.stream)
                came: list[Any] = []
                caller.ontrack = came.append
                needed = asyncio.Event()
                callee.onnegotiationneeded = lambda _: needed.set()
                sender = callee.add_track(other.stream.get_tracks()[0])
                assert len(callee.get_transceivers()) == 1  # the one that receives has got a sender
                assert callee.get_transceivers()[0].direction == "sendrecv"
                await asyncio.wait_for(needed.wait(), 10)
                await negotiate(callee, caller)
                await until(came[0].track, "unmute", lambda: not came[0].track.muted)
                assert callee.get_transceivers()[0].current_direction in ("sendrecv", "sendonly")
                callee.remove_track(sender)
                assert sender.track is None

    run(scenario())


def test_data_channels() -> None:
    """Text and bytes both ways, its events, and what it refuses."""

    async def scenario() -> None:
        async with Peers() as peers:
            caller, callee = peers.new(), peers.new()
            channel = caller.create_data_channel("chat", {"ordered": False, "max_retransmits": 3, "protocol": "p"})
            assert channel.ready_state == "connecting"
            with pytest.raises(msrecd.InvalidStateError):
                channel.send("early")
            came: list[Any] = []
            callee.ondatachannel = lambda event: came.append(event.channel)
            await negotiate(caller, callee)
            await until(channel, "open", lambda: channel.ready_state == "open")
            await until(callee, "datachannel", lambda: bool(came))
            other = came[0]
            await until(other, "open", lambda: other.ready_state == "open")
            assert (other.label, other.protocol, other.ordered, other.max_retransmits) == ("chat", "p", False, 3)
            got: list[Any] = []
            other.onmessage = lambda event: got.append(event.data)
            channel.send("text")
            channel.send(b"bytes")
            await until(other, "message", lambda: len(got) == 2)
            assert sorted(got, key=str) == [b"bytes", "text"]
            with pytest.raises(TypeError):
                channel.send(1)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                channel.send(bytes(300 << 10))
            other.close()
            await until(channel, "close", lambda: channel.ready_state == "closed")

    run(scenario())


def test_what_is_refused() -> None:
    """Wrong types, states and descriptions are the specification's errors, and change nothing."""

    async def scenario() -> None:
        async with Peers() as peers:
            connection, other = peers.new(), peers.new()
            with Scene("v") as scene:
                track = scene.stream.get_tracks()[0]
                with pytest.raises(TypeError):
                    connection.add_track("video")  # type: ignore[arg-type]
                with pytest.raises(TypeError):
                    connection.add_transceiver("text")  # type: ignore[arg-type]
                with pytest.raises(TypeError):
                    connection.add_transceiver("video", {"direction": "both"})
                sender = connection.add_track(track)
                with pytest.raises(msrecd.InvalidAccessError):
                    connection.add_track(track)
                with pytest.raises(msrecd.InvalidAccessError):
                    other.remove_track(sender)
                with pytest.raises(msrecd.InvalidStateError):
                    await connection.create_answer()
                for wrong in ("no SDP at all", "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"):
                    with pytest.raises(msrecd.OperationError):
                        await connection.set_remote_description({"type": "offer", "sdp": wrong})
                with pytest.raises(TypeError):
                    await connection.set_remote_description({"type": "question", "sdp": ""})
                with pytest.raises(msrecd.InvalidStateError):
                    await connection.add_ice_candidate(
                        {"candidate": "candidate:1 1 udp 1 ::1 9 typ host", "sdpMid": "0"}
                    )
                assert connection.signaling_state == "stable"
                connection.close()
                with pytest.raises(msrecd.InvalidStateError):
                    connection.add_track(track.clone())
                with pytest.raises(msrecd.InvalidStateError):
                    await connection.create_offer()

    run(scenario())


def test_constructors_check_types() -> None:
    with pytest.raises(TypeError):
        msrecd.RTCSessionDescription({"type": "question"})
    with pytest.raises(TypeError):
        msrecd.RTCIceCandidate({"candidate": ""})
    with pytest.raises(TypeError):
        msrecd.RTCTrackEvent("track", {})
    candidate = msrecd.RTCIceCandidate({"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0})
    assert candidate.to_json() == {"candidate": "candidate:1", "sdp_mid": "0", "sdp_m_line_index": 0}
    description = msrecd.RTCSessionDescription({"type": "offer", "sdp": "v=0"})
    assert description.to_json() == {"type": "offer", "sdp": "v=0"}


def test_an_unknown_option_is_one_warning() -> None:
    async def scenario() -> None:
        with pytest.warns(UserWarning, match="ice_servers") as caught:
            connection = msrecd.RTCPeerConnection({"ice_server": []})
        connection.close()
        assert [one.filename for one in caught] == [__file__]

    run(scenario())


@pytest.mark.parametrize(
    ("server", "error"),
    [
        ({"urls": "stunn:192.0.2.1"}, "SyntaxError"),
        ({"urls": ["stun:192.0.2.1", "http://192.0.2.1"]}, "SyntaxError"),
        ({"urls": "stun:"}, "SyntaxError"),
        ({"urls": "stun:192.0.2.1:0"}, "SyntaxError"),
        ({"urls": "stun:192.0.2.1:65536"}, "SyntaxError"),
        ({"urls": "stun://192.0.2.1"}, "SyntaxError"),
        ({"urls": "stun:192.0.2.1?transport=udp"}, "SyntaxError"),
        ({"urls": "turn:192.0.2.1?transport=sctp", "username": "u", "credential": "c"}, "SyntaxError"),
        ({"urls": []}, "SyntaxError"),
        ({"urls": "turn:192.0.2.1"}, "InvalidAccessError"),
        ({"urls": "turns:192.0.2.1", "username": "u"}, "InvalidAccessError"),
        ({"urls": [1]}, "TypeError"),
    ],
)
def test_a_wrong_ice_server_is_refused(server: dict[str, Any], error: str) -> None:
    """https://w3c.github.io/webrtc-pc/#set-the-configuration"""

    async def scenario() -> None:
        with pytest.raises((msrecd.DOMException, TypeError)) as refused:
            msrecd.RTCPeerConnection({"ice_servers": [server]})
        assert getattr(refused.value, "name", type(refused.value).__name__) == error

    run(scenario())


def test_right_ice_servers_are_taken() -> None:
    async def scenario() -> None:
        login = {"username": "u", "credential": "c"}
        urls = ["turn:host.example:3478?transport=udp", "TURNS:[2001:db8::1]:5349", "stun:host.example"]
        connection = msrecd.RTCPeerConnection({"ice_servers": [{"urls": urls, **login}, {"urls": "stun:192.0.2.1"}]})
        connection.close()

    run(scenario())


def test_without_aiortc_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(msrecd.NotSupportedError, match=r"msrecd\[rtc\]"):
            msrecd.RTCPeerConnection()

    run(scenario())


def test_its_thread_goes_with_the_last_connection() -> None:
    """Nothing of WebRTC runs before the first connection and a little after the last one."""

    async def scenario() -> None:
        loops = []
        for _ in range(2):
            connection = msrecd.RTCPeerConnection()
            loops.append(connection._link.rtc)
            connection.create_data_channel("one")
            await connection.create_offer()
            connection.close()
        assert loops[0] is loops[1]
        async with asyncio.timeout(30):
            while loops[0]._thread.is_alive():  # noqa: ASYNC110 - a thread that ends says it to nobody
                await asyncio.sleep(0.05)
        assert RtcLoop._current is None

    run(scenario())
    assert "aiortc" in sys.modules
