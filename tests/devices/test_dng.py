"""What stands in a DNG, read by another hand."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dng_reader import read_dng

from msrecd.devices.camera.dng import make_dng, parse_format, unpacked

METADATA: dict[str, Any] = {
    "ExposureTime": 2_500_000,
    "AnalogueGain": 2.0,
    "DigitalGain": 1.5,
    "ColourGains": (2.0, 1.25),
    "ColourCorrectionMatrix": (1.6, -0.4, -0.2, -0.4, 1.7, -0.3, -0.1, -0.6, 1.7),
    "SensorBlackLevels": (4096, 4160, 4224, 4096),
}


def made(pixel_format: str = "SBGGR12", rotation: int = 0, **metadata: Any) -> tuple[bytes, np.ndarray[Any, Any]]:
    samples = np.random.default_rng(5).integers(0, 4096, (6, 8), np.uint16)
    lines = np.full((6, 16), 0xEEEE, np.uint16)  # with padding
    lines[:, :8] = samples
    dng = make_dng(
        memoryview(lines.astype("<u2").tobytes()),
        pixel_format=pixel_format,
        size=(8, 6),
        stride=32,
        metadata=METADATA | metadata,
        model="imx477",
        rotation=rotation,
    )
    return dng, samples


def test_samples_and_what_they_mean() -> None:
    data, samples = made()
    dng = read_dng(data)
    assert (dng.samples == samples).all()
    assert (dng.size, dng.pattern, dng.white_level, dng.model) == ((8, 6), "BGGR", 4095, "imx477")
    assert dng.black_levels == [256, 260, 264, 256]
    assert (dng.exposure_s, dng.iso) == (2.5, 300), "longer than a second, too"
    assert dng.neutral == pytest.approx([0.5, 1.0, 0.8])


@pytest.mark.parametrize(("rotation", "orientation"), [(0, 1), (90, 6), (180, 3), (270, 8)])
def test_a_camera_that_hangs_askew(rotation: int, orientation: int) -> None:
    assert read_dng(made(rotation=rotation)[0]).orientation == orientation


def test_the_colour_matrix_leads_from_xyz_to_the_camera() -> None:
    matrix = np.array(read_dng(made()[0]).colour_matrix).reshape(3, 3)
    srgb = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    correction = np.array(METADATA["ColourCorrectionMatrix"]).reshape(3, 3)
    assert matrix @ srgb @ correction @ np.diag([2.0, 1.0, 1.25]) == pytest.approx(np.eye(3), abs=1e-4)


def test_what_metadata_lack_is_neutral() -> None:
    data = make_dng(memoryview(bytes(64)), pixel_format="SRGGB10", size=(8, 4), stride=16, metadata={}, model="x")
    assert b"x\0" in data
    assert data[:4] == b"II*\0"


def test_without_colour_filters() -> None:
    dng = read_dng(made("R12")[0])
    assert (dng.pattern, dng.black_levels, dng.colour_matrix) == (None, [256], [])


@pytest.mark.parametrize("name", ["SRGGB12_CSI2P", "RGGB_PISP_COMP1", "R8", "YUV420"])
def test_formats_that_are_no_samples_of_two_bytes(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        made(name)


def test_a_buffer_that_is_too_small() -> None:
    with pytest.raises(ValueError, match="a buffer of 63 bytes"):
        make_dng(memoryview(bytes(63)), pixel_format="R10", size=(8, 4), stride=16, metadata={}, model="x")


def test_a_matrix_without_an_inverse() -> None:
    with pytest.raises(ValueError, match="inverse"):
        made(ColourCorrectionMatrix=(0.0,) * 9)


def test_names_of_formats() -> None:
    assert unpacked("SRGGB12_CSI2P") == "SRGGB12"
    assert parse_format("R10") is not None
    assert parse_format("S12") is None


def test_ffmpeg_reads_it(tmp_path: Path) -> None:
    """Its decoder of TIFF knows colour filter arrays of 16 bits."""
    path = tmp_path / "still.dng"
    path.write_bytes(made("SRGGB12")[0])
    probe = ["ffprobe", "-v", "error", "-f", "tiff_pipe", "-show_entries", "stream=width,height,pix_fmt"]
    found = subprocess.run(
        [*probe, "-of", "csv=p=0", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.stdout.strip(), found.stderr.strip()) == ("8,6,bayer_rggb16le", "")
