"""Finished files know their length, and where their key frames are; a file that is finished twice is the same."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

from msrecd import libav
from msrecd.codecs.parameters import of_audio_encoder, of_video_encoder
from msrecd.codecs.video import OPTIONS
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import AudioFormat, Packet, VideoFormat
from msrecd.muxing.container import ChunkContainer
from msrecd.muxing.finish import finish
from msrecd.vocabulary.formats import CONTAINERS

NS = 1_000_000_000
SECONDS = 3
RATE = 48_000
Unit = tuple[int, Packet]


def sound(codec: str, *, bits: int = 16, channels: int = 2) -> tuple[StreamParameters, list[Packet], bytes]:
    """(description, packets, the PCM as FLAC counts it) of noise."""
    format = AudioFormat(sample_rate=RATE, channels=channels, sample_format="s16" if bits == 16 else "s32", bits=bits)
    noise = random.Random(7)
    count = SECONDS * RATE * channels
    limit = 1 << bits - 2
    values = [noise.randrange(-limit, limit) for _ in range(count)]
    if bits == 16:
        pcm = plain = struct.pack(f"<{count}h", *values)
    else:
        pcm = struct.pack(f"<{count}i", *(value << 8 for value in values))
        plain = b"".join(value.to_bytes(3, "little", signed=True) for value in values)
    encoder = libav.AudioEncoder(codec=codec, source=format, bit_rate=96_000)
    try:
        step = RATE // 50
        encoded = []
        for first in range(0, SECONDS * RATE, step):
            encoded += encoder.encode(pcm[first * format.frame_bytes : (first + step) * format.frame_bytes], first)
        encoded += encoder.flush()
        rate = encoder.sample_rate
        packets = [
            _packet(packet.pts * NS // rate, packet.duration * NS // rate, packet.data, is_key=True)
            for packet in encoded
        ]
        return of_audio_encoder(encoder), packets, plain
    finally:
        encoder.close()


def pictures(codec: str) -> tuple[StreamParameters, list[Packet]]:
    """Frames of 25 a second, a key frame each second."""
    format = VideoFormat(width=64, height=48)
    encoder = libav.VideoEncoder(
        codec=codec, width=64, height=48, frame_rate=25, bit_rate=100_000, options=OPTIONS.get(codec)
    )
    try:
        encoded = []
        for number in range(SECONDS * 25):
            frame = libav.picture(format, bytes([16 + number]) * (64 * 48) + bytes([128]) * (64 * 24))
            encoded += encoder.encode(frame, number * NS // 25, key_frame=number % 25 == 0)
        encoded += encoder.flush()
        packets = [_packet(packet.pts, NS // 25, packet.data, is_key=packet.is_keyframe) for packet in encoded]
        return of_video_encoder(encoder, 25), packets
    finally:
        encoder.close()


def _packet(at_ns: int, duration_ns: int, data: bytes, *, is_key: bool) -> Packet:
    return Packet(pts_ns=at_ns, dts_ns=at_ns, duration_ns=duration_ns, is_keyframe=is_key, data=data)


def muxed(mime_type: str, tracks: list[tuple[StreamParameters, list[Packet]]]) -> bytes:
    chunk = ChunkContainer(CONTAINERS[mime_type], [parameters for parameters, _ in tracks], fragment_ns=NS // 2)
    units = [(index, packet) for index, (_, packets) in enumerate(tracks) for packet in packets]
    for index, packet in sorted(units, key=lambda unit: unit[1].dts_ns):
        chunk.write(index, packet, pts_ns=packet.pts_ns, dts_ns=packet.dts_ns, duration_ns=packet.duration_ns)
    chunk.close()
    return b"".join(chunk.take())


def finished(path: Path, data: bytes) -> Path:
    """The file, finished twice."""
    path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    try:
        size = finish(fd, len(data), path.suffix)
        once = path.read_bytes()
        assert finish(fd, size, path.suffix) == size == len(once)
        assert path.read_bytes() == once
    finally:
        os.close(fd)
    return path


def probed(path: Path, *more: str) -> dict[str, object]:
    command = ["ffprobe", "-v", "warning", "-of", "json", "-show_format", *more, str(path)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert done.stderr == b""
    return dict(json.loads(done.stdout))


def duration(path: Path) -> float:
    return float(probed(path)["format"]["duration"])  # type: ignore[index]


@pytest.mark.parametrize(("bits", "channels"), [(16, 1), (16, 2), (24, 2), (24, 6)])
def test_flac_knows_its_samples_and_their_sum(tmp_path: Path, bits: int, channels: int) -> None:
    parameters, packets, plain = sound("flac", bits=bits, channels=channels)
    path = finished(tmp_path / "file.flac", muxed("audio/flac", [(parameters, packets)]))
    head = path.read_bytes()[:42]
    assert int.from_bytes(head[18:26], "big") & (1 << 36) - 1 == SECONDS * RATE
    assert int.from_bytes(head[18:26], "big") >> 36 & 31 == bits - 1
    assert head[26:42] == hashlib.md5(plain, usedforsecurity=False).digest()
    assert duration(path) == SECONDS


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_matroska_and_webm_know_their_duration_and_can_be_searched(tmp_path: Path, suffix: str) -> None:
    video, audio = ("h264", "flac") if suffix == ".mkv" else ("vp9", "opus")
    tracks = [pictures(video), sound(audio)[:2]]
    mime_type = {".mkv": "video/x-matroska", ".webm": "video/webm"}[suffix]
    path = finished(tmp_path / f"file{suffix}", muxed(mime_type, tracks))
    assert duration(path) == pytest.approx(SECONDS, abs=0.03)
    seeking = ["-read_intervals", "2.5%+#1", "-select_streams", "v", "-show_packets"]
    (packet,) = probed(path, *seeking)["packets"]  # type: ignore[misc]
    assert float(packet["pts_time"]) == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("codec", ["aac", "opus", "flac", "pcm_s16le", "pcm_s24le"])
def test_sound_alone_in_matroska_knows_its_duration(tmp_path: Path, codec: str) -> None:
    parameters, packets, _ = sound(codec, bits=24 if codec == "pcm_s24le" else 16)
    path = finished(tmp_path / "file.mka", muxed("audio/x-matroska", [(parameters, packets)]))
    assert duration(path) == pytest.approx(SECONDS, abs=0.05)


@pytest.mark.parametrize("bits", [16, 24])
def test_wav_knows_its_size(tmp_path: Path, bits: int) -> None:
    parameters, packets, plain = sound(f"pcm_s{bits}le", bits=bits)
    path = finished(tmp_path / "file.wav", muxed("audio/wav", [(parameters, packets)]))
    assert duration(path) == SECONDS
    assert path.read_bytes().endswith(plain)


def test_a_file_that_was_cut_after_its_cues_is_finished_all_the_same(tmp_path: Path) -> None:
    """A power cut between the cues and the head: what is there already is not written twice."""
    data = muxed("video/x-matroska", [pictures("h264")])
    whole = finished(tmp_path / "whole.mkv", data).read_bytes()
    half = data + whole[len(data) :]
    assert finished(tmp_path / "half.mkv", half).read_bytes() == whole


@pytest.mark.parametrize("suffix", [".mkv", ".flac", ".wav", ".webm"])
@pytest.mark.parametrize("data", [b"", b"no media", bytes(5000), b"RIFF\0\0\0\0WAVE", b"fLaC" + bytes(60)])
def test_what_is_no_such_file_stays_as_it_is(tmp_path: Path, suffix: str, data: bytes) -> None:
    assert finished(tmp_path / f"file{suffix}", data).read_bytes() == data
