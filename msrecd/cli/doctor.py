"""`msrecd doctor`: what is wrong with this machine, in the order to fix it."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from msrecd.cli.errors import Exit

if TYPE_CHECKING:
    from msrecd.config.model import Config

_MARKS = {"ok": "  ok ", "warning": "warn ", "error": "FAIL "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    from msrecd.cli.output import print_json, print_line
    from msrecd.daemon.doctor.diagnosis import can_record, diagnose
    from msrecd.daemon.doctor.machine import gather

    config, problems = _configuration(args)
    devices, sources = asyncio.run(_look(config, args))
    found = diagnose(gather(config, problems, devices, sources=sources))
    works = can_record(found)
    if args.json:
        print_json({"can_record": works, "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            print_line(f"{_MARKS[finding.level]} {finding.area}: {finding.message}")
            if finding.remedy:
                print_line(f"      -> {finding.remedy}")
        print_line("recording can work" if works else "recording cannot work: fix what says FAIL, from the top down")
    return Exit.OK if works else Exit.FAILED


def _configuration(args: argparse.Namespace) -> tuple[Config | None, list[str]]:
    from msrecd.config.load import load
    from msrecd.daemon.checks import config_checks
    from msrecd.errors import ConfigError

    try:
        return load(args.config, checks=config_checks()), []
    except ConfigError as exc:
        return None, str(exc).splitlines()


async def _look(config: Config | None, args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The devices, and by recorder why its source gives nothing."""
    from msrecd.cli.look import problem_by_daemon
    from msrecd.codecs.parameters import camera_parameters
    from msrecd.control.device_list import device_list
    from msrecd.daemon.backends import backends_for
    from msrecd.daemon.doctor.sources import source_problems
    from msrecd.devices import default_backends
    from msrecd.media.devices import MediaDevices

    backends = default_backends(camera_parameters=camera_parameters) if config is None else backends_for(config)
    devices = MediaDevices(backends=backends)
    try:
        found = await device_list(devices)
        if config is None:
            return found, {}
        return found, await source_problems(config, devices, lambda name: problem_by_daemon(config, args.config, name))
    finally:
        await devices.close()
