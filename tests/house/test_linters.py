"""Linters, strict types, the unit file and the shell scripts. A tool that is missing is a failure under CI only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "msrecd.service"


def tool(name: str) -> str:
    """Where a tool is, or the reason to skip; under CI its absence is an error."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        message = f"{name} is not installed (make setup)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def check(*command: str, timeout: float = 110) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(command)}\n{output[-4000:]}"
    return output


def test_ruff_rules() -> None:
    check(tool("ruff"), "check", "--quiet", ".")


def test_ruff_format() -> None:
    check(tool("ruff"), "format", "--check", ".")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_mypy_strict() -> None:
    check(tool("mypy"), timeout=380)


def test_shellcheck() -> None:
    scripts = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "scripts").glob("*.sh"))
    assert scripts
    check(tool("shellcheck"), *scripts, ".ci/run")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here: `verify` refuses one whose executable is not installed."""
    copy = tmp_path / "msrecd.service"
    copy.write_text(UNIT.read_text().replace("=/usr/bin/msrecd ", "=/usr/bin/env "))
    return copy


def test_unit_is_understood(unit: Path) -> None:
    output = check(tool("systemd-analyze"), "verify", "--man=no", str(unit))
    ours = [line for line in output.splitlines() if "msrecd" in line]
    assert not ours, "\n".join(ours)  # what systemd does not know it only warns about


def test_unit_is_sandboxed(unit: Path) -> None:
    check(tool("systemd-analyze"), "security", "--offline=yes", "--threshold=13", "--no-pager", str(unit))


def test_units_of_rclone_are_understood_and_sandboxed() -> None:
    socket, service = (f"systemd/msrecd-rclone{end}" for end in (".socket", "@.service"))
    output = check(tool("systemd-analyze"), "verify", "--man=no", socket, service)
    ours = [line for line in output.splitlines() if "msrecd-rclone" in line]
    assert not ours, "\n".join(ours)
    check(tool("systemd-analyze"), "security", "--offline=yes", "--threshold=17", "--no-pager", service)


def test_unit_starts_the_command_of_the_contract() -> None:
    lines = UNIT.read_text().splitlines()
    assert "ExecStart=/usr/bin/msrecd run --config /etc/msrecd/msrecd.toml" in lines
    assert "Type=notify" in lines
    assert not [line for line in lines if "network-online" in line and not line.startswith("#")]
