"""`msrecd check-config`: is the configuration valid, and if not, what is to be corrected."""

from __future__ import annotations

import argparse

from msrecd.cli.errors import Exit
from msrecd.cli.output import print_json
from msrecd.config import InvalidConfigError, load
from msrecd.daemon.checks import config_checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print {valid, problems: [{path, message, file}]}")


def run(args: argparse.Namespace) -> int:
    """0: valid. 2: not, every problem in the JSON.

    Raises:
        InvalidConfigError: it is not, and no JSON was asked for.
    """
    try:
        config = load(args.config, checks=config_checks())
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
