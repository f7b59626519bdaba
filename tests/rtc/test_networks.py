"""Peers on a network that loses datagrams, is cut, and is another one after an ICE restart."""

from __future__ import annotations

import asyncio
from typing import Any

import judge
import pytest
from peers import Peers, sent_to, unmuted, until
from recording import Log, Scene, delivered, judged, run
from udprelay import Network

import msrecd

pytest.importorskip("aiortc")

from msrecd.rtc.aio import consent
from msrecd.rtc.receiving import Incoming


async def negotiate_over(network: Network, caller: msrecd.RTCPeerConnection, callee: msrecd.RTCPeerConnection) -> None:
    await caller.set_local_description(await caller.create_offer())
    assert caller.local_description is not None
    offer = await network.through(caller.local_description.sdp)
    await callee.set_remote_description({"type": "offer", "sdp": offer})
    await callee.set_local_description(await callee.create_answer())
    assert callee.local_description is not None
    answer = await network.through(callee.local_description.sdp)
    await caller.set_remote_description({"type": "answer", "sdp": answer})


async def connected_over(network: Network, peers: Peers, stream: msrecd.MediaStream) -> tuple[Any, Any, Any]:
    caller, callee = peers.new(), peers.new()
    for track in stream.get_tracks():
        caller.add_track(track, stream)
    came: list[Any] = []
    callee.ontrack = came.append
    await negotiate_over(network, caller, callee)
    received = came[0].streams[0]
    await unmuted(*received.get_tracks())
    return caller, callee, received


@pytest.mark.promise("ice-restart")
@pytest.mark.parametrize("asks", ["caller", "callee"])
def test_the_network_changes_and_the_recording_goes_on(asks: str) -> None:
    """The first network is cut; after `restart_ice` and an offer of either side media come over the second one."""

    async def scenario() -> Log:
        first, second = Network(), Network()
        async with Peers() as peers:
            with Scene("av") as scene:
                caller, callee, received = await connected_over(first, peers, scene.stream)
                recorder = msrecd.MediaRecorder(received)
                log = Log(recorder)
                recorder.start(200)
                await log.until("start")
                await log.until_media(1.0)
                old_names = {one.local_description.sdp.split("a=ice-ufrag:")[1][:8] for one in (caller, callee)}
                first.is_cut = True
                one, other = (caller, callee) if asks == "caller" else (callee, caller)
                asked = asyncio.Event()
                one.onnegotiationneeded = lambda _: asked.set()
                one.restart_ice()
                await asyncio.wait_for(asked.wait(), 20)
                await negotiate_over(second, one, other)
                new_names = {one.local_description.sdp.split("a=ice-ufrag:")[1][:8] for one in (caller, callee)}
                assert not old_names & new_names
                for side in (caller, callee):
                    is_up = lambda side=side: side.connection_state == "connected"  # noqa: E731
                    await until(side, "connectionstatechange", is_up)
                await log.until_media(1.5)
                assert {track.ready_state for track in received.get_tracks()} == {"live"}
                recorder.stop()
                await log.until("stop")
        assert second.forwarded > 50
        first.close()
        second.close()
        return log

    log = run(scenario())
    found = judged(log.data())
    numbers = [number for number in found.numbers if number]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] > 60
    assert found.numbers[-1], "it ends in black: nothing came over the second network"
    assert log.count("error") == 0


def test_a_restart_that_finds_no_way_changes_nothing() -> None:
    """Where the new candidates lead nowhere the peers stay on the way that they have."""

    async def scenario() -> None:
        network, nowhere = Network(), Network()
        nowhere.is_cut = True
        async with Peers() as peers:
            with Scene("v") as scene:
                caller, callee, received = await connected_over(network, peers, scene.stream)
                before = caller.local_description.sdp
                offer = await caller.create_offer({"ice_restart": True})
                assert caller.local_description.sdp == before
                await caller.set_local_description(offer)
                text = await nowhere.through(caller.local_description.sdp)
                await callee.set_remote_description({"type": "offer", "sdp": text})
                await callee.set_local_description()
                text = await nowhere.through(callee.local_description.sdp)
                await caller.set_remote_description({"type": "answer", "sdp": text})
                async with msrecd.MediaStreamTrackReader(received.get_tracks()[0]) as frames:
                    shown = 0
                    async with asyncio.timeout(40):
                        async for frame in frames:
                            shown += bool(frame.array.max() > 24)
                            if shown == 20:
                                break
        network.close()
        nowhere.close()

    run(scenario())


