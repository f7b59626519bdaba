"""What is known of an input's streams: each property that a recording has to keep, and streams that are none."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import pytest
from judge import _luma, number_of
from pyav import needs_colours

from msrecd.devices.virtual.testframe import TestFrame
from msrecd.inputs.address import SourceOptions, parse
from msrecd.inputs.reader import Reader
from msrecd.libav import rawtimes
from msrecd.libav.adts import AdtsError, audio_specific_config, without_header
from msrecd.libav.decoders import VideoDecoder
from msrecd.libav.rawtimes import with_times
from msrecd.libav.values import Demuxed, StreamInfo

FRAMES = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2"]
TONE = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=2"]
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25"]


def made(path: Path, *arguments: str) -> Path:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, str(path)], check=True, timeout=120)
    return path


def opened(path: Path) -> dict[str, StreamInfo]:
    reader = Reader(parse(str(path)), SourceOptions())
    reader.close()
    return {info.kind: info for info in reader.description.streams}


def read(path: Path, kind: str = "video") -> list[Demuxed]:
    reader = Reader(parse(str(path)), SourceOptions())
    index = next(info.index for info in reader.description.streams if info.kind == kind)
    packets = [packet for batch in reader.batches([index]) for packet in batch]
    reader.close()
    return packets


@pytest.mark.parametrize("name", ["sound.ts", "sound.aac"])
def test_adts_gets_its_config(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / name, *TONE, "-c:a", "aac")
    info = opened(path)["audio"]
    assert (info.codec, info.sample_rate, info.channels) == ("aac", 48000, 1)
    assert info.extradata == bytes.fromhex("1188")
    assert all(bytes(packet.data[:2]) != b"\xff\xf1" for packet in read(path, "audio"))


@pytest.mark.slow
@pytest.mark.promise("latm-is-encoded-anew")
@pytest.mark.parametrize("suffix", ["m4a", "mka"])
def test_latm_becomes_aac_with_a_config(tmp_path: Path, suffix: str) -> None:
    path = made(tmp_path / "sound.ts", *TONE, "-c:a", "aac", "-mpegts_flags", "+latm")
    assert opened(path)["audio"].codec == "aac_latm"
    out = tmp_path / f"out.{suffix}"
    mime_type = {"m4a": "audio/mp4", "mka": "audio/x-matroska"}[suffix]
    subprocess.run(
        [sys.executable, "-m", "msrecd", "record", "--source", str(path), "--mime-type", mime_type, str(out)],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    info = opened(out)["audio"]
    assert (info.codec, info.sample_rate, info.channels, info.extradata[:2].hex()) == ("aac", 48000, 1, "1188")
    samples = len(subprocess.run(
        ["ffmpeg", "-v", "error", "-xerror", "-i", str(out), "-f", "s16le", "-"], check=True, capture_output=True
    ).stdout) // 2  # fmt: skip
    assert abs(samples - 2 * 48000) <= 4 * 1024  # padding at both ends, of both encodings


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["h264", "avi"])
@pytest.mark.parametrize("b_frames", [0, 2, 3])
@pytest.mark.parametrize("gop", [10, 25])
def test_frames_without_times_are_in_the_order_shown(tmp_path: Path, suffix: str, b_frames: int, gop: int) -> None:
    """Raw H.264 has no times, AVI has those of decoding alone."""
    painted = TestFrame(320, 240)
    raw = tmp_path / "numbered.yuv"
    raw.write_bytes(b"".join(painted.paint(number, flash=False) for number in range(50)))
    path = made(
        tmp_path / f"frames.{suffix}", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "320x240", "-framerate",
        "25", "-i", str(raw), "-c:v", "libx264", "-preset", "ultrafast", "-g", str(gop), "-bf", str(b_frames),
    )  # fmt: skip
    decoder = VideoDecoder(opened(path)["video"].header)
    frames = []
    for packet in read(path):
        assert packet.pts_ns is not None
        frames += decoder.decode(bytes(packet.data), packet.pts_ns)
    frames += decoder.flush()
    shown = sorted((pts_ns, number_of(_luma(frame))) for pts_ns, frame in frames)
    assert [number for _, number in shown] == list(range(50))
    assert {b - a for (a, _), (b, _) in pairwise(shown)} == {40_000_000}


_ODD_KEYS = ["-force_key_frames", "0.12,1.2,1.36", "-g", "25"]
_DEEP = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "4", *_ODD_KEYS]
_X265 = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:pools=1:bframes=4:open-gop=1"]


@pytest.mark.parametrize(
    ("suffix", "parts"),
    [
        pytest.param("h264", [_DEEP], id="h264"),
        pytest.param("avi", [_DEEP], id="avi"),
        pytest.param("h265", [[*_X265, *_ODD_KEYS]], id="hevc"),
        pytest.param("h264", [[*H264, "-bf", "0"], [*_DEEP, "-x264-params", "open-gop=1"]], id="joined"),
        pytest.param("mpg", [[*_DEEP, "-f", "mpeg"]], id="mpeg-ps"),
        pytest.param("m4v", [["-c:v", "mpeg4", "-q:v", "3", "-bf", "2", "-f", "m4v"]], id="mpeg4"),
    ],
)
@pytest.mark.promise("frames-in-the-order-shown")
def test_times_are_those_of_the_order_in_which_a_decoder_shows(
    tmp_path: Path, suffix: str, parts: list[list[str]]
) -> None:
    painted = TestFrame(320, 240)
    raw = tmp_path / "numbered.yuv"
    raw.write_bytes(b"".join(painted.paint(number, flash=False) for number in range(50)))
    made_of = [
        made(
            tmp_path / f"part{number}.{suffix}", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "320x240",
            "-framerate", "25", "-i", str(raw), *part,
        )
        for number, part in enumerate(parts)
    ]  # fmt: skip
    path = tmp_path / f"whole.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in made_of))
    decoder = VideoDecoder(opened(path)["video"].header)
    packets, frames = read(path), []
    for packet in packets:
        assert packet.pts_ns is not None
        frames += decoder.decode(bytes(packet.data), packet.pts_ns)
    frames += decoder.flush()
    assert [number_of(_luma(frame)) for _, frame in sorted(frames, key=lambda one: one[0])] == [*range(50)] * len(parts)
    assert {b - a for a, b in pairwise(sorted(pts_ns for pts_ns, _ in frames))} == {40_000_000}
    decoded = [(packet.dts_ns, packet.pts_ns or 0) for packet in packets if packet.dts_ns is not None]
    assert len(decoded) == (0 if suffix == "mpg" else len(packets))  # those of MPEG-PS are guessed as well
    assert all(dts <= pts for dts, pts in decoded)
    assert all(a < b for (a, _), (b, _) in pairwise(decoded))


@pytest.mark.promise("nothing-left-out-for-its-time")
def test_frames_to_which_libav_gives_one_time_have_one_each(tmp_path: Path) -> None:
    """Small frames of MPEG-PS: several begin in a packet, which has one time."""
    grey = ["-f", "lavfi", "-i", "color=gray:size=320x240:rate=25:duration=2"]
    path = made(tmp_path / "small.mpg", *grey, *TONE, "-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2", "-f", "vob")
    shown = sorted(packet.pts_ns or 0 for packet in read(path))
    assert (len(shown), {b - a for a, b in pairwise(shown)}) == (50, {40_000_000})


def test_adts_headers() -> None:
    header = bytes.fromhex("fff1508002dffc")  # AAC LC, 44.1 kHz, stereo
    assert audio_specific_config(header + b"x").hex() == "1210"
    assert without_header(header + b"x") == b"x"
    assert without_header(bytes([0xFF, 0xF0]) + header[2:] + b"CCx") == b"x"  # with a checksum
    assert without_header(b"\x21\x10\x05") == b"\x21\x10\x05"
    for none in (b"", b"\xff\xf1", b"\0" * 9, bytes.fromhex("fff1500002dffc")):
        with pytest.raises(AdtsError):
            audio_specific_config(none)


@pytest.mark.parametrize("name", ["sound.mp3", "sound.m4a", "sound.flac"])
def test_a_cover_is_no_video(tmp_path: Path, name: str) -> None:
    cover = made(tmp_path / "cover.jpg", "-f", "lavfi", "-i", "testsrc2=size=64x64", "-frames:v", "1")
    codec = {"sound.mp3": "libmp3lame", "sound.m4a": "aac", "sound.flac": "flac"}[name]
    path = made(
        tmp_path / name, *TONE, "-i", str(cover), "-map", "0", "-map", "1", "-c:a", codec, "-c:v", "copy",
        "-disposition:v", "attached_pic",
    )  # fmt: skip
    assert list(opened(path)) == ["audio"]


def test_a_dead_sound_stream_refuses_no_frames(tmp_path: Path) -> None:
    """The program map announces sound, of which nothing comes."""
    path = made(tmp_path / "both.ts", *FRAMES, *TONE, *H264, "-c:a", "aac")
    packets = path.read_bytes()
    parts = [packets[at : at + 188] for at in range(0, len(packets), 188)]
    alive = b"".join(part for part in parts if struct.unpack_from(">H", part, 1)[0] & 0x1FFF != 0x101)
    (tmp_path / "dead.ts").write_bytes(alive)
    assert list(opened(tmp_path / "dead.ts")) == ["video"]
    assert len(read(tmp_path / "dead.ts")) == 50


@pytest.mark.parametrize("name", ["raw.h264", "raw.264"])
def test_a_raw_stream_gets_times(tmp_path: Path, name: str) -> None:
    """One frame after the other in decode order; they are shown in another."""
    made(tmp_path / "raw.h264", *FRAMES, *H264[:-2], "-g", "20", "-x264-params", "bframes=3:b-adapt=0")
    (tmp_path / "raw.h264").rename(tmp_path / name)
    packets = read(tmp_path / name)
    assert len(packets) == 50
    shown = [packet.pts_ns or 0 for packet in packets]
    assert sorted(shown) == [min(shown) + number * 40_000_000 for number in range(50)]
    assert shown != sorted(shown), "there are B-frames"
    assert all((packet.dts_ns or 0) <= (packet.pts_ns or 0) for packet in packets)


def test_matroska_with_b_frames_has_every_frame(tmp_path: Path) -> None:
    path = made(tmp_path / "b.mkv", *FRAMES, *H264, "-x264-params", "bframes=3:b-pyramid=2:b-adapt=0")
    packets = read(path)
    assert len(packets) == 50
    assert len({packet.pts_ns for packet in packets}) == 50


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_file(tmp_path: Path, turn: int) -> None:
    path = made(tmp_path / "plain.mp4", *FRAMES, *H264)
    data = path.read_bytes()
    at = (
        data.index(b"tkhd") + 4 + 40
    )  # version 0: the matrix stands 40 bytes behind its beginning (ISO/IEC 14496-12, 8.3.2)
    one = 1 << 16
    matrix = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[turn]
    a, b, c, d = matrix
    turned = data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]
    path.write_bytes(turned)
    assert opened(path)["video"].presentation.rotation == turn


@needs_colours
def test_shape_and_colours(tmp_path: Path) -> None:
    path = made(
        tmp_path / "wide.mp4", *FRAMES, "-vf", "setsar=16/11", *H264, "-color_range", "pc", "-colorspace", "bt709",
        "-color_primaries", "bt709", "-color_trc", "bt709",
    )  # fmt: skip
    presentation = opened(path)["video"].presentation
    assert presentation.pixel_aspect == (16, 11)
    assert presentation.color_range == "full"
    assert (presentation.color_primaries, presentation.color_transfer, presentation.color_matrix) == (1, 1, 1)


@pytest.mark.parametrize(("channels", "layout"), [(1, "mono"), (2, "stereo"), (6, "5.1")])
def test_channels(tmp_path: Path, channels: int, layout: str) -> None:
    info = opened(made(tmp_path / "sound.mp4", *TONE, "-ac", str(channels), "-c:a", "aac"))["audio"]
    assert (info.channels, info.layout) == (channels, layout)


def test_24_bits(tmp_path: Path) -> None:
    for name, arguments in (("deep.flac", ["-sample_fmt", "s32", "-c:a", "flac"]), ("deep.wav", ["-c:a", "pcm_s24le"])):
        assert opened(made(tmp_path / name, *TONE, *arguments))["audio"].bits == 24
    assert opened(made(tmp_path / "flat.flac", *TONE, "-sample_fmt", "s16", "-c:a", "flac"))["audio"].bits == 0


def test_nothing_is_doubled_or_lost_by_rewinding(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mp4", *FRAMES, *H264)
    reader = Reader(parse(str(path)), SourceOptions())
    rounds = []
    for _ in range(3):
        rounds.append([bytes(packet.data) for batch in reader.batches([0]) for packet in batch])
        reader.rewind()
    reader.close()
    assert len(rounds[0]) == 50
    assert rounds[0] == rounds[1] == rounds[2]


def test_frames_that_are_far_apart_do_not_hold_much_sound_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which frames are shown is known when sixteen have come: an hour's sound must not wait for them."""
    monkeypatch.setattr(rawtimes, "_MOST_WAITING", 200)
    path = made(
        tmp_path / "slides.avi", "-f", "lavfi", "-i", "color=size=64x64:rate=1/60:duration=300", "-f", "lavfi", "-i",
        "anullsrc=sample_rate=8000:duration=300", *H264, "-c:a", "pcm_s16le",
    )  # fmt: skip
    most = taken = given = 0

    def counted(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
        nonlocal taken
        for packet in packets:
            if packet.size:
                taken += 1
                yield packet

    with av.open(str(path)) as file:
        for _ in with_times(counted(file.demux()), list(file.streams), "avi"):
            given += 1
            most = max(most, taken - given)
    assert given == taken > 2000
    assert most <= 200
