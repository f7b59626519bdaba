"""Pictures and sound as arrays: the only importer of numpy.

Import this module only where arrays are needed (canvas, snapshots, tests): loading numpy takes time and memory that a
recorder of encoded units never needs. All functions are pure and may be called from any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msrecd.flow.units import AudioBlock, VideoFrame

    Picture: TypeAlias = NDArray[np.uint8]
    Sound: TypeAlias = NDArray[np.int16] | NDArray[np.int32]


def rgb24_from_array(array: object, width: int, height: int) -> bytes:
    """The bytes of an RGB picture, rows from the top, three bytes a pixel.

    Args:
        array: an ndarray of shape (height, width, 3) and dtype uint8; need not be contiguous.
        width: of the canvas, in pixels.
        height: of the canvas, in pixels.

    Raises:
        TypeError: it is not such an array; the message says what it is instead.
    """
    wanted = f"a picture must be an ndarray of shape ({height}, {width}, 3) (height, width, RGB) and dtype uint8"
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{wanted}, not {type(array).__name__}")
    if array.dtype != np.uint8:
        raise TypeError(f"{wanted}, not of dtype {array.dtype}")
    if array.shape != (height, width, 3):
        raise TypeError(f"{wanted}, not of shape {array.shape}")
    return array.tobytes()  # in C order, whatever the array's own order is


def solid_rgb24(width: int, height: int, color: tuple[int, int, int]) -> bytes:
    """A picture of one colour: (red, green, blue), 0 to 255 each.

    Raises:
        ValueError: a component is out of range.
    """
    return bytes(color) * (width * height)


def solid_yuv420p(width: int, height: int, color: tuple[int, int, int]) -> bytes:
    """A picture of one colour: (Y, U, V), 0 to 255 each; planes one after the other; odd sizes have rounded-up chroma.

    Raises:
        ValueError: a component is out of range.
    """
    luma, blue, red = (bytes((component,)) for component in color)
    chroma_size = -(-width // 2) * -(-height // 2)
    return luma * (width * height) + blue * chroma_size + red * chroma_size


def array_from_frame(frame: VideoFrame) -> Picture:
    """The picture as an array of its own, shape (height, width, 3), uint8 RGB.

    yuv420p is taken as BT.601, limited range, and its chroma is repeated, not interpolated.

    Raises:
        ValueError: the pixel format is neither rgb24 nor yuv420p, or there is less or more data than the format says.
    """
    width, height = frame.format.width, frame.format.height
    data = np.frombuffer(frame.data, dtype=np.uint8)
    match frame.format.pixel_format:
        case "rgb24":
            _check_size(frame, data.size, width * height * 3)
            return data.reshape(height, width, 3).copy()
        case "yuv420p":
            return _rgb_from_yuv420p(frame, data)
        case other:
            raise ValueError(f"pixel format {other} is neither rgb24 nor yuv420p")


def array_from_block(block: AudioBlock) -> Sound:
    """The block as an array of its own, shape (samples, channels), int16 or int32 as the sample format says.

    Raises:
        ValueError: there is less or more data than `samples` says.
    """
    sample_type = np.dtype("<i2" if block.format.sample_format == "s16" else "<i4")
    expected = block.samples * block.format.frame_bytes
    if len(block.data) != expected:
        raise ValueError(f"a block of {block.samples} samples has {len(block.data)} bytes instead of {expected}")
    return np.frombuffer(block.data, dtype=sample_type).reshape(block.samples, block.format.channels).copy()


def _rgb_from_yuv420p(frame: VideoFrame, data: Picture) -> Picture:
    width, height = frame.format.width, frame.format.height
    half_width, half_height = -(-width // 2), -(-height // 2)
    luma_size, chroma_size = width * height, half_width * half_height
    _check_size(frame, data.size, luma_size + 2 * chroma_size)
    y = (data[:luma_size].reshape(height, width).astype(np.float32) - 16.0) * (255.0 / 219.0)
    planes = data[luma_size:].reshape(2, half_height, half_width)
    full = planes.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width].astype(np.float32)
    u, v = (full - 128.0) * (255.0 / 224.0)
    rgb = np.stack((y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u), axis=-1)
    return rgb.round().clip(0, 255).astype(np.uint8)


def _check_size(frame: VideoFrame, actual: int, expected: int) -> None:
    if actual != expected:
        form = frame.format
        raise ValueError(
            f"a picture of {form.width}x{form.height} {form.pixel_format} has {actual} bytes instead of {expected}"
        )
