"""Decoding in a process of its own: the same frames as before, and what of it fails is the input's alone."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from msrecd import libav
from msrecd.clock import NS
from msrecd.dom.exceptions import DOMException
from msrecd.flow.units import AudioBlock, VideoFrame
from msrecd.inputs import decoder, decoding, wire
from msrecd.inputs.address import SourceOptions, parse
from msrecd.inputs.limits import Allowance, pixels_that_fit
from msrecd.inputs.processes import Process, ReaderError
from msrecd.inputs.reader import Reader
from msrecd.libav import colors
from msrecd.libav.values import LibavError, StreamInfo
from msrecd.media.playback import Playback


class Units:
    """A sink of raw units."""

    def __init__(self) -> None:
        self.units: list[Any] = []
        self.error: BaseException | None = None
        self.came = threading.Event()
        self.ended = threading.Event()

    def put(self, unit: Any) -> None:
        self.units.append(unit)
        self.came.set()

    def end(self, error: BaseException | None = None) -> None:
        self.error = error
        self.ended.set()


def movie(
    path: Path, *, frames: int = 25, size: tuple[int, int] = (161, 91), codec: str = "mpeg4", **more: Any
) -> Path:
    """Frames whose grey is their number, and a second of sound for each 25 of them."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream(codec, rate=25, options=more.get("options", {}))
        video.width, video.height, video.pix_fmt = *size, more.get("pix_fmt", "yuv420p")
        layout = more.get("sound", "mono")
        sound: Any = out.add_stream("aac", rate=48000, layout=layout)
        for number in range(frames):
            grey = np.full((size[1], size[0], 3), (20 + 7 * number) % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        samples = np.zeros((1, frames * 1920 * (2 if layout == "stereo" else 1)), np.int16)
        block = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        block.sample_rate, block.pts = 48000, 0
        out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    return path


class Decoded:
    """A file that plays, with those who want it raw. Use as a context manager."""

    def __init__(self, path: Path, *, loop: bool = False) -> None:
        self.playback = Playback(str(path), loop=loop)
        self.taken = {source.kind: Units() for source in self.playback.sources}

    def __enter__(self) -> Decoded:
        for source in self.playback.sources:
            source.raw().add(self.taken[source.kind])
        self.playback.play()
        return self

    def __exit__(self, *_: object) -> None:
        self.playback.close()

    def decoder(self, kind: str) -> Any:
        source = next(source for source in self.playback.sources if source.kind == kind)
        return source._decoding._video if kind == "video" else source._decoding._audio


@pytest.mark.parametrize(
    "made",
    [
        {"codec": "mpeg4"},
        {"codec": "libx264", "size": (160, 90), "options": {"bf": "3", "preset": "fast"}},
        {"codec": "mjpeg", "pix_fmt": "yuvj420p", "size": (160, 90)},
    ],
    ids=["odd size", "B-frames", "full range"],
)
def test_frames_are_those_that_libav_gives_in_this_process(tmp_path: Path, made: dict[str, Any]) -> None:
    path = movie(tmp_path / "a.mkv", **made)
    with Decoded(path) as played:
        assert played.taken["video"].ended.wait(30)
        assert played.taken["audio"].ended.wait(30)
    frames: list[VideoFrame] = played.taken["video"].units
    with av.open(str(path)) as container:
        wanted = [libav.planes(frame, "yuv420p") for frame in container.decode(video=0)]
    assert [bytes(frame.data) for frame in frames] == wanted
    assert (frames[0].format.width, frames[0].format.height) == made.get("size", (161, 91))
    assert frames[0].format.presentation.color_range in (None, "limited")
    blocks: list[AudioBlock] = played.taken["audio"].units
    assert sum(block.samples for block in blocks) >= 47_000


def test_there_is_no_decoder_of_inputs_in_this_process() -> None:
    """What comes from outside is decoded elsewhere. Left: frames of cameras here."""
    root = Path(libav.__file__).parent.parent
    users = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.parent.name != "libav" and re.search(r"(?<!Confined)(Video|Audio)Decoder\(", path.read_text())
    }
    assert users == {"inputs/decoder.py", "devices/camera/frames.py"}


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP])
@pytest.mark.parametrize("kind", ["video", "audio"])
@pytest.mark.promise("silent-process-is-killed")
def test_a_decoder_that_dies_or_hangs_ends_its_input_alone(
    tmp_path: Path, kind: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "DECODE_S", 1.0)
    path = movie(tmp_path / "a.mkv")
    with Decoded(path, loop=True) as victim, Decoded(path, loop=True) as other:
        assert victim.taken[kind].came.wait(30)
        signal.pidfd_send_signal(victim.decoder(kind)._process.pidfd, number)
        assert victim.taken[kind].ended.wait(30)
        error = victim.taken[kind].error
        assert isinstance(error, DOMException)
        assert ("hung" if number == signal.SIGSTOP else number.name) in error.message
        assert str(path) in error.message
        before = len(other.taken["video"].units)
        for _ in range(300):
            other.taken["video"].came.clear()
            assert other.taken["video"].came.wait(30)
            if len(other.taken["video"].units) > before + 10:
                break
        assert not other.taken["video"].ended.is_set()


