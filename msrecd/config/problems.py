"""What is wrong with a configuration: a key path, a sentence, and the file it stands in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msrecd.errors import ConfigError

_FEW = 24


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
        super().__init__("\n".join(str(problem) for problem in self.problems))


def suggestion(word: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """A clause that names the nearest known word, or all of them when they are few and none is near."""
    import difflib  # here: a daemon with a good configuration never needs it

    near = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known are {', '.join(known)}" if len(known) <= _FEW else ""
