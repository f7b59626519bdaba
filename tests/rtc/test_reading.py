"""What a program reads of a connection, and what it may set while it runs."""

from __future__ import annotations

from typing import Any

import pytest
from peers import Peers, negotiate, sent_to, until
from recording import Scene, run

import msrecd

pytest.importorskip("aiortc")

HOST = "candidate:abc 1 udp 2130706431 192.0.2.7 50123 typ host"
RELAY = "candidate:1 2 TCP 7 2001:db8::1 9 typ relay raddr 192.0.2.9 rport 4444 tcptype active ufrag xyz"


def test_parts_of_a_candidate() -> None:
    host = msrecd.RTCIceCandidate({"candidate": HOST, "sdp_mid": "0"})
    assert (host.foundation, host.component, host.protocol, host.priority) == ("abc", "rtp", "udp", 2130706431)
    assert (host.address, host.port, host.type) == ("192.0.2.7", 50123, "host")
    assert (host.related_address, host.related_port, host.tcp_type, host.username_fragment) == (None,) * 4
    relay = msrecd.RTCIceCandidate({"candidate": RELAY, "sdp_mid": "0"})
    assert (relay.component, relay.protocol, relay.type, relay.tcp_type) == ("rtcp", "tcp", "relay", "active")
    assert (relay.related_address, relay.related_port, relay.username_fragment) == ("192.0.2.9", 4444, "xyz")
    for text in ("", "candidate:nonsense", "candidate:1 1 udp x y z typ host"):
        empty = msrecd.RTCIceCandidate({"candidate": text, "sdp_mid": "0"})
        assert (empty.address, empty.port, empty.type, empty.priority) == (None,) * 4


def test_descriptions_that_are_agreed_and_that_wait() -> None:
    async def scenario() -> None:
        async with Peers() as peers:
            caller, callee = peers.new(), peers.new()
            caller.add_transceiver("audio")
            assert caller.can_trickle_ice_candidates is None
            await caller.set_local_description()
            offer = caller.local_description
            assert offer is not None
            assert caller.pending_local_description is offer
            assert caller.current_local_description is None
            assert caller.ice_gathering_state == "complete"
            await callee.set_remote_description(offer)
            assert callee.pending_remote_description is callee.remote_description
            assert callee.current_remote_description is None
            assert callee.can_trickle_ice_candidates is not None
            await callee.set_local_description()
            assert callee.local_description is not None
            await caller.set_remote_description(callee.local_description)
            for one in (caller, callee):
                await until(one, "signalingstatechange", lambda one=one: one.signaling_state == "stable")
                assert (one.pending_local_description, one.pending_remote_description) == (None, None)
                assert one.current_local_description is one.local_description
                assert one.current_remote_description is one.remote_description
                await until(one, "iceconnectionstatechange", lambda one=one: one.ice_connection_state == "completed")

    run(scenario())


def test_a_configuration_is_exchanged() -> None:
    """A relay that is no longer there; the policy of the next restart is the new one."""

    async def scenario() -> None:
        async with Peers() as peers:
            caller, callee = peers.new({"ice_servers": []}), peers.new()
            caller.create_data_channel("one")
            await negotiate(caller, callee)
            await until(caller, "connectionstatechange", lambda: caller.connection_state == "connected")
            with pytest.raises(msrecd.InvalidModificationError):
                caller.set_configuration({"bundle_policy": "max-bundle"})
            with pytest.raises(TypeError):
                caller.set_configuration({"ice_transport_policy": "none"})  # type: ignore[typeddict-item]
            assert caller.get_configuration() == {"ice_servers": []}
            caller.set_configuration({"ice_transport_policy": "relay"})
            assert caller.get_configuration() == {"ice_transport_policy": "relay"}
            caller.restart_ice()
            await caller.set_local_description(await caller.create_offer())
            assert caller.local_description is not None
            assert "typ host" not in caller.local_description.sdp  # of a relay only, and there is none
            caller.close()
            with pytest.raises(msrecd.InvalidStateError):
                caller.set_configuration()

    run(scenario())


