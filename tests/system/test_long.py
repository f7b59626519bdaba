"""A longer recording of a camera and an ALSA microphone in short chunks: nothing missing, nothing twice, in sync.

Twenty seconds in the ordinary run; `MSRECD_LONG_S=600` for the acceptance figure.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from pathlib import Path

import pytest
from alsasim import AlsaSim
from config_text import configuration, recorder
from daemon import DaemonProcess
from judge import assert_consecutive, read_chunk

LONG_S = float(os.environ.get("MSRECD_LONG_S", "20"))
IS_MEASURED = "MSRECD_LONG_S" in os.environ  # otherwise this machine may be so busy that pictures are dropped
CHUNK_S = 10.0 if LONG_S >= 100 else 4.0
DEVICES = """
[devices]
alsa = ["mic_beep"]
virtual = [ { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] } ]
"""
RECORDER = recorder(
    "cam0", video=True, audio=True, mime_type="video/mp4", chunk_duration=f"{CHUNK_S:g}s", autostart=True
)


@pytest.mark.timeout(300 + 2 * LONG_S)
@pytest.mark.promise("chunks-are-seamless")
def test_every_frame_once_over_all_chunks(tmp_path: Path, alsa_sim: AlsaSim) -> None:
    config = configuration(tmp_path, port=None, recorders=RECORDER, more=DEVICES)
    with DaemonProcess(tmp_path, config, environment=alsa_sim.env) as daemon:
        daemon.wait_for_part()
        time.sleep(LONG_S)
        assert daemon.stop() == 0
    chunks = daemon.chunks()
    numbers: list[int] = []
    offsets: list[float] = []
    samples = 0
    for path in chunks:
        complaints = subprocess.run(
            ["ffprobe", "-v", "warning", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0",
             str(path)], capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert complaints.stderr == "", f"{path.name}: {complaints.stderr}"
        judged = read_chunk(path)
        assert judged.numbers, path.name
        numbers += judged.numbers
        samples += len(judged.samples)
        offsets += judged.av_offsets_ms
    # Frame by frame: what is not there was counted, and nothing is there twice.
    lines = daemon.chunk_lines()
    dropped = sum(line["tracks"]["video"]["dropped"] for line in lines)
    xruns = sum(line["tracks"]["audio"]["xruns"] for line in lines)
    assert all(before < after for before, after in itertools.pairwise(numbers))
    frames = numbers[-1] - numbers[0] + 1
    assert frames - len(numbers) <= dropped
    assert len(chunks) >= LONG_S // CHUNK_S
    worst = max(offsets, key=abs)
    print(
        f"{frames / 30:.1f} s in {len(chunks)} chunks: {len(numbers)} frames, {dropped} dropped, {xruns} overruns, "
        f"{samples / 48000:.2f} s sound, largest A/V offset {worst:.2f} ms, "
        f"drift {lines[-1]['tracks']['audio']['drift_ppm']} ppm"
    )
    assert abs(samples / 48000 - frames / 30) < 0.1
    assert abs(worst) <= 10.0
    if IS_MEASURED:
        assert_consecutive(numbers)
        assert (dropped, xruns) == (0, 0)
