"""What recovery states of a chunk that is not the first of its recording, in every format, against what decodes."""

from __future__ import annotations

import time
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import av
import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from waiting import until

SOUNDS = {
    "flac": "audio/flac",
    "oggflac": "audio/ogg;codecs=flac",
    "oggopus": "audio/ogg;codecs=opus",
    "webmopus": "audio/webm;codecs=opus",
    "aac": "audio/mp4",
    "mka": "audio/x-matroska;codecs=flac",
    "wav": "audio/wav",
}
FRAMES = {"mp4": "video/mp4", "webm": "video/webm", "mkv": "video/x-matroska"}
NAMES = [*SOUNDS, *FRAMES]
AT_MOST_LOST_S = 1.0 + 1.0  # sync_interval, and what _lost_s allows from the last write


def decoded_s(path: Path) -> tuple[float, float]:
    """Length of the time line from 0, and of the decoded sound (0 where there is none)."""
    end = Fraction(0)
    with av.open(path) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
    samples, rate = 0, 1
    with av.open(path) as container:
        if container.streams.audio:
            for frame in container.decode(audio=0):
                samples, rate = samples + frame.samples, frame.sample_rate
    return float(end), samples / rate


@pytest.mark.timeout(180)
@pytest.mark.promise("open-chunk-is-recovered")
def test_a_later_chunk_is_recovered_with_its_own_length(tmp_path: Path) -> None:
    recorders = "".join(
        microphone(name, mime_type=mime_type, chunk_duration="2s", autostart=True) for name, mime_type in SOUNDS.items()
    ) + "".join(
        camera(name, audio=True, mime_type=mime_type, frame_rate=10, chunk_duration="2s", autostart=True)
        for name, mime_type in FRAMES.items()
    )
    text = configuration(tmp_path, port=None, recorders=recorders, storage='sync_interval = "1s"')
    daemon = DaemonProcess(tmp_path, text)
    try:
        daemon.start()
        # A part with something to keep, behind two finished chunks.
        until(
            lambda: (
                all(len(daemon.chunks(name)) >= 2 for name in NAMES)
                and {path.relative_to(daemon.recordings).parts[0] for path in daemon.parts()} == set(NAMES)
            ),
            lambda: f"too little is written:\n{daemon.log.read_text()[-4000:]}",
            timeout=90,
        )
        time.sleep(1.0)
        killed = time.time()
        daemon.kill()
        daemon.start()
        found = {name: [line for line in daemon.chunk_lines(name) if line["recovered"]] for name in NAMES}
    finally:
        if daemon.is_running:
            daemon.kill()
    assert sum(map(len, found.values())) >= len(NAMES) // 2  # the kill may have come between two chunks
    assert found["flac"], "of its frames' numbers this is about"
    for name, lines in found.items():
        for line in lines:
            path = daemon.recordings / str(line["file"])
            end_s, sound_s = decoded_s(path)
            assert line["seq"] >= 3
            assert line["duration_s"] == pytest.approx(end_s, abs=0.15), name
            if name in SOUNDS:
                assert line["duration_s"] == pytest.approx(sound_s, abs=0.05), name
            assert datetime.fromisoformat(str(line["ended"])).timestamp() <= killed + 0.3, name
            assert 0 <= line["lost_s"] <= AT_MOST_LOST_S, name
