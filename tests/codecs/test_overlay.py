"""Text in frames."""

from __future__ import annotations

import numpy as np
import pytest
from overlay_reader import read_overlay

from msrecd.flow.encoded import Overlay
from msrecd.flow.overlay import drawn
from msrecd.flow.units import VideoFormat, VideoFrame

TEXT = "2026-11-30 14:03:07.2 PI-7F3A"


def frame(width: int, height: int, pixel_format: str = "yuv420p") -> VideoFrame:
    size = width * height * 3 if pixel_format == "rgb24" else width * height + 2 * -(-width // 2) * -(-height // 2)
    format = VideoFormat(width=width, height=height, pixel_format=pixel_format)
    return VideoFrame(pts_ns=5, format=format, data=b"d" * size)


@pytest.mark.parametrize("position", ["top-left", "top-right", "bottom-left", "bottom-right"])
@pytest.mark.parametrize("size", [(320, 240), (640, 480), (1280, 720), (321, 241)])
def test_the_text_can_be_read(position: str, size: tuple[int, int]) -> None:
    before = frame(*size)
    after = drawn(before, Overlay(lambda at_ns: TEXT, position))  # type: ignore[arg-type]
    luma = np.frombuffer(after.data, np.uint8)[: size[0] * size[1]].reshape(size[1], size[0])
    assert read_overlay(luma, len(TEXT), position=position) == TEXT
    assert len(after.data) == len(before.data)
    assert set(bytes(before.data)) == {100}, "others have the same frame"
    assert (luma[size[1] // 3 : size[1] // 2] == 100).all(), "nothing else has changed"


def test_rgb_frames_have_it_too() -> None:
    after = drawn(frame(320, 240, "rgb24"), Overlay(lambda at_ns: f"{at_ns}", "top-left"))
    green = np.frombuffer(after.data, np.uint8).reshape(240, 320, 3)[..., 1]
    assert read_overlay(green, 1, position="top-left") == "5", "the text is that of the frame's own time"


def test_a_text_that_is_too_long_is_cut_and_a_tiny_frame_has_none() -> None:
    after = drawn(frame(64, 48), Overlay(lambda at_ns: TEXT))
    luma = np.frombuffer(after.data, np.uint8)[: 64 * 48].reshape(48, 64)
    assert read_overlay(luma, 10) == TEXT[:10]
    tiny = frame(4, 4)
    assert drawn(tiny, Overlay(lambda at_ns: TEXT)) is tiny
