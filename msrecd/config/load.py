"""From files to a `Config`, or to everything that is wrong with them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import cast

from msrecd.config.files import read_files
from msrecd.config.model import Config
from msrecd.config.problems import InvalidConfigError, Problem, Report
from msrecd.config.rules import Checks, check_rules
from msrecd.config.tables import Table, headings
from msrecd.vocabulary.formats import DEFAULT_TYPES

DEFAULT_PATH = Path("/etc/msrecd/msrecd.toml")
_MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_NO_CHECKS = Checks()


def load(path: Path, *, checks: Checks = _NO_CHECKS) -> Config:
    """Read the file at `path` and `conf.d/*.toml` beside it.

    Blocks; may be called from any thread.

    Raises:
        InvalidConfigError: a ConfigError; its `problems` has all that is wrong.
    """
    config, problems = _read(path, checks)
    if problems:
        raise InvalidConfigError(problems)
    return config


def check(path: Path, *, checks: Checks = _NO_CHECKS) -> list[Problem]:
    """All that is wrong with a configuration; empty when it is valid."""
    return _read(path, checks)[1]


def _read(path: Path, checks: Checks) -> tuple[Config, list[Problem]]:
    path = path.absolute()
    merged = read_files(path)
    if merged.problems:
        return Config(), merged.problems  # what a broken file would have set is not known: judge nothing else

    def place_of(within: str) -> str:
        called, file = merged.place_of(within)
        return called if file is None else f"{called} of {file}"

    report = Report(path.parent, headings(Config), place_of)
    config = _with_defaults(cast(Config, Table(model=Config).read(merged.content, "", report)), path, report)
    check_rules(config, report, checks)
    problems = []
    for problem in report.problems:
        called, file = merged.place_of(problem.path)
        problems.append(replace(problem, path=called, file=file or str(path)))
    return config, problems


def _with_defaults(config: Config, path: Path, report: Report) -> Config:
    """Put in the defaults that depend on other keys or on the machine, and bring values into one form."""
    if not config.device.id and not report.concerns("device.id"):
        machine_id = next(filter(None, map(_first_line, _MACHINE_ID_FILES)), None)
        if machine_id is None:
            report.add("device.id", "cannot be made, for /etc/machine-id is missing or empty; give one")
        else:
            config = replace(config, device=replace(config.device, id=device_id(machine_id)))
    recorders = tuple(
        recorder
        if recorder.mime_type
        else replace(recorder, mime_type=DEFAULT_TYPES["video" if recorder.has_video or recorder.source else "audio"])
        for recorder in config.recorders
    )
    mqtt = config.mqtt
    if mqtt is not None:
        mqtt = replace(mqtt, host=mqtt.host.removeprefix("[").removesuffix("]"))
    # Links and `..` are resolved once: afterwards a folder of recordings has one name.
    state_path = default_state_path(path) if config.storage.state_path == Path() else config.storage.state_path
    storage = replace(config.storage, path=_real(config.storage.path), state_path=_real(state_path))
    return replace(config, recorders=recorders, mqtt=mqtt, storage=storage)


def default_state_path(path: Path) -> Path:
    """The state folder of the configuration file at `path`, for the service and for every command alike."""
    if any(folder.is_relative_to(DEFAULT_PATH.parent) for folder in (path.absolute(), _real(path))):
        return Path("/var/lib/msrecd/state")
    return path.absolute().parent / "state"


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def device_id(machine_id: str) -> str:
    """A name that tells devices apart and does not reveal the machine id."""
    return "pi-" + hashlib.sha256(f"msrecd:{machine_id}".encode()).hexdigest()[-8:]


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text("ascii").split()
    except (OSError, ValueError):
        return ""
    return lines[0] if lines and lines[0] != "uninitialized" else ""
