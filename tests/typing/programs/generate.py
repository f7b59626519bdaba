"""Frames and sound of the program's own."""

import asyncio
import time

import numpy as np

import msrecd


async def main() -> None:
    video = msrecd.VideoTrackGenerator()
    audio = msrecd.MediaStreamTrackGenerator({"kind": "audio"})
    recorder = msrecd.MediaRecorder(msrecd.MediaStream([video.track, audio.track]))
    recorder.start()
    begin = time.monotonic_ns()
    for number in range(10):
        at = begin + number * 100_000_000
        frame = np.zeros((480, 640, 3), np.uint8)
        await video.write(msrecd.VideoFrame(frame, timestamp_ns=at))
        sound = np.zeros((2, 4800), np.float32)
        await audio.write(msrecd.AudioData(sound, sample_rate=48_000, timestamp_ns=at))
    video.close()
    audio.close()
    await recorder.stopped


if __name__ == "__main__":
    asyncio.run(main())
