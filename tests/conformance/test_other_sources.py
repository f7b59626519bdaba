"""mediacapture-fromelement (elements), and rows of the other suites that need several sources: passthrough, processed
pictures, size changes. The catalogue (catalogue.csv) says which row each test is for."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import chromium
import numpy as np
import pytest
from recording import (
    DEADLINE_S,
    Log,
    PaintedSource,
    Scene,
    as_file,
    delivered,
    each_of,
    judged,
    pictures,
    record,
    run,
    streams_of,
)

import msrecd
from msrecd import libav
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone

pytestmark = pytest.mark.timeout(300)  # of the wall clock: a busy machine gives a test a twentieth of it
SECONDS = 1.2
A_PACKET_NS = 50_000_000  # what is being played when it is paused is played to its end
KINDS = pytest.mark.parametrize("kinds", ["v", "a", "av"])
TRACKS = {"v": ["video"], "a": ["audio"], "av": ["audio", "video"]}


async def until(condition: Any) -> None:
    """Wait for what threads or later turns bring about."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)


class Heard:
    """Events of a stream, its tracks and an element, by type and target, in their order."""

    def __init__(self, *targets: msrecd.EventTarget) -> None:
        self.events: list[msrecd.Event] = []
        for target in targets:
            for type_ in ("addtrack", "removetrack", "ended", "error", "play", "pause", "loadedmetadata"):
                target.add_event_listener(type_, self.events.append)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


