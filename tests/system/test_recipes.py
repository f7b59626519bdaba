"""The recipes of the documentation: each is a valid configuration, and runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from config_text import toml
from daemon import DaemonProcess
from s3server import KEYS
from waiting import until

from msrecd.config import load
from msrecd.daemon.checks import config_checks

PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))

# What the recipes name: two units with a camera and a microphone each, and a microphone for bats first.
DEVICES = """
[devices]
virtual = [
  { kind = "camera", label = "Left Camera", modes = [[1280, 720, 15]] },
  { kind = "camera", label = "Right Camera", modes = [[1280, 720, 15]] },
  { kind = "microphone", label = "Left Microphone" },
  { kind = "microphone", label = "Right Microphone" },
]
"""


def test_there_are_recipes() -> None:
    assert len(RECIPES) == PAGE.count("\n## ") >= 8


@pytest.mark.promise("recipes-run")
@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, tmp_path: Path) -> None:
    """As it stands there it is valid; with virtual devices, and without the world outside, it records."""
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPES[name])
    config = load(file, checks=config_checks())
    table = tomllib.loads(RECIPES[name])
    for tables in ("mqtt", "homeassistant", "storage"):
        table.pop(tables, None)
    keys = tmp_path / "keys"
    keys.write_text(f"[default]\naws_access_key_id = {KEYS.access_key}\naws_secret_access_key = {KEYS.secret_key}\n")
    keys.chmod(0o600)
    if "offload" in table and table["offload"]["kind"] == "rclone":
        keys.write_text("[nas]\ntype = local\n")
        table["offload"] |= {"remote": f"nas:{tmp_path}/nas", "config_file": str(keys)}
    elif "offload" in table:
        table["offload"] |= {"endpoint": "http://127.0.0.1:9", "credentials_file": str(keys)}
        del table["offload"]["ca_file"]
    for recorder in table["recorder"]:
        recorder["autostart"] = True
        recorder["chunk_duration"] = "1s"
        recorder.pop("schedule", None)
        if "time_lapse" in recorder:
            recorder["time_lapse"] = {"interval": "1s", "frame_rate": 25}  # a minute is too long for a test
    head = f'config_version = 1\n[storage]\npath = "{tmp_path}/recordings"\nstate_path = "{tmp_path}/state"\n{DEVICES}'
    text = head + "".join(
        f"[{heading}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table[heading].items())
        for heading in ("offload", "location")
        if heading in table
    )
    for recorder in table["recorder"]:
        text += "[[recorder]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in recorder.items())
    with DaemonProcess(tmp_path, text) as daemon:
        for one in config.recorders:
            daemon.wait_for_chunks(1, recorder=one.name)
            if one.snapshots is not None and one.snapshots.every_s is not None:
                until(lambda name=one.name: daemon.snapshot_lines(name), lambda: daemon.log.read_text())  # type: ignore[misc]
