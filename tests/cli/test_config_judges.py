"""Every command and the daemon hold a configuration against the same judges, and load no vendor library for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from msrecd.daemon.checks import config_checks

CONFIG = """[device]
id = "x"
[[recorder]]
name = "mic"
audio = true
mime_type = "{mime_type}"
[[recorder.schedule]]
start = "{start}"
duration = "1h"
"""


def test_good_texts_have_no_problem() -> None:
    checks = config_checks()
    assert checks.mime_type('video/mp4;codecs="avc1.640028,mp4a.40.2"') is None
    assert checks.mime_type("video/mp4;codecs=hvc1") is None  # only passed through, but that a source may give
    assert checks.time("30 6 * * mon-fri") is None


@pytest.mark.parametrize("command", ["check-config", "run", "schedule"])
def test_bad_types_and_times_are_named_by_every_command(command: str, tmp_path: Path) -> None:
    path = tmp_path / "msrecd.toml"
    path.write_text(CONFIG.format(mime_type="audio/ogg;codecs=mp4a", start="61 6 * * *"))
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", command, "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("recorder[0].mime_type: audio/ogg cannot hold mp4a")
    assert lines[1].startswith("recorder[0].schedule[0].start: ")


def test_judging_a_type_loads_no_vendor_library() -> None:
    code = (
        "import sys; from msrecd.daemon.checks import config_checks; config_checks().mime_type('video/webm');"
        "print([name for name in ('av', 'numpy', 'paho', 'astral') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
