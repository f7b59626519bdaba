"""The answers to what upstream does (tests/support/upstream.py): none is lost, and each is seen by a test.

`make upstream` (MSRECD_UPSTREAM=1) takes each answer out of a copy of the checkout, where its tests must fail.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from upstream import ROWS, Break, Row

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".cache", "dist", "build", "results", "__pycache__")
BREAKS = [pytest.param(one, id=f"{row.number}-{number}") for row in ROWS for number, one in enumerate(row.breaks, 1)]


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_what_holds_it_is_there(row: Row) -> None:
    assert row.breaks
    assert row.without
    for one in row.breaks:
        for place in one.fails:
            file, *_, name = place.split("::")
            assert name in names_in(file), place
        text = (ROOT / one.file).read_text()
        for old in one.edits:
            assert text.count(old) == 1, f"{row.number}: {one.file} has changed, and how to break it has not: {old}"


def test_no_row_is_missing() -> None:
    numbers = [row.number for row in ROWS]
    assert numbers == [f"A{n}" for n in range(1, 8)] + [f"B{n}" for n in range(8, 16)] + [f"C{n}" for n in range(1, 11)]


@pytest.mark.skipif("MSRECD_UPSTREAM" not in os.environ, reason="make upstream does it: some minutes")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("one", BREAKS)
def test_its_tests_fail_without_it(one: Break, tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED, symlinks=True)
    (copy / ".cache").symlink_to(ROOT / ".cache")
    broken = copy / one.file
    text = broken.read_text()
    for old, new in one.edits.items():
        text = text.replace(old, new)
    broken.write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--tb=line", "-p", "no:cacheprovider"]
    command += [f"--basetemp={tmp_path / 'inner'}", *(f"tests/{place}" for place in one.fails)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=280, check=False)
    ends = re.findall(r"^/.*?: (.*)$", done.stdout, re.MULTILINE)
    print("without it:", *dict.fromkeys(ends), sep="\n  ")
    assert done.returncode == 1, done.stdout + done.stderr
    for place in one.fails:
        assert re.search(rf"^FAILED tests/{re.escape(place)}\b", done.stdout, re.MULTILINE), done.stdout
