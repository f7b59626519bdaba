"""The kinds of single values of the configuration: what is accepted, how it is read, how it is described.

One description of each key serves the reader, the JSON Schema and the reference manual. Lists and tables: tables.py.
Pure.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Protocol

from msrecd.config.hints import quoted_number
from msrecd.config.problems import Report, suggestion
from msrecd.vocabulary.units import format_duration, format_size, parse_duration, parse_size

Schema = dict[str, Any]
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


class BadValueError(ValueError):
    """A value that is not what its key takes; the message says what it takes."""


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
        if value[0] in "~$":
            raise BadValueError(f'{shown(value)}: "{value[0]}" is not expanded; write the whole path')
        return report.base / value

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}

    def describe(self) -> str:
        return "a path"

    def example(self) -> Path:
        return Path()
