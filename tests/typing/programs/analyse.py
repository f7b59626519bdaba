"""Frames and sound as arrays."""

import numpy as np

import msrecd


async def loudest(track: msrecd.MediaStreamTrack) -> int:
    peak = 0
    async with msrecd.MediaStreamTrackReader(track) as reader:
        async for data in reader:
            if isinstance(data, msrecd.SoundData):
                peak = max(peak, int(np.abs(data.array).max()))
            elif isinstance(data, msrecd.FrameData):
                peak = max(peak, int(data.array.max()))
    return peak
