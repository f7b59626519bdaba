"""A camera of the network."""

import msrecd


async def record(address: str) -> msrecd.MediaRecorder:
    options: msrecd.MediaElementOptions = {"transport": "tcp", "tracks": ["video"], "timeout": 5.0}
    element = msrecd.MediaElement(address, options)
    await element.load()
    stream = element.capture_stream()
    await element.play()
    recorder = msrecd.MediaRecorder(stream)
    recorder.start()
    return recorder
