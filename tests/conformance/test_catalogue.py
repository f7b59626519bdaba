"""The catalogue is decided in full, and what it names exists."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


@cache
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance_table", HERE / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def functions() -> set[str]:
    """All tests of this folder."""
    return {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_row_is_decided() -> None:
    rows = table().rows()
    assert len(rows) == 226
    assert sum(row.subtests for row in rows) == 769
    assert max(Counter(row.row for row in rows).values()) == 1
    for row in rows:
        assert row.decided in table().DECISIONS, row
        assert row.about, row
        if row.decided == "not":
            assert len(row.reason) > 10, f"{row.row}: why not?"
            assert not row.tests, row
        else:
            assert row.tests, f"{row.row} applies, but no test covers it"
            assert not row.reason, row


def test_every_test_that_is_named_exists() -> None:
    known = functions()
    unknown = {test: row.row for row in table().rows() for test in row.tests if test not in known}
    assert not unknown


def test_states_of_a_row() -> None:
    """A row passes only if each of its tests has run and none of them failed, with any of its parameters."""

    def state(decided: str, tests: tuple[str, ...], outcomes: dict[str, dict[str, int]]) -> str:
        row = table().Row(row="r#1", subtests=1, decided=decided, about="a", tests=tests, reason="")
        return str(row.state({test: Counter(counts) for test, counts in outcomes.items()}))

    both = ("t.py::a", "t.py::b")
    assert state("applies", both, {"t.py::a": {"passed": 2}, "t.py::b": {"passed": 1}}) == "passed"
    assert state("applies", both, {"t.py::a": {"passed": 2, "failed": 1}, "t.py::b": {"passed": 1}}) == "failed"
    assert state("applies", both, {"t.py::a": {"passed": 2}}) == "uncovered"
    assert state("applies", both, {"t.py::a": {"passed": 2}, "t.py::b": {"skipped": 1}}) == "skipped"
    assert state("adapt", (), {}) == "uncovered"
    assert state("not", (), {}) == "not"


def test_report_is_read(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.conformance.test_a" name="test_x[1-a]"/>'
        '<testcase classname="tests.conformance.test_a" name="test_x[2]"><failure message="m"/></testcase>'
        '<testcase classname="tests.conformance.test_a" name="test_y"><skipped/></testcase>'
        '<testcase classname="tests.conformance.test_b" name="test_z"><error/></testcase>'
        "</testsuite></testsuites>"
    )
    assert table().outcomes(report) == {
        "test_a.py::test_x": Counter(passed=1, failed=1),
        "test_a.py::test_y": Counter(skipped=1),
        "test_b.py::test_z": Counter(failed=1),
    }


def test_table_counts() -> None:
    lines = table().table(table().rows(), {}).splitlines()
    assert lines[-3].startswith("applies")
    assert "uncovered" in lines[-3]
    assert lines[-1].startswith("not")
    assert sum(int(line.split()[1]) for line in lines[-3:]) == 226
