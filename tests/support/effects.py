"""What can be seen of msrecd from outside, name by name, and the tests that see an effect of each.

A name is a key of the configuration, a verb, a field of a state, an event, a reply or a manifest line, an exit code.
The schemas in docs/schemas are the list. A test that sees a name at work (a value that is neither zero nor the default,
and right) says `@pytest.mark.effect("config: storage.min_free", …)`. As a program this prints names without a test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promises import ROOT, marked_tests

from msrecd.cli.errors import Exit
from msrecd.vocabulary.verbs import VERBS

SCHEMAS = ROOT / "docs" / "schemas"
MARKER = "effect"
# A constraint is one name, whatever says how strictly it is meant.
_STRICTNESS = {"exact", "ideal", "min", "max"}
_NO_PAYLOADS = {"config.schema", "homeassistant-discovery", "availability"}


def names() -> list[str]:
    """All of them, as they stand in marks."""
    config = json.loads((SCHEMAS / "config.schema.json").read_text())
    found = {f"config: {key}" for key in _keys(config, config, "")}
    found |= {f"verb: {verb}" for verb in VERBS}
    found |= {f"exit: {code.value}" for code in Exit}
    for path in sorted(SCHEMAS.glob("*.json")):
        if path.stem not in _NO_PAYLOADS:
            found |= {f"{path.stem}: {field}" for field in _fields(json.loads(path.read_text()))}
    return sorted(found)


def _keys(schema: Any, root: Any, path: str) -> Iterator[str]:
    """The keys that have values; those of an array and of a table look the same: recorder.name."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]] if "$defs" in root else root
    parts = [schema.get("items"), *schema.get("oneOf", ()), *schema.get("anyOf", ())]
    below = {
        name
        for key, value in schema.get("properties", {}).items()
        if key not in _STRICTNESS and key != "advanced"
        for name in _keys(value, root, f"{path}.{key}".strip("."))
    }
    for part in parts:
        if isinstance(part, dict):
            below |= set(_keys(part, root, path)) - {path}
    yield from below or {path}


def _fields(schema: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(schema, dict):
        found |= set(schema.get("properties", ()))
        for value in schema.values():
            found |= _fields(value)
    elif isinstance(schema, list):
        for value in schema:
            found |= _fields(value)
    return found


def unseen(root: Path = ROOT) -> list[str]:
    """Names without a test."""
    seen = marked_tests(MARKER, root)
    return [name for name in names() if name not in seen]


if __name__ == "__main__":
    left = unseen()
    print("\n".join(left))
    print(f"{len(names())} names, {len(left)} without a test of their effect")