def test_sound_is_what_the_header_said_whatever_the_packets_have(tmp_path: Path) -> None:
    """Two AAC streams behind each other, as damage makes them: the sound keeps its rate and its channels."""
    first, second = (movie(tmp_path / name, sound=sound) for name, sound in (("1.mkv", "mono"), ("2.mkv", "stereo")))
    streams = [parameters(path) for path in (first, second)]
    info, packets = streams[0][0], [*streams[0][1], *streams[1][1]]
    made = decoding.ConfinedAudioDecoder(info, "camera")
    pcm = made.decode(packets)
    made.close()
    assert all(piece is None or len(piece) % 2 == 0 for piece in pcm)
    assert sum(len(piece or b"") for piece in pcm) > 2 * 45_000


def parameters(path: Path) -> tuple[StreamInfo, list[bytes]]:
    reader = Reader(parse(str(path)), SourceOptions())
    info = next(info for info in reader.description.streams if info.kind == "audio")
    packets = [bytes(packet.data) for batch in reader.batches([info.index]) for packet in batch]
    reader.close()
    return info, packets


@pytest.mark.promise("largest-frame")
def test_one_frame_of_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    """17 KB of file, 8192x8704 pixels: 2 GiB in a decoder with threads."""
    path = tmp_path / "large.mkv"
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=1, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 8192, 8704, "yuv420p"
        frame = av.VideoFrame(8192, 8704, "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        out.mux(video.encode(frame))
        out.mux(video.encode(None))
        del frame
    before = _rss_mib()
    played = Decoded(path)
    with played:
        assert played.taken["video"].ended.wait(30)
    assert not played.taken["video"].units
    assert played.playback.sources[0].stats.dropped >= 1
    assert _rss_mib() - before < 40


def _rss_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


@pytest.mark.parametrize(
    ("memory_mib", "megapixels"), [(416, 2.4), (512, 2.9), (900, 5.2), (1024, 5.9), (4096, 16.7), (8192, 16.7)]
)
@pytest.mark.promise("largest-frame")
@pytest.mark.promise("frames-that-fit-the-board")
def test_frames_that_fit_on_a_board(memory_mib: int, megapixels: float) -> None:
    """1080p on the smallest, 4K from 2 GiB on."""
    assert pixels_that_fit(memory_mib << 20) / 1e6 == pytest.approx(megapixels, abs=0.1)


def test_an_allowance_is_refilled_and_has_a_most() -> None:
    allowance = Allowance(100, burst_s=2)
    assert allowance.try_take(200, 0)
    assert not allowance.try_take(1, 0)
    assert allowance.try_take(100, NS)
    assert not allowance.try_take(201, 100 * NS)
    assert allowance.take(300, 200 * NS) == pytest.approx(1.0)


@pytest.mark.promise("pixels-a-second")
def test_more_frames_a_second_than_are_decoded_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msrecd.media import streamdecoding

    monkeypatch.setattr(streamdecoding, "PIXELS_A_SECOND", 161 * 91)
    with Decoded(movie(tmp_path / "a.mkv", frames=50)) as played:
        assert played.taken["video"].ended.wait(30)
    assert 0 < len(played.taken["video"].units) < 25
    assert played.playback.sources[0].stats.dropped >= 25


# --- a process that lies --------------------------------------------------------------------------------------------

NUT = b"nut/multimedia container\0"
VIDEO = StreamInfo(index=0, kind="video", codec="h264", extradata=b"x", header=NUT, width=64, height=64, frame_rate=25)
SOUND = StreamInfo(index=0, kind="audio", codec="aac", extradata=b"x", header=NUT, sample_rate=8000, channels=1)
HEAD = decoder.FRAME_HEAD


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """A process of the reading kind whose socket another end of ours answers on."""
    ours: list[socket.socket] = []

    def start(self: Process, kinds: Any) -> None:
        self.socket, other = socket.socketpair()
        ours.append(other)
        self.pidfd, self._status = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
        self._frames = wire.FrameReader(self.socket, kinds)
        self._lock = threading.Lock()
        self.is_closed = False

    monkeypatch.setattr(Process, "__init__", start)
    yield lambda data: ours[-1].sendall(data)
    for one in ours:
        one.close()


@pytest.mark.parametrize(
    "answer",
    [
        wire.frame(decoder.FRAME, b""),
        wire.frame(decoder.FRAME, HEAD.pack(0, 0, 10, 0, 2, 0)),
        wire.frame(decoder.FRAME, HEAD.pack(0, 65535, 65535, 0, 2, 0)),
        wire.frame(decoder.FRAME, HEAD.pack(-(1 << 63), 10, 10, 0, 2, 0)),
        wire.frame(decoder.FRAME, HEAD.pack(0, 10, 10, 0, 2, 1)) * 80,
        wire.frame(b"?", b""),
        wire.HEADER.pack(decoder.FRAME, 0xFFFFFFFF),
        b"\xff" * 200,
    ],
)
@pytest.mark.promise("wire-is-checked")
def test_frames_of_a_process_that_lies_are_refused(lying: Callable[[bytes], None], answer: bytes) -> None:
    made = decoding.ConfinedVideoDecoder(VIDEO, "camera")
    lying(answer)
    with pytest.raises(ReaderError):
        made.decode(b"data", 0)


def test_a_frame_that_the_board_has_no_memory_for_is_refused(
    lying: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the process was told; it may not keep to it."""
    monkeypatch.setattr(decoding, "board_bytes", lambda: 512 << 20)
    made = decoding.ConfinedVideoDecoder(VIDEO, "camera")
    lying(wire.frame(decoder.FRAME, HEAD.pack(0, 4096, 1024, 0, 2, 0)))
    with pytest.raises(ReaderError):
        made.decode(b"data", 0)


@pytest.mark.parametrize(
    "answer",
    [wire.frame(decoder.SOUND, b"odd"), wire.HEADER.pack(decoder.SOUND, 1 << 30), wire.frame(decoder.FRAME, b"")],
)
def test_sound_of_a_process_that_lies_is_refused(lying: Callable[[bytes], None], answer: bytes) -> None:
    made = decoding.ConfinedAudioDecoder(SOUND, "camera")
    lying(answer)
    with pytest.raises(ReaderError):
        made.decode([b"data"])


GOOD = json.loads(wire.description(wire.Description(streams=(VIDEO,), is_live=True, times="rtp"))[wire.HEADER.size :])


def with_(**fields: Any) -> dict[str, Any]:
    return GOOD | {"streams": [GOOD["streams"][0] | fields]}


@pytest.mark.parametrize(
    "value",
    [
        None, [], {}, "x", GOOD | {"streams": [1]}, GOOD | {"streams": {"a": 1}},
        GOOD | {"streams": GOOD["streams"] * 2}, GOOD | {"skipped": {}}, GOOD | {"times": "whenever"},
        GOOD | {"times": []}, with_(new=1), with_(kind="text"), with_(codec="h264\n"), with_(codec="../x"),
        with_(width=0), with_(width=True), with_(width=1e9), with_(frame_rate=0.0), with_(frame_rate=1e-300),
        with_(frame_rate=float("nan")), with_(index=-1), with_(bits=1 << 20), with_(header=""), with_(header="AAAA"),
        with_(extradata=None), with_(extradata="?"), with_(presentation=[]), with_(presentation={"rotation": 45}),
        with_(presentation={"pixel_aspect": [1, 0]}), with_(presentation={"pixel_aspect": 7}),
        with_(presentation={"color_range": "some"}), with_(layout="\x1b[2J"),
    ],
)  # fmt: skip
@pytest.mark.promise("wire-is-checked")
def test_a_description_of_a_process_that_lies_is_refused(value: Any) -> None:
    assert wire.read_description(json.dumps(GOOD).encode()).streams == (VIDEO,)
    with pytest.raises(wire.WireError):
        wire.read_description(json.dumps(value).encode())


def test_what_a_process_says_of_a_failure_has_no_control_characters(lying: Callable[[bytes], None]) -> None:
    made = decoding.ConfinedVideoDecoder(VIDEO, "camera")
    lying(wire.frame(decoder.FAILED, b"\x1b[31mred\n" * 100))
    with pytest.raises(LibavError) as caught:
        made.decode(b"data", 0)
    made.close()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("matrix", [*range(20), 255])
def test_a_matrix_that_libav_cannot_convert_loses_no_frame(matrix: int) -> None:
    """A stream may name any number; the samples are converted between ranges and sizes all the same."""
    frame = av.VideoFrame.from_ndarray(np.full((96, 64), 90, np.uint8), format="yuv420p")
    frame.colorspace = matrix
    frame.color_range = 2
    made = colors.converted(frame, "yuv420p", 32, 32)
    assert (made.width, made.height) == (32, 32)
    assert int(made.colorspace) in ((5, 6) if matrix in (5, 6) else (matrix,)), "5 and 6 are the same"
