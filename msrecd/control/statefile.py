"""Small JSON files in the state folder: read with a bound, written whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

LIMIT_BYTES = 1024 * 1024


def load(path: Path) -> object:
    """The JSON value in the file. Blocking.

    Raises:
        OSError: it cannot be read; FileNotFoundError when it is missing.
        ValueError: it is not JSON, or longer than 1 MiB.
    """
    with path.open("rb") as file:
        return json.loads(file.read(LIMIT_BYTES))


def save(path: Path, value: object) -> None:
    """Replace the file's content, durably: after a power cut it is the former one or this. Blocking.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    with open(temporary, "w", encoding="utf-8", opener=_private) as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
