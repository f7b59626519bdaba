"""The state folder. One that takes nothing: many parts of the program notice it, and an operator reads it once.

And the databases in it: a view or a trigger that was put in could keep a query busy for ever.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

log = logging.getLogger(__name__)

AGAIN_S = 3600.0  # a folder that stays so is reported once an hour

_lock = threading.Lock()
_reported: dict[Path, float] = {}  # time.monotonic() of the last warning; a handful


def report_unwritable(folder: Path, what: str, exc: Exception) -> None:
    """Log that `what` is not kept in the state folder: a warning for the folder, the details at level debug.

    Any thread may call.
    """
    reason = getattr(exc, "strerror", None) or str(exc)
    now = time.monotonic()
    with _lock:
        last = _reported.get(folder)
        is_news = last is None or now - last >= AGAIN_S
        if is_news:
            _reported[folder] = now
    if is_news:
        log.warning(
            "the state folder %s cannot be written: %s; recording continues, and what the state folder should keep "
            "(boot number, clock, index, unpublished events) is lost at a restart",
            folder,
            reason,
        )
    log.debug("%s: not kept in %s: %s", what, folder, reason)


def has_schema(database: sqlite3.Connection, script: str) -> bool:
    """Whether a database has the tables, indexes and triggers that `script` makes, and nothing else. Runs none of them.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    import sqlite3

    with contextlib.closing(sqlite3.connect(":memory:")) as made:
        made.executescript(script)
        return _schema(database) == _schema(made)


def _schema(database: sqlite3.Connection) -> set[tuple[str, str, str]]:
    sql = "SELECT type, name, sql FROM sqlite_master WHERE substr(name, 1, 7) <> 'sqlite_'"
    return {(str(kind), str(name), str(text)) for kind, name, text in database.execute(sql)}
