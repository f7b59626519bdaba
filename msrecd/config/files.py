"""The files of a configuration: the main one and those in `conf.d` beside it, merged."""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msrecd.config.hints import syntax
from msrecd.config.problems import Problem
from msrecd.vocabulary.plainfile import open_plain

MAX_FILE_BYTES = 1024 * 1024


@dataclass(slots=True)
class Merged:
    """The content of all files.

    origins: the file that each key path comes from. numbers: of an entry of a list of tables, its number in its file.
    """

    content: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place_of(self, path: str) -> tuple[str, str | None]:
        """A key path of the whole as it is called in its file, and that file; the path as it is where none has it."""
        entry = path.partition("]")[0] + "]"
        if entry in self.numbers:
            name, rest = entry.partition("[")[0], path.removeprefix(entry)
            return f"{name}[{self.numbers[entry]}]{rest}", self.origins[entry]
        within = path
        while within:
            if within in self.origins:
                return path, self.origins[within]
            within = within[: max(within.rfind("."), within.rfind("["), 0)]
        return path, None


def read_files(main: Path) -> Merged:
    """Read the main file and `conf.d/*.toml` beside it in the order of their names.

    Tables merge. Entries of lists of tables, like [[recorder]], are added. Of everything else, arrays too, the later
    file's wins. A file that cannot be read is a problem.
    """
    merged = Merged()
    for path in (main, *_fragments(main.parent / "conf.d", merged)):
        raw = b""
        try:
            with path.open("rb") if path == main else open_plain(path) as stream:
                if path != main and os.fstat(stream.fileno()).st_mode & stat.S_IWOTH:
                    raise ValueError("every user of this machine can write to it; chmod o-w it")
                raw = stream.read(MAX_FILE_BYTES + 1)
            if len(raw) > MAX_FILE_BYTES:
                raise ValueError("is larger than 1 MiB, too large for a configuration")
            content = tomllib.loads(raw.decode("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as exc:
            merged.problems.append(Problem(path="", message=_reason(exc, raw), file=str(path)))
        else:
            _merge(merged, merged.content, content, "", str(path))
    return merged


def _fragments(folder: Path, merged: Merged) -> list[Path]:
    """The files in conf.d; a folder that cannot be read is a problem, one that is not there is none."""
    try:
        found = sorted(path for path in folder.iterdir() if path.match("*.toml"))
        if found and folder.stat().st_mode & stat.S_IWOTH:
            words = "every user of this machine can put files into it; chmod o-w it"
            merged.problems.append(Problem(path="", message=words, file=str(folder)))
        return found
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as exc:
        merged.problems.append(Problem(path="", message=_reason(exc, b""), file=str(folder)))
    return []


def _reason(exc: Exception, raw: bytes) -> str:
    if isinstance(exc, FileNotFoundError):
        return "there is no such file"
    if isinstance(exc, PermissionError):
        return "cannot be read by this user; try with sudo"
    if isinstance(exc, OSError):
        return f"cannot be read: {exc.strerror}"
    if isinstance(exc, UnicodeDecodeError):
        line = exc.object.count(b"\n", 0, exc.start) + 1
        return f"line {line} is not UTF-8 (byte {exc.start}: 0x{exc.object[exc.start]:02x}); save the file as UTF-8"
    if isinstance(exc, tomllib.TOMLDecodeError):
        return syntax(exc, raw.decode("utf-8-sig"))
    if isinstance(exc, RecursionError):
        return "is not valid TOML: nested too deeply"
    return str(exc)


def _merge(merged: Merged, into: dict[str, Any], content: dict[str, Any], path: str, file: str) -> None:
    for name, value in content.items():
        at = f"{path}.{name}" if path else name
        if not path and _is_list_of_tables(value) and isinstance(into.get(name, []), list):
            known = into.setdefault(name, [])
            for number, entry in enumerate(value):
                merged.origins[f"{at}[{len(known)}]"] = file
                merged.numbers[f"{at}[{len(known)}]"] = number
                known.append(entry)
            continue
        merged.origins[at] = file
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(merged, into[name], value, at, file)
            continue
        for stale in [key for key in merged.origins if key.startswith((f"{at}.", f"{at}["))]:
            del merged.origins[stale]
            merged.numbers.pop(stale, None)
        into[name] = value
        if isinstance(value, dict):
            into[name] = {}
            _merge(merged, into[name], value, at, file)


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)
