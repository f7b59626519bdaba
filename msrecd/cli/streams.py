"""Standard streams that are closed or cannot be written to: a command does its work all the same."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def open_closed_streams() -> None:
    """Lead standard streams that the caller has closed to nowhere.

    Otherwise the next file that is opened would take the number, and get what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(write_through=False)  # that of PYTHONUNBUFFERED: faults are then those of `flush`


def flush(stream: TextIO) -> OSError | None:
    """Write out what was printed; why that fails, None when it does not.

    After a failure the stream leads to nowhere: Python would otherwise complain when it flushes at exit.
    """
    try:
        stream.flush()
    except OSError as exc:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return exc
    return None
