"""`msrecd record --source`: a file or a network stream, without daemon and broker."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from judge import read_chunk
from waiting import until

from tests.inputs.cameras import RtspCamera, clip


def record(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msrecd", "record", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.promise("record-a-source")
@pytest.mark.promise("record-virtual")
def test_a_file_is_recorded_to_its_end_and_a_stream_for_a_while(tmp_path: Path) -> None:
    virtual = record("--virtual", "--duration", "2s", tmp_path / "first.mkv")
    assert virtual.returncode == 0, virtual.stderr
    assert f" {(tmp_path / 'first.mkv').stat().st_size} bytes" in virtual.stdout, "with the cues"
    again = record("--source", tmp_path / "first.mkv", tmp_path / "second.mp4")
    assert again.returncode == 0, again.stderr
    assert read_chunk(tmp_path / "second.mp4").numbers == read_chunk(tmp_path / "first.mkv").numbers
    with RtspCamera(clip()) as camera:
        live = record("--source", camera.url, "--duration", "2s", tmp_path / "live.mp4")
    assert live.returncode == 0, live.stderr
    assert len(read_chunk(tmp_path / "live.mp4").times) > 25


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    missing = record("--source", tmp_path / "none.mkv", tmp_path / "out.mp4")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (1, 1)
    assert "none.mkv" in missing.stderr
    refused = record("--source", "gopher://secret:word@host/x", tmp_path / "out.mp4")
    assert refused.returncode == 2
    assert "word" not in refused.stderr
    both = record("--source", "x.mkv", "--virtual", tmp_path / "out.mp4")
    assert both.returncode == 2
    assert "--virtual" in both.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.promise("record-duration")
@pytest.mark.parametrize("duration", ["0s", "0m0s", "0.0000001s"])
def test_a_recording_of_no_length_is_refused(tmp_path: Path, duration: str) -> None:
    done = record("--virtual", "--duration", duration, tmp_path / "q.mp4")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--duration: more than 0" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.promise("record-duration")
def test_a_file_that_is_reported_is_there(tmp_path: Path) -> None:
    out = tmp_path / "q.mp4"
    done = record("--virtual", "--duration", "1ms", out)
    assert (done.returncode == 0) == out.exists(), done
    assert out.exists() or "nothing was recorded" in done.stderr


@pytest.mark.promise("signals-finish-the-file")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_finishes_the_file(tmp_path: Path, number: signal.Signals) -> None:
    """A terminal that is closed sends SIGHUP."""
    out, part = tmp_path / "q.mkv", tmp_path / "q.mkv.part"
    heeding = ["env", f"--default-signal={number.name[3:]}"]  # what runs under nohup ignores SIGHUP, as it should
    command = [*heeding, sys.executable, "-m", "msrecd", "record", "--virtual", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            until(lambda: part.exists() and part.stat().st_size > 0, "nothing is recorded", timeout=60)
            child.send_signal(number)
            said, _ = child.communicate(timeout=60)
        except BaseException:
            child.kill()
            raise
    assert (child.returncode, part.exists()) == (0, False)
    assert said.startswith(f"{out}: ")
    assert read_chunk(out).numbers
