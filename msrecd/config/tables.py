"""What holds other values: lists, tables with their keys; how they are read and described. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from msrecd.config.hints import unknown_key
from msrecd.config.kinds import BadValueError, Kind, Schema, Text, shown
from msrecd.config.problems import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """An array of one kind; the model has a tuple. `form` says in words what is right, where lengths matter."""

    item: Kind
    max_items: int = 64
    min_items: int = 0
    form: str = ""
    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise BadValueError(f"takes {self._written(path)}, not {shown(value)}")
        if self._lacks_brackets(value):
            raise BadValueError(f"{_array(value)} has too few brackets; it takes {self.form or self.describe()}")
        if not self.min_items <= len(value) <= self.max_items:
            raise BadValueError(self._wrong_length(value))
        return tuple(read_or_example(self.item, item, f"{path}[{i}]", report) for i, item in enumerate(value))

    def _lacks_brackets(self, value: list[Any]) -> bool:
        """Whether a list of lists of lists was written with one pair of brackets too few."""
        if not isinstance(self.item, ListOf) or not isinstance(self.item.item, ListOf) or not value:
            return False
        return all(isinstance(one, list) and one and not any(isinstance(e, list) for e in one) for one in value)

    def _wrong_length(self, value: list[Any]) -> str:
        count = f"has {len(value)} {'entry' if len(value) == 1 else 'entries'}"
        if self.form:
            return f"{_array(value)} {count}; it takes {self.form}"
        if not value:
            return "must not be empty"
        if len(value) < self.min_items:
            return f"{count}, {self.min_items} are the fewest"
        return f"{count}, {self.max_items} are the most"

    def _written(self, path: str) -> str:
        """How it is written."""
        if self.form:
            return self.form
        if isinstance(self.item, Table):
            heading = re.sub(r"\[\d+\]", "", path)
            return f"tables with two brackets, each under a heading [[{heading}]]"
        example = self.item.choices[:2] if isinstance(self.item, Text) else ()
        return "an array in [ ]" + (f", like {json.dumps(list(example))}" if example else "")

    def schema(self) -> Schema:
        schema: Schema = {"type": "array", "maxItems": self.max_items, "items": self.item.schema()}
        return schema | ({"minItems": self.min_items} if self.min_items else {})

    def describe(self) -> str:
        return f"a list, each {self.item.describe()}"

    def example(self) -> tuple[Any, ...]:
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagOr:
    """true or false as short forms of another kind."""

    other: Kind
    yes: Any
    no: Any
    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> Any:
        if isinstance(value, bool):
            return self.yes if value else self.no
        try:
            return self.other.read(value, path, report)
        except BadValueError as exc:
            raise BadValueError(str(exc).replace("takes ", "takes true, false or ", 1)) from exc

    def schema(self) -> Schema:
        return {"oneOf": [{"type": "boolean"}, self.other.schema()]}

    def describe(self) -> str:
        return f"true or false, or {self.other.describe()}"

    def example(self) -> Any:
        return self.no


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with the keys of a dataclass of `model`."""

    model: type
    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> Any:
        if not isinstance(value, dict):
            raise BadValueError(
                f"takes a table in {{ }} or under a heading, with {', '.join(keys_of(self.model))}; not {shown(value)}"
            )
        known = keys_of(self.model)
        values: dict[str, Any] = {}
        for name in value:
            if name not in known:
                report.add(_join(path, name), f"unknown key{unknown_key(name, list(known), report.elsewhere)}")
        for name, key in known.items():
            if name in value:
                values[key.attribute] = read_or_example(key.kind, value[name], _join(path, name), report)
            elif key.required:
                report.add(_join(path, name), f"is missing; it takes {key.kind.describe()}")
                values[key.attribute] = key.kind.example()
        return self.model(**values)

    def schema(self) -> Schema:
        known = keys_of(self.model)
        properties = {name: {**key.kind.schema(), "description": key.doc} for name, key in known.items()}
        schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
        required = [name for name, key in known.items() if key.required]
        return schema | ({"required": required} if required else {})

    def describe(self) -> str:
        return "a table"

    def example(self) -> Any:
        known = keys_of(self.model).values()
        return self.model(**{key.attribute: key.kind.example() for key in known if key.required})


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a table: its attribute in the model, what it takes, what it means; `default` is for people."""

    attribute: str
    kind: Kind
    doc: str
    required: bool
    default: Any
    default_doc: str


def key(kind: Kind, doc: str, *, default: Any = MISSING, default_doc: str = "", name: str = "") -> Any:
    """A field of the model. Without `default` the key is required; `default_doc` explains one computed later."""
    metadata = {"kind": kind, "doc": doc, "default_doc": default_doc, "name": name}
    if default is MISSING:
        return field(metadata=metadata)
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def keys_of(model: type) -> dict[str, Key]:
    """The keys of a table, in the order of the manual, by their names in the file."""
    known = {}
    for entry in fields(model):
        kind: Kind = entry.metadata["kind"]
        name = entry.metadata["name"] or entry.name.removesuffix(kind.suffix)
        default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
        known[name] = Key(
            attribute=entry.name,
            kind=kind,
            doc=entry.metadata["doc"],
            required=default is MISSING,
            default=None if default is MISSING else default,
            default_doc=entry.metadata["default_doc"],
        )
    return known


def headings(model: type, path: str = "") -> dict[str, tuple[str, ...]]:
    """The keys of all tables below `model`, by the headings under which they stand in the file."""
    found = {}
    for name, known in keys_of(model).items():
        kind, many = known.kind, False
        while isinstance(kind, ListOf | FlagOr):
            many = many or isinstance(kind, ListOf)
            kind = kind.item if isinstance(kind, ListOf) else kind.other
        if isinstance(kind, Table):
            at = _join(path, name)
            found[f"[[{at}]]" if many else f"[{at}]"] = tuple(keys_of(kind.model))
            found |= headings(kind.model, at)
    return found


def read_or_example(kind: Kind, value: object, path: str, report: Report) -> Any:
    """The value for the model; a wrong one is reported, and any valid one stands in for it."""
    try:
        return kind.read(value, path, report)
    except BadValueError as exc:
        report.replaced(path, str(exc))
        return kind.example()


def _join(path: str, name: str) -> str:
    bare = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name[:60]}"'
    return f"{path}.{bare}" if path else bare


def _array(value: list[Any]) -> str:
    """A short array as it was written."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
