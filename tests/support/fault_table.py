"""The result table of the fault tests: each appends rows to a file, and this prints them (`make faults`).

MSRECD_FAULT_TABLE=rows.jsonl pytest …; python tests/support/fault_table.py rows.jsonl
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

COLUMNS = ("fault", "cases", "harmed", "largest loss", "promise")


def row(fault: str, *, cases: int, harmed: int, loss: str, promise: str) -> None:
    """Tell one result: `harmed` finished chunks in `cases` cases, the largest loss, and what was promised."""
    values = (fault, str(cases), str(harmed), loss, promise)
    print(" | ".join(f"{name} {value}" for name, value in zip(COLUMNS, values, strict=True)))
    if path := os.environ.get("MSRECD_FAULT_TABLE"):
        with Path(path).open("a") as file:
            file.write(json.dumps(values) + "\n")


def main(path: Path) -> int:
    rows = [COLUMNS, *(tuple(json.loads(line)) for line in path.read_text().splitlines())]
    widths = [max(len(values[column]) for values in rows) for column in range(len(COLUMNS))]
    for number, values in enumerate(rows):
        print("| " + " | ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return int(any(values[2] != "0" for values in rows[1:]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
