"""What MediaRecorder wrote plays in a browser: as a file in <video>, and blob by blob through MediaSource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import chromium
import pytest
from recording import Log, Scene, delivered, judged, run

from msrecd.media.recorder import MediaRecorder
from msrecd.media.stream import MediaStream

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),  # the first test waits for all recordings and playbacks
    pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing())),
]

SECONDS = 3.0
SIZE = (160, 96)

# Type of the recorder -> kinds of the stream.
VIDEO_TYPES = [
    "video/mp4",
    "video/mp4;codecs=avc1,mp4a.40.2",
    "video/mp4;codecs=avc1,opus",
    "video/mp4;codecs=avc1,flac",
    "video/mp4;codecs=av01,opus",
    "video/mp4;codecs=vp9,opus",
    "video/webm",
    "video/webm;codecs=vp8,opus",
    "video/webm;codecs=vp9,opus",
    "video/webm;codecs=av1,opus",
    "video/x-matroska;codecs=avc1,opus",
    "video/x-matroska;codecs=avc1,pcm",
    "video/x-matroska;codecs=vp9,flac",
    "video/x-matroska;codecs=mjpeg,pcm",
]
AUDIO_TYPES = [
    "audio/mp4;codecs=mp4a.40.2",
    "audio/mp4;codecs=opus",
    "audio/mp4;codecs=flac",
    "audio/webm;codecs=opus",
    "audio/x-matroska;codecs=flac",
    "audio/ogg;codecs=opus",
    "audio/ogg;codecs=flac",
    "audio/flac",
    "audio/wav",
]
TYPES = [*VIDEO_TYPES, *AUDIO_TYPES]
# Every Chromium of Debian plays these; of the others it says itself what it can.
SURELY = {type_ for type_ in TYPES if not type_.startswith(("video/x-matroska", "audio/x-matroska"))}
SOURCE_TYPES = [type_ for type_ in TYPES if type_.partition(";")[0].endswith(("/mp4", "/webm"))]

# Plays one recording: {url, type} -> what was seen.
PLAY = """
async ({url, type}, deadline_ms) => {
const media = document.createElement("video");
const seen = [];
for (const name of ["loadedmetadata", "playing", "stalled", "ended", "error"])
    media.addEventListener(name, () => seen.push(name));
document.body.append(media);
return await new Promise(resolve => {
    const tell = () => resolve({
        seen, type: media.canPlayType(type), error: media.error && media.error.message,
        duration: String(media.duration), time: media.currentTime, ended: media.ended,
        size: [media.videoWidth, media.videoHeight],
        pictures: media.getVideoPlaybackQuality().totalVideoFrames,
        sound_bytes: media.webkitAudioDecodedByteCount});
    media.addEventListener("ended", tell);
    media.addEventListener("error", tell);
    setTimeout(tell, deadline_ms);
    media.src = url;
    media.play().catch(() => {});
});
}
"""

# The same of {urls, type}, one blob appended after the other, as a page does that receives them over a network.
PLAY_BLOBS = """
async ({urls, type}, deadline_ms) => {
if (!MediaSource.isTypeSupported(type)) return {supported: false};
const media = document.createElement("video");
document.body.append(media);
const source = new MediaSource();
media.src = URL.createObjectURL(source);
await new Promise(resolve => source.addEventListener("sourceopen", resolve, {once: true}));
const buffer = source.addSourceBuffer(type);
let failed = null;
for (const url of urls) {
    const data = await (await fetch(url)).arrayBuffer();
    await new Promise(resolve => {
        buffer.addEventListener("updateend", resolve, {once: true});
        buffer.addEventListener("error", () => { failed = failed || `append of ${url} failed`; }, {once: true});
        try { buffer.appendBuffer(data); } catch (error) { failed = failed || String(error); resolve(); }
    });
    if (failed) break;
}
const ranges = [];
for (let index = 0; !failed && index < buffer.buffered.length; index++)
    ranges.push([buffer.buffered.start(index), buffer.buffered.end(index)]);
if (!failed) source.endOfStream();
return await new Promise(resolve => {
    const tell = () => resolve({
        supported: true, failed, ranges, error: media.error && media.error.message, duration: String(media.duration),
        time: media.currentTime, ended: media.ended, pictures: media.getVideoPlaybackQuality().totalVideoFrames,
        sound_bytes: media.webkitAudioDecodedByteCount});
    if (failed) { tell(); return; }
    media.addEventListener("ended", tell);
    media.addEventListener("error", tell);
    setTimeout(tell, deadline_ms);
    media.play().catch(() => {});
});
}
"""

# So many at a time, and each at most so long: two cores decode them in real time with room to spare.
TOGETHER = 8
RECORDED_TOGETHER = 6
DEADLINE_MS = 30_000


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One recording: its blobs, the complete type that the recorder had while it recorded, and how long it is.

    lost_s: what a busy machine lost of it, by its own account.
    """

    blobs: list[bytes]
    type: str
    seconds: float
    lost_s: float

    @property
    def data(self) -> bytes:
        return b"".join(self.blobs)


