"""Frames and sound as arrays: the only importer of numpy.

Import this module only where arrays are needed (canvas, snapshots, tests): loading numpy takes time and memory that a
recorder of encoded units never needs. All functions are pure and may be called from any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msrecd.flow.units import AudioBlock, VideoFrame

    FrameArray: TypeAlias = NDArray[np.uint8]
    Sound: TypeAlias = NDArray[np.int16] | NDArray[np.int32]
    Frame: TypeAlias = NDArray[np.uint8]
    Waves: TypeAlias = NDArray[np.float32] | NDArray[np.int16]


def rgb24_from_array(array: object, width: int, height: int) -> bytes:
    """The bytes of an RGB frame, rows from the top, three bytes a pixel.

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
    """A frame of one colour: (red, green, blue), 0 to 255 each.

    Raises:
        ValueError: a component is out of range.
    """
    return bytes(color) * (width * height)


def array_from_frame(frame: VideoFrame) -> FrameArray:
    """The frame as an array of its own, shape (height, width, 3), uint8 RGB.

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


def luma_of(frame: VideoFrame, width: int) -> FrameArray:
    """Luma (of RGB: green) of every n-th pixel of every n-th line, shape (height, width), some `width` wide.

    Raises:
        ValueError: the pixel format is neither rgb24 nor yuv420p, or there is less data than the format says.
    """
    across, down = frame.format.width, frame.format.height
    step = max(1, round(across / width))
    data = np.frombuffer(frame.data, dtype=np.uint8)
    match frame.format.pixel_format:
        case "rgb24":
            return data[: across * down * 3].reshape(down, across, 3)[::step, ::step, 1].copy()
        case "yuv420p":
            return data[: across * down].reshape(down, across)[::step, ::step].copy()
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


def packed_rgb(array: object) -> tuple[int, int, bytes]:
    """(height, width, bytes) of a frame of any size, shape (height, width, 3), uint8 RGB.

    Raises:
        TypeError: it is no such array.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise TypeError(f"a frame must be a uint8 array of shape (height, width, 3), not {_described(array)}")
    if not array.size:
        raise TypeError("a frame must have at least one pixel")
    return int(array.shape[0]), int(array.shape[1]), array.tobytes()


def packed_i420(planes: object) -> tuple[int, int, bytes]:
    """(height, width, bytes) of the planes Y, U and V: three arrays, or one of them below the other.

    Raises:
        TypeError: they are no uint8 arrays whose sizes fit together.
    """
    wanted = (
        "I420 is three uint8 planes (height, width) and twice (height / 2, width / 2), or one (height * 3 / 2, width)"
    )
    if isinstance(planes, np.ndarray):
        if (
            planes.dtype != np.uint8
            or planes.ndim != 2
            or planes.shape[0] % 3
            or planes.shape[1] % 2
            or not planes.size
        ):
            raise TypeError(f"{wanted}, not {_described(planes)}")
        return int(planes.shape[0]) * 2 // 3, int(planes.shape[1]), planes.tobytes()
    if not isinstance(planes, (list, tuple)) or len(planes) != 3:
        raise TypeError(f"{wanted}, not {_described(planes)}")
    for plane in planes:
        if not isinstance(plane, np.ndarray) or plane.dtype != np.uint8 or plane.ndim != 2 or not plane.size:
            raise TypeError(f"{wanted}, not {_described(plane)}")
    height, width = planes[0].shape
    half = (-(-height // 2), -(-width // 2))
    if planes[1].shape != half or planes[2].shape != half:
        raise TypeError(f"{wanted}, not {', '.join(str(plane.shape) for plane in planes)}")
    return int(height), int(width), b"".join(plane.tobytes() for plane in planes)


def packed_s16(array: object) -> tuple[int, int, bytes]:
    """(channels, frames, interleaved PCM) of an array (channels, frames), float32 between -1 and 1 or int16.

    Raises:
        TypeError: it is no such array.
    """
    is_sound = isinstance(array, np.ndarray) and array.ndim == 2 and array.size > 0
    if not is_sound or not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.int16):
        raise TypeError(f"sound must be a float32 or int16 array of shape (channels, frames), not {_described(array)}")
    if array.dtype == np.float32:
        scaled = array.T * np.float32(32768)
        if not np.isfinite(scaled.sum()):
            scaled = np.nan_to_num(scaled)
        np.rint(scaled, out=scaled)
        array = np.clip(scaled, -32768, 32767, out=scaled).T
    return int(array.shape[0]), int(array.shape[1]), array.T.astype("<i2", order="C").tobytes()


def _described(array: object) -> str:
    if isinstance(array, np.ndarray):
        return f"an array of shape {array.shape} and dtype {array.dtype}"
    return type(array).__name__


def _rgb_from_yuv420p(frame: VideoFrame, data: FrameArray) -> FrameArray:
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


def sums_of(block: AudioBlock) -> tuple[list[float], list[float], list[int]]:
    """By channel: the sum of the squares of all samples, the largest amplitude, and how many samples are at full scale;
    amplitudes are 0 to 1.
    """
    dtype, full = (np.dtype("<i2"), 1 << 15) if block.format.sample_format == "s16" else (np.dtype("<i4"), 1 << 31)
    samples = np.frombuffer(block.data, dtype).reshape(-1, block.format.channels)
    if not len(samples):
        nothing = [0.0] * block.format.channels
        return nothing, nothing, [0] * block.format.channels
    waves = samples.astype(np.float32) / full
    largest = np.abs(waves).max(axis=0)
    step = 1 / (1 << (block.format.bits or dtype.itemsize * 8) - 1)
    clipped = np.count_nonzero(np.abs(waves) >= 1 - step, axis=0)
    return np.square(waves).sum(axis=0).tolist(), largest.tolist(), clipped.tolist()
