"""`make demo` as a newcomer sees it: it ends well, shows chunks, leaves pictures and no process behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Started, with all that it starts in a process group, which is gone afterwards."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes that were started with files of this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.mark.slow
@pytest.mark.promise("no-hardware-needed")
def test_demo_records_and_reports(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=100)
        assert not processes_in(tmp_path)
    assert process.returncode == 0, output
    chunks = re.findall(r"^  (\S+-\d{4}\.mp4) .* (\d+) +[\d.]+ MB$", output, re.MULTILINE)
    assert len(chunks) >= 3, output
    assert sum(int(frames) for _, frames in chunks) > 150, output
    assert len(list((tmp_path / "demo-recordings").rglob("*.mp4"))) == len(chunks)
    assert (tmp_path / "demo-recordings" / "contact-sheet.png").read_bytes().startswith(b"\x89PNG")
    for word in ("start: ok", "pause: ok", "resume: ok", "stop: ok"):
        assert word in output


@pytest.mark.slow
@pytest.mark.alone  # the interrupted demo has ten seconds to end its daemon and its broker
def test_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        for line in process.stdout:
            if "state/recorder/cam0: recording" in line:
                break
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert not processes_in(tmp_path)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert not list((tmp_path / "demo-recordings").rglob("*.part"))
    assert [path.name for path in tmp_path.iterdir()] == ["demo-recordings"]
