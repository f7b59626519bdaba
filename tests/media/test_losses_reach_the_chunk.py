"""What a device loses before the encoder stands in the chunk, and in no other recording."""

from __future__ import annotations

from recording import Log, Scene, run

import msrecd


def test_frames_that_a_source_drops_are_counted_in_the_chunk_in_which_they_are_missing() -> None:
    async def main() -> Log:
        with Scene() as scene:
            (track,) = scene.stream.get_video_tracks()
            track._source.stats.dropped += 5000  # before the recording: not its loss
            recorder = msrecd.MediaRecorder(
                scene.stream,
                {"mime_type": "video/mp4", "chunk_duration": 500, "video_key_frame_interval_duration": 250},
            )
            log = Log(recorder)
            recorder.start(100)
            await log.until_true(lambda: len(log.infos) >= 1)
            track._source.stats.dropped += 1000
            await log.until_true(lambda: len(log.infos) >= 4)
            recorder.stop()
            await log.until("stop")
            return log

    log = run(main())
    counted = [info.tracks[0].dropped for info in log.infos]
    # A busy machine loses some frames besides.
    assert counted[0] < 500
    assert 1000 <= sum(counted) < 1500
    assert max(counted[:3]) >= 1000
    assert all(info.tracks[1].dropped < 500 for info in log.infos)
