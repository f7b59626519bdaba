"""`msrecd run`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="how much is logged"
    )


def run(args: argparse.Namespace) -> int:
    from msrecd.config.load import load
    from msrecd.config.problems import InvalidConfigError
    from msrecd.errors import MsrecdError
    from msrecd.service.checks import config_checks
    from msrecd.service.logs import configure

    # systemd's watchdog kills with SIGABRT: say then where every thread stood.
    faulthandler.enable()
    try:
        config = load(args.config, checks=config_checks())
    except InvalidConfigError as exc:
        for problem in exc.problems:
            print(problem, file=sys.stderr)
        return 2
    except MsrecdError as exc:
        print(f"msrecd: {exc}", file=sys.stderr)
        return 2
    configure(args.log_level)
    from msrecd.service.daemon import run as run_daemon

    try:
        return asyncio.run(run_daemon(config, args.config))
    except MsrecdError as exc:
        print(f"msrecd: {exc}", file=sys.stderr)
        return 1
