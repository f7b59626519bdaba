"""A wall clock for a process under test: set by the test, stepped while the process runs, synchronised or not.

The process is the real one; only what it is told of CLOCK_REALTIME and by adjtimex(2) is changed (wallclock.c).
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_suffix(".c")


class WallClock:
    """What the process takes for the wall clock."""

    def __init__(self, library: Path, folder: Path) -> None:
        path = folder / "wallclock"
        path.write_bytes(bytes(16))
        self.environment = {"LD_PRELOAD": str(library), "MSRECD_TEST_WALLCLOCK": str(path)}
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 16)
        self.trust(True)

    def set(self, text: str) -> None:
        """Step it to this UTC time, in one instant."""
        wanted_ns = round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000
        struct.pack_into("=q", self._map, 0, wanted_ns - time.time_ns())

    def trust(self, is_synchronised: bool) -> None:
        """What the kernel says of it."""
        struct.pack_into("=q", self._map, 8, int(is_synchronised))


@pytest.fixture(scope="session")
def wallclock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library; skips the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: a wall clock that can be set needs one (apt install gcc)")
    library = tmp_path_factory.mktemp("wallclock") / "wallclock.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return library


@pytest.fixture
def wallclock(wallclock_library: Path, tmp_path: Path) -> WallClock:
    """A clock of this test's own."""
    return WallClock(wallclock_library, tmp_path)
