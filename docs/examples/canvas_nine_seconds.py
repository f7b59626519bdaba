"""MDN's example of HTMLCanvasElement.captureStream: a canvas at 25 fps, recorded nine seconds as WebM with VP9.

python canvas_nine_seconds.py [canvas.webm]
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import numpy as np

import msrecd

WIDTH, HEIGHT, FRAME_RATE, SECONDS = 320, 240, 25, 9


def picture(number: int) -> np.ndarray:
    """A ball that crosses a dark green canvas once in four seconds."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    x = number * WIDTH // (4 * FRAME_RATE) % WIDTH
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = (0, 60, 30)
    image[(rows - HEIGHT // 2) ** 2 + (columns - x) ** 2 < 30**2] = (250, 200, 40)
    return image


async def paint(canvas: msrecd.Canvas) -> None:
    """Paint at the frame rate until cancelled; a late picture does not delay those after it."""
    loop = asyncio.get_running_loop()
    begin, number = loop.time(), 0
    while True:
        canvas.draw(picture(number))
        number += 1
        await asyncio.sleep(begin + number / FRAME_RATE - loop.time())


async def main(path: Path) -> None:
    canvas = msrecd.Canvas(WIDTH, HEIGHT)
    stream = canvas.capture_stream(FRAME_RATE)
    painter = asyncio.create_task(paint(canvas))
    recorder = msrecd.MediaRecorder(stream, {"mime_type": "video/webm; codecs=vp9"})
    recorded_chunks: list[msrecd.Blob] = []
    stopped = asyncio.Event()
    recorder.ondataavailable = lambda event: recorded_chunks.append(event.data)
    recorder.onerror = lambda event: print(event.error, file=sys.stderr)
    recorder.onstop = lambda event: stopped.set()

    recorder.start()
    await asyncio.sleep(SECONDS)
    recorder.stop()
    await stopped.wait()

    painter.cancel()
    for track in stream.get_tracks():
        track.stop()
    whole = msrecd.Blob(recorded_chunks, {"type": "video/webm"})
    await asyncio.to_thread(path.write_bytes, bytes(whole))
    print(f"{path}: {whole.size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", default=Path("canvas.webm"), metavar="OUT.webm")
    asyncio.run(main(parser.parse_args().path))
