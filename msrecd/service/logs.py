"""Logging: journal fields under systemd, readable lines on a terminal, priorities in a pipe."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from msrecd.service import systemd

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


class RecorderLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the recorder's name in front of each line and into the journal's MSRECD_RECORDER field."""

    def __init__(self, logger: logging.Logger, recorder: str) -> None:
        super().__init__(logger, {})
        self._recorder = recorder

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        extra = dict(kwargs.get("extra") or {})
        extra["MSRECD_RECORDER"] = self._recorder
        kwargs["extra"] = extra
        return f"{self._recorder}: {msg}", kwargs


def configure(level: str = "info") -> None:
    """Send the program's log where it is read."""
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