def packets(data: bytes, kind: str) -> list[bytes]:
    with av.open(io.BytesIO(data)) as container:
        (stream,) = [one for one in container.streams if one.type == kind]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def loudness(data: bytes) -> tuple[float, float]:
    """RMS of the loudest tenth of a second, and the share of tenths with sound in them."""
    samples = judged(data).samples[:, 0]
    tenths = [float(np.sqrt(np.mean(part**2))) for part in np.array_split(samples, max(1, len(samples) // 4800))]
    return max(tenths), sum(one > 0.01 for one in tenths) / len(tenths)


async def _media(kinds: str, type_: str | None) -> bytes:
    with Scene(kinds, signal="tone") as scene:
        return (await record(scene.stream, {"mime_type": type_} if type_ else None, SECONDS)).data()


@pytest.fixture(scope="module")
def media() -> dict[str, bytes]:
    """A file of each kind, with a continuous tone."""
    return {kinds: run(_media(kinds, None)) for kinds in TRACKS}


@pytest.fixture
def file(media: dict[str, bytes], kinds: str) -> Iterator[Path]:
    with as_file(media[kinds]) as path:
        yield path


# --- mediacapture-fromelement: capture, capture-muted, capture-audio-unaffected-volume -------------------------------


@pytest.mark.parametrize("is_muted", [False, True])
@KINDS
def test_element_is_recorded(file: Path, kinds: str, is_muted: bool) -> None:
    """What is recorded of an element is what it plays, whether it is muted or not; the end of the media ends it."""

    async def main() -> None:
        element = msrecd.MediaElement(file)
        element.muted = is_muted
        stream = element.capture_stream()
        recorder = msrecd.MediaRecorder(stream)
        log = Log(recorder)
        recorder.start(200)
        await element.play()
        first = await log.until("dataavailable")
        assert first.data.size > 0
        await log.until("stop")
        assert log.count("error") == 0
        assert log.types[-1] == "stop"
        assert sorted(streams_of(log.data())) == TRACKS[kinds]
        seen = judged(log.data())
        if "v" in kinds:
            assert len(seen.numbers) >= SECONDS * 30 * 0.8
            assert seen.numbers == list(range(seen.numbers[0], seen.numbers[0] + len(seen.numbers)))
        if "a" in kinds:
            loudest, share = loudness(log.data())
            assert loudest > 0.2
            assert share > 0.8
        element.close()

    run(main())


@pytest.mark.parametrize("volume", [1.0, 0.0])
def test_volume_does_not_matter_and_a_pause_gives_nothing(media: dict[str, bytes], volume: float) -> None:
    async def main(path: Path) -> None:
        element = msrecd.MediaElement(path)
        element.volume = volume
        element.loop = True
        stream = element.capture_stream()
        reader = msrecd.MediaStreamTrackReader(stream.get_audio_tracks()[0])
        heard: list[tuple[int, float]] = []  # when it was captured, and how loud it is

        async def listen() -> None:
            async for block in reader:
                loudest = float(np.abs(block.array.astype(np.float64)).max()) / 32768
                heard.append((block.timestamp_ns, loudest))

        listener = asyncio.create_task(listen())
        # Closed also by a test that fails: it plays for ever.
        with contextlib.closing(element), Scene("a") as clock:
            await delivered(clock.stream, 0.2)
            assert not any(loud for _, loud in heard), "there is sound before it plays"
            await element.play()
            await until(lambda: len(heard) > 20)
            assert max(loud for _, loud in heard) > 0.3
            element.pause()
            paused_ns = time.monotonic_ns()
            assert element.paused
            await delivered(clock.stream, 0.4)
            resumed_ns = time.monotonic_ns()
            await element.play()
            await until(lambda: heard[-1][0] > resumed_ns)  # what was captured before has come by then
            paused = [loud for time_ns, loud in heard if paused_ns + A_PACKET_NS < time_ns < resumed_ns]
            assert not any(paused), "there is sound while it is paused"
        await listener

    with as_file(media["a"]) as path:
        run(main(path))


# --- creation, ended, restart-after-ended ----------------------------------------------------------------------------


@KINDS
def test_tracks_of_an_element(file: Path, kinds: str) -> None:
    """Tracks of a file are there at once; tracks of a network stream join with an event each."""

    async def main(address: str) -> None:
        at_once = msrecd.MediaElement(file)
        assert sorted(track.kind for track in at_once.capture_stream().get_tracks()) == TRACKS[kinds]
        at_once.close()
        element = msrecd.MediaElement(f"{address}/media.mp4")
        stream = element.capture_stream()
        heard = Heard(stream, element)
        await until(lambda: heard.types.count("addtrack") >= len(TRACKS[kinds]))
        assert sorted(track.kind for track in stream.get_tracks()) == TRACKS[kinds]
        assert all(track.ready_state == "live" for track in stream.get_tracks())
        assert stream.active
        added = [event for event in heard.events if isinstance(event, msrecd.MediaStreamTrackEvent)]
        assert [event.track for event in added] == stream.get_tracks()
        assert all(event.is_trusted and event.target is stream for event in added)
        element.close()

    with chromium.served({"/media.mp4": (file.read_bytes(), "video/mp4")}) as address:
        run(main(address))


@KINDS
def test_end_of_the_media(file: Path, kinds: str) -> None:
    async def main() -> None:
        element = msrecd.MediaElement(file)
        stream = element.capture_stream()
        tracks = stream.get_tracks()
        heard = Heard(stream, element, *tracks)
        await element.play()
        await until(lambda: any(event.target is element and event.type == "ended" for event in heard.events))
        assert [event.target for event in heard.events][-1] is element, "everything else has happened by then"
        expected = ["addtrack"] * len(tracks) + ["play"]
        assert heard.types == [*expected, *["ended"] * len(tracks), *["removetrack"] * len(tracks), "ended"]
        assert stream.get_tracks() == []
        assert element.ended
        assert not stream.active
        removed = [event.track for event in heard.events if event.type == "removetrack"]  # type: ignore[attr-defined]
        assert removed == tracks
        for track in tracks:
            assert track.ready_state == "ended"
            ended = [index for index, event in enumerate(heard.events) if event.target is track]
            left = [
                index
                for index, event in enumerate(heard.events)
                if event.type == "removetrack" and event.track is track  # type: ignore[attr-defined]
            ]
            assert len(left) == 1
            assert len(ended) == 1
            assert ended[0] < left[0], "a track ends before it leaves"
        element.close()

    run(main())


@KINDS
def test_played_again_with_new_tracks(file: Path, kinds: str) -> None:
    async def main() -> None:
        element = msrecd.MediaElement(file)
        stream = element.capture_stream()
        first = stream.get_tracks()
        await element.play()
        await until(lambda: element.ended and not stream.get_tracks())
        heard = Heard(stream)
        await element.play()
        assert not element.ended
        await until(lambda: heard.types.count("addtrack") == len(first))
        assert sorted(track.kind for track in stream.get_tracks()) == TRACKS[kinds]
        assert not {track.id for track in stream.get_tracks()} & {track.id for track in first}
        assert stream.active
        await until(lambda: element.ended and not stream.get_tracks())
        element.close()

    run(main())


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("{folder}/none.mp4", msrecd.NotFoundError),
        ("", msrecd.NotFoundError),
        ("{folder}", msrecd.NotReadableError),
        ("{folder}/text.txt", msrecd.NotReadableError),
        ("gopher://a/b", msrecd.NotSupportedError),
        (5, TypeError),
        (b"text.txt", TypeError),
    ],
)
def test_what_is_no_media_is_told_at_once(tmp_path: Path, what: Any, error: type[Exception]) -> None:
    (tmp_path / "text.txt").write_text("no media")
    with pytest.raises(error):
        msrecd.MediaElement(what.format(folder=tmp_path) if isinstance(what, str) else what)


# --- mediacapture-record: passthrough, canvas-media-source, peerconnection, peerconnection-no-sink -------------------


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("video/mp4;codecs=avc1,mp4a.40.2", "video/mp4;codecs=avc1"),
        ("video/mp4;codecs=av01,opus", "video/mp4;codecs=av01"),
        ("video/webm;codecs=vp9,opus", "video/mp4;codecs=vp09"),
        ("video/webm;codecs=vp8,opus", "video/webm;codecs=vp8"),
    ],
)
@pytest.mark.promise("passing-through-is-not-decoded")
def test_passthrough_takes_the_codec_of_the_source(type_: str, expected: str) -> None:
    """Without a type the codec that the source delivers is taken, and its packets are those of the file."""
    original = run(_media("av", type_))

    async def main(path: Path) -> None:
        element = msrecd.MediaElement(path)
        recorder = msrecd.MediaRecorder(element.capture_stream())
        log = Log(recorder)
        recorder.start()
        await log.until("start")
        assert recorder.mime_type.startswith(expected)
        await element.play()
        await log.until("stop")
        assert log.count("error") == 0
        for kind in ("video", "audio"):
            given, written = packets(original, kind), packets(log.data(), kind)
            assert len(written) >= len(given) * 0.9
            assert set(written) <= set(given), f"{kind} was encoded anew"
        element.close()

    with as_file(original) as path:
        run(main(path))


