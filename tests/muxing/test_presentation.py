"""What a file says of how its frames are shown: rotation, the shape of pixels, colours; and that samples fit to it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from msrecd import libav
from msrecd.codecs.parameters import of_video_encoder
from msrecd.codecs.table import CONTAINERS
from msrecd.codecs.video import OPTIONS
from msrecd.flow.units import Packet, Presentation, VideoFormat
from msrecd.muxing.container import ChunkContainer

SIZE = 64
FRAME_NS = 100_000_000
TYPES = (
    ("video/mp4", "h264"),
    ("video/mp4", "mjpeg"),
    ("video/x-matroska", "h264"),
    ("video/x-matroska", "mjpeg"),
    ("video/webm", "vp9"),
    ("video/webm", "vp8"),
)


def recorded(path: Path, mime_type: str, codec: str, presentation: Presentation, luma: int = 8) -> Path:
    """Five grey frames with this description, encoded and muxed."""
    format = VideoFormat(width=SIZE, height=SIZE, presentation=presentation)
    planes = bytes([luma]) * SIZE**2 + bytes([128]) * (SIZE**2 // 2)
    encoder = libav.VideoEncoder(
        codec=codec,
        width=SIZE,
        height=SIZE,
        frame_rate=10,
        bit_rate=200_000,
        options=OPTIONS.get(codec),
        presentation=presentation,
    )
    try:
        packets = [
            packet
            for number in range(5)
            for packet in encoder.encode(libav.picture(format, planes), number * FRAME_NS, key_frame=number == 0)
        ]
        packets += encoder.flush()
        chunk = ChunkContainer(CONTAINERS[mime_type], [of_video_encoder(encoder, 10)], fragment_ns=FRAME_NS)
        for packet in packets:
            unit = Packet(
                pts_ns=packet.pts,
                dts_ns=packet.dts,
                duration_ns=FRAME_NS,
                is_keyframe=packet.is_keyframe,
                data=packet.data,
            )
            chunk.write(0, unit, pts_ns=packet.pts, dts_ns=packet.dts, duration_ns=FRAME_NS)
        chunk.close()
    finally:
        encoder.close()
    path.write_bytes(b"".join(chunk.take()))
    return path


def probed(path: Path) -> dict[str, object]:
    """The stream as ffprobe describes it, the entries of its side data among the others."""
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-of", "json", "-show_streams", str(path)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    (stream,) = json.loads(done.stdout)["streams"]
    for data in stream.pop("side_data_list", []):
        stream |= data
    return dict(stream)


def first_grey(path: Path) -> int:
    """The red of the first pixel, as a player shows it."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout[0]


@pytest.mark.parametrize(("mime_type", "codec"), TYPES)
@pytest.mark.parametrize(("rotation", "told"), [(0, None), (90, -90), (180, 180), (270, 90)])
def test_rotation_is_written(tmp_path: Path, mime_type: str, codec: str, rotation: int, told: int | None) -> None:
    file = recorded(tmp_path / "file", mime_type, codec, Presentation(rotation=rotation))  # type: ignore[arg-type]
    found = probed(file).get("rotation")
    assert found == told or (told == 180 and found == -180)


@pytest.mark.parametrize(("mime_type", "codec"), TYPES)
@pytest.mark.parametrize("aspect", [(16, 11), (1, 2), (4, 3), (40, 33)])
def test_shape_of_pixels_is_written(tmp_path: Path, mime_type: str, codec: str, aspect: tuple[int, int]) -> None:
    file = recorded(tmp_path / "file", mime_type, codec, Presentation(pixel_aspect=aspect))
    assert probed(file)["sample_aspect_ratio"] == f"{aspect[0]}:{aspect[1]}"


RANGES, LUMAS = ("limited", "full", None), (8, 24, 240)


@pytest.mark.parametrize(  # each pair of type, range and luma once: all three together are three times as many
    ("mime_type", "codec", "color_range", "luma"),
    [(*one, RANGES[at], LUMAS[(number + at) % 3]) for number, one in enumerate(TYPES) for at in range(3)],
)
def test_greys_stay_what_they_are(
    tmp_path: Path, mime_type: str, codec: str, color_range: str | None, luma: int
) -> None:
    file = recorded(
        tmp_path / "file",
        mime_type,
        codec,
        Presentation(color_range=color_range),  # type: ignore[arg-type]
        luma,
    )
    meant = luma if color_range == "full" else round(max(0, min(255, (luma - 16) * 255 / 219)))
    assert first_grey(file) == pytest.approx(meant, abs=3)


@pytest.mark.parametrize(("mime_type", "codec"), TYPES)
def test_colours_are_written(tmp_path: Path, mime_type: str, codec: str) -> None:
    presentation = Presentation(color_primaries=9, color_transfer=16, color_matrix=9, color_range="limited")
    found = probed(recorded(tmp_path / "file", mime_type, codec, presentation))
    assert (found.get("color_primaries"), found.get("color_transfer")) == ("bt2020", "smpte2084")
