"""What commands print: tables and JSON on stdout, progress on stderr if that is a terminal."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TextIO

_BLANK = "-"
_CONTROL = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MIN_INTERVAL_S = 0.1


def print_json(value: object) -> None:
    """One JSON document, indented, in UTF-8 whatever the locale."""
    text = json.dumps(value, indent=2, ensure_ascii=sys.stdout.encoding.lower() not in {"utf-8", "utf8"})
    # JSON escapes control characters below a blank; those above the letters command terminals as well.
    _write(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """Columns two blanks apart; those of the indices in `right` flush right. Empty cells show as "-"."""
    _write(table(header, rows, right=right) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> str:
    """The text of a table, without trailing blanks."""
    cells = [[str(cell) for cell in header]] + [[_cell(cell) for cell in row] for row in rows]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        padded = []
        for i, cell in enumerate(row):
            blanks = " " * (widths[i] - _width(cell))
            padded.append(blanks + cell if i in right else cell + blanks)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def timestamp(instant: datetime) -> str:
    """RFC 3339 in UTC with Z, to the second."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def can_show(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def note(message: str) -> None:
    """Print in one line on stderr what the reader of the answer should know."""
    print(f"msrecd: {clean(message)}", file=sys.stderr)


def error(message: str, code: int) -> int:
    """Print what went wrong in one line on stderr and return the exit code."""
    print(f"msrecd: {clean(' '.join(message.split()))}", file=sys.stderr)
    return code


class Progress:
    """A progress line on the terminal; prints nothing where stderr is not a terminal.

    Used by one thread; `clear()`, or the end of the `with` block, takes the line away.
    """

    def __init__(self, label: str = "", total: float | None = None, *, stream: TextIO | None = None) -> None:
        self._label = label
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._active = self._stream.isatty()
        self._shown_at = float("-inf")
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def update(self, done: float, note: str = "") -> None:
        """Show how much of `total` is done."""
        share = f"{min(100, int(100 * done / self._total)):3d} %" if self._total else ""
        self.show("  ".join(filter(None, (self._label, share, note))))

    def show(self, line: str) -> None:
        """Show a line in place of the one before; more often than ten times a second is ignored."""
        now = time.monotonic()
        if self._active and now - self._shown_at >= _MIN_INTERVAL_S:
            self._shown_at = now
            self._write(_cell(line)[: max(10, shutil.get_terminal_size().columns - 1)])

    def clear(self) -> None:
        """Take the line away."""
        if self._active and self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def _write(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)


def clean(text: str) -> str:
    """Text from a device, a file or a person, as it may be shown: nothing of it commands the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def print_line(text: str) -> None:
    """One line of text from anywhere on stdout."""
    _write(clean(text) + "\n")


def _cell(value: object) -> str:
    return clean(_BLANK if value is None or value == "" else str(value))


def _width(text: str) -> int:
    """Columns of the terminal; letters of East Asian scripts take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
