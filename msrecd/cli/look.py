"""`msrecd look`: what each track of a recorder is right now.

The daemon is asked through its local socket; where none runs, this command opens the devices itself.
"""

from __future__ import annotations

import argparse
import base64
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msrecd.cli.errors import Exit, NoAnswerError, UsageError
from msrecd.cli.output import print_json
from msrecd.errors import MsrecdError

if TYPE_CHECKING:
    from msrecd.config.model import Config
    from msrecd.config.recorder_model import Recorder

_TIMEOUT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write a JPEG of what the camera sees")
    parser.add_argument(
        "--trigger", action="store_true", help="print what the triggers of the running daemon score, until Ctrl-C"
    )
    parser.add_argument("--looks", metavar="N", type=int, default=0, help="with --trigger: end after so many lines")
    parser.add_argument("recorder", metavar="RECORDER")


def run(args: argparse.Namespace) -> int:
    """0; 1: a device is missing or busy; 2: no such recorder; 3: the daemon does not answer."""
    from msrecd.config.load import load
    from msrecd.daemon.checks import config_checks

    config = load(args.config, checks=config_checks())
    recorder = config.recorder(args.recorder)
    if recorder is None:
        known = ", ".join(one.name for one in config.recorders) or "none"
        raise UsageError(f'there is no recorder "{args.recorder}" (there is: {known})')
    if args.trigger:
        return _follow_triggers(config, recorder, args)
    reply = _ask_daemon(config, args.config, args.recorder, with_jpeg=args.output is not None) or _look(
        config, recorder, args
    )
    if reply["status"] != "ok":
        raise MsrecdError(f"{reply['error']['code']}: {reply['error']['message']}")
    found: dict[str, Any] = reply["data"]
    jpeg = found.pop("jpeg", None)
    if jpeg is not None:
        args.output.write_bytes(base64.b64decode(jpeg))
    if args.json:
        print_json(found)
    else:
        for line in _lines(found):
            print(line)
    return Exit.OK


def _follow_triggers(config: Config, recorder: Recorder, args: argparse.Namespace) -> int:
    """A line for each look: of every trigger the highest score since the line before, and its threshold.

    Raises:
        UsageError: the recorder has no triggers.
        NoAnswerError: no daemon of this configuration runs.
        MsrecdError: the daemon cannot look.
    """
    if not recorder.triggers:
        raise UsageError(f"{recorder.name} has no [[recorder.trigger]]")
    done = 0
    while not args.looks or done < args.looks:
        began_s = time.monotonic()
        reply = _ask_daemon(config, args.config, args.recorder, with_jpeg=args.output is not None)
        if reply is None:
            raise NoAnswerError("no daemon of this configuration runs; on a file: msrecd trigger-test")
        if reply["status"] != "ok":
            raise MsrecdError(f"{reply['error']['code']}: {reply['error']['message']}")
        done += 1
        off = _off_until(config, recorder)
        parts = [_score(trigger, off) for trigger in reply["data"].get("triggers", ())]
        print(f"{time.strftime('%H:%M:%S')}  {'   '.join(parts)}", flush=True)
        if done != args.looks:
            time.sleep(max(0.0, 1.0 - (time.monotonic() - began_s)))
    return Exit.OK


def _off_until(config: Config, recorder: Recorder) -> str:
    """Outside of the windows in which schedules arm the triggers: until when; inside, or without schedules: ""."""
    if not recorder.schedules_that("arm"):
        return ""
    from msrecd.cli.schedule import planner_of

    plan = planner_of(config, recorder.name, "arm").at(datetime.now(UTC))
    if plan.current is not None:
        return ""
    return f"off until {plan.next.start.astimezone():%a %Y-%m-%d %H:%M}" if plan.next is not None else "off"


def _score(trigger: dict[str, Any], off: str) -> str:
    state = "FOUND" if trigger["active"] else "" if trigger["armed"] else off
    threshold = "?" if trigger["threshold"] is None else f"{trigger['threshold']:.1f}"
    return f"{trigger['kind']} {trigger['score']:6.1f} of {threshold} {state:5}"


def problem_by_daemon(config: Config, path: Path, recorder: str) -> str | None:
    """Why the running daemon cannot read a recorder's input, "" where it can; None where none runs. For `doctor`."""
    try:
        reply = _ask_daemon(config, path, recorder, with_jpeg=False)
    except NoAnswerError as exc:
        return f"not asked: {exc}"
    if reply is None or reply["status"] == "ok":
        return None if reply is None else ""
    return str(reply["error"]["message"])


def _ask_daemon(config: Config, path: Path, recorder: str, *, with_jpeg: bool) -> dict[str, Any] | None:
    """The reply of the daemon of this configuration; None where none listens."""
    from msrecd.local.client import LocalDaemon, LocalError
    from msrecd.local.protocol import socket_path

    try:
        with LocalDaemon() as daemon:
            if daemon.device_id != config.device.id or not daemon.has_config(path):
                return None
            return daemon.look(recorder, with_jpeg=with_jpeg, timeout_s=_TIMEOUT_S)
    except LocalError as exc:
        raise NoAnswerError(f"{socket_path()}: {exc}") from exc
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as exc:
        advice = ": be root, or a member of the group msrecd" if isinstance(exc, PermissionError) else ""
        raise NoAnswerError(f"{socket_path()}: {exc.strerror or exc}{advice}") from exc


def _look(config: Config, recorder: Recorder, args: argparse.Namespace) -> dict[str, Any]:
    import asyncio

    from msrecd.daemon.backends import backends_for
    from msrecd.daemon.from_config import recorder_settings
    from msrecd.errors import CommandError
    from msrecd.media.devices import MediaDevices
    from msrecd.recorder.looking import look_at

    async def look() -> dict[str, Any]:
        devices = MediaDevices(backends=backends_for(config))
        try:
            found = await look_at(recorder_settings(recorder), None, devices, with_jpeg=args.output is not None)
            return {"status": "ok", "data": found}
        except CommandError as exc:
            return {"status": "error", "error": {"code": exc.code, "message": exc.message}}
        finally:
            await devices.close()

    return asyncio.run(look())


def _lines(found: dict[str, Any]) -> list[str]:
    lines = []
    for track in found["tracks"]:
        device = f" ({track['device_id']})" if track["device_id"] else ""
        silent = ", gives nothing" if track["muted"] else ""
        lines.append(f"{track['kind']}: {track['label']}{device}{silent}")
        if track["asked"]:
            lines.append(f"  asked for: {_pairs(track['asked'])}")
        lines.append(f"  got: {_pairs(track['settings'])}")
        lines += [
            f"  not met: {entry['constraint']}: {entry['asked']} asked for, {entry['got']} got"
            for entry in track["unmet"]
        ]
        if level := track.get("level"):
            channels = zip(level["rms"], level["peak"], strict=True)
            lines.append("  level: " + "; ".join(f"{rms:.1f} dBFS rms, {peak:.1f} peak" for rms, peak in channels))
        elif track["kind"] == "audio":
            lines.append("  level: no sound came")
    return lines


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in values.items())


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
