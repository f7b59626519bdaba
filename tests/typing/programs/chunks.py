"""Chunks, gaps and errors of a recorder."""

from pathlib import Path

import msrecd


class Files:
    def __init__(self, stream: msrecd.MediaStream, folder: Path) -> None:
        options: msrecd.MediaRecorderOptions = {"mime_type": "video/mp4", "chunk_duration": 60_000, "pre_roll": 5000}
        self.recorder = msrecd.MediaRecorder(stream, options)
        self.folder = folder
        self.recorder.add_event_listener("dataavailable", self.take)
        self.recorder.add_event_listener("gap", self.gap)
        self.recorder.add_event_listener("error", self.error, {"once": True})

    async def take(self, event: msrecd.BlobEvent) -> None:
        with (self.folder / f"{event.chunk}.mp4").open("ab") as file:
            file.write(await event.data.bytes())
        if event.chunk_info is not None:
            print(event.chunk_info.duration_s, len(event.chunk_info.gaps))

    def gap(self, event: msrecd.GapEvent) -> None:
        print(event.gap.reason)

    def error(self, event: msrecd.ErrorEvent) -> None:
        print(event.message)
