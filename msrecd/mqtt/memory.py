"""What was published in earlier runs and must be cleared when it is no longer configured. A small JSON file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from msrecd.control import statefile
from msrecd.statefolder import report_unwritable

log = logging.getLogger(__name__)


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
            value = statefile.load(path)
            if not isinstance(value, dict):
                raise TypeError("no object")
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
        content = {
            "recorders": sorted(self.recorders),
            "components": dict(self.components),
            "dropped_reported": self.dropped_reported,
        }
        try:
            statefile.save(path, content)
        except OSError as exc:
            report_unwritable(path.parent, path.name, exc)