async def record_some(scene: Scene, types: list[str]) -> dict[str, Log]:
    logs: dict[str, Log] = {}
    sound = MediaStream(scene.stream.get_audio_tracks())
    for type_ in types:
        recorder = MediaRecorder(scene.stream if type_.startswith("video") else sound, {"mime_type": type_})
        logs[type_] = Log(recorder)
        recorder.start(500)
    for log in logs.values():
        await log.until("start")
    await delivered(scene.stream, SECONDS)
    for log in logs.values():
        log.recorder.stop()
    for log in logs.values():
        await log.until("stop")
    return logs


async def record_all() -> dict[str, Recorded]:
    """All types from one camera and one microphone, some at the same time."""
    logs: dict[str, Log] = {}
    with Scene("av", size=SIZE, signal="tone") as scene:
        for begin in range(0, len(TYPES), RECORDED_TOGETHER):
            logs |= await record_some(scene, TYPES[begin : begin + RECORDED_TOGETHER])
    recorded = {}
    for type_, log in logs.items():
        assert log.count("error") == 0, (type_, log.error())
        (started,) = [mime_type for name, _, mime_type in log.states if name == "start"]
        (info,) = log.infos
        # A busy machine opens an encoder late, or stops late.
        assert SECONDS * 0.8 < info.duration_s < SECONDS * 10, type_
        if type_ == "audio/flac":
            samples = judged(log.data()).samples
            assert len(samples) / 48_000 == pytest.approx(info.duration_s, abs=0.1)
        recorded[type_] = Recorded(
            blobs=[bytes(event.data) for event in log.blobs],
            type=started,
            seconds=info.duration_s,
            lost_s=sum(gap.duration_s for gap in info.gaps) + sum(track.gap_s for track in info.tracks),
        )
    return recorded


Played = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was recorded, and what the browser said of it: as files, and as blobs."""

    recorded: dict[str, Recorded]
    files: Played
    blobs: Played


def play(browser: chromium.Browser, script: str, jobs: dict[str, dict[str, Any]]) -> Played:
    """Run a script for each job, some at a time."""
    types = list(jobs)
    played: Played = {}
    for begin in range(0, len(types), TOGETHER):
        group = types[begin : begin + TOGETHER]
        together = f"const play = {script}; return await Promise.all(args[0].map(one => play(one, args[1])));"
        results = browser.run(together, [jobs[type_] for type_ in group], DEADLINE_MS)
        played |= dict(zip(group, results, strict=True))
    return played


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One recording of each type, played in one browser."""
    recorded: dict[str, Recorded] = run(record_all())
    contents = {"/": (b"<!doctype html><title>recordings</title><body>", "text/html")}
    files: dict[str, dict[str, Any]] = {}
    blobs: dict[str, dict[str, Any]] = {}
    with chromium.served(contents) as address, chromium.browser(tmp_path_factory.mktemp("chromium")) as browser:
        for number, (type_, one) in enumerate(recorded.items()):
            contents[f"/{number}"] = (one.data, one.type.partition(";")[0])
            files[type_] = {"url": f"{address}/{number}", "type": one.type}
            if type_ not in SOURCE_TYPES:
                continue
            pieces = {f"/{number}/{index}": blob for index, blob in enumerate(one.blobs) if blob}
            contents.update({path: (blob, "application/octet-stream") for path, blob in pieces.items()})
            blobs[type_] = {"urls": [address + path for path in pieces], "type": one.type}
        browser.open(f"{address}/")
        return Results(recorded=recorded, files=play(browser, PLAY, files), blobs=play(browser, PLAY_BLOBS, blobs))


def judge_playback(type_: str, recorded: Recorded, played: dict[str, Any]) -> None:
    seconds = recorded.seconds
    assert played["error"] is None, played
    assert played["ended"], played
    # FLAC that is written as a stream does not say how long it is: a player goes by the bit rate.
    near = recorded.lost_s + (0.35 if type_ != "audio/flac" else seconds / 4)
    assert played["time"] == pytest.approx(seconds, abs=near), played
    assert float(played["duration"]) == pytest.approx(seconds, abs=near), played
    if type_ in VIDEO_TYPES:
        # Of 30 a second; a busy machine may skip some when it shows them.
        assert played["pictures"] > (seconds - recorded.lost_s) * 30 * 0.5, played
    assert played["sound_bytes"] > 0, played


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.promise("blobs-play-in-a-browser")
def test_file_plays(results: Results, type_: str) -> None:
    """The concatenated blobs in <video>: no error, the whole length, pictures of the right size, sound, `ended`."""
    played = results.files[type_]
    if type_ not in SURELY and not played["type"]:
        pytest.skip(f"this Chromium does not play {results.recorded[type_].type}")
    # At the end the player knows how long it was, also where the container, written as a stream, does not say it.
    judge_playback(type_, results.recorded[type_], played)
    if type_ in VIDEO_TYPES:
        assert tuple(played["size"]) == SIZE


@pytest.mark.parametrize("type_", SOURCE_TYPES)
@pytest.mark.promise("blobs-play-in-a-browser")
def test_blobs_play_through_media_source(results: Results, type_: str) -> None:
    """The blobs one after the other into a SourceBuffer of the recorder's own type: one range without holes."""
    played = results.blobs[type_]
    assert len(results.recorded[type_].blobs) >= 4
    assert played["supported"], f"MediaSource does not take {results.recorded[type_].type}"
    assert played["failed"] is None, played
    assert len(played["ranges"]) == 1, played
    assert played["ranges"][0][0] == pytest.approx(0, abs=0.1)
    judge_playback(type_, results.recorded[type_], played)