def test_a_slow_way_is_a_way_and_one_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that take longer than aioice waits keep the connection; none for EXPIRES_S end it and its tracks."""
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(consent, "CHECKS_EVERY_S", 0.1)
    monkeypatch.setattr(consent, "EXPIRES_S", 6.0)

    async def scenario() -> Log:
        network = Network()
        async with Peers() as peers:
            with Scene("av") as scene:
                caller, callee, received = await connected_over(network, peers, scene.stream)
                recorder = msrecd.MediaRecorder(received)
                log = Log(recorder)
                recorder.start(200)
                await log.until("start")
                network.delay_s = 0.35  # for a round trip of 0.7 s
                await log.until_media(6.0)  # aioice gives up after 3.6 s
                assert (caller.connection_state, callee.connection_state) == ("connected", "connected")
                network.is_cut = True
                for side in (caller, callee):
                    is_over = lambda side=side: side.connection_state == "closed"  # noqa: E731
                    await until(side, "connectionstatechange", is_over)
                await log.until("stop")
                assert {track.ready_state for track in received.get_tracks()} == {"ended"}
        network.close()
        return log

    log = run(scenario())
    assert judged(log.data()).times[-1] > 5.5


def test_a_track_that_cannot_be_taken_in_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of ours on one track's packets leaves the other one, and the connection, as they are."""
    add = Incoming.add

    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("av") as scene:
                caller, callee, received = await sent_to(peers, scene.stream)
                [video], [audio] = received.get_video_tracks(), received.get_audio_tracks()

                def fails(self: Incoming, packet: Any) -> bool:
                    if self.source.kind == "video":
                        raise ArithmeticError("made by the test")
                    return add(self, packet)

                monkeypatch.setattr(Incoming, "add", fails)
                await until(video, "ended", lambda: video.ready_state == "ended")
                async with asyncio.timeout(20), msrecd.MediaStreamTrackReader(audio) as blocks:
                    for _ in range(50):
                        await anext(blocks)
                assert audio.ready_state == "live"
                assert {caller.connection_state, callee.connection_state} == {"connected"}

    run(scenario())


@pytest.mark.promise("thin-link")
def test_a_viewer_on_a_thin_link_costs_the_recorder_nothing() -> None:
    """One datagram in eight is lost: the viewer gets whole frames only, fewer of them; the recorder has every one."""

    async def scenario() -> tuple[Log, Log, dict[str, Any]]:
        network = Network()
        async with Peers() as peers:
            with Scene("v", size=(320, 192)) as scene:
                recorder = msrecd.MediaRecorder(scene.stream)
                log = Log(recorder)
                recorder.start(200)
                await log.until("start")
                caller, _, received = await connected_over(network, peers, scene.stream)
                viewer = msrecd.MediaRecorder(received)
                seen = Log(viewer)
                viewer.start(200)
                await seen.until("start")
                count = iter(range(1_000_000))
                network.drops = lambda data: data[1] & 127 not in range(64, 96) and next(count) % 8 == 0
                await delivered(scene.stream, 4)
                network.drops = lambda _: False
                await delivered(scene.stream, 3)
                stats = await caller.get_stats(scene.stream.get_tracks()[0])
                for one, its_log in ((viewer, seen), (recorder, log)):
                    one.stop()
                    await its_log.until("stop")
                (sent,) = [one for one in stats.values() if one["type"] == "outbound-rtp"]
        network.close()
        return log, seen, sent

    log, seen, _ = run(scenario())
    recorded = judged(log.data())
    (info,) = log.infos
    if not sum(track.dropped for track in info.tracks):  # a busy machine drops frames, and says so
        judge.assert_consecutive(recorded.numbers)
    watched = [number for number in judged(seen.data()).numbers if number]
    assert watched == sorted(set(watched))
    assert set(watched) <= set(recorded.numbers), "a broken frame was shown"
    assert watched[-1] >= recorded.numbers[-1] - 40, "the viewer did not come back"
