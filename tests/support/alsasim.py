"""Simulated ALSA microphones for tests: the plug-in is compiled once a session, the configuration written per test.

alsa-lib reads ALSA_CONFIG_PATH once a process, so tests that record run their code in a subprocess with `AlsaSim.env`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class AlsaSim:
    """A configuration with simulated microphones ("mic_sim", "mic_beep", …) in the folder `run`."""

    run: Path
    config: Path

    @property
    def env(self) -> dict[str, str]:
        """Environment of a process that shall see the simulated microphones."""
        path = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
        return {**os.environ, "ALSA_CONFIG_PATH": str(self.config), "PYTHONPATH": path}

    def unplug(self) -> None:
        """The device mic_plug is gone, for those who have it open and for those who want to open it."""
        (self.run / "gone").touch()

    def plug(self) -> None:
        (self.run / "gone").unlink(missing_ok=True)

    def stall(self, *, on: bool) -> None:
        """The device mic_plug hangs: it stays there and gives nothing."""
        if on:
            (self.run / "stall").touch()
        else:
            (self.run / "stall").unlink(missing_ok=True)

    def python(self, code: str, *, timeout: float = 30) -> str:
        """Run `code` in a fresh interpreter that sees the microphones; its standard output.

        Raises:
            AssertionError: it failed; the message is what it wrote to standard error.
        """
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def compile_plugin(folder: Path) -> Path:
    """The plug-in as a shared library below `folder`; skips the test where it cannot be compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: simulated microphones need one (apt install gcc)")
    if not Path("/usr/include/alsa/pcm_external.h").exists():
        pytest.skip("no alsa/pcm_external.h (apt install libasound2-dev)")
    library = folder / "libasound_module_pcm_msrecdsim.so"
    source = HERE / "alsa" / "pcm_msrecdsim.c"
    flags = ["-O2", "-shared", "-fPIC", "-DPIC", "-Wall", "-Wextra"]
    command = [compiler, *flags, "-o", library, source, "-lasound", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return library


def write_config(library: Path, run: Path) -> AlsaSim:
    template = (HERE / "alsa" / "asound.conf").read_text()
    config = run / "asound.conf"
    config.write_text(template.replace("@LIB@", str(library)).replace("@RUN@", str(run)))
    return AlsaSim(run=run, config=config)


@pytest.fixture(scope="session")
def alsa_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled plug-in."""
    return compile_plugin(tmp_path_factory.mktemp("alsa-plugin"))


@pytest.fixture
def alsa_sim(alsa_plugin: Path, tmp_path: Path) -> AlsaSim:
    """Simulated microphones of this test's own."""
    return write_config(alsa_plugin, tmp_path)
