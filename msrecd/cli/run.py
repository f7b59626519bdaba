"""`msrecd run`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="how much is logged"
    )


def run(args: argparse.Namespace) -> int:
    """
    Raises:
        InvalidConfigError: the configuration is not valid; nothing was started.
    """
    from msrecd.config.load import load
    from msrecd.daemon.checks import config_checks
    from msrecd.daemon.logs import configure
    from msrecd.errors import MsrecdError

    # systemd's watchdog kills with SIGABRT: say then where every thread stood.
    faulthandler.enable()
    config = load(args.config, checks=config_checks())
    configure(args.log_level)
    from msrecd.daemon.daemon import run as run_daemon

    if os.geteuid() == 0 and "INVOCATION_ID" not in os.environ:
        logging.getLogger(__name__).warning(
            "running as root outside of systemd: files will belong to root, and no sandbox of msrecd.service protects "
            "this machine; run as another user, or with systemctl start msrecd"
        )
    if "INVOCATION_ID" in os.environ and os.getppid() == 1:
        keep_memory_private()
    try:
        return asyncio.run(run_daemon(config, args.config))
    except MsrecdError as exc:
        print(f"msrecd: {exc}", file=sys.stderr)
        return 1


def keep_memory_private() -> None:
    """No other process of this user may read this one's memory: a reading process after a flaw, without Landlock."""
    import ctypes

    set_dumpable = 4
    ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)
