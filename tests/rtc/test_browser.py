"""A browser is the peer: it sees and hears what msrecd sends, and msrecd records what it sends.

The frame numbers are read from the pixels that the page shows, and painted by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import chromium
import judge
import pytest
from browserviewer import RECEIVE, SEEN
from peers import Peers, unmuted
from recording import Log, Scene, delivered, judged, run, streams_of

import msrecd

pytest.importorskip("aiortc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(200),
    pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing())),
]

# Offers a canvas whose frames carry numbers, and a tone.
SEND = """
const pc = window.sending = new RTCPeerConnection();
const canvas = document.createElement("canvas");
canvas.width = 320; canvas.height = 192;
const brush = canvas.getContext("2d");
let number = 0;
const paint = () => {
    brush.fillStyle = "rgb(90, 120, 60)";
    brush.fillRect(0, 0, 320, 192);
    for (let index = 0; index < 32; index++) {
        brush.fillStyle = (number >>> (31 - index)) & 1 ? "white" : "black";
        brush.fillRect(index * 10, 0, 10, 12);
    }
    number += 1;
};
setInterval(paint, 50);
const context = new AudioContext();
const oscillator = context.createOscillator();
oscillator.frequency.value = 440;
const end = context.createMediaStreamDestination();
oscillator.connect(end);
oscillator.start();
const stream = canvas.captureStream(20);
stream.addTrack(end.stream.getAudioTracks()[0]);
for (const track of stream.getTracks()) pc.addTrack(track, stream);
await pc.setLocalDescription(await pc.createOffer());
await new Promise(resolve => {
    if (pc.iceGatheringState === "complete") resolve();
    else pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve();
});
return pc.localDescription.toJSON();
"""

# ICE restarts: the page offers one; the page answers one.
OFFER_ANEW = """
const pc = window[args[0]].pc;
await pc.setLocalDescription(await pc.createOffer({iceRestart: true}));
await new Promise(resolve => {
    if (pc.iceGatheringState === "complete") resolve();
    else pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve();
});
return pc.localDescription.toJSON();
"""
TAKE = """
const pc = window[args[0]].pc;
await pc.setRemoteDescription(args[1]);
if (pc.signalingState === "stable") return null;
await pc.setLocalDescription(await pc.createAnswer());
await new Promise(resolve => {
    if (pc.iceGatheringState === "complete") resolve();
    else pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve();
});
return pc.localDescription.toJSON();
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    contents = {"/": (b"<!doctype html><title>peer</title><body>", "text/html")}
    with chromium.served(contents) as address, chromium.browser(tmp_path_factory.mktemp("chromium")) as one:
        one.open(f"{address}/")
        yield one


async def call(browser: chromium.Browser, script: str, *arguments: object) -> Any:
    return await asyncio.to_thread(browser.run, script, *arguments)


async def watch(browser: chromium.Browser, stream: msrecd.MediaStream, name: str) -> msrecd.RTCPeerConnection:
    """A viewer in the browser."""
    connection = msrecd.RTCPeerConnection()
    for track in stream.get_tracks():
        connection.add_track(track, stream)
    await connection.set_local_description()
    assert connection.local_description is not None
    answer = await call(browser, RECEIVE, connection.local_description.to_json(), name)
    await connection.set_remote_description(answer)
    return connection


async def seen_by(browser: chromium.Browser, name: str, frames: int) -> dict[str, Any]:
    """What a viewer has seen, once it has seen so many frames."""
    async with asyncio.timeout(40):
        while True:
            seen: dict[str, Any] = await call(browser, SEEN, name)
            if len(seen["numbers"]) >= frames:
                return seen
            await asyncio.sleep(0.2)


def test_two_viewers_and_a_recorder(browser: chromium.Browser) -> None:
    """Both see the frames that are recorded, and hear the sound; the file lacks none, though one of them leaves."""

    async def scenario() -> tuple[Log, list[dict[str, Any]], dict[str, Any]]:
        with Scene("av", size=(320, 192), signal="tone") as scene:
            recorder = msrecd.MediaRecorder(scene.stream, {"mime_type": "video/mp4;codecs=avc1,opus"})
            log = Log(recorder)
            recorder.start(500)
            await log.until("start")
            first = await watch(browser, scene.stream, "first")
            second = await watch(browser, scene.stream, "second")
            seen = [await seen_by(browser, name, 60) for name in ("first", "second")]
            stats = await first.get_stats(scene.stream.get_video_tracks()[0])
            second.close()
            await delivered(scene.stream, 0.5)
            recorder.stop()
            await log.until("stop")
            first.close()
            return log, seen, next(one for one in stats.values() if one["type"] == "outbound-rtp")

    log, seen, sent = run(scenario())
    found = judged(log.data())
    judge.assert_consecutive(found.numbers)
    (info,) = log.infos
    assert [track.dropped for track in info.tracks] == [0, 0]
    for one in seen:
        assert one["size"] == [320, 192]
        assert one["numbers"] == sorted(one["numbers"])
        assert set(one["numbers"][:30]) <= set(found.numbers)  # pixels of the very frames
        assert one["stats"]["video"]["framesDecoded"] >= 50
        assert one["level"] > 0.3
    # A recorder uses this encoding: however often the viewers ask, its key frames stay where they were.
    assert sent["key_frames_ignored"] > 0
    assert sent["frames_dropped"] == 0


