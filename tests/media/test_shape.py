"""Pictures of another shape: cropped where the track asked for it, fitted in where the source has changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from recording import Log, PaintedSource, each_of, pictures, rgb_frame, solid_yuv420p

from msrecd.flow.shape import Window, cropped, cut, padded, reshaped, same_shape
from msrecd.flow.units import VideoFormat, VideoFrame
from msrecd.media.reader import MediaStreamTrackReader
from msrecd.media.recorder import MediaRecorder
from msrecd.media.stream import MediaStream
from msrecd.pixels import array_from_frame

TYPES = (
    "video/mp4;codecs=avc1",
    "video/webm;codecs=vp8",
    "video/webm;codecs=vp9",
    "video/mp4;codecs=av01",
    "video/x-matroska;codecs=mjpeg",
)
RED, GREEN, BLUE = (230, 20, 20), (20, 230, 20), (20, 20, 230)
SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


@pytest.mark.parametrize(
    ("picture", "shape", "crop", "pad"),
    [
        ((1920, 1080), (640, 360), None, None),
        ((1920, 1080), (426, 240), None, None),  # rounded to whole pixels
        ((1920, 1080), (640, 480), Window(240, 0, 1440, 1080), Window(0, -180, 1920, 1440)),
        ((640, 480), (640, 360), Window(0, 60, 640, 360), Window(-106, 0, 853, 480)),
        ((100, 60), (10, 60), Window(44, 0, 10, 60), Window(0, -270, 100, 600)),
        ((321, 241), (320, 240), None, None),
    ],
)
def test_windows(picture: Any, shape: Any, crop: Window | None, pad: Window | None) -> None:
    assert cropped(picture, shape) == crop
    assert padded(picture, shape) == pad


@given(SIZES, SIZES)
def test_crop_lies_inside_and_padding_outside(picture: tuple[int, int], shape: tuple[int, int]) -> None:
    inner, outer = cropped(picture, shape), padded(picture, shape)
    assert (inner is None) == (outer is None) == same_shape(picture, shape)
    if inner is None or outer is None:
        return
    assert 0 <= inner.x <= picture[0] - inner.width
    assert 0 <= inner.y <= picture[1] - inner.height
    assert outer.x <= 0
    assert outer.y <= 0
    assert outer.x + outer.width >= picture[0]
    assert outer.y + outer.height >= picture[1]
    for window in (inner, outer):
        assert window.x % 2 == window.y % 2 == 0
        assert abs(window.x + window.width / 2 - picture[0] / 2) <= 2
        assert abs(window.y + window.height / 2 - picture[1] / 2) <= 2


@given(st.integers(1, 12), st.integers(1, 12), st.integers(-4, 8), st.integers(-4, 8), st.integers(1, 14))
def test_cut_is_what_the_window_shows(width: int, height: int, x: int, y: int, size: int) -> None:
    assume(-size < x < width and -size < y < height)  # a window shows something of the picture
    array = np.arange(width * height * 3, dtype=np.uint16).astype(np.uint8).reshape(height, width, 3)
    frame = rgb_frame(array, pts_ns=7)
    expected = np.zeros((size, size, 3), np.uint8)
    for row in range(size):
        for column in range(size):
            if 0 <= y + row < height and 0 <= x + column < width:
                expected[row, column] = array[y + row, x + column]
    assert (array_from_frame(cut(frame, Window(x, y, size, size))) == expected).all()


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (10, 3)])
def test_cut_of_planes(size: tuple[int, int]) -> None:
    width, height = size
    format = VideoFormat(width=width, height=height)
    frame = VideoFrame(pts_ns=0, format=format, data=solid_yuv420p(width, height, (150, 60, 190)))
    colour = array_from_frame(frame)[0, 0]
    inner = array_from_frame(reshaped(frame, (17, 33), crops=True))
    assert (inner == colour).all()
    outer = array_from_frame(reshaped(frame, (50, 200), crops=False))
    assert outer.shape[1] == width
    assert (outer[0] == 0).all()
    assert (outer[outer.shape[0] // 2] == colour).all()


# --- files and readers show the same ---------------------------------------------------------------------------------


def stripes(width: int, height: int) -> Any:
    """Three upright stripes, red, green and blue."""
    array = np.zeros((height, width, 3), np.uint8)
    third = width // 3
    array[:, :third], array[:, third : 2 * third], array[:, 2 * third :] = RED, GREEN, BLUE
    return array


def is_all(picture: Any, colour: tuple[int, int, int]) -> bool:
    return bool(abs(picture.astype(int) - colour).max() < 40)


@each_of("type_", TYPES)
async def test_crop_and_scale(type_: str) -> None:
    """The middle stripe of a picture of 360x120 fills a track of 80x80: in the file and for a reader."""
    source = PaintedSource((360, 120))
    track = source.track(width=80, height=80, resize_mode="crop-and-scale")
    recorder = MediaRecorder(MediaStream([track]), {"mime_type": type_})
    log = Log(recorder)
    recorder.start(100)
    reader = MediaStreamTrackReader(track)
    async with reader:
        await log.until("start")
        source.show(stripes(360, 120))
        frame = await anext(reader)
    await log.until_true(lambda: len(log.data()) > 1000)
    recorder.stop()
    await log.until("stop")
    track.stop()
    shown = pictures(log.data())
    assert {picture.shape for picture in [*shown, frame.array]} == {(80, 80, 3)}
    assert is_all(frame.array[:, 3:-3], GREEN)
    assert all(is_all(picture[:, 3:-3], GREEN) for picture in shown)


@each_of("type_", TYPES)
async def test_source_that_changes_its_shape_is_fitted_in(type_: str) -> None:
    """Nothing of the picture is lost, nothing is stretched, and the file keeps its first size (decision C13)."""
    source = PaintedSource((160, 120))
    track = source.track()
    recorder = MediaRecorder(MediaStream([track]), {"mime_type": type_})
    log = Log(recorder)
    recorder.start(100)
    await log.until("start")
    for colour, size in ((RED, (160, 120)), (GREEN, (320, 120)), (BLUE, (75, 151))):
        source.paint(colour, size)
        await log.until_media(0)  # a canvas is repeated every 200 ms
    recorder.stop()
    await log.until("stop")
    track.stop()
    assert log.types == ["start", *["dataavailable"] * len(log.blobs), "stop"]
    shown = pictures(log.data())
    assert {picture.shape for picture in shown} == {(120, 160, 3)}
    assert is_all(shown[0], RED)
    wide = next(picture for picture in shown if is_all(picture[50:70, 70:90], GREEN))
    assert is_all(wide[34:86, 4:-4], GREEN)  # 320x120 becomes 160x60
    assert wide[:26].max() < 40
    assert wide[94:].max() < 40
    tall = shown[-1]
    assert is_all(tall[4:-4, 56:104], BLUE)  # 75x151 becomes 60x120
    assert tall[:, :46].max() < 40
    assert tall[:, 114:].max() < 40


@each_of("type_", TYPES)
async def test_odd_sizes(type_: str) -> None:
    """Codecs that have them keep them; H.264 and AV1 are a pixel smaller."""
    source = PaintedSource((97, 65))
    track = source.track()
    recorder = MediaRecorder(MediaStream([track]), {"mime_type": type_})
    log = Log(recorder)
    recorder.start(100)
    await log.until("start")
    source.paint(GREEN)
    await log.until_media(0)
    recorder.stop()
    await log.until("stop")
    track.stop()
    assert log.types == ["start", *["dataavailable"] * len(log.blobs), "stop"]
    shown = pictures(log.data())
    assert {picture.shape for picture in shown} == {(64, 96, 3) if "mp4" in type_ else (65, 97, 3)}
    assert all(is_all(picture, GREEN) for picture in shown)