@pytest.mark.parametrize("type_", [None, "video/webm;codecs=vp8"])
def test_source_that_changes_its_size(type_: str | None) -> None:
    """Decision C13: no error; all pictures have the first size, and show what was painted."""

    async def main() -> None:
        source = PaintedSource((160, 96))
        recorder = msrecd.MediaRecorder(msrecd.MediaStream([source.track()]), {"mime_type": type_} if type_ else None)
        log = Log(recorder)
        source.paint((200, 30, 30))
        recorder.start()
        await log.until("start")
        for number in range(20):
            source.paint((200, 30, 30) if number < 10 else (30, 30, 200), (160, 96) if number < 10 else (320, 200))
            await asyncio.sleep(0.04)
        recorder.stop()
        await log.until("stop")
        assert log.count("error") == 0
        seen = pictures(log.data())
        assert {picture.shape for picture in seen} == {(96, 160, 3)}
        assert seen[0][48, 80, 0] > 150
        assert seen[-1][48, 80, 2] > 150
        source.close()

    run(main())


def in_h265(data: bytes) -> bytes:
    """The pictures of a file once more, as H.265 with a key frame every nine."""
    if libav.encoder_for("hevc") is None:
        pytest.skip("this libav build has no encoder for H.265")
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none:keyint=9:min-keyint=9"}
        stream = container.add_stream("libx265", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for picture in pictures(data):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()


PASSED_THROUGH = {
    "video/mp4;codecs=avc1": "video/mp4;codecs=avc1",
    "video/mp4;codecs=hvc1": "video/mp4;codecs=avc1",  # what it is made of
    "video/mp4;codecs=mjpeg": "video/mp4;codecs=mjpeg",
    "video/mp4;codecs=av01": "video/mp4;codecs=av01",
    "video/mp4;codecs=vp9": "video/mp4;codecs=vp9",
    "video/webm;codecs=vp8": "video/webm;codecs=vp8",
    "video/x-matroska;codecs=avc1": "video/mp4;codecs=avc1",
    "video/x-matroska;codecs=hvc1": "video/mp4;codecs=avc1",
}


@each_of("type_", list(PASSED_THROUGH))
async def test_disabled_passthrough_is_black(type_: str) -> None:
    """A source that is encoded already: black while its track is disabled, then its own pictures again."""
    with Scene("v") as scene:
        options = {"mime_type": PASSED_THROUGH[type_], "video_key_frame_interval_duration": 300}
        original = (await record(scene.stream, options, 1.5)).data()
    if "hvc1" in type_:
        original = in_h265(original)
    with as_file(original) as path:
        element = msrecd.MediaElement(path)
        stream = element.capture_stream()
        (track,) = stream.get_tracks()
        recorder = msrecd.MediaRecorder(stream, {"mime_type": type_})
        log = Log(recorder)
        recorder.start(200)
        await log.until("start")
        element.loop = True
        await element.play()
        for is_enabled in (True, False, True):
            track.enabled = is_enabled
            await log.until_media(0.6)  # also of a machine that opens encoders late
        recorder.stop()
        await log.until("stop")
        assert log.count("error") == 0
        if type_ == "video/mp4;codecs=hvc1":
            assert log.data().count(b"hvc1") == 1, "the file is not of the type that it is said to be"
        kept = set(packets(original, "video"))
        assert sum(packet in kept for packet in packets(log.data(), "video")) >= 10, "it was encoded anew"
        # Below the number's cells there is always something to see in the camera's picture.
        seen = "".join("." if picture[20:].max() > 60 else "B" for picture in pictures(log.data()))
        pieces = [piece for piece in seen.replace(".B", ". B").replace("B.", "B .").split() if piece]
        assert [piece[0] for piece in pieces] == [".", "B", "."], seen
        assert len(pieces[1]) >= 5, seen
        assert len(pieces[2]) >= 5, seen
        element.close()


def test_processed_pictures_are_recorded() -> None:
    """Pictures of a camera are read, changed and painted on a canvas, whose track is recorded."""

    async def main() -> None:
        with Scene("v") as scene:
            canvas = msrecd.Canvas(160, 96)
            recorder = msrecd.MediaRecorder(canvas.capture_stream())
            log = Log(recorder)
            enough = asyncio.Event()

            def collect(event: msrecd.BlobEvent) -> None:
                if event.data.size > 1500 and recorder.state == "recording":
                    recorder.stop()  # from inside of the handler
                    enough.set()

            recorder.ondataavailable = collect
            recorder.start(1000)
            async with msrecd.MediaStreamTrackReader(scene.stream.get_video_tracks()[0]) as reader:
                async for picture in reader:
                    canvas.draw(255 - picture.array)
                    if enough.is_set():
                        break
            await log.until("stop")
            assert log.count("stop") == 1
            for picture in pictures(log.data()):
                assert picture[2, 2].min() > 200, "the first cell is black in the camera's picture"
            for track in recorder.stream.get_tracks():
                track.stop()

    run(main())


@KINDS
def test_records_without_any_other_consumer(kinds: str) -> None:
    """Nobody but the recorder drives the source: 2000 bytes come in slices."""

    async def main() -> None:
        with Scene(kinds, signal="tone") as scene:
            recorder = msrecd.MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start(200)
            await log.until_true(lambda: sum(event.data.size for event in log.blobs) >= 2000 and len(log.blobs) >= 3)
            recorder.stop()
            await log.until("stop")
            assert log.types[0] == "start"
            assert log.count("error") == 0

    run(main())


def test_time_line_begins_at_zero() -> None:
    """mediacapture-streams, srcObject: it does not matter how long the stream has been there."""

    async def main() -> None:
        with Scene("av") as scene:
            async with msrecd.MediaStreamTrackReader(scene.stream.get_video_tracks()[0]) as reader:
                async for _ in reader:  # the device runs
                    break
                await delivered(scene.stream, 0.5)
                log = await record(scene.stream, None, 0.6)
            with av.open(io.BytesIO(log.data())) as container:
                begins = {}
                for packet in container.demux():
                    if packet.size and packet.pts is not None:
                        time = float(packet.pts * packet.time_base)
                        begins[packet.stream.type] = min(time, begins.get(packet.stream.type, time))
            assert min(begins.values()) == pytest.approx(0, abs=0.03)
            assert max(begins.values()) < 0.2

    run(main())


# --- mediacapture-streams: what is not there -------------------------------------------------------------------------


def test_devices_that_are_not_given_are_not_listed() -> None:
    """Cameras or microphones that the program leaves out are neither listed nor opened."""

    async def main() -> None:
        for device, kind, other in (
            (VirtualCamera("c", modes=[(160, 96, 30)]), "videoinput", "audio"),
            (VirtualMicrophone("m"), "audioinput", "video"),
        ):
            async with msrecd.MediaDevices(backends=[VirtualBackend([device])]) as devices:
                infos = await devices.enumerate_devices()
                assert [info.kind for info in infos] == [kind]
                assert set(infos[0].to_json()) == {"device_id", "group_id", "kind", "label"}
                with pytest.raises(msrecd.NotFoundError):
                    await devices.get_user_media({other: True})
                with pytest.raises(msrecd.NotFoundError):
                    await devices.get_user_media({"audio": True, "video": True})
                assert not device.is_open

    run(main())


def test_voice_isolation_is_not_claimed() -> None:
    """It is of another specification: absent everywhere, never False, and ignored as a constraint."""

    async def main() -> None:
        async with msrecd.MediaDevices(backends=[VirtualBackend([VirtualMicrophone("m")])]) as devices:
            assert "voice_isolation" not in devices.get_supported_constraints()
            with pytest.warns(UserWarning, match="no constraint 'voice_isolation'"):
                stream = await devices.get_user_media({"audio": {"voice_isolation": {"exact": True}}})
            (track,) = stream.get_tracks()
            assert "voice_isolation" not in track.get_capabilities()
            assert "voice_isolation" not in track.get_settings()

    run(main())


def test_no_retired_handlers() -> None:
    for owner, names in (
        (msrecd.MediaStream, ("onactive", "oninactive", "ended", "stop")),
        (msrecd.MediaStreamTrack, ("onoverconstrained", "onisolationchange")),
        (msrecd.MediaRecorder, ("onwarning", "ignore_mutes")),
    ):
        for name in names:
            assert not hasattr(owner, name), f"{owner.__name__}.{name}"
    assert not hasattr(msrecd, "MediaRecorderErrorEvent")


def test_overconstrained_error() -> None:
    error = msrecd.OverconstrainedError("width")
    assert isinstance(error, msrecd.DOMException)
    assert (error.name, error.constraint, error.message) == ("OverconstrainedError", "width", "")
    assert msrecd.OverconstrainedError("width", "too large").message == "too large"
    with pytest.raises(TypeError):
        msrecd.OverconstrainedError()  # type: ignore[call-arg]