def test_a_sender_is_paused_and_slowed_down() -> None:
    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("v") as scene:
                caller, _, received = await sent_to(peers, scene.stream)
                (sender,), (track,) = caller.get_senders(), received.get_tracks()
                parameters = sender.get_parameters()
                assert parameters["encodings"] == [{"active": True}]
                assert {one["mime_type"] for one in parameters["codecs"]} == {"video/H264", "video/VP8"}
                parameters["encodings"][0]["max_bitrate"] = 50_000
                await sender.set_parameters(parameters)
                assert sender.get_parameters()["encodings"] == [{"active": True, "max_bitrate": 50_000}]
                assert sender._binding is not None
                assert sender._binding.outgoing.sent.request("h264").bit_rate == 50_000
                parameters = sender.get_parameters()
                parameters["encodings"][0]["active"] = False
                await sender.set_parameters(parameters)
                await until(track, "mute", lambda: track.muted)
                with pytest.raises(msrecd.InvalidStateError):
                    await sender.set_parameters(parameters)  # they were used
                parameters = sender.get_parameters()
                parameters["encodings"][0]["active"] = True
                await sender.set_parameters(parameters)
                await until(track, "unmute", lambda: not track.muted)

    run(scenario())


@pytest.mark.parametrize(
    ("encodings", "error"),
    [
        ([], msrecd.InvalidModificationError),
        ([{}, {}], msrecd.InvalidModificationError),
        ("x", TypeError),
        ([{"max_bitrate": 0}], TypeError),
        ([{"max_bitrate": "1M"}], TypeError),
    ],
)
def test_wrong_parameters_are_refused(encodings: Any, error: type[Exception]) -> None:
    async def scenario() -> None:
        async with Peers() as peers:
            sender = peers.new().add_transceiver("video").sender
            with pytest.raises(error):
                await sender.set_parameters({**sender.get_parameters(), "encodings": encodings})

    run(scenario())


def test_streams_of_a_sender_are_those_of_the_next_offer() -> None:
    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("a") as scene:
                caller = peers.new()
                sender = caller.add_track(scene.stream.get_tracks()[0])
                stream = msrecd.MediaStream()
                sender.set_streams(stream)
                with pytest.raises(TypeError):
                    sender.set_streams("one")  # type: ignore[arg-type]
                await caller.set_local_description()
                assert caller.local_description is not None
                assert stream.id in caller.local_description.sdp

    run(scenario())


def test_codecs_are_preferred() -> None:
    async def scenario() -> None:
        async with Peers() as peers:
            caller = peers.new()
            transceiver = caller.add_transceiver("video")
            with pytest.raises(msrecd.InvalidAccessError):
                transceiver.set_codec_preferences([{"mime_type": "video/AV1"}])
            transceiver.set_codec_preferences([{"mime_type": "video/VP8"}])
            await caller.set_local_description()
            assert caller.local_description is not None
            assert "VP8" in caller.local_description.sdp
            assert "H264" not in caller.local_description.sdp

    run(scenario())


def test_members_of_a_channel() -> None:
    async def scenario() -> None:
        async with Peers() as peers:
            caller, callee = peers.new(), peers.new()
            options: Any = {"ordered": False, "max_packet_life_time": 500, "negotiated": True, "id": 7}
            ends = [one.create_data_channel("both", options) for one in (caller, callee)]
            await negotiate(caller, callee)
            for end in ends:
                await until(end, "open", lambda end=end: end.ready_state == "open")
                assert (end.max_packet_life_time, end.negotiated, end.ordered, end.id) == (500, True, False, 7)
                assert (end.max_retransmits, end.protocol, end.buffered_amount) == (None, "", 0)
            ends[0].send(b"x" * 100_000)
            assert ends[0].buffered_amount == 100_000  # until the loop's next turn
            got: list[bytes] = []
            ends[1].onmessage = lambda event: got.append(event.data)
            await until(ends[1], "message", lambda: bool(got))
            assert got == [b"x" * 100_000]

    run(scenario())


def test_sound_is_decoded_for_a_recorder_that_was_there_before_it() -> None:
    """A program records in its `track` listener: nothing has come yet, and the codec is another than the peer's."""

    async def scenario() -> int:
        async with Peers() as peers:
            caller, callee = peers.new(), peers.new()
            context = msrecd.AudioContext()
            end, tone = context.create_media_stream_destination(), context.create_oscillator()
            tone.connect(end)
            tone.start()
            caller.add_track(end.stream.get_audio_tracks()[0], end.stream)
            recorders: list[msrecd.MediaRecorder] = []
            sizes: list[int] = []

            def record(event: msrecd.RTCTrackEvent) -> None:
                recorder = msrecd.MediaRecorder(event.streams[0], {"mime_type": "audio/mp4;codecs=mp4a.40.2"})
                recorder.ondataavailable = lambda blob: sizes.append(blob.data.size)
                recorder.start(100)
                recorders.append(recorder)

            callee.ontrack = record
            await negotiate(caller, callee)
            await until(recorders[0], "dataavailable", lambda: sum(sizes) > 4000)
            recorders[0].stop()
            await recorders[0].stopped
            await context.close()
        return sum(sizes)

    assert run(scenario()) > 4000
