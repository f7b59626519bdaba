"""Network cameras as inputs, played by the program's own Playback: times, first frames, faults, words."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pyav import needs_sender_reports

from msrecd.clock import MS, NS
from msrecd.codecs.jpeg import jpeg_size
from msrecd.dom.exceptions import DOMException, NotReadableError
from msrecd.flow.units import Packet
from msrecd.inputs.address import SourceOptions
from msrecd.media.playback import Playback
from tests.inputs.cameras import STAMPS, Clip, Faults, FileServer, HttpCamera, RtspCamera, UdpCamera, clip

QUICK = SourceOptions(timeout_s=3.0)


@pytest.fixture(scope="module")
def media() -> Clip:
    return clip()


class Taken:
    """A sink that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.error: BaseException | None = None
        self._condition = threading.Condition()
        self._ended = False

    def put(self, unit: Packet) -> None:
        with self._condition:
            self.packets.append(unit)
            self._condition.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self._condition:
            self.error, self._ended = error, True
            self._condition.notify_all()

    def wait(self, count: int, timeout: float = 60.0) -> list[Packet]:
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.packets) >= count or self._ended, timeout), "nothing comes"
            assert len(self.packets) >= count, f"it ended: {self.error}"
            return list(self.packets)

    def wait_end(self, timeout: float = 60.0) -> BaseException | None:
        with self._condition:
            assert self._condition.wait_for(lambda: self._ended, timeout), "it does not end"
            return self.error


class Played:
    """An input that plays; its sinks by kind. Use as a context manager."""

    def __init__(self, url: str, options: SourceOptions = QUICK) -> None:
        self.playback = Playback(url, options)
        self.taken = {source.kind: Taken() for source in self.playback.sources}

    def __enter__(self) -> Played:
        for source in self.playback.sources:
            source.passing.feed.add(self.taken[source.kind])
        self.playback.play()
        return self

    def __exit__(self, *_: object) -> None:
        self.playback.close()


def spread(packets: list[Packet]) -> float:
    """Seconds from the first to the last."""
    return (packets[-1].pts_ns - packets[0].pts_ns) / NS


@pytest.mark.parametrize("transport", ["auto", "tcp", "udp"])
def test_a_camera_with_sound(media: Clip, transport: str) -> None:
    """It begins with the first key frame; frames lie as far apart as they were captured; sound keeps its place."""
    with RtspCamera(media) as camera, Played(camera.url, SourceOptions(timeout_s=5, transport=transport)) as played:  # type: ignore[arg-type]
        frames = played.taken["video"].wait(150)
        sound = played.taken["audio"].wait(250)
        assert frames[0].is_keyframe
        assert abs(spread(frames) - (len(frames) - 1) / 25) < 0.1
        assert abs(spread(sound) - (len(sound) - 1) * 1024 / 48000) < 0.1
        assert abs(time.monotonic_ns() - frames[-1].pts_ns) < 20 * NS
        assert played.playback.is_live


def test_nothing_before_the_second_key_frame_is_lost(media: Clip) -> None:
    with RtspCamera(media, has_sound=False) as camera, Played(camera.url) as played:
        frames = played.taken["video"].wait(60)
    assert [number for number, frame in enumerate(frames) if frame.is_keyframe][:3] == [0, 25, 50]


