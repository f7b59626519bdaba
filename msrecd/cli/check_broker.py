"""`msrecd check-broker`: does the configured broker keep the rules that msrecd relies on?"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from msrecd.cli.errors import Exit, UsageError
from msrecd.cli.output import note, print_json, print_line
from msrecd.config import load
from msrecd.daemon.checks import config_checks
from msrecd.daemon.from_config import mqtt_settings
from msrecd.errors import MsrecdError

_MARK = {"ok": "ok", "failed": "FAILED", "untried": "untried"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--username", help="another user than the device (needs write and read below its reply/)")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="that user's password")
    parser.add_argument(
        "--json", action="store_true", help="print {broker, ok, rules: [{rule, title, outcome, seen, notice}]}"
    )


def run(args: argparse.Namespace) -> int:
    """0: every rule holds. 1: one does not, or the broker cannot be reached.

    Raises:
        UsageError: the configuration names no broker.
        MsrecdError: the broker cannot be reached.
    """
    from msrecd.mqtt.broker_check import BrokerCheck
    from msrecd.mqtt.wire import ConnectError

    settings = mqtt_settings(load(args.config, checks=config_checks()))
    if settings is None:
        raise UsageError(f"{args.config} has no [mqtt]: there is no broker to check")
    if args.username or args.password_file:
        settings = dataclasses.replace(settings, username=args.username, password_file=args.password_file)
    where = f"{settings.host}:{settings.effective_port}"

    def progress(title: str) -> None:
        if sys.stderr.isatty() and not args.json:
            note(f"trying: {title}")

    try:
        findings = BrokerCheck(settings, progress).run()
    except ConnectError as exc:
        raise MsrecdError(f"the MQTT broker at {where} {exc}") from exc
    failed = [finding for finding in findings if finding.outcome == "failed"]
    if args.json:
        rules = [dataclasses.asdict(finding) for finding in findings]
        print_json({"broker": where, "ok": not failed, "rules": rules})
        return Exit.FAILED if failed else Exit.OK
    for finding in findings:
        print_line(f"{_MARK[finding.outcome]:8}{finding.title}")
        if finding.outcome == "ok":
            continue
        print_line(f"        {finding.seen}")
        if finding.outcome == "failed":
            print_line(f"        so: {finding.notice}")
    kept = sum(finding.outcome == "ok" for finding in findings)
    print_line(f"{where}: {kept} of {len(findings)} rules hold")
    return Exit.FAILED if failed else Exit.OK
