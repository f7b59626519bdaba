"""Audio filters in a running daemon: what each recorder on one microphone has in its file."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from config_text import configuration, microphone, recorder
from console import Console
from daemon import DaemonFor
from waiting import until

from msrecd.config import InvalidConfigError, load

TONE = """
[devices]
virtual = [{ kind = "microphone", label = "Test Microphone", signal = "tone" }]
"""


def level_db(path: Path) -> tuple[int, float]:
    """Channels of a file, and the level of its first one in dBFS, without its first half second."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        channels, rate = stream.channels, stream.rate
        parts = [frame.to_ndarray().reshape(-1, channels)[:, 0] for frame in container.decode(stream)]
    sound = np.concatenate(parts).astype(np.float64)[rate // 2 :] / 32768
    assert len(sound) >= rate // 2, "too short to judge"
    return channels, 10 * math.log10(float(np.mean(sound**2)))


@pytest.mark.promise("audio-filters", "recipe-bats")
@pytest.mark.effect(
    "config: recorder.audio_filters.type",
    "config: recorder.audio_filters.frequency",
    "config: recorder.audio_filters.gain_db",
    "config: recorder.audio_filters.q",
)
@pytest.mark.effect("config: recorder.chunk_duration", "config: recorder.name")
@pytest.mark.promise("gain-in-a-recorder")
def test_recorders_on_one_microphone_have_filters_of_their_own(daemon_for: DaemonFor) -> None:
    """A tone of 440 Hz: an octave below a high-pass of second order it is 12.3 dB weaker, far above it as before."""
    made = {
        "plain": [],
        "high": [{"type": "highpass", "frequency": 880}],
        "low": [{"type": "lowpass", "frequency": 110}, {"type": "gain", "gain_db": 6}],
        "one": [{"type": "highpass", "frequency": 20}, {"type": "mono"}],
        "notched": [{"type": "notch", "frequency": 440, "q": 2}],
    }
    recorders = "".join(
        microphone(name, audio_filters=filters, chunk_duration="2s", autostart=True) for name, filters in made.items()
    )
    with daemon_for(recorders, more=TONE) as daemon:
        first = {name: daemon.wait_for_chunks(1, recorder=name)[0] for name in made}
        until(lambda: all(daemon.chunk_lines(name) for name in made), "a chunk has its name before its line")
        lines = {name: daemon.chunk_lines(name)[0] for name in made}
    levels = {name: level_db(path) for name, path in first.items()}
    usual = levels["plain"][1]
    assert levels["plain"] == (2, pytest.approx(-9.03, abs=0.1))
    assert levels["high"] == (2, pytest.approx(usual - 12.3, abs=0.3))
    assert levels["low"] == (2, pytest.approx(usual - 24.1 + 6, abs=0.3))
    assert levels["one"] == (1, pytest.approx(usual, abs=0.1))
    assert levels["notched"][1] < usual - 40
    for name, line in lines.items():
        assert abs(line["duration_s"] - 2) < 0.2, name
        assert not line["gaps"], (name, line)


def test_filters_on_a_source_that_passes_through(daemon_for: DaemonFor, console: Console, tmp_path: Path) -> None:
    """What a file holds is known when it is played: the start is refused, and names the key."""
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(48_000)
        sound.writeframes(bytes(96_000))
    filters = [{"type": "gain", "gain_db": 6}]
    source = recorder("file0", source={"url": str(tmp_path / "sound.wav")}, audio_filters=filters)
    with daemon_for(source):
        console.wait("state/recorder/file0")
        error = console.command("recorder/file0/start")["error"]
        assert error["code"] == "bad_args"
        assert error["message"].startswith("audio_filters: ")


@pytest.mark.parametrize(
    ("keys", "at"),
    [
        ({"audio": True, "audio_filters": [{"type": "highpass"}]}, "recorder[0].audio_filters[0].frequency"),
        ({"audio": True, "audio_filters": [{"type": "gain"}]}, "recorder[0].audio_filters[0].gain_db"),
        ({"audio": True, "audio_filters": [{"type": "mono", "q": 1}]}, "recorder[0].audio_filters[0].q"),
        ({"audio": True, "audio_filters": [{"type": "echo"}]}, "recorder[0].audio_filters[0].type"),
        ({"video": True, "audio_filters": [{"type": "mono"}]}, "recorder[0].audio_filters"),
        (
            {"source": {"url": "rtsp://camera.lan/main"}, "audio_filters": [{"type": "mono"}]},
            "recorder[0].audio_filters",
        ),
    ],
)
def test_filters_that_cannot_be(tmp_path: Path, keys: dict[str, object], at: str) -> None:
    config = tmp_path / "msrecd.toml"
    config.write_text(configuration(tmp_path, port=None, recorders=recorder("mic0", **keys)))
    with pytest.raises(InvalidConfigError) as refused:
        load(config)
    assert at in [problem.path for problem in refused.value.problems]