def test_browser_sends(browser: chromium.Browser) -> None:
    """What a page sends is recorded as it came, and processed; the tracks end with the page's peer."""

    async def scenario() -> tuple[Log, list[Any], Any, set[str]]:
        offer = await call(browser, SEND)
        connection = msrecd.RTCPeerConnection()
        tracks: list[Any] = []
        connection.ontrack = lambda event: tracks.append((event.track, event.streams))
        await connection.set_remote_description(offer)
        assert {track.kind for track, _ in tracks} == {"audio", "video"}
        await connection.set_local_description()
        assert connection.local_description is not None
        await call(
            browser, "await window.sending.setRemoteDescription(args[0])", connection.local_description.to_json()
        )
        stream = tracks[0][1][0]
        await unmuted(*stream.get_tracks())
        reader = msrecd.MediaStreamTrackReader(stream.get_video_tracks()[0])
        picture = await asyncio.wait_for(anext(aiter(reader)), 20)
        reader.close()
        recorder = msrecd.MediaRecorder(stream)
        log = Log(recorder)
        recorder.start(500)
        await log.until("start")
        await log.until("dataavailable", 5)
        ended = asyncio.Event()
        over = {track.kind for track in stream.get_tracks()}
        for track in stream.get_tracks():
            track.add_event_listener("ended", lambda event: (over.discard(event.target.kind), over or ended.set()))
        await call(browser, "window.sending.close()")
        await asyncio.wait_for(ended.wait(), 40)
        await log.until("stop")
        connection.close()
        return log, tracks, picture, streams_of(log.data())

    log, _, picture, codecs = run(scenario())
    assert log.count("error") == 0
    assert picture.array.shape[2] == 3
    assert codecs["audio"] == "opus"
    assert codecs["video"] in ("h264", "vp8")
    found = judged(log.data())
    assert len(found.numbers) > 20
    assert found.numbers == sorted(found.numbers)
    assert abs(found.samples).max() > 0.3


def test_page_asks_with_data(browser: chromium.Browser) -> None:
    """A data channel that the page opens carries text and bytes both ways."""

    async def scenario() -> list[Any]:
        offer = await call(
            browser,
            """
            const pc = window.talking = new RTCPeerConnection();
            window.heard = [];
            const channel = pc.createDataChannel("talk");
            channel.binaryType = "arraybuffer";
            channel.onopen = () => { channel.send("hello"); channel.send(new Uint8Array([1, 2, 3])); };
            channel.onmessage = event => window.heard.push(
                typeof event.data === "string" ? event.data : Array.from(new Uint8Array(event.data)));
            await pc.setLocalDescription(await pc.createOffer());
            await new Promise(resolve => {
                if (pc.iceGatheringState === "complete") resolve();
                else pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve();
            });
            return pc.localDescription.toJSON();
            """,
        )
        async with Peers() as peers:
            connection = peers.new()
            got: list[Any] = []
            both = asyncio.Event()

            def message(event: Any) -> None:
                got.append(event.data)
                event.target.send(event.data)
                if len(got) == 2:
                    both.set()

            connection.ondatachannel = lambda event: event.channel.add_event_listener("message", message)
            await connection.set_remote_description(offer)
            await connection.set_local_description()
            assert connection.local_description is not None
            answer = connection.local_description.to_json()
            await call(browser, "await window.talking.setRemoteDescription(args[0])", answer)
            await asyncio.wait_for(both.wait(), 30)
            heard: list[Any] = []
            async with asyncio.timeout(20):
                while len(heard) < 2:
                    heard = await call(browser, "return window.heard")
            return [*got, *heard]

    assert run(scenario()) == ["hello", b"\x01\x02\x03", "hello", [1, 2, 3]]


def test_both_restart_ice(browser: chromium.Browser) -> None:
    """The page goes on showing frames after a restart of its own, and after one that is asked for here."""

    async def scenario() -> list[int]:
        with Scene("v", size=(320, 192)) as scene:
            connection = await watch(browser, scene.stream, "restarted")
            first = await seen_by(browser, "restarted", 20)
            names = [connection.local_description.sdp.split("a=ice-ufrag:")[1][:4]]  # type: ignore[union-attr]
            await connection.set_remote_description(await call(browser, OFFER_ANEW, "restarted"))
            await connection.set_local_description()
            assert connection.local_description is not None
            await call(browser, TAKE, "restarted", connection.local_description.to_json())
            names.append(connection.local_description.sdp.split("a=ice-ufrag:")[1][:4])
            second = await seen_by(browser, "restarted", len(first["numbers"]) + 30)
            await connection.set_local_description(await connection.create_offer({"ice_restart": True}))
            answer = await call(browser, TAKE, "restarted", connection.local_description.to_json())
            await connection.set_remote_description(answer)
            names.append(connection.local_description.sdp.split("a=ice-ufrag:")[1][:4])
            third = await seen_by(browser, "restarted", len(second["numbers"]) + 60)
            assert len(set(names)) == 3
            assert "failed" not in third["states"]
            connection.close()
            numbers: list[int] = third["numbers"]
            return numbers

    numbers = run(scenario())
    assert numbers == sorted(numbers)
