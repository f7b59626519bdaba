"""`msrecd check-config`: is the configuration valid, and if not, what is to be corrected."""

from __future__ import annotations

import argparse

from msrecd.cli.errors import Exit
from msrecd.cli.output import print_json
from msrecd.config import InvalidConfigError, Problem, load
from msrecd.service.checks import config_checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print {valid, problems: [{path, message, file}]}")


def run(args: argparse.Namespace) -> int:
    """0: valid. 2: not, every problem in the JSON.

    Raises:
        InvalidConfigError: it is not, and no JSON was asked for.
    """
    problems: tuple[Problem, ...] = ()
    names: list[str] = []
    try:
        config = load(args.config, checks=config_checks())
        names = [recorder.name for recorder in config.recorders]
    except InvalidConfigError as exc:
        if not args.json:
            raise
        problems = exc.problems
    if args.json:
        print_json({"valid": not problems, "problems": [problem.to_json() for problem in problems]})
    else:
        found = f"recorders: {', '.join(names)}" if names else "but without a [[recorder]] it records nothing"
        print(f"{args.config}: valid; {found}")
    return Exit.USAGE if problems else Exit.OK