@pytest.mark.parametrize("late_s", [0.0, pytest.param(0.6, marks=needs_sender_reports)])
@pytest.mark.promise("sender-reports")
def test_sender_reports_tell_the_distance(media: Clip, late_s: float) -> None:
    """Sound that is sent 600 ms behind its frames lies beside them all the same."""
    with RtspCamera(media, Faults(sound_late_s=late_s)) as camera, Played(camera.url) as played:
        frames, sound = played.taken["video"].wait(200), played.taken["audio"].wait(300)
    # Each second of frames begins with a key frame; sound packet n lies at n * 1024 / 48000 s of the same clock.
    first_key = next(frame for frame in frames[100:] if frame.is_keyframe)
    number = frames.index(first_key)
    zero = first_key.pts_ns - number * NS // 25
    offset = (sound[250].pts_ns - 250 * 1024 * NS // 48000) - zero
    assert abs(offset) < 60 * MS, f"{offset / MS:.0f} ms"


def _told(url: str) -> str:
    return ",".join(f"url={url}/track{track};seq={track};rtptime={stamp}" for track, stamp in STAMPS.items())


def _distance_ns(played: Played) -> int:
    """Of the sound from the frames of the same time, where all has come from the first packet on."""
    frames, sound = played.taken["video"].wait(60), played.taken["audio"].wait(90)
    return (sound[80].pts_ns - 80 * 1024 * NS // 48000) - (frames[50].pts_ns - 50 * NS // 25)


@pytest.mark.parametrize(
    ("told", "is_right"),
    [
        (_told, True),
        (lambda url: _told(url).replace(url, "rtsp://10.0.0.9:554/cam"), True),  # its own address, behind a router
        (None, False),
        (lambda url: _told(url).replace("rtptime", "time"), False),
        (lambda url: f"url={url}/track1;seq=1;rtptime=0,url={url}/track2;seq=1;rtptime=0", False),
    ],
)
@pytest.mark.promise("rtp-info")
def test_the_answer_to_play_tells_the_distance(media: Clip, told: Callable[[str], str] | None, is_right: bool) -> None:
    """Sound that is sent 150 ms behind its frames lies beside them from the first packet on, without sender reports.
    Where the camera says nothing, or what contradicts arrival, both lie as they arrive."""
    faults = Faults(sound_late_s=0.15, reports=False, rtp_info=told)
    with RtspCamera(media, faults) as camera, Played(camera.url, SourceOptions(timeout_s=5, transport="tcp")) as played:
        off = _distance_ns(played)
    assert abs(off - (0 if is_right else 150 * MS)) < 60 * MS, f"{off / MS:.0f} ms"
    assert played.playback.position_s < 60


@pytest.mark.parametrize("told", [None, _told])
@pytest.mark.promise("late-sound")
def test_sound_that_begins_late_is_taken(media: Clip, told: Callable[[str], str] | None) -> None:
    """Its description names it, and nothing of it comes for four seconds: it is muted until then."""
    faults = Faults(sound_begins_s=4.0, rtp_info=told)
    muted: list[bool] = []
    with RtspCamera(media, faults) as camera:
        played = Played(camera.url, SourceOptions(timeout_s=5, transport="tcp"))
        source = next(source for source in played.playback.sources if source.kind == "audio")
        assert source.muted
        source.on_muted = muted.append
        with played:
            frames, sound = played.taken["video"].wait(150), played.taken["audio"].wait(50)
    assert (source.info.codec, source.info.sample_rate, source.info.channels) == ("aac", 48000, 1)
    assert muted == [False]
    assert abs((sound[0].pts_ns - frames[0].pts_ns) / NS - 4.0) < 0.5


@pytest.mark.parametrize("jump_s", [-20.0, 20.0, 5.0])
@pytest.mark.promise("step-of-a-senders-clock")
def test_a_step_of_its_clock_costs_nothing(media: Clip, jump_s: float) -> None:
    faults = Faults(stamp_s=lambda at: at + 100 + (jump_s if at > 3 else 0), reports=False)
    with RtspCamera(media, faults) as camera, Played(camera.url) as played:
        frames = played.taken["video"].wait(175)
    assert abs(spread(frames) - (len(frames) - 1) / 25) < 0.5


@pytest.mark.promise("junk-between-packets")
def test_junk_on_the_connection_costs_nothing(media: Clip) -> None:
    """200 bytes a second for each stream, without anything that a packet begins with."""
    with RtspCamera(media, Faults(junk=b"A" * 200)) as camera, Played(camera.url) as played:
        frames = played.taken["video"].wait(75)
        assert max(after.pts_ns - before.pts_ns for before, after in pairwise(frames)) < 60 * MS
        assert played.playback.sources[0].stats.dropped == 0


def test_the_end_of_a_live_input_is_an_error(media: Clip) -> None:
    with RtspCamera(media, Faults(closes_after_s=3.0)) as camera, Played(camera.url) as played:
        error = played.taken["video"].wait_end()
        assert isinstance(error, NotReadableError)
        assert f"rtsp://127.0.0.1:{camera.port}/cam" in error.message


def test_silence_is_an_error_after_the_timeout(media: Clip) -> None:
    with RtspCamera(media, Faults(silent_after_s=2.5)) as camera, Played(camera.url) as played:
        played.taken["video"].wait(40)
        begun = time.monotonic()
        assert isinstance(played.taken["video"].wait_end(), NotReadableError)
        assert time.monotonic() - begun < 25


def test_no_answer_is_an_error_after_the_timeout(media: Clip) -> None:
    with RtspCamera(media, Faults(hangs=True)) as camera:
        begun = time.monotonic()
        with pytest.raises(NotReadableError, match=str(camera.port)):
            Playback(camera.url, SourceOptions(timeout_s=1.0))
        assert time.monotonic() - begun < 25


def test_tcp_is_refused_and_udp_is_taken(media: Clip) -> None:
    with RtspCamera(media, Faults(refuses="tcp")) as camera, Played(camera.url) as played:
        played.taken["video"].wait(30)
        assert any("client_port" in request for request in camera.requests)


def test_what_is_lost_on_the_way_is_counted_and_nothing_broken_follows() -> None:
    """RTP over UDP loses a piece of a frame: frames resume at the next key frame, and the others are counted."""
    big = clip(640, 480)
    faults = Faults(loses=lambda number: number == 300)
    with (
        RtspCamera(big, faults, has_sound=False) as camera,
        Played(camera.url, SourceOptions(timeout_s=5, transport="udp")) as played,
    ):
        frames = played.taken["video"].wait(150)
        source = played.playback.sources[0]
    assert source.stats.dropped > 0
    holes = [after for before, after in pairwise(frames) if after.pts_ns - before.pts_ns > 60 * MS]
    assert holes
    assert all(frame.is_keyframe for frame in holes)


def test_a_transport_that_is_refused_is_said(media: Clip) -> None:
    with (
        RtspCamera(media, Faults(refuses="tcp")) as camera,
        pytest.raises(NotReadableError, match="transport"),
    ):
        Playback(camera.url, SourceOptions(timeout_s=3, transport="tcp"))


def test_a_stream_that_changes_its_size_ends(media: Clip) -> None:
    """Whoever records it begins anew, with a header that is right."""
    faults = Faults(changes=(3.0, clip(160, 120)))
    with RtspCamera(media, faults) as camera, Played(camera.url) as played:
        error = played.taken["video"].wait_end()
        assert "changed" in str(error)
        assert len(played.taken["video"].packets) >= 70


@pytest.mark.parametrize(("before", "after"), [("h264", "hevc"), ("hevc", "h264")])
@pytest.mark.promise("a-change-of-coding")
def test_a_stream_that_changes_its_coding_ends(before: str, after: str) -> None:
    """Some cameras go over to another one under the same payload type. A new attempt has it described anew."""
    faults = Faults(changes=(2.0, clip(codec=after)))
    with RtspCamera(clip(codec=before), faults) as camera:
        with Played(camera.url) as played:
            error = played.taken["video"].wait_end()
            assert f"its frames are no {before} any more" in str(error)
            assert 45 <= len(played.taken["video"].packets) <= 51
        with Played(camera.url) as again:
            assert [source.info.codec for source in again.playback.sources if source.kind == "video"] == [after]
            assert again.taken["video"].wait(30)[0].is_keyframe


def test_parameter_sets_that_come_twice_change_nothing() -> None:
    """Some cameras repeat them within a key frame, now and then; a network doubles packets."""
    plain = clip()
    doubled = replace(plain, frames=[*plain.frames])
    sets = [unit for unit in plain.frames[0] if unit[0] & 31 == 7]
    assert sets
    doubled.frames[25] = [*sets, *plain.frames[25]]
    with RtspCamera(doubled, has_sound=False) as camera, Played(camera.url) as played:
        assert len(played.taken["video"].wait(60)) >= 60


def test_only_the_tracks_that_are_wanted(media: Clip) -> None:
    with RtspCamera(media) as camera, Played(camera.url, SourceOptions(tracks=("audio",), timeout_s=3)) as played:
        assert list(played.taken) == ["audio"]
        played.taken["audio"].wait(20)


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.promise("no-secret-is-shown")
def test_a_wrong_password_is_told_without_it(
    media: Clip, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        RtspCamera(media, Faults(login=("admin", "right"))) as camera,
        pytest.raises(DOMException) as caught,
    ):
        Playback(f"rtsp://admin:s3cret%40x@127.0.0.1:{camera.port}/cam?token=t0ken", QUICK)
    told = caught.value.message + repr(caught.value) + caplog.text + "".join(capfd.readouterr())
    chain = caught.value.__cause__ or caught.value.__context__
    assert "password" in caught.value.message
    assert f"127.0.0.1:{camera.port}/cam" in caught.value.message
    for secret in ("s3cret", "t0ken"):
        assert secret not in told + repr(chain)


def test_the_password_comes_out_of_a_file(media: Clip, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("ri:g@ht/\n")
    (tmp_path / "password").chmod(0o600)
    options = SourceOptions(user="admin", password_file=str(tmp_path / "password"), timeout_s=3)
    with RtspCamera(media, Faults(login=("admin", "ri:g@ht/"))) as camera, Played(camera.url, options) as played:
        played.taken["video"].wait(5)
        for line in _command_lines():
            assert "ri:g" not in line


def _command_lines() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_text(errors="replace")
        except OSError:
            continue


# --- joining, HTTP --------------------------------------------------------------------------------------------------


def test_who_joins_has_the_first_frame_at_once(media: Clip) -> None:
    """Between two key frames: those since the last one come first, all within the moment before what is sent now."""
    with RtspCamera(media, has_sound=False) as camera, Played(camera.url) as played:
        played.taken["video"].wait(90)
        joiner, joined_ns = Taken(), time.monotonic_ns()
        played.playback.sources[0].passing.feed.add(joiner)
        frames = joiner.wait(60)
    assert frames[0].is_keyframe
    assert frames[0].pts_ns >= joined_ns - 300 * MS  # a key frame of its own may have been on its way
    times = [frame.dts_ns for frame in frames]
    assert times == sorted(set(times))
    assert all(frame.pts_ns >= frame.dts_ns for frame in frames)
    assert spread(frames) < (len(frames) + 1) / 25


def test_jpegs_over_http_are_stamped_on_arrival() -> None:
    with HttpCamera(rate=5) as camera, Played(camera.url) as played:
        frames = played.taken["video"].wait(25)
        assert played.playback.is_live
    assert abs(spread(frames) - (len(frames) - 1) / 5) < 1.0


def test_jpegs_that_end_are_an_error() -> None:
    with HttpCamera(rate=10, closes_after_s=2.0) as camera, Played(camera.url) as played:
        error = played.taken["video"].wait_end()
        assert isinstance(error, NotReadableError)
        assert camera.url in error.message


def test_jpegs_that_change_their_size_end() -> None:
    """As other streams do: a recorder continues in a chunk with the right header."""
    with HttpCamera(rate=10, grows_after_s=2.0) as camera, Played(camera.url) as played:
        error = played.taken["video"].wait_end()
        assert "changed" in str(error)
        sizes = {jpeg_size(frame.data) for frame in played.taken["video"].packets}
    assert sizes == {(160, 120)}


def test_a_file_whose_server_cannot_go_back_says_what_to_do() -> None:
    """The index of an MP4 lies at its end unless it was put first; libav has to go back from there."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as out:
        sound: Any = out.add_stream("flac", rate=48000, layout="mono")
        noise = np.random.default_rng(1).integers(-9000, 9000, (1, 480_000), np.int16)
        block = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        block.sample_rate, block.pts = 48000, 0
        out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    with FileServer(memory.getvalue()) as server, pytest.raises(NotReadableError, match="faststart"):
        Playback(server.url, QUICK)


# --- UDP ------------------------------------------------------------------------------------------------------------


def test_a_stream_that_is_joined_between_key_frames_keeps_its_frames() -> None:
    """Nothing is known of H.264 until a key frame comes with its parameter sets: it is waited for."""
    with UdpCamera() as camera, Played(camera.url) as played:
        assert {source.kind for source in played.playback.sources} == {"video", "audio"}
        frames = played.taken["video"].wait(20)
        assert frames[0].is_keyframe
        played.taken["audio"].wait(20)


def test_udp_that_nobody_sends_is_silent() -> None:
    with UdpCamera(seconds=1) as camera:
        pass
    with pytest.raises(NotReadableError, match="silent for 1 s"):
        Playback(camera.url, SourceOptions(timeout_s=1.0))


def test_udp_that_falls_silent_says_for_how_long() -> None:
    with UdpCamera(joined_s=0.0) as camera, Played(camera.url, SourceOptions(timeout_s=2.0)) as played:
        played.taken["video"].wait(20)
        camera.__exit__()
        assert "silent for 2 s" in str(played.taken["video"].wait_end())
