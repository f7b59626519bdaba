"""The normal form of a configuration and its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msrecd.config.model import Config


def normal_form(config: Config) -> str:
    """JSON with sorted keys, defaults written out. Holds no secret: passwords are in files of their own."""
    return json.dumps(asdict(config), sort_keys=True, separators=(",", ":"), default=_plain)


def digest(config: Config) -> str:
    """sha256 (hex) of the normal form."""
    return hashlib.sha256(normal_form(config).encode()).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no normal form of {type(value).__name__}")
