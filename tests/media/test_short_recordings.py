"""Many short recordings beside a long one, of the same camera: each begins with the next picture."""

from __future__ import annotations

from recording import Log, Scene, judged, run

from msrecd import MediaRecorder
from msrecd.flow.keyframes import MAX_ASKED


def test_each_of_many_short_recordings_gets_its_key_frame() -> None:
    """They share its encoder; what earlier ones had asked for, for the ends of their chunks, is not in the way."""

    async def main() -> None:
        options = {"chunk_duration": 600_000, "video_key_frame_interval_duration": 600_000}
        with Scene("v", size=(64, 48)) as scene:
            long = MediaRecorder(scene.stream, options)
            log = Log(long)
            long.start(100)
            await log.until("start")
            for _ in range(MAX_ASKED + 6):
                short = MediaRecorder(scene.stream, options)
                its = Log(short)
                short.start(20)
                await its.until_true(lambda its=its: any(blob.data.size for blob in its.blobs))
                short.stop()
                await its.until("stop")
            long.stop()
            await log.until("stop")
            assert len(judged(its.data()).numbers) >= 1

    run(main())
