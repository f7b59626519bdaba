"""What goes over a peer connection: every frame and sample, in sync; shared encodings; tracks that end."""

from __future__ import annotations

import asyncio
from typing import Any

import judge
import pytest
from peers import Peers, negotiate, sent_to, unmuted, until
from recording import Log, PaintedSource, Scene, delivered, judged, pictures, run, streams_of

import msrecd
from msrecd.codecs import hub

pytest.importorskip("aiortc")


def outbound(stats: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return next(one for one in stats.values() if one["type"] == "outbound-rtp")


def test_recorded_at_the_other_end() -> None:
    """All frames of the recorded stretch, sound and picture together as the camera and the microphone gave them."""

    async def scenario() -> tuple[Log, dict[str, Any]]:
        async with Peers() as peers:
            with Scene("av") as scene:
                caller, _, received = await sent_to(peers, scene.stream)
                recorder = msrecd.MediaRecorder(received)
                log = Log(recorder)
                recorder.start(200)
                await log.until("start")
                await delivered(scene.stream, 4)
                recorder.stop()
                await log.until("stop")
                return log, outbound(await caller.get_stats(scene.stream.get_video_tracks()[0]))

    log, sent = run(scenario())
    assert streams_of(log.data()) == {"video": "h264", "audio": "opus"}  # passed through, twice
    found = judged(log.data())
    (info,) = log.infos
    if not info.gaps and not sum(track.dropped for track in info.tracks):  # a busy machine loses packets, and says so
        judge.assert_consecutive(found.numbers)
        assert found.audio_gaps == []
        assert sent["frames_dropped"] == 0
    assert len(found.av_offsets_ms) >= 2
    assert abs(found.av_offset_ms) <= 10


@pytest.mark.promise("peer-closes")
def test_received_tracks_are_ordinary() -> None:
    """They are read as arrays, sent on to a third peer, and end when the first one closes."""

    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("av", signal="tone") as scene:
                caller, callee, received = await sent_to(peers, scene.stream)
                _, _, again = await sent_to(peers, received)
                video, audio = again.get_video_tracks()[0], again.get_audio_tracks()[0]
                async with msrecd.MediaStreamTrackReader(video) as frames:
                    frame = await asyncio.wait_for(anext(aiter(frames)), 20)
                assert frame.array.shape == (96, 160, 3)
                async with msrecd.MediaStreamTrackReader(audio) as blocks:
                    heard = 0
                    async with asyncio.timeout(20):
                        async for block in blocks:
                            heard = max(heard, abs(int(block.array.max())))
                            if heard > 10_000:
                                break
                assert video.get_settings()["width"] == 160
                stats = (await callee.get_stats(received.get_video_tracks()[0])).values()
                (inbound,) = [one for one in stats if one["type"] == "inbound-rtp"]
                assert inbound["packets_received"] >= inbound["frames_received"] > 0
                tracks = received.get_tracks()
                over = [asyncio.Event() for _ in tracks]
                for track, event in zip(tracks, over, strict=True):
                    track.onended = lambda _, event=event: event.set()
                caller.close()
                for event in over:
                    await asyncio.wait_for(event.wait(), 20)
                assert {track.ready_state for track in tracks} == {"ended"}

    run(scenario())


@pytest.mark.promise("viewers-share")
def test_viewers_share_the_recorders_encoding() -> None:
    """One encoder for a recorder and two viewers; theirs is the request that runs; they may not ask for key frames."""

    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("v") as scene:
                recorder = msrecd.MediaRecorder(scene.stream, {"video_bits_per_second": 700_000})
                log = Log(recorder)
                recorder.start(200)
                await log.until("start")
                await sent_to(peers, scene.stream)
                await sent_to(peers, scene.stream)
                source = scene.stream.get_tracks()[0]._source
                (request,) = hub._running[source]
                assert request.bit_rate == 700_000
                lease = hub.share(source, request)
                assert lease.is_recorded
                assert not lease.request_key_frame()
                recorder.stop()
                await log.until("stop")
                assert not lease.is_recorded
                assert lease.request_key_frame()
                lease.close()

    run(scenario())


def test_a_viewer_gets_its_key_frame() -> None:
    """Where no recorder is disturbed, a peer that asks has a key frame at once, long before the encoder's own."""

    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("v") as scene:
                caller, callee, _ = await sent_to(peers, scene.stream)
                track = scene.stream.get_tracks()[0]
                begun = outbound(await caller.get_stats(track))
                received = callee.get_receivers()[0].track
                assert received is not None
                lease = hub.share(received._source, caller.get_senders()[0]._binding.outgoing.sent.request("h264"))
                async with asyncio.timeout(20):
                    asked = 0
                    while asked < 3:
                        lease.request_key_frame()
                        await delivered(scene.stream, 0.6)
                        asked += 1
                    now = outbound(await caller.get_stats(track))
                lease.close()
                seconds = (now["frames_sent"] - begun["frames_sent"]) / 30
                assert now["key_frames_encoded"] - begun["key_frames_encoded"] > seconds / 2 + 1
                assert now["pli_count"] > begun["pli_count"]

    run(scenario())


def test_a_disabled_track_is_black_and_silent() -> None:
    """A peer sees black and hears nothing while the sender's track is disabled; a recorder on a clone sees on."""

    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("v") as scene:
                clone = scene.stream.get_tracks()[0].clone()
                _, _, received = await sent_to(peers, msrecd.MediaStream([clone]))
                clone.enabled = False
                async with msrecd.MediaStreamTrackReader(received.get_tracks()[0]) as frames:
                    async with asyncio.timeout(30):
                        async for frame in frames:
                            if frame.array.max() < 24:
                                break
                    clone.enabled = True
                    async with asyncio.timeout(30):
                        async for frame in frames:
                            if frame.array.max() > 200:
                                break
                clone.stop()

    run(scenario())


def test_another_track_without_negotiation() -> None:
    """`replace_track`, and the end of a track: the peer sees the next one; the sender goes on."""

    async def scenario() -> None:
        async with Peers() as peers:
            first, second = PaintedSource(), PaintedSource()
            first.paint((200, 0, 0))
            track = first.track()
            caller, callee = peers.new(), peers.new()
            sender = caller.add_track(track)
            came: list[Any] = []
            callee.ontrack = came.append
            await negotiate(caller, callee)
            painting = asyncio.ensure_future(_paint(first, (200, 0, 0), second, (0, 0, 200)))
            try:
                received = came[0].track
                await unmuted(received)
                async with msrecd.MediaStreamTrackReader(received) as frames:
                    await _until_colour(frames, 0)
                    other = second.track()
                    await sender.replace_track(other)
                    await _until_colour(frames, 2)
                    await sender.replace_track(None)
                    await until(received, "mute", lambda: received.muted)
                    other.stop()
                    track.stop()
            finally:
                painting.cancel()

    run(scenario())


async def _paint(*pairs: Any) -> None:
    while True:
        for source, colour in zip(pairs[::2], pairs[1::2], strict=True):
            source.paint(colour)
        await asyncio.sleep(0.05)


async def _until_colour(frames: msrecd.MediaStreamTrackReader, channel: int) -> None:
    async with asyncio.timeout(30):
        async for frame in frames:
            middle = frame.array[48, 80]
            if middle[channel] > 120 and middle[2 - channel] < 90:
                return


def test_frames_that_change_their_size_are_one_recording() -> None:
    """As a browser does when the bandwidth changes: scaled to the first size, none lost (C13)."""

    async def scenario() -> Log:
        async with Peers() as peers:
            with Scene("v", size=(320, 192)) as large, Scene("v", size=(160, 96)) as small:
                caller, _, received = await sent_to(peers, large.stream)
                recorder = msrecd.MediaRecorder(received)
                log = Log(recorder)
                recorder.start(200)
                await log.until("start")
                await log.until_media(0.5)
                await caller.get_senders()[0].replace_track(small.stream.get_tracks()[0])
                track = received.get_tracks()[0]
                await log.until_true(lambda: track.get_settings()["width"] == 160)
                await log.until_media(1.0)
                recorder.stop()
                await log.until("stop")
                return log

    log = run(scenario())
    assert log.count("error") == 0
    shapes = {picture.shape for picture in pictures(log.data())}
    assert shapes == {(192, 320, 3)}


def test_an_answer_to_an_offer() -> None:
    """What WHEP is made of: an offer to receive, an answer with candidates; the session ends with its viewer."""

    async def scenario() -> None:
        async with Peers() as peers:
            with Scene("av") as scene:
                view = msrecd.StreamView(scene.stream)
                viewer = peers.new()
                came: list[Any] = []
                viewer.ontrack = came.append
                for kind in ("video", "audio"):
                    viewer.add_transceiver(kind, {"direction": "recvonly"})
                await viewer.set_local_description()
                assert viewer.local_description is not None
                session = await view.answer(viewer.local_description.sdp)
                await viewer.set_remote_description({"type": "answer", "sdp": session.sdp})
                await unmuted(*(event.track for event in came))
                assert {event.track.kind for event in came} == {"audio", "video"}
                viewer.close()
                await asyncio.wait_for(session.wait_closed(), 30)
                for offer in ("", "nonsense", "v=0\r\n"):
                    with pytest.raises(msrecd.OperationError):
                        await view.answer(offer)

    run(scenario())
