"""A photo, and frames of an element."""

from collections.abc import Mapping
from typing import Any

import msrecd


async def photo(stream: msrecd.MediaStream) -> bytes:
    capture = msrecd.ImageCapture(stream.get_video_tracks()[0])
    settings: msrecd.PhotoSettings = {"image_width": 640}
    frame = await capture.grab_frame()
    print(frame.coded_width, frame.timestamp_ns)
    return bytes(await capture.take_photo(settings))


async def play(stream: msrecd.MediaStream) -> float:
    element = msrecd.MediaElement()
    element.src_object = stream

    def look(now_ms: float, metadata: Mapping[str, Any]) -> None:
        print(now_ms, metadata["width"])
        element.request_video_frame_callback(look)

    element.request_video_frame_callback(look)
    await element.play()
    return element.current_time
