"""The files of a configuration: the main one and those in `conf.d` beside it, merged."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msrecd.config.hints import syntax
from msrecd.config.problems import Problem

MAX_FILE_BYTES = 1024 * 1024


@dataclass(slots=True)
class Merged:
    """The content of all files. `origins` has the file that each key path comes from."""

    content: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def file_of(self, path: str) -> str | None:
        """The file that a key path, or what it is in, comes from."""
        while path:
            if path in self.origins:
                return self.origins[path]
            cut = max(path.rfind("."), path.rfind("["))
            path = path[: max(cut, 0)]
        return None


def read_files(main: Path, *, missing_ok: bool = False) -> Merged:
    """Read the main file and `conf.d/*.toml` beside it in the order of their names.

    Later files win: tables merge, everything else, arrays too, is replaced. A file that cannot be read is a problem;
    with `missing_ok` the main file may be absent.
    """
    merged = Merged()
    for path in _files(main):
        if missing_ok and path == main and not main.exists():
            continue
        raw = b""
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_FILE_BYTES + 1)
            if len(raw) > MAX_FILE_BYTES:
                raise ValueError("is larger than 1 MiB; this is no configuration")
            content = tomllib.loads(raw.decode("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as exc:
            merged.problems.append(Problem(path="", message=_reason(exc, raw), file=str(path)))
        else:
            _merge(merged, merged.content, content, "", str(path))
    return merged


def _files(main: Path) -> Iterator[Path]:
    yield main
    yield from sorted((main.parent / "conf.d").glob("*.toml"))


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
        merged.origins[at] = file
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(merged, into[name], value, at, file)
            continue
        for stale in [key for key in merged.origins if key.startswith((f"{at}.", f"{at}["))]:
            del merged.origins[stale]
        into[name] = value
        if isinstance(value, dict):
            into[name] = {}
            _merge(merged, into[name], value, at, file)
