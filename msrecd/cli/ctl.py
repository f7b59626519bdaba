"""`msrecd ctl`: send a command to a recorder and show the reply; to this device, another one, a group, or all.

This device's own daemon is asked through its local socket where that is possible; everything else goes over MQTT.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msrecd.cli.errors import Exit, NoAnswerError, UsageError
from msrecd.cli.output import error, print_json, print_table

if TYPE_CHECKING:
    from msrecd.config.model import Config
    from msrecd.mqtt.ctl import FleetDevice
    from msrecd.mqtt.settings import MqttSettings

VERBS = ("start", "stop", "pause", "resume", "split", "snapshot", "get")
STATUS = "status"
_WHO = "does msrecd run there, with this broker? `msrecd ctl --all status` shows the known devices"
_COLLECT_S = 5.0  # replies of a group: how many will come is not known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        'With --group or --all the replies of all devices are collected until --timeout. "msrecd ctl --all status" '
        "shows what every device last said of itself."
    )
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--device", metavar="ID", help="another device than this one")
    whom.add_argument("--group", metavar="G", help="every device of a group")
    whom.add_argument("--all", action="store_true", help="every device of the broker")
    parser.add_argument("--duration", metavar="D", help="of a start, for example 10m")
    parser.add_argument("--full", action="store_true", help="a snapshot of the sensor's full resolution")
    parser.add_argument("--dng", action="store_true", help="so, and the sensor's raw frame beside it")
    parser.add_argument(
        "--timeout", metavar="D", help="how long to wait for replies (default: 15s; 5s with --group and --all)"
    )
    parser.add_argument("--json", action="store_true", help="the reply as JSON")
    parser.add_argument("recorder", metavar=f"RECORDER|{STATUS}", help=f'its name; or "{STATUS}" alone: all recorders')
    parser.add_argument("verb", choices=VERBS, metavar="|".join(VERBS), nargs="?", help="what the recorder shall do")


def run(args: argparse.Namespace) -> int:
    """0: every reply is ok. 1: a device or the broker refused. 3: no broker, or no reply."""
    from msrecd.config.load import load
    from msrecd.daemon.checks import config_checks
    from msrecd.mqtt.wire import ConnectError

    wants_status = args.verb is None and args.recorder == STATUS
    if args.verb is None and not wants_status:
        raise UsageError(
            f'what shall "{args.recorder}" do? one of: {", ".join(VERBS)}; or without a recorder: {STATUS}'
        )
    if wants_status and args.group is not None:
        raise UsageError("status goes with --all or --device, not with --group: devices do not publish their groups")
    arguments, timeout_s = _arguments(args), _timeout(args)
    config = load(args.config, checks=config_checks())
    problems: list[str] = []  # of the way through the local socket
    try:
        if args.group is None and not args.all and args.device in (None, config.device.id):
            code = _to_this_device(config, args, arguments, timeout_s, problems)
            if code is not None:
                return code
        settings = _settings(config, args)
        if wants_status:
            return _status(settings, args, timeout_s)
        if args.group is not None or args.all:
            return _to_group(settings, args, arguments, timeout_s)
        return _to_device(settings, args, arguments, timeout_s)
    except ConnectError as exc:
        raise NoAnswerError("; ".join([str(exc), *problems])) from exc
    except ValueError as exc:
        raise UsageError(str(exc)) from exc


def _arguments(args: argparse.Namespace) -> dict[str, object]:
    arguments: dict[str, object] = {}
    for option, verb in (("duration", "start"), ("full", "snapshot"), ("dng", "snapshot")):
        if getattr(args, option) and args.verb != verb:
            raise UsageError(f"--{option} goes with {verb} only")
    if args.duration is not None:
        arguments["duration_s"] = _seconds(args.duration, "--duration")
    if args.full:
        arguments["full"] = True
    if args.dng:
        arguments["dng"] = True
    return arguments


def _timeout(args: argparse.Namespace) -> float:
    if args.timeout is None:
        return _COLLECT_S if args.all or args.group is not None else 15.0
    return _seconds(args.timeout, "--timeout")


def _seconds(text: str, option: str) -> float:
    from msrecd.vocabulary.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as exc:
        raise UsageError(f"{option}: {exc}") from exc


def _settings(config: Config, args: argparse.Namespace) -> MqttSettings:
    from msrecd.config.load import DEFAULT_PATH
    from msrecd.daemon.from_config import mqtt_settings
    from msrecd.mqtt.settings import CREDENTIAL_FILES

    settings = mqtt_settings(config)
    if settings is None:
        raise UsageError(f"{args.config} has no [mqtt]: there is no broker to send a command over")
    if args.config.resolve().is_relative_to(DEFAULT_PATH.parent):  # the service's own: never another broker's
        settings = replace(settings, credential_files=CREDENTIAL_FILES)
    return settings


# --- this device -----------------------------------------------------------------------------------------------------


def _to_this_device(
    config: Config,
    args: argparse.Namespace,
    arguments: Mapping[str, object],
    timeout_s: float,
    problems: list[str],
) -> int | None:
    """Through the local socket; None where the daemon of this configuration does not listen there (`problems`: why)."""
    from msrecd.control.messages import command_path, encode_command
    from msrecd.local.client import LocalDaemon, LocalError
    from msrecd.local.protocol import socket_path

    path = None if args.verb is None else command_path(args.recorder, args.verb)
    try:
        with LocalDaemon() as daemon:
            # Another daemon, perhaps of this name (a copied configuration): its own is reached over its broker.
            if daemon.device_id != config.device.id or not daemon.has_config(args.config):
                problem = f"{socket_path()} is that of another daemon ({daemon.device_id}, {daemon.config})"
                if config.mqtt is None:
                    raise NoAnswerError(f"{problem}, and {args.config} has no [mqtt]")
                problems.append(problem)
                return None
            if path is None:
                return _show_states(config.device.id, daemon.states(timeout_s), args)
            reply = daemon.send(path, encode_command(f"ctl-{secrets.token_hex(8)}", arguments), timeout_s)
    except LocalError as exc:
        raise NoAnswerError(f"{socket_path()}: {exc}") from exc
    except OSError as exc:
        advice = ": be root, or a member of the group msrecd" if isinstance(exc, PermissionError) else ""
        problem = f"{socket_path()}: {exc.strerror or exc}{advice}"
        if config.mqtt is not None:
            problems.append(problem)
            return None
        problem += f"; and {args.config} has no [mqtt]"
        raise NoAnswerError(f"the daemon of this device cannot be reached: {problem}") from exc
    return _show(args, reply)


def _show_states(device_id: str, states: Mapping[str, Any], args: argparse.Namespace) -> int:
    from msrecd.mqtt.ctl import FleetDevice

    prefix = "recorder/"
    recorders = {path.removeprefix(prefix): state for path, state in states.items() if path.startswith(prefix)}
    return _show_devices([FleetDevice(device_id=device_id, availability="online", recorders=recorders)], args)


# --- one device ------------------------------------------------------------------------------------------------------


def _to_device(
    settings: MqttSettings, args: argparse.Namespace, arguments: Mapping[str, object], timeout_s: float
) -> int:
    from msrecd.mqtt.ctl import send_command

    device = args.device or settings.device_id
    reply = send_command(settings, device, args.recorder, args.verb, arguments, timeout_s=timeout_s)
    if reply is None:
        raise NoAnswerError(f"no reply from {device} within {timeout_s:g} s; {_WHO}")
    return _show(args, reply)


def _show(args: argparse.Namespace, reply: Mapping[str, Any]) -> int:
    if args.json:
        print_json(reply)
        return Exit.OK if _is_ok(reply) else Exit.FAILED
    if not _is_ok(reply):
        return error(f"{args.recorder} {args.verb}: {_said(args.verb, reply)}", Exit.FAILED)
    print(f"{args.recorder}: {_said(args.verb, reply)}")
    return Exit.OK


def _is_ok(reply: Mapping[str, Any]) -> bool:
    return reply.get("status") == "ok"


def _said(verb: str, reply: Mapping[str, Any]) -> str:
    """What a reply says, in words."""
    if not _is_ok(reply):
        return _reason(reply.get("error") or {})
    data = reply.get("data") or {}
    recording = f", recording {data['recording_id']}" if data.get("recording_id") else ""
    unchanged = "" if reply.get("changed", True) or verb == "get" else " (nothing to change)"
    wrong = _reason(data.get("error"))
    file = f", {data['file']}" if data.get("file") else ""
    return f"{data.get('state', 'ok')}{recording}{file}{unchanged}{': ' if wrong else ''}{wrong}"


def _reason(problem: object) -> str:
    """The message and code of an error, of a reply or of a state; nothing where there is none."""
    if not isinstance(problem, Mapping):
        return ""
    return f"{problem.get('message', 'failed')} ({problem.get('code', 'internal')})"


# --- many ------------------------------------------------------------------------------------------------------------


def _to_group(
    settings: MqttSettings, args: argparse.Namespace, arguments: Mapping[str, object], timeout_s: float
) -> int:
    from msrecd.mqtt.ctl import fleet_status, send_group

    group = "all" if args.all else args.group
    # Of all, those that are online must answer; the members of a group are not known.
    expect = (
        {device.device_id for device in fleet_status(settings) if device.availability == "online"}
        if args.all
        else set()
    )
    replies = send_group(settings, group, args.recorder, args.verb, arguments, timeout_s=timeout_s, expect=expect)
    silent = sorted(expect - replies.keys())
    if args.json:
        print_json({"replies": replies, "no_reply": silent})
    elif replies:
        rows = [
            (device, "ok" if _is_ok(reply) else "error", _said(args.verb, reply))
            for device, reply in sorted(replies.items())
        ]
        print_table(("DEVICE", "STATUS", ""), rows + [(device, "no reply", "") for device in silent])
    if not replies:
        raise NoAnswerError(f"no reply from group {group} within {timeout_s:g} s; {_WHO}")
    if not all(map(_is_ok, replies.values())):
        return Exit.FAILED
    return Exit.NO_ANSWER if silent else Exit.OK


def _status(settings: MqttSettings, args: argparse.Namespace, timeout_s: float) -> int:
    from msrecd.mqtt.ctl import fleet_status

    devices = fleet_status(settings, timeout_s=timeout_s)
    if not args.all:
        wanted = args.device or settings.device_id
        devices = [device for device in devices if device.device_id == wanted]
        if not devices:
            raise NoAnswerError(f"the broker knows nothing of {wanted}; {_WHO}")
    return _show_devices(devices, args)


def _show_devices(devices: Sequence[FleetDevice], args: argparse.Namespace) -> int:
    if args.json:
        print_json(
            [
                {
                    "device": device.device_id,
                    "availability": device.availability,
                    "recorders": {name: dict(state) for name, state in device.recorders.items()},
                }
                for device in devices
            ]
        )
        return Exit.OK
    if not devices:
        raise NoAnswerError("the broker knows no device")
    rows = [row for device in devices for row in _status_rows(device, datetime.now(UTC))]
    print_table(("DEVICE", "AVAILABLE", "RECORDER", "STATE", "FOR", "CHUNKS", "SIZE", "ERROR"), rows, right=(4, 5, 6))
    return Exit.OK


def _status_rows(device: FleetDevice, now: datetime) -> Sequence[Sequence[object]]:
    if not device.recorders:
        return [(device.device_id, device.availability, "", "", "", "", "", "")]
    return [
        (device.device_id, device.availability, name, *_state_cells(state, now))
        for name, state in sorted(device.recorders.items())
    ]


def _state_cells(state: Mapping[str, Any], now: datetime) -> Sequence[object]:
    """State, since how long, chunks, size, error: what another version leaves out is empty."""
    from msrecd.vocabulary.units import format_duration, format_size

    try:
        age_s = (now - datetime.fromisoformat(str(state.get("since")))).total_seconds()
        length = format_duration(round(max(0.0, age_s)))
    except (ValueError, TypeError, OverflowError):
        length = ""
    size = state.get("bytes")
    return (
        state.get("state", ""),
        length,
        state.get("chunks", ""),
        format_size(size) if isinstance(size, int) else "",
        _reason(state.get("error")),
    )
