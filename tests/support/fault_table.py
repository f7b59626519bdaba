"""The result table of the fault tests: each appends rows to a file, and this prints them (`make faults`).

MSRECD_FAULT_TABLE=rows.jsonl pytest …; python tests/support/fault_table.py rows.jsonl
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

COLUMNS = ("fault", "cases", "recovered", "harmed", "largest loss", "promise")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Row:
    fault: str
    cases: int
    recovered: int
    harmed: int
    loss: str
    promise: str

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.fault, str(self.cases), str(self.recovered or ""), str(self.harmed), self.loss, self.promise)


def row(fault: str, *, cases: int, harmed: int, loss: str, promise: str, recovered: int = 0) -> None:
    """Tell one result: `harmed` finished chunks in `cases` cases, the largest loss, and what was promised.

    Rows of the same fault are added up: parts of it may run side by side.
    """
    result = Row(fault, cases, recovered, harmed, loss, promise)
    print(" | ".join(f"{name} {value}" for name, value in zip(COLUMNS, result.cells, strict=True)))
    if path := os.environ.get("MSRECD_FAULT_TABLE"):
        with Path(path).open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def add_up(rows: Iterable[Row]) -> list[Row]:
    """One row for each fault, in the order of their first one, with the largest loss."""
    found: dict[str, Row] = {}
    for new in rows:
        old = found.get(new.fault)
        if old is not None:
            new = Row(
                fault=new.fault,
                cases=old.cases + new.cases,
                recovered=old.recovered + new.recovered,
                harmed=old.harmed + new.harmed,
                loss=max(old.loss, new.loss, key=_leading),
                promise=new.promise,
            )
        found[new.fault] = new
    return list(found.values())


def _leading(text: str) -> float:
    match = _NUMBER.match(text)
    return float(match[0]) if match is not None else 0.0


def main(path: Path) -> int:
    rows = add_up(Row(**json.loads(line)) for line in path.read_text().splitlines())
    table = [COLUMNS, *(result.cells for result in rows)]
    widths = [max(len(values[column]) for values in table) for column in range(len(COLUMNS))]
    for number, values in enumerate(table):
        print("| " + " | ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(f"{sum(result.cases for result in rows)} cases, {sum(result.harmed for result in rows)} harmed")
    return int(not rows or any(result.harmed for result in rows))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
