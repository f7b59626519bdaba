"""A canvas into a file."""

import asyncio

import msrecd


async def main() -> bytes:
    canvas = msrecd.Canvas(320, 240)
    recorder = msrecd.MediaRecorder(canvas.capture_stream(25), {"mime_type": "video/webm", "bits_per_second": 500_000})
    blobs: list[msrecd.Blob] = []

    def take(event: msrecd.BlobEvent) -> None:
        blobs.append(event.data)

    recorder.ondataavailable = take
    recorder.start(1000)
    canvas.fill((255, 0, 0))
    await asyncio.sleep(1)
    recorder.stop()
    await recorder.stopped
    return b"".join(bytes(blob) for blob in blobs)


if __name__ == "__main__":
    asyncio.run(main())
