"""`[[camera]]` as a person sees it: what a configuration says of a camera is in the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msrecd.config.load import load
from msrecd.daemon.backends import backends_for, camera_properties
from msrecd.devices.base import CameraProperties

CONFIG = """
config_version = 1

[devices]
virtual = [{{ kind = "camera", label = "Door", modes = [[320, 240, 10]] }}]

[storage]
path = "{folder}/recordings"

[[camera]]
device_id = {{ label = "Door" }}
{properties}
"""


def configuration(folder: Path, properties: str) -> Path:
    path = folder / "msrecd.toml"
    path.write_text(CONFIG.format(folder=folder, properties=properties))
    return path


def probe(file: Path, *entries: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-of", "json", *entries, str(file)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def luma_of_first_frame(file: Path) -> bytes:
    command = ["ffmpeg", "-v", "error", "-noautorotate", "-i", str(file), "-frames:v", "1", "-pix_fmt", "gray"]
    return subprocess.run([*command, "-f", "rawvideo", "-"], check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    ("properties", "rotation", "is_upside_down"),
    [("rotation = 90", 90, False), ("rotation = 180", 0, True), ("hflip = true\nvflip = true", 0, True)],
)
@pytest.mark.effect("config: camera.hflip", "config: camera.vflip")
def test_a_recorded_file_stands_as_the_table_says(
    properties: str, rotation: int, is_upside_down: bool, tmp_path: Path
) -> None:
    config, out = configuration(tmp_path, properties), tmp_path / "out.mp4"
    command = [sys.executable, "-m", "msrecd", "record", "--config", str(config), "--video", "true", "--duration", "2s"]
    subprocess.run([*command, str(out)], check=True, timeout=120)
    (stream,) = probe(out, "-show_streams")["streams"]
    turns = [side["rotation"] for side in stream.get("side_data_list", ()) if "rotation" in side]
    assert [-turn % 360 for turn in turns] == ([rotation] if rotation else [])  # ffprobe counts counterclockwise
    luma = luma_of_first_frame(out)
    strip = 240 // 16 * 320  # frame number 0: the strip of cells is black, the colour bars beside it are not
    first, last = luma[:strip], luma[-strip:]
    assert (sum(last) / strip < 25) is is_upside_down
    assert (sum(first) / strip < 25) is not is_upside_down


def test_every_key_reaches_the_devices(tmp_path: Path) -> None:
    lines = (
        'hflip = true\nvflip = true\nrotation = 270\ntuning_file = "a.json"\nautofocus = "manual"\nfocus_distance = 3.0'
    )
    config = load(configuration(tmp_path, lines))
    (camera,) = map(camera_properties, config.cameras)
    assert camera == CameraProperties(
        label="Door",
        hflip=True,
        vflip=True,
        rotation=270,
        tuning_file="a.json",
        autofocus="manual",
        focus_distance=3.0,
    )
    backend = backends_for(config)[0]
    assert [device.properties for device in backend.devices] == [camera]  # type: ignore[attr-defined]
