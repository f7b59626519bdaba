"""The JSON Schema of the configuration, for editors.

`python -m msrecd.config.schema > docs/schemas/config.schema.json` writes it.

It knows forms and ranges of numbers; what must hold between keys, and ranges of durations and sizes, only
`msrecd check-config` knows.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from msrecd.config.model import Config
from msrecd.config.tables import Table


def schema() -> dict[str, Any]:
    """The schema as a dictionary, draft 2020-12."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of msrecd",
        "description": "/etc/msrecd/msrecd.toml as a JSON document; conf.d/*.toml is merged into it.",
    }
    return head | Table(model=Config).schema()


def text() -> str:
    """The content of the file in `docs/schemas`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
