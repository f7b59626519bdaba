"""The catalogue of web-platform-tests as a table: what applies without a page, which tests cover it, whether they pass.

python tests/conformance/table.py [--list] [arguments for pytest]

Runs tests/conformance and prints the rows of catalogue.csv; exit code 1 unless every row that applies passes. `--list`
runs nothing. A row is "mediacapture-record/MediaRecorder-stop.html#3": the file and the number of the subtest in our
catalogue of it; `subtests` is how many subtests of the file it stands for.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CATALOGUE = HERE / "catalogue.csv"
DECISIONS = ("applies", "adapt", "not")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the catalogue; `tests` are "file.py::function", in this folder."""

    row: str
    subtests: int
    decided: str
    about: str
    tests: tuple[str, ...]
    reason: str

    def state(self, outcomes: Mapping[str, Counter[str]]) -> str:
        """`not`, `passed`, `failed`, `skipped` (a test was not run here), `uncovered`."""
        if self.decided == "not":
            return "not"
        results = [outcomes.get(test, Counter()) for test in self.tests]
        if not results or not all(results):
            return "uncovered"
        if any(result["failed"] for result in results):
            return "failed"
        return "passed" if all(result["passed"] for result in results) else "skipped"


def rows() -> list[Row]:
    with CATALOGUE.open(newline="") as file:
        return [
            Row(
                row=line["row"],
                subtests=int(line["subtests"]),
                decided=line["decided"],
                about=line["about"],
                tests=tuple(line["tests"].split()),
                reason=line["reason"],
            )
            for line in csv.DictReader(file)
        ]


def outcomes(report: Path) -> dict[str, Counter[str]]:
    """Results by test function, of all its parameters, from pytest's JUnit report."""
    found: dict[str, Counter[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        function = case.get("name", "").partition("[")[0]
        name = f"{case.get('classname', '').rpartition('.')[2]}.py::{function}"
        bad = case.find("failure") is not None or case.find("error") is not None
        outcome = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        found.setdefault(name, Counter())[outcome] += 1
    return found


def table(catalogue: Iterable[Row], results: Mapping[str, Counter[str]] | None) -> str:
    """The rows, one line each, and the totals; without results only what is decided."""
    lines, totals, counts = [], Counter[tuple[str, str]](), Counter[str]()
    for row in catalogue:
        state = row.state(results) if results is not None else "-"
        totals[row.decided, state] += 1
        counts[row.decided] += row.subtests
        lines.append(f"{row.decided:8}{state:10}{row.row}  {row.about}")
        lines.append(f"{'':18}  {row.reason or ' '.join(row.tests)}")
    lines.append("")
    for decided in DECISIONS:
        states = ", ".join(f"{n} {state}" for (kind, state), n in sorted(totals.items()) if kind == decided)
        number = sum(n for (kind, _), n in totals.items() if kind == decided)
        lines.append(f"{decided:8}{number:4} rows ({counts[decided]} subtests): {states}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if arguments == ["--list"]:
        print(table(rows(), None))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-X", "dev", "-m", "pytest", str(HERE), "-q", f"--junitxml={report}", *arguments]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if not report.exists():
            return done.returncode or 1
        results = outcomes(report)
    catalogue = rows()
    print(table(catalogue, results))
    good = {"not", "passed"}
    return 0 if done.returncode == 0 and all(row.state(results) in good for row in catalogue) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
