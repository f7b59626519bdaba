"""What a type checker says of programs that use msrecd: nothing of right ones, and it finds mistakes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
MISTAKES = """
import msrecd


async def wrong(stream: msrecd.MediaStream, devices: msrecd.MediaDevices) -> None:
    msrecd.MediaRecorder(stream, {"mimetype": "video/mp4"})
    msrecd.MediaRecorder(stream, {"audio_bitrate_mode": "turbo"})
    await devices.get_user_media({"video": {"wdth": 640}})
    msrecd.RTCPeerConnection({"ice_server": []})
    msrecd.MediaElement().src_object = "stream"
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed"),
]


def mypy(folder: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """In a folder of its own: as in somebody's project, without this one's configuration."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={folder / 'cache'}"]
    return subprocess.run(
        [*command, *map(str, paths)], cwd=folder, capture_output=True, text=True, timeout=380, check=False
    )


def test_ten_programs_and_five_mistakes(tmp_path: Path) -> None:
    assert len(PROGRAMS) == 10
    wrong = tmp_path / "wrong.py"
    wrong.write_text(MISTAKES)
    done = mypy(tmp_path, *PROGRAMS, wrong)
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert all(line.startswith("wrong.py:") for line in found), done.stdout
    lines = {int(line.split(":")[1]) for line in found}
    assert lines == {6, 7, 8, 9, 10}, done.stdout
    assert "Found 5 errors" in done.stdout or len(found) >= 5
