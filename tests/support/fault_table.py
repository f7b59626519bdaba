"""The result tables of the fault tests: each appends rows to a file, and this prints them (`make faults`).

The first table is what faults cost; the second what a person sees of them: the state, the event, the line of the log
and the figure, compared with what they should be (`SHOULD_BE`).

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a person sees of a fault; in `SHOULD_BE` each is a regular expression. "-": nothing.

    state: of the recorder, with the code of its error; event: codes of the error events, in order; log: lines of level
    warning or error that the fault made; figure: what counts it.
    """

    state: str
    event: str
    log: str
    figure: str

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.state, self.event, self.log, self.figure)


SEEN_COLUMNS = ("fault", "state", "event", "log", "figure")
SHOULD_BE = {
    "file system full": Seen(
        state="error no_space",
        event="no_space",
        log=r".*(no space|[Nn]o space|free in|is free).*",
        figure=r"one gap of \d+ s in the manifest",
    ),
    "inodes exhausted": Seen(
        state="error no_space",
        event="no_space",
        log=r".*\d+ inodes are free in .*recordings, and a chunk begins only with 64.*",
        figure=r"disk\.free_inodes [0-9]|disk\.free_inodes [1-5]\d|disk\.free_inodes 6[0-3]",
    ),
    "disk hangs": Seen(
        state="error no_space",
        event="no_space",
        log=r".*the disk has not answered for 10 s.*",
        figure=r"queue_ms \d{4,}; disk (null|without seconds_left_estimate)",
    ),
    "file system turns read-only": Seen(
        state="error no_space", event="no_space", log=r".*read-only.*", figure=r"one gap of \d+ s in the manifest"
    ),
    "state folder full, on a file system of its own": Seen(
        state="recording",
        event="-",
        log=r"warning the state folder [^;]*state cannot be written: No space left on device; [^;]*",
        figure="no gap",
    ),
    "state folder turns read-only, on a file system of its own": Seen(
        state="recording",
        event="-",
        log=r"warning the state folder [^;]*state cannot be written: [^;]*(I/O error|[Rr]ead-?only)[^;]*; [^;]*",
        figure="no gap",
    ),
}


def seen(fault: str, *, state: str, event: str, log: str, figure: str) -> None:
    """Tell what a person saw of a fault.

    Raises:
        AssertionError: it is not what it should be.
    """
    found, wanted = Seen(state=state, event=event, log=log, figure=figure), SHOULD_BE[fault]
    wrong = [
        f"{name} is {got!r}, and should be {want!r}"
        for name, got, want in zip(SEEN_COLUMNS[1:], found.cells, wanted.cells, strict=True)
        if re.fullmatch(want, got, re.DOTALL) is None
    ]
    if path := os.environ.get("MSRECD_FAULT_TABLE"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"seen": fault, "wrong": wrong, **asdict(found)}) + "\n")
    assert not wrong, wrong


def loud_lines(log: str, pattern: str) -> str:
    """The lines of a daemon's log with level warning or error that fit, without their times; "-": there is none."""
    lines = [line.split(" ", 1)[1] for line in log.splitlines() if re.search(r"^\S+ (warning|error) ", line)]
    return "; ".join(dict.fromkeys(line for line in lines if re.search(pattern, line))) or "-"


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
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rows = add_up(Row(**line) for line in lines if "seen" not in line)
    _print([COLUMNS, *(result.cells for result in rows)])
    print(f"{sum(result.cases for result in rows)} cases, {sum(result.harmed for result in rows)} harmed\n")
    looks = [line for line in lines if "seen" in line]
    _print([SEEN_COLUMNS, *((line["seen"], *(str(line[name]) for name in SEEN_COLUMNS[1:])) for line in looks)])
    unseen = SHOULD_BE.keys() - {line["seen"] for line in looks}
    wrong = [text for line in looks for text in line["wrong"]]
    print(
        f"{len(looks)} faults as a person sees them, {len(wrong)} wrong; not looked at: {', '.join(unseen) or 'none'}"
    )
    for text in wrong:
        print(f"  {text}")
    return int(not rows or any(result.harmed for result in rows) or bool(wrong) or bool(unseen))


def _print(table: list[tuple[str, ...]]) -> None:
    widths = [max(len(values[column]) for values in table) for column in range(len(table[0]))]
    for number, values in enumerate(table):
        print("| " + " | ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
