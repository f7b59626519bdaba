"""The kinds of values of the configuration: what is accepted, how it is read, how it is described.

One description of each key serves the reader, the JSON Schema and the reference manual. Pure.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from msrecd.config.hints import quoted_number, unknown_key
from msrecd.config.problems import Problem, suggestion
from msrecd.vocabulary.units import format_duration, format_size, parse_duration, parse_size

Schema = dict[str, Any]
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


class BadValueError(ValueError):
    """A value that is not what its key takes; the message says what it takes."""


class Report:
    """Collects the problems of one configuration.

    base: the folder that relative paths start from. elsewhere: the keys of all tables by their headings, for hints.
    place_of: what to call a table of the whole configuration: the key path in its file, and the file.
    """

    def __init__(
        self,
        base: Path,
        elsewhere: Mapping[str, Collection[str]] = MappingProxyType({}),
        place_of: Callable[[str], str] = str,
    ) -> None:
        self.base = base
        self.elsewhere = elsewhere
        self.place_of = place_of
        self.problems: list[Problem] = []
        self._stand_ins: list[str] = []

    def add(self, path: str, message: str) -> None:
        """Report a problem, unless it is one of an example that stands in for a wrong value."""
        if not any(path == at or path.startswith((f"{at}.", f"{at}[")) for at in self._stand_ins):
            self.problems.append(Problem(path=path, message=message))

    def replaced(self, path: str, message: str) -> None:
        """Report a wrong value, in whose place an example is checked from here on."""
        self.add(path, message)
        self._stand_ins.append(path)

    def concerns(self, path: str) -> bool:
        """Whether a problem was reported at `path` or below it."""
        below = (f"{path}.", f"{path}[")
        return any(problem.path == path or problem.path.startswith(below) for problem in self.problems)

    def names(self, path: str) -> bool:
        """Whether a problem was reported at exactly `path`."""
        return any(problem.path == path for problem in self.problems)


class Kind(Protocol):
    """What a key takes. `suffix` is what the attribute's name has beyond the key's: the unit."""

    @property
    def suffix(self) -> str: ...

    def read(self, value: object, path: str, report: Report) -> Any:
        """The value for the model. Raises BadValueError, or reports several problems itself."""

    def schema(self) -> Schema: ...

    def describe(self) -> str: ...

    def example(self) -> object:
        """Any valid value: stands in for a wrong one while the rest is checked."""


def shown(value: object) -> str:
    """A value as the person wrote it, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _array(value: list[Any]) -> str:
    """A short array as it was written."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _as_text(value: object) -> str | None:
    """What was meant by 06:30:00 or 7 where a text belongs."""
    if isinstance(value, time):
        return value.strftime("%H:%M")  # TOML has no times without seconds, schedules none with them
    return str(value) if isinstance(value, int | float | date) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A string: one of `choices`, or matching `pattern` (`form` says in words what that is).

    is_time: it is the `start` or `stop` of a schedule, whose form others judge.
    """

    choices: tuple[str, ...] = ()
    pattern: str = ""
    form: str = ""
    min_length: int = 1
    max_length: int = 1024
    is_time: bool = False
    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> str:
        if not isinstance(value, str):
            raise BadValueError(f"takes {self.describe()}, not {shown(value)}{self._quoted(value, path)}")
        if self.choices and value not in self.choices:
            raise BadValueError(f"{shown(value)} is not known{suggestion(value, self.choices, cutoff=0.65)}")
        if not self.choices and not self.min_length <= len(value) <= self.max_length:
            raise BadValueError(
                "must not be empty" if not value else f"has {len(value)} characters, {self.max_length} are the most"
            )
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise BadValueError(f"{shown(value)} is not {self.form}")
        if any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise BadValueError("holds control characters")
        return value

    def _quoted(self, value: object, path: str) -> str:
        """A clause that says how to write the value in quotes, if it is valid then."""
        text = _as_text(value)
        if text is None or (self.is_time and not isinstance(value, time)):
            return ""
        try:
            self.read(text, path, Report(Path()))
        except BadValueError:
            return ""
        return f'; write it in quotes: "{text}"'

    def schema(self) -> Schema:
        if self.choices:
            return {"type": "string", "enum": list(self.choices)}
        schema: Schema = {"type": "string", "minLength": self.min_length, "maxLength": self.max_length}
        return schema | ({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})

    def describe(self) -> str:
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        return self.form or "a string"

    def example(self) -> str:
        return self.choices[0] if self.choices else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """true or false."""

    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> bool:
        if not isinstance(value, bool):
            raise BadValueError(f"takes true or false, not {shown(value)}")
        return value

    def schema(self) -> Schema:
        return {"type": "boolean"}

    def describe(self) -> str:
        return "true or false"

    def example(self) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number within limits; a whole one unless `fractions`."""

    minimum: float
    maximum: float
    fractions: bool = False
    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> float | int:
        if isinstance(value, bool) or not isinstance(value, int | float if self.fractions else int):
            raise BadValueError(f"takes {self.describe()}, not {shown(value)}{self._without_quotes(value)}")
        if not self.minimum <= value <= self.maximum:
            raise BadValueError(f"{shown(value)} is out of range; it takes {self.describe()}")
        return float(value) if self.fractions else value

    def _without_quotes(self, value: object) -> str:
        """A clause for "1883" where 1883 is meant, if that is valid."""
        try:
            number = float(str(value).replace(",", ".").replace("_", ""))
        except ValueError:
            return ""
        is_valid = self.minimum <= number <= self.maximum
        return quoted_number(value) if is_valid and (self.fractions or not set(str(value)) & set(".,")) else ""

    def schema(self) -> Schema:
        name = "number" if self.fractions else "integer"
        return {"type": name, "minimum": self.minimum, "maximum": self.maximum}

    def describe(self) -> str:
        if self.minimum == self.maximum:
            return f"{self.minimum}"
        return f"a {'number' if self.fractions else 'whole number'} from {self.minimum:_} to {self.maximum:_}"

    def example(self) -> float | int:
        return self.minimum


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A duration with its unit, "1h30m"; the model has seconds."""

    minimum: float
    maximum: float
    suffix: str = "_s"

    def read(self, value: object, path: str, report: Report) -> float:
        if not isinstance(value, str):
            raise BadValueError(
                f"takes a duration in quotes with its unit, not {shown(value)}{self._with_unit(str(value))}"
            )
        if _NUMBER.fullmatch(value.strip()):
            raise BadValueError(f'"{value}" lacks a unit (ms, s, m, h, d, w){self._with_unit(value.strip())}')
        try:
            seconds = parse_duration(value)
        except ValueError as exc:
            raise BadValueError(str(exc)) from exc
        if not self.minimum <= seconds <= self.maximum:
            raise BadValueError(f'"{value}" is out of range; it takes {self.describe()}')
        return seconds

    def _with_unit(self, number: str) -> str:
        """A clause that gives a number the first unit with which it is in range; without one, an example."""
        if _NUMBER.fullmatch(number):
            for unit in ("s", "m", "h", "ms", "d"):
                with contextlib.suppress(ValueError):
                    if self.minimum <= parse_duration(number + unit) <= self.maximum:
                        return f'; write for example "{number}{unit}"'
        return f'; write for example "{format_duration(self.minimum or self.maximum)}"'

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|min|h|d|w)\s*)+$"}

    def describe(self) -> str:
        return f"a duration from {format_duration(self.minimum)} to {format_duration(self.maximum)}"

    def example(self) -> float:
        return self.minimum


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A size with its unit, "2GiB"; the model has bytes."""

    minimum: int
    maximum: int
    suffix: str = "_bytes"

    def read(self, value: object, path: str, report: Report) -> int:
        if not isinstance(value, str):
            raise BadValueError(
                f"takes a size in quotes with its unit, not {shown(value)}{self._with_unit(str(value))}"
            )
        if _NUMBER.fullmatch(value.strip()):
            raise BadValueError(
                f'"{value}" lacks a unit (B, kB, MB, GB, KiB, MiB, GiB, TiB){self._with_unit(value.strip())}'
            )
        try:
            size = parse_size(value)
        except ValueError as exc:
            raise BadValueError(str(exc)) from exc
        if not self.minimum <= size <= self.maximum:
            raise BadValueError(f'"{value}" is out of range; it takes {self.describe()}')
        return size

    def _with_unit(self, number: str) -> str:
        """A clause that gives a number the first unit with which it is in range; without one, an example."""
        if _NUMBER.fullmatch(number):
            for unit in ("GiB", "MiB", "KiB", "TiB", "B"):
                with contextlib.suppress(ValueError):
                    if self.minimum <= parse_size(number + unit) <= self.maximum:
                        return f'; write for example "{number}{unit}"'
        return f'; write for example "{format_size(self.minimum or self.maximum)}"'

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT][iI]?)?[bB]\s*$"}

    def describe(self) -> str:
        return f"a size from {format_size(self.minimum)} to {format_size(self.maximum)}"

    def example(self) -> int:
        return self.minimum


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePath:
    """A path; a relative one starts at the folder of the main file."""

    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> Path:
        if not isinstance(value, str) or not value:
            raise BadValueError(f"takes a path, not {shown(value)}")
        if any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise BadValueError(r'holds control characters; in "..." a backslash begins an escape, write \\ or /')
        if value.startswith("~"):
            raise BadValueError(f'{shown(value)}: "~" is not expanded; write the whole path')
        return report.base / value

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}

    def describe(self) -> str:
        return "a path"

    def example(self) -> Path:
        return Path()


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
        """Whether a list of lists of lists was written with one pair of brackets less."""
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
        """How one writes it."""
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
    """A field of the model. Without `default` the key is required; `default_doc` explains one that is made up later."""
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
