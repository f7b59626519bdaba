"""What is wrong with a configuration: a key path, a sentence, and the file it stands in; their collection."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from msrecd.errors import ConfigError

_FEW = 24
_NAMED = 3
_NUMBER = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to correct. `path` is like `recorder[0].audio.device_id`, "" for the file as a whole."""

    path: str
    message: str
    file: str = ""

    def __str__(self) -> str:
        if not self.path:
            return f"{self.file}: {self.message}" if self.file else self.message
        return f"{self.path}: {self.message}" + (f" ({self.file})" if self.file else "")

    def to_json(self) -> dict[str, str]:
        """The form of `msrecd check-config --json`."""
        return {"path": self.path, "message": self.message, "file": self.file}


class InvalidConfigError(ConfigError):
    """The configuration cannot be used; `problems` has every one that was found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(_lines(self.problems)))


def _lines(problems: Sequence[Problem]) -> Iterator[str]:
    """A line for each mistake: one that a key has in many tables is one line, which names where else it stands."""
    at: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        at.setdefault((_NUMBER.sub("[]", problem.path), problem.message, problem.file), []).append(problem)
    for first, *others in at.values():
        yield f"{first}; likewise {_paths(others)}" if others else str(first)


def _paths(problems: Sequence[Problem]) -> str:
    named = ", ".join(problem.path for problem in problems[:_NAMED])
    return f"{named} and {len(problems) - _NAMED} more" if len(problems) > _NAMED else named


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
        problem = Problem(path=path, message=message)
        is_stand_in = any(path == at or path.startswith((f"{at}.", f"{at}[")) for at in self._stand_ins)
        if not is_stand_in and problem not in self.problems:
            self.problems.append(problem)

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


def suggestion(word: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """A clause that names the nearest known word, or all of them when they are few and none is near."""
    import difflib  # here: a daemon with a good configuration never needs it

    near = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known are {', '.join(known)}" if len(known) <= _FEW else ""
