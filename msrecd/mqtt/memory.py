"""What was published in earlier runs and must be cleared when it is no longer configured. A small JSON file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)

LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Recorders with retained topics, Home Assistant components by key and platform, and reported losses."""

    recorders: frozenset[str] = frozenset()
    components: Mapping[str, str] = field(default_factory=dict)
    dropped_reported: int = 0

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; what is missing or damaged is as if nothing had been published."""
        try:
            with path.open("rb") as file:
                value = json.loads(file.read(LIMIT_BYTES))
            return cls(
                recorders=frozenset(str(name) for name in value["recorders"]),
                components={str(key): str(platform) for key, platform in value["components"].items()},
                dropped_reported=int(value["dropped_reported"]),
            )
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            log.warning("%s cannot be read (%s): retained topics of earlier configurations may remain", path, exc)
            return cls()

    def save(self, path: Path) -> None:
        """Write the file whole. An error is logged: nothing that records depends on it."""
        temporary = path.with_suffix(".tmp")
        content = {
            "recorders": sorted(self.recorders),
            "components": dict(self.components),
            "dropped_reported": self.dropped_reported,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            with open(temporary, "w", encoding="utf-8", opener=_private) as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as exc:
            log.warning("%s cannot be written (%s)", path, exc)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
