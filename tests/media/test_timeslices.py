"""A timeslice of sound alone is kept to within one packet, also one that is shorter than what encoders gather."""

from __future__ import annotations

from itertools import pairwise

import pytest
from recording import Log, Scene, run

import msrecd

PACKET_MS = {"audio/mp4": 1024 / 48, "audio/webm": 20.0}


@pytest.mark.parametrize("mime_type", sorted(PACKET_MS))
@pytest.mark.parametrize("timeslice", [50, 100, 250, 700])
def test_blobs_of_sound_are_as_long_as_was_asked(mime_type: str, timeslice: int) -> None:
    async def main() -> Log:
        with Scene() as scene:
            stream = msrecd.MediaStream(scene.stream.get_audio_tracks())
            recorder = msrecd.MediaRecorder(stream, {"mime_type": mime_type})
            log = Log(recorder)
            recorder.start(timeslice)
            await log.until("dataavailable", 5)
            recorder.stop()
            await log.until("stop")
            return log

    log = run(main())
    begins = [event.timecode for event in log.events if isinstance(event, msrecd.BlobEvent)]
    lengths = [after - before for before, after in pairwise(begins[:5])]
    packet_ms = PACKET_MS[mime_type]
    # A blob ends with the packet that makes it long enough; the muxer keeps one that it may still have to describe.
    assert all(timeslice - packet_ms - 2 <= length <= timeslice + 2 * packet_ms + 2 for length in lengths), lengths
