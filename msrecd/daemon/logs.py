"""Logging: journal fields under systemd, plain lines on a terminal, priorities in a pipe."""

from __future__ import annotations

import logging
import sys

from msrecd.daemon import systemd

_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class _LineFormatter(logging.Formatter):
    """`12:00:01 warning  cam0: …`; behind a `<4>` where the output is no terminal (sd-daemon(3))."""

    def __init__(self, *, priorities: bool) -> None:
        super().__init__("%(asctime)s %(lower)-7s %(message)s", "%H:%M:%S")
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        record.lower = record.levelname.lower()
        line = super().format(record)
        return f"<{_PRIORITY.get(record.levelname, 6)}>{line}" if self._priorities else line


def configure(level: str = "info") -> None:
    """Send the program's log to the journal, or to standard error."""
    root = logging.getLogger()
    for known in list(root.handlers):
        root.removeHandler(known)
    handler = systemd.journal_handler()
    if handler is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_LineFormatter(priorities=not sys.stderr.isatty() and _under_systemd()))
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.getLogger("paho").setLevel("WARNING")
    logging.captureWarnings(True)


def _under_systemd() -> bool:
    import os

    return "INVOCATION_ID" in os.environ
