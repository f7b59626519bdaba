"""Tests that share a daemon, a browser or recordings stay in one process; all others go where one is free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from workunits import ROOT, unit_of


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/web/test_page.py::test_a[x::y]", "tests/web/test_page.py"),  # fixtures of the module
        ("tests/web/test_server_access.py::test_a", "tests/web/test_server_access.py"),  # of the conftest.py beside it
        ("tests/house/test_docs.py::test_a", "tests/house"),
        ("tests/house/test_linters.py::test_mypy_strict", "tests/house/test_linters.py::test_mypy_strict"),
        ("tests/system/test_kill.py::test_a[1]", "tests/system/test_kill.py::test_a[1]"),
    ],
)
def test_the_unit_of_a_test(test: str, unit: str) -> None:
    assert (ROOT / test.partition("::")[0]).exists()
    assert unit_of(test) == unit


def run_pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    """The tests of a folder in two processes, with this suite's conftest.py and the real pytest-xdist."""
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    options = ["-n", "2", "--dist", "loadscope", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    options += ["-p", "no:hypothesispytest"]  # costs each process as much as all the rest
    options += ["--basetemp", str(folder / "temporary")]  # other runs of pytest tidy the usual one up meanwhile
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), str(folder)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'tests' / 'support'}:{ROOT / 'fleet-tests'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_fixture_of_a_module_is_made_once_and_slow_tests_come_first(tmp_path: Path) -> None:
    """Four tests of a module with one fixture, and four without, in two processes."""
    (tmp_path / "test_alike.py").write_text(
        "import os, pathlib, pytest\n"
        "HERE = pathlib.Path(__file__).parent\n"
        '@pytest.fixture(scope="module")\n'
        "def costly(): (HERE / f'made-{os.getpid()}').touch()\n"
        "@pytest.mark.parametrize('n', range(4))\n"
        "def test_it(costly, n): pass\n"
    )
    (tmp_path / "test_order.py").write_text(
        "import os, pathlib, pytest\n"
        "LOG = pathlib.Path(__file__).with_name('order')\n"
        "def note(name):\n"
        "    with LOG.open('a') as log: log.write(f'{name}\\n')\n"
        "@pytest.mark.parametrize('n', range(40))\n"
        "def test_quick(n): note('quick')\n"
        "@pytest.mark.slow\n"
        "def test_slow(): note('slow')\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("made-*"))) == 1
    assert "slow" in (tmp_path / "order").read_text().splitlines()[:8]


DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def test_a_run_whose_processes_are_killed_ends_and_names_the_tests(tmp_path: Path) -> None:
    """One amid tests that belong together, one in the last test of all."""
    (tmp_path / "test_it.py").write_text(
        "import os, signal, pytest\n"
        "@pytest.mark.parametrize('n', range(12))\n"
        "def test_quick(n): pass\n"
        f"def test_last():\n    {DIE}\n"
    )
    (tmp_path / "test_shared.py").write_text(
        "import os, signal, pytest\n"
        '@pytest.fixture(scope="module")\n'
        "def costly(): pass\n"
        "@pytest.mark.parametrize('n', range(6))\n"
        f"def test_shared(costly, n):\n    if n == 3: {DIE}\n"
    )
    done = run_pytest(tmp_path)
    assert "2 failed, 17 passed" in done.stdout, done.stdout + done.stderr
    assert "FAILED test_it.py::test_last" in done.stdout
    assert "FAILED test_shared.py::test_shared[3]" in done.stdout


def test_a_process_that_is_killed_after_its_last_test_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, signal, pytest\n"
        "@pytest.fixture(scope='session')\n"
        f"def late():\n    yield\n    {DIE}\n"
        "def test_last(late): pass\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED a process of the tests died, gw" in done.stdout
