"""mediacapture-record: BlobEvent-constructor, creation, bitrate, mimetype, idlharness, constructor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from recording import Log, Scene, delivered, record, run

import msrecd
from msrecd.dom.blob import Blob
from msrecd.media.events import BlobEvent
from msrecd.media.recorder import MediaRecorder
from msrecd.media.stream import MediaStream

AUDIO_TYPES = [
    "audio/mp4",
    "audio/mp4;codecs=mp4a.40.2",
    "audio/mp4;codecs=opus",
    "audio/mp4;codecs=flac",
    "audio/webm",
    'audio/webm; codecs="opus"',
    "audio/ogg",
    "audio/ogg;codecs=opus",
    "audio/ogg;codecs=flac",
    "audio/flac",
    "audio/wav",
    "audio/wav;codecs=1",
    "audio/x-matroska;codecs=pcm",
    "audio/x-matroska",
]
VIDEO_TYPES = [
    "video/mp4",
    "video/mp4;codecs=avc1",
    "video/mp4;codecs=avc1.64003E",
    "video/mp4;codecs=av01.0.19M.08",
    "video/mp4;codecs=vp9",
    "video/mp4;codecs=mp4v.6c",
    "video/webm",
    "video/webm;codecs=vp8",
    "video/webm; codecs=vp9",
    "video/webm;codecs=av1",
    "video/x-matroska",
    "video/x-matroska;codecs=avc1",
    "video/x-matroska;codecs=mjpeg",
]
BOTH_TYPES = [
    "video/mp4;codecs=avc1,mp4a.40.2",
    "video/mp4;codecs=avc1.42E01E,opus",
    "video/mp4;codecs=av01,mp4a.40.2",
    "video/mp4;codecs=av01,opus",
    "video/mp4;codecs=vp9,opus",
    "video/mp4;codecs=avc1,flac",
    "video/webm;codecs=vp8,opus",
    'video/webm; codecs="vp9, opus"',
    "video/webm;codecs=av1,opus",
    "video/x-matroska;codecs=avc1,opus",
    "video/x-matroska;codecs=avc1,pcm",
    "video/x-matroska;codecs=vp9,flac",
]
UNSUPPORTED = [
    "audio/banana",
    "video/pineapple",
    "video/mp4: codecs=avc1",
    "''",
    "text/plain",
    "video/webm;codecs=vp8,vp9",
    "video/webm;codecs=avc1",
    "video/webm;codecs=vp8,vorbis",
    "audio/webm;codecs=vp8",
    "audio/mp4;codecs=avc1",
    "audio/ogg;codecs=mp4a",
    "video/mp4;codecs=hvc1",
    "video/mp4;codecs=banana",
    "audio/wav;codecs=opus",
    "video/mp4;codecs=avc1,opus,mp4a",
    "video",
]


@contextmanager
def recorder_of(kinds: str, options: dict[str, Any] | None = None) -> Iterator[MediaRecorder]:
    with Scene(kinds) as scene:
        yield MediaRecorder(scene.stream, options)


# --- BlobEvent-constructor.html --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), (None,), ({},), ({"data": None},), ({"data": b"bytes"},)])
def test_blob_event_needs_its_data(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        BlobEvent("type", *arguments)
    with pytest.raises(TypeError):
        BlobEvent("type", data=None)


def test_blob_event_has_the_very_blob() -> None:
    blob = Blob([b"x"])
    event = BlobEvent("type", {"data": blob})
    assert event.type == "type"
    assert event.data is blob
    assert event.timecode == 0
    assert not event.is_trusted
    with pytest.raises(AttributeError):
        event.data = blob  # type: ignore[misc]


# --- MediaRecorder-creation, -constructor, idlharness ----------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["v", "a", "av"])
def test_creation(kinds: str) -> None:
    async def main() -> None:
        with recorder_of(kinds) as recorder:
            assert recorder.state == "inactive"
            assert {track.kind[0] for track in recorder.stream.get_tracks()} == set(kinds)
            assert recorder.video_bits_per_second
            assert recorder.audio_bits_per_second
            assert recorder.mime_type == ""
            assert recorder.audio_bitrate_mode == "variable"

    run(main())


@pytest.mark.parametrize("stream", [None, "stream", 7, object()])
def test_constructor_needs_a_stream(stream: Any) -> None:
    with pytest.raises(TypeError):
        MediaRecorder(stream)
    with pytest.raises(TypeError):
        MediaRecorder()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "name", ["stream", "mime_type", "state", "video_bits_per_second", "audio_bits_per_second", "audio_bitrate_mode"]
)
def test_idl_attributes_are_read_only(name: str) -> None:
    recorder = MediaRecorder(MediaStream())
    value = getattr(recorder, name)
    with pytest.raises(AttributeError):
        setattr(recorder, name, value)


@pytest.mark.parametrize("name", ["start", "stop", "dataavailable", "pause", "resume", "error"])
def test_idl_handlers(name: str) -> None:
    recorder = MediaRecorder(MediaStream())
    assert getattr(recorder, f"on{name}") is None
    setattr(recorder, f"on{name}", print)
    assert getattr(recorder, f"on{name}") is print
    with pytest.raises(TypeError):
        setattr(recorder, f"on{name}", "no function")
    assert isinstance(recorder, msrecd.EventTarget)


def test_idl_is_type_supported_needs_a_type() -> None:
    with pytest.raises(TypeError):
        MediaRecorder.is_type_supported()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        MediaRecorder.is_type_supported(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"audio_bitrate_mode": "turbo"},
        {"mime_type": 7},
        {"video_bits_per_second": "fast"},
        {"bits_per_second": float("nan")},
        {"video_key_frame_interval_duration": "1s"},
        "video/mp4",
    ],
)
def test_options_of_a_wrong_type(options: Any) -> None:
    with pytest.raises(TypeError):
        MediaRecorder(MediaStream(), options)


@pytest.mark.promise("unknown-options-warn")
def test_unknown_options_are_ignored_with_one_warning_at_the_callers_line() -> None:
    with pytest.warns(UserWarning, match="MediaRecorder has no option 'mimetype'; did you mean mime_type") as warned:
        assert MediaRecorder(MediaStream(), {"mimetype": "video/mp4"}).mime_type == ""
    assert [one.filename for one in warned] == [__file__]


@pytest.mark.parametrize(
    "options", [{"video_key_frame_interval_duration": 1000}, {"video_key_frame_interval_count": 5}]
)
def test_video_key_frame_distance_is_accepted(options: dict[str, Any]) -> None:
    assert MediaRecorder(MediaStream(), options).state == "inactive"


def test_error_both_key_frame_intervals() -> None:
    with pytest.raises(msrecd.NotSupportedError):
        MediaRecorder(MediaStream(), {"video_key_frame_interval_duration": 1, "video_key_frame_interval_count": 1})


# --- MediaRecorder-bitrate.https.html --------------------------------------------------------------------------------

BITRATES_AFTER_CONSTRUCTION = [
    ("av", {}, None, None, None),
    ("av", {"bits_per_second": 0}, None, None, 0),
    ("av", {"audio_bits_per_second": 0}, None, 0, None),
    ("av", {"video_bits_per_second": 0}, 0, None, None),
    ("av", {"bits_per_second": 0, "audio_bits_per_second": 100_000, "video_bits_per_second": 1_000_000}, None, None, 0),
    ("av", {"bits_per_second": 2_000_000, "audio_bits_per_second": 0, "video_bits_per_second": 0}, None, None, 2e6),
    ("av", {"bits_per_second": 2_000_000}, None, None, 2e6),
    ("av", {"audio_bits_per_second": 100_000}, None, 100_000, None),
    ("av", {"video_bits_per_second": 1_000_000}, 1_000_000, None, None),
    ("a", {"video_bits_per_second": 1_000_000}, 1_000_000, None, None),
    ("v", {"audio_bits_per_second": 100_000}, None, 100_000, None),
    ("a", {"bits_per_second": 2_000_000}, None, None, 2e6),
    ("v", {"bits_per_second": 2_000_000}, None, None, 2e6),
]


@pytest.mark.parametrize(("kinds", "options", "video", "audio", "total"), BITRATES_AFTER_CONSTRUCTION)
def test_bitrate_after_construction(
    kinds: str, options: dict[str, int], video: int | None, audio: int | None, total: float | None
) -> None:
    """`video`, `audio`: the exact value, None for anything but 0; `total`: what their sum is near."""

    async def main() -> None:
        with recorder_of(kinds, options) as recorder:
            got_video, got_audio = recorder.video_bits_per_second, recorder.audio_bits_per_second
            assert got_video == video if video is not None else got_video > 0
            assert got_audio == audio if audio is not None else got_audio > 0
            if total is not None:
                assert abs(got_video + got_audio - total) <= 100_000

    run(main())


BITRATES_AFTER_START = [
    ("av", {}, None, None),
    ("av", {"audio_bits_per_second": 100_000, "video_bits_per_second": 1_000_000}, None, None),
    ("av", {"bits_per_second": 2_000_000}, None, None),
    ("a", {"bits_per_second": 500_000}, 0, 500_000),
    ("v", {"bits_per_second": 2_000_000}, 2_000_000, 0),
]


@pytest.mark.parametrize(("kinds", "options", "video", "audio"), BITRATES_AFTER_START)
def test_bitrate_after_start(kinds: str, options: dict[str, int], video: int | None, audio: int | None) -> None:
    """None: unchanged. After the recording the values are those of the constructor again."""

    async def main() -> None:
        with recorder_of(kinds, options) as recorder:
            before = recorder.video_bits_per_second, recorder.audio_bits_per_second
            log = Log(recorder)
            recorder.start()
            after = recorder.video_bits_per_second, recorder.audio_bits_per_second
            if video is None or audio is None:
                assert after == before
            else:
                assert all(now != then for now, then in zip(after, before, strict=True))
                assert abs(after[0] - video) <= (100_000 if video else 0)
                assert abs(after[1] - audio) <= (100_000 if audio else 0)
            recorder.stop()
            assert (recorder.video_bits_per_second, recorder.audio_bits_per_second) == before
            await log.until("stop")

    run(main())


# --- MediaRecorder-mimetype.html -------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [*AUDIO_TYPES, *VIDEO_TYPES, *BOTH_TYPES])
def test_mimetype_supported_is_kept_byte_for_byte(type_: str) -> None:
    assert MediaRecorder.is_type_supported(type_)
    assert MediaRecorder(MediaStream(), {"mime_type": type_}).mime_type == type_


@pytest.mark.parametrize("type_", UNSUPPORTED)
def test_mimetype_unsupported_throws(type_: str) -> None:
    assert not MediaRecorder.is_type_supported(type_)
    with pytest.raises(msrecd.NotSupportedError):
        MediaRecorder(MediaStream(), {"mime_type": type_})


@pytest.mark.parametrize(
    "type_", ['audio/MP4;codecs=" opus   "', "VIDEO/WebM; codecs=VP9", "video/mp4; codecs=AVC1.4d002a"]
)
def test_mimetype_case_quotes_and_blanks(type_: str) -> None:
    assert MediaRecorder.is_type_supported(type_)


def test_mimetype_empty_is_supported() -> None:
    assert MediaRecorder.is_type_supported("")


def _starts(kinds: str, type_: str) -> None:
    async def main() -> None:
        with recorder_of(kinds, {"mime_type": type_}) as recorder:
            log = Log(recorder)
            recorder.start()
            assert recorder.state == "recording"
            await log.until("start")
            assert recorder.mime_type.startswith(type_.partition(";")[0].lower())
            recorder.stop()
            assert recorder.mime_type == type_
            await log.until("stop")
            assert log.types == ["start", "dataavailable", "stop"]
            assert log.blobs[0].data.type == log.states[0][2]

    run(main())


@pytest.mark.parametrize("type_", [*AUDIO_TYPES, *BOTH_TYPES, "video/mp4", "video/webm", "video/x-matroska"])
def test_mimetype_starts_for_audio(type_: str) -> None:
    _starts("a", type_)


@pytest.mark.parametrize("type_", [*VIDEO_TYPES, *BOTH_TYPES])
def test_mimetype_starts_for_video(type_: str) -> None:
    _starts("v", type_)


@pytest.mark.parametrize(
    "type_", ["audio/mp4", "audio/ogg", "audio/webm", "audio/flac", "audio/wav", "audio/x-matroska"]
)
def test_start_video_into_an_audio_type(type_: str) -> None:
    """MediaRecorder-start.html: the constructor accepts it, start() throws synchronously."""

    async def main() -> None:
        with recorder_of("v", {"mime_type": type_}) as recorder:
            with pytest.raises(msrecd.NotSupportedError):
                recorder.start()
            assert recorder.state == "inactive"

    run(main())


FORMATS = {
    "a": r"audio/[a-z0-9.-]+;[ ]*codecs=[^,]+",
    "v": r"video/[a-z0-9.-]+;[ ]*codecs=[^,]+",
    "av": r"video/[a-z0-9.-]+;[ ]*codecs=[^,]+,[^,]+",
}


@pytest.mark.parametrize("kinds", ["a", "v", "av"])
def test_mimetype_without_an_option(kinds: str) -> None:
    """Empty until `start` is fired, then complete; `start` comes once; empty again at the end."""

    async def main() -> None:
        with recorder_of(kinds) as recorder:
            log = Log(recorder)
            assert recorder.mime_type == ""
            recorder.start()
            assert recorder.mime_type == ""
            await log.until("start")
            assert re.fullmatch(FORMATS[kinds], recorder.mime_type)
            await delivered(recorder.stream, 0.6)
            assert log.count("start") == 1
            recorder.stop()
            assert recorder.mime_type == ""
            await log.until("stop")

    run(main())


def test_mimetype_bare_webm_is_completed() -> None:
    async def main() -> None:
        for kinds, given, full in (
            ("v", "video/webm", "video/webm;codecs=vp8"),
            ("a", "audio/webm", "audio/webm;codecs=opus"),
        ):
            with recorder_of(kinds, {"mime_type": given}) as recorder:
                log = Log(recorder)
                recorder.start()
                await log.until("start")
                assert recorder.mime_type == full
                recorder.stop()
                await log.until("stop")

    run(main())


@pytest.mark.parametrize(("timeslice", "error"), [("1s", TypeError), (True, TypeError), (float("inf"), TypeError)])
def test_start_with_a_wrong_timeslice(timeslice: Any, error: type[Exception]) -> None:
    async def main() -> None:
        with recorder_of("a") as recorder:
            with pytest.raises(error):
                recorder.start(timeslice)
            assert recorder.state == "inactive"

    run(main())


def test_flac_in_mp4_says_how_many_bits_a_sample_has() -> None:
    """A browser refuses the header otherwise (MediaSource), although everybody else plays the file."""

    async def main() -> None:
        with Scene("a") as scene:
            log = await record(scene.stream, {"mime_type": "audio/mp4;codecs=flac"}, 0.3)
        data = log.data()
        entry = data.index(b"fLaC") + 4
        channels, bits = (int.from_bytes(data[at : at + 2], "big") for at in (entry + 16, entry + 18))
        assert (channels, bits) == (2, 16)

    run(main())
