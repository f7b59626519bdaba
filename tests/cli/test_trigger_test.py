"""`msrecd trigger-test` on files."""

from __future__ import annotations

import math
import struct
import wave
from pathlib import Path

import av
import pytest

from msrecd.cli.main import main

CONFIG = """config_version = 1
[[recorder]]
name = "mic0"
audio = true
pre_roll = "500ms"
[[recorder.trigger]]
kind = "sound"
band = [500, 2000]
hold = "1s"
[[recorder]]
name = "plain"
audio = true
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "msrecd.toml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Five seconds of silence with half a second of a tone in the middle."""
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = (round(8000 * math.sin(n * 0.785)) if 20_000 <= n < 24_000 else 0 for n in range(40_000))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in tone))
    return path


@pytest.mark.promise("trigger-test", "trigger-test-draws")
def test_events_are_printed_and_drawn(
    config: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = tmp_path / "scores.png"
    assert main(["trigger-test", "--config", config, "mic0", str(sound), "-o", str(drawing)]) == 0
    begin, end, total = capsys.readouterr().out.splitlines()
    assert begin.split()[:4] == ["0:02.6", "sound", "0", "begin"]
    assert "seen since 0:02.5" in begin
    assert end.split()[0] in ("0:02.9", "0:03.0"), "when the tone ends, not when that is sure"
    assert end.split()[3:6] == ["end", "after", "0.4"] or end.split()[3:6] == ["end", "after", "0.5"], end
    assert "highest score" in end
    assert "1 events, 1 recordings" in total
    with av.open(str(drawing)) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert image.shape == (200, 1200, 3)
    assert tuple(image[4, 10]) == (255, 255, 255), "nothing is recorded at the beginning"
    assert tuple(image[4, 1200 * 27 // 50]) != (255, 255, 255), "but around the tone"


def test_what_cannot_be_tried_is_said_in_a_line(
    config: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trigger-test", "--config", config, "plain", str(sound)]) == 2
    assert "plain has no [[recorder.trigger]]" in capsys.readouterr().err
    assert main(["trigger-test", "--config", config, "cam9", str(sound)]) == 2
    assert main(["trigger-test", "--config", config, "mic0", str(tmp_path / "none.wav")]) == 1
    assert "there is no file" in capsys.readouterr().err
