"""A subclass has private attributes of its own: two classes that mean different things by one name break each other.

mypy sees it where the types differ; a bool in the place of a number passes it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[2] / "msrecd"

# The subclass sets what its base has, by design: class -> attribute
MEANT = {
    "ChannelSplitterNode": {"_interpretation"},  # another default
    "AudioContext": {"_loop"},  # known from the beginning
}


class Class(NamedTuple):
    bases: tuple[str, ...]
    attributes: frozenset[str]  # private ones that __init__ sets
    calls_base: bool


def _attributes(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and part.attr.startswith("_"):
            yield part.attr


def _classes(text: str) -> Iterator[tuple[str, Class]]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        named = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
        bases = tuple(base.id for base in named if isinstance(base, ast.Name))
        made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        attributes = frozenset(name for part in made for name in _attributes(part))
        yield node.name, Class(bases, attributes, any("super().__init__" in ast.unparse(part) for part in made))


def clashes(texts: list[str]) -> set[str]:
    """`class.attribute` of those that a class sets although a base of it does; a name may stand for several classes."""
    known: dict[str, list[Class]] = {}
    for text in texts:
        for name, found in _classes(text):
            known.setdefault(name, []).append(found)

    def above(found: Class, seen: frozenset[str] = frozenset()) -> Iterator[Class]:
        for base in set(found.bases) - seen:
            for one in known.get(base, ()):
                yield one
                yield from above(one, seen | {base})

    return {
        f"{name}.{attribute}"
        for name, several in known.items()
        for found in several
        if found.calls_base
        for base in above(found, frozenset({name}))
        for attribute in (found.attributes & base.attributes) - MEANT.get(name, set())
    }


def test_no_class_sets_a_private_attribute_of_its_base() -> None:
    assert clashes([path.read_text("utf-8") for path in PACKAGE.rglob("*.py")]) == set()


def test_one_that_does_is_found() -> None:
    base = "class Source:\n    def __init__(self):\n        self._announced = 0\n"
    paced = (
        "class Paced(Source):\n    def __init__(self):\n        super().__init__()\n        self._announced = False\n"
    )
    assert clashes([base, paced]) == {"Paced._announced"}
