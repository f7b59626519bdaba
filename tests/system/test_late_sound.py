"""A network camera whose sound begins long after its frames: one recording, with silence and a gap until then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from config_text import configuration, recorder
from daemon import DaemonProcess
from judge import read_chunk
from waiting import until

from tests.inputs.cameras import Faults, RtspCamera, clip

BEGINS_S = 9.0


@pytest.mark.slow
@pytest.mark.promise("late-sound")
def test_sound_that_begins_late_is_in_the_recording(tmp_path: Path) -> None:
    with RtspCamera(clip(), Faults(sound_begins_s=BEGINS_S)) as camera:
        keys = {"url": camera.url, "transport": "tcp"}
        recorders = recorder("cam0", source=keys, mime_type="video/mp4", chunk_duration="4s", autostart=True)
        with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=recorders, more="")) as daemon:
            daemon.wait_for_chunks(4)
            until(lambda: "its sound has come" in daemon.log.read_text(), daemon.log.read_text)
            assert daemon.stop() == 0
        assert camera.connections <= 2, "the session was interrupted"
    lines, chunks = daemon.chunk_lines(), [read_chunk(path) for path in daemon.chunks()]
    gaps = [gap for line in lines for gap in line["gaps"]]
    print([(line["duration_s"], line["gaps"]) for line in lines])
    assert {gap["reason"] for gap in gaps} == {"lost_sound"}
    assert abs(sum(gap["duration_s"] for gap in gaps) - BEGINS_S) < 2.5, gaps
    loudness = [float(np.abs(chunk.samples).max()) if len(chunk.samples) else 0.0 for chunk in chunks]
    assert loudness[0] < 0.01
    assert loudness[3] > 0.1
    # The first chunk begins with the two seconds of frames that came while the camera was looked at.
    for line, chunk in zip(lines[1:], chunks[1:], strict=True):
        assert abs(len(chunk.samples) / chunk.sample_rate - line["duration_s"]) < 0.5, line["file"]
