"""`msrecd check-config`: is the configuration valid, and if not, what is to be corrected."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from msrecd.cli.errors import Exit
from msrecd.cli.output import print_json
from msrecd.config import Config, InvalidConfigError, Problem, load
from msrecd.daemon.checks import config_checks
from msrecd.errors import ConfigError
from msrecd.vocabulary.secrets import check_key_file, read_secret


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print {valid, problems: [{path, message, file}]}")


def run(args: argparse.Namespace) -> int:
    """0: valid. 2: not, every problem in the JSON.

    Raises:
        InvalidConfigError: it is not, and no JSON was asked for.
    """
    try:
        config = load(args.config, checks=config_checks())
        if problems := _file_problems(config, str(args.config)):
            raise InvalidConfigError(problems)
    except InvalidConfigError as exc:
        if not args.json:
            raise
        print_json({"valid": False, "problems": [problem.to_json() for problem in exc.problems]})
        return Exit.USAGE
    if args.json:
        print_json({"valid": True, "problems": []})
        return Exit.OK
    names = ", ".join(recorder.name for recorder in config.recorders)
    found = f"recorders: {names}" if names else "but without a [[recorder]] it records nothing"
    print(f"{args.config}: valid; device {config.device.id}; {found}")
    return Exit.OK


def _file_problems(config: Config, file: str) -> list[Problem]:
    """What is wrong with the files of secrets and certificates; those that this user may not read are left out.

    The daemon does without them (a recording never depends on the broker), so only this command judges them.
    """
    looks: list[tuple[str, Path | None, Callable[[Path, str], object]]] = []
    if (mqtt := config.mqtt) is not None:
        looks += [
            ("mqtt.password_file", mqtt.password_file, read_secret),
            ("mqtt.ca_file", mqtt.ca_file, check_key_file),
            ("mqtt.cert_file", mqtt.cert_file, check_key_file),
            ("mqtt.key_file", mqtt.key_file, check_key_file),
        ]
    for number, recorder in enumerate(config.recorders):
        if recorder.source is not None:
            looks.append((f"recorder[{number}].source.password_file", recorder.source.password_file, read_secret))
    problems = []
    for name, path, look in looks:
        try:
            if path is not None:
                look(path, name)
        except ConfigError as exc:
            if not isinstance(exc.__cause__, PermissionError):
                problems.append(Problem(path=name, message=str(exc).removeprefix(f"{name}: "), file=file))
    return problems
