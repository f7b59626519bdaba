"""What a newcomer does first: README's program, and a type checker over a program of one's own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import judge
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.promise("example-programs-run")
def test_the_program_in_readme_runs_without_hardware(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "example.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    recorded = judge.read_chunk(tmp_path / "out.mp4")
    judge.assert_consecutive(recorded.numbers)
    assert len(recorded.numbers) > 100  # of the 150 of five seconds, on a busy machine


def test_the_package_is_visible_to_type_checkers(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text("import msrecd\n\nreveal_type(msrecd.MediaDevices().enumerate_devices)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "cache", "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "Coroutine" in done.stdout, done.stdout
    assert done.returncode == 0


def test_the_pages_that_the_shipped_configuration_names_are_shipped() -> None:
    text = (ROOT / "debian" / "msrecd.toml").read_text() + (ROOT / "docs" / "man" / "msrecd.toml.5").read_text()
    names = set(re.findall(r"/usr/share/doc/msrecd/([\w.]+\w)", text))
    assert names == {"configuration.md", "examples"}
    assert "docs/*.md" in (ROOT / "debian" / "msrecd.docs").read_text().split()
    assert "dh_compress -X.md" in (ROOT / "debian" / "rules").read_text()
    assert {"config/*", "docs/examples/*"} <= set((ROOT / "debian" / "msrecd.examples").read_text().split())
