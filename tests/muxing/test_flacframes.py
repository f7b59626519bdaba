"""Each FLAC file counts its frames from 0, also where one encoder goes on from file to file."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from test_finish import NS, RATE, SECONDS, sound

from msrecd import libav
from msrecd.flow.units import AudioFormat
from msrecd.muxing.container import ChunkContainer
from msrecd.muxing.finish import finish
from msrecd.muxing.flacframes import HEADER_BYTES, FrameNumbers, frame_header
from msrecd.storage import fragments
from msrecd.vocabulary.formats import CONTAINERS


def chunk(tmp_path: Path, mime_type: str, first: int) -> tuple[Path, bytes]:
    """A file of the packets from `first` on, and the sound in it as it went into the encoder."""
    parameters, packets, plain = sound("flac")
    begun = packets[first].pts_ns
    container = ChunkContainer(CONTAINERS[mime_type], [parameters], fragment_ns=NS)
    for packet in packets[first:]:
        at = packet.pts_ns - begun
        container.write(0, packet, pts_ns=at, dts_ns=at, duration_ns=packet.duration_ns)
    container.close()
    path = tmp_path / f"file{CONTAINERS[mime_type].audio_extension}"
    path.write_bytes(b"".join(container.take()))
    return path, plain[round(begun * RATE / NS) * 4 :]


@pytest.mark.parametrize("first", [0, 1, 17])
@pytest.mark.parametrize("mime_type", ["audio/flac", "audio/ogg"])
def test_a_later_file_begins_at_0_and_decoders_agree(tmp_path: Path, mime_type: str, first: int) -> None:
    path, plain = chunk(tmp_path, mime_type, first)
    with path.open("r+b") as file:
        finish(file.fileno(), path.stat().st_size, path.suffix)
    decode = ["ffmpeg", "-v", "warning", "-err_detect", "crccheck+explode", "-i", path, "-f", "s16le", "-"]
    done = subprocess.run(decode, capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout == plain
    show = ["ffprobe", "-v", "error", "-show_entries", "packet=pts_time", "-of", "csv=p=0", path]
    times = subprocess.run(show, capture_output=True, text=True, check=True).stdout.split()
    assert float(times[0].strip(",")) == 0
    found = fragments.scan(io.BytesIO(path.read_bytes()), path.stat().st_size, path.suffix[1:])
    assert found.tracks["audio"].units == len(plain) // 4


def test_a_player_finds_a_place_in_a_later_file(tmp_path: Path) -> None:
    path, plain = chunk(tmp_path, "audio/flac", 17)
    with path.open("r+b") as file:
        finish(file.fileno(), path.stat().st_size, path.suffix)
    seek = ["ffmpeg", "-v", "error", "-ss", "0.75", "-i", path, "-f", "s16le", "-"]
    found = subprocess.run(seek, capture_output=True, check=True).stdout
    assert found == plain[round(0.75 * RATE) * 4 :]


def test_a_file_whose_frames_count_from_an_earlier_one_has_its_own_length() -> None:
    parameters, packets, _ = sound("flac")
    parts: list[bytes] = []
    muxer = libav.Muxer(parts.append, format="flac", headers=[parameters.header])
    begun = packets[20].pts_ns
    for packet in packets[20:]:
        at = packet.pts_ns - begun
        muxer.write(0, packet.data, pts_ns=at, dts_ns=at, duration_ns=packet.duration_ns, is_keyframe=True)
    muxer.close()
    data = b"".join(parts)
    for size in (len(data), len(data) - 5):
        found = fragments.scan(io.BytesIO(data), size, "flac")
        assert found.duration_s == pytest.approx(SECONDS - begun / NS, abs=0.1)


def test_what_is_no_frame_is_left_alone() -> None:
    _, packets, _ = sound("flac")
    numbers = FrameNumbers()
    for data in (b"", b"\xff\xf8", bytes(40), b"\xff\xf8" + bytes(40)):
        assert numbers.renumber(data) is data
    first = packets[0].data
    assert numbers.renumber(first) is first


def test_a_frame_of_silence_is_shorter_than_the_longest_header() -> None:
    format = AudioFormat(sample_rate=RATE, channels=2, sample_format="s16", bits=16)
    encoder = libav.AudioEncoder(codec="flac", source=format, bit_rate=0)
    try:
        packets = [*encoder.encode(bytes(4 * RATE), 0), *encoder.flush()]
    finally:
        encoder.close()
    numbers = FrameNumbers()
    given = [frame_header(bytes(numbers.renumber(packet.data))) for packet in packets[3:]]
    assert min(len(packet.data) for packet in packets) < HEADER_BYTES
    assert [header.number for header in given if header] == list(range(len(packets) - 3))
