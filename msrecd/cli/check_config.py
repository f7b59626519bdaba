"""`msrecd check-config`: is the configuration valid, and if not, what is to be corrected."""

from __future__ import annotations

import argparse
import sys

from msrecd.cli.errors import Exit
from msrecd.cli.output import print_json
from msrecd.config import InvalidConfigError, Problem, load
from msrecd.service.checks import config_checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print {valid, problems: [{path, message, file}]}")


def run(args: argparse.Namespace) -> int:
    """0: valid. 2: not, every problem in a line on stderr or in the JSON."""
    problems: tuple[Problem, ...] = ()
    names: list[str] = []
    try:
        config = load(args.config, checks=config_checks())
        names = [recorder.name for recorder in config.recorders]
    except InvalidConfigError as exc:
        problems = exc.problems
    if args.json:
        print_json({"valid": not problems, "problems": [problem.to_json() for problem in problems]})
    elif not problems:
        found = f"recorders: {', '.join(names)}" if names else "but without a [[recorder]] it records nothing"
        print(f"{args.config}: valid; {found}")
    for problem in problems if not args.json else ():
        print(problem, file=sys.stderr)
    return Exit.USAGE if problems else Exit.OK
