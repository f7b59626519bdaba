from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from recording import solid_yuv420p

from msrecd import pixels
from msrecd.flow.units import AudioBlock, AudioFormat, VideoFormat, VideoFrame


def frame(width: int, height: int, pixel_format: str, data: bytes) -> VideoFrame:
    return VideoFrame(pts_ns=0, format=VideoFormat(width=width, height=height, pixel_format=pixel_format), data=data)


def test_an_array_becomes_rows_of_rgb() -> None:
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert pixels.rgb24_from_array(array, 3, 2) == bytes(range(18))


def test_a_view_that_is_not_contiguous_is_taken_in_its_own_order() -> None:
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert pixels.rgb24_from_array(array[::-1], 3, 2) == bytes([*range(9, 18), *range(9)])


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (b"bytes", "not bytes"),
        (None, "not NoneType"),
        ([[[0, 0, 0]]], "not list"),
        (np.zeros((2, 3, 3), dtype=np.float64), "not of dtype float64"),
        (np.zeros((2, 3, 3), dtype=np.int8), "not of dtype int8"),
        (np.zeros((3, 2, 3), dtype=np.uint8), r"not of shape \(3, 2, 3\)"),
        (np.zeros((2, 3), dtype=np.uint8), r"not of shape \(2, 3\)"),
        (np.zeros((2, 3, 4), dtype=np.uint8), r"not of shape \(2, 3, 4\)"),
    ],
)
def test_what_is_no_picture_is_a_type_error_that_says_why(array: object, told: str) -> None:
    with pytest.raises(TypeError, match=told) as caught:
        pixels.rgb24_from_array(array, 3, 2)
    assert "(2, 3, 3)" in str(caught.value)


def test_solid_rgb24() -> None:
    assert pixels.solid_rgb24(2, 2, (1, 2, 3)) == bytes([1, 2, 3] * 4)
    with pytest.raises(ValueError):
        pixels.solid_rgb24(2, 2, (1, 2, 256))


def test_a_frame_of_rgb24_comes_back_as_drawn_and_writable() -> None:
    array = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    back = pixels.array_from_frame(frame(4, 2, "rgb24", pixels.rgb24_from_array(array, 4, 2)))
    assert np.array_equal(back, array)
    back[:] = 0


@pytest.mark.parametrize(
    ("yuv", "rgb"),
    [
        ((16, 128, 128), (0, 0, 0)),
        ((235, 128, 128), (255, 255, 255)),
        ((81, 90, 240), (254, 0, 0)),  # BT.601's red
        ((145, 54, 34), (0, 255, 1)),  # … green
        ((41, 240, 110), (0, 0, 255)),  # … blue
    ],
)
@pytest.mark.parametrize(("width", "height"), [(4, 2), (5, 3)])
def test_a_frame_of_yuv420p_becomes_rgb(
    yuv: tuple[int, int, int], rgb: tuple[int, int, int], width: int, height: int
) -> None:
    array = pixels.array_from_frame(frame(width, height, "yuv420p", solid_yuv420p(width, height, yuv)))
    assert array.shape == (height, width, 3)
    assert array.dtype == np.uint8
    assert np.abs(array.astype(int) - np.array(rgb)).max() <= 2


def test_the_planes_of_yuv420p_lie_where_they_belong() -> None:
    luma = bytes([16, 16, 235, 235] * 2)
    array = pixels.array_from_frame(frame(4, 2, "yuv420p", luma + bytes([128, 128]) + bytes([128, 128])))
    assert array[:, :, 0].tolist() == [[0, 0, 255, 255]] * 2


@pytest.mark.parametrize("pixel_format", ["rgb24", "yuv420p"])
def test_a_frame_with_the_wrong_amount_of_data_is_refused(pixel_format: str) -> None:
    with pytest.raises(ValueError, match="7 bytes instead of"):
        pixels.array_from_frame(frame(4, 2, pixel_format, bytes(7)))


def test_an_unknown_pixel_format_is_refused() -> None:
    with pytest.raises(ValueError, match="nv12"):
        pixels.array_from_frame(frame(4, 2, "nv12", bytes(12)))


@pytest.mark.parametrize(("sample_format", "dtype"), [("s16", "<i2"), ("s32", "<i4")])
def test_a_block_becomes_samples_by_channels(sample_format: str, dtype: str) -> None:
    samples = np.array([[1, -1], [2, -2], [3, -3]], dtype=dtype)
    form = AudioFormat(sample_rate=48000, channels=2, sample_format=sample_format)  # type: ignore[arg-type]
    back = pixels.array_from_block(AudioBlock(pts_ns=0, format=form, samples=3, data=samples.tobytes()))
    assert back.tolist() == samples.tolist()
    with pytest.raises(ValueError, match="bytes instead of"):
        pixels.array_from_block(AudioBlock(pts_ns=0, format=form, samples=2, data=samples.tobytes()))


def test_the_package_itself_does_not_load_numpy() -> None:
    code = "import sys, msrecd.flow.units, msrecd.devices.base; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_sound_is_rounded_and_clipped_and_what_is_no_number_is_silence() -> None:
    array = np.array([[0.5, 1.5, np.nan, -np.inf], [-2.0, 1.6 / 32768, np.inf, 0.0]], dtype=np.float32)
    channels, frames, pcm = pixels.packed_s16(array)
    assert (channels, frames) == (2, 4)
    assert np.frombuffer(pcm, dtype="<i2").tolist() == [16384, -32768, 32767, 2, 0, 32767, -32768, 0]
