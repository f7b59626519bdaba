"""`msrecd record`: one recording without daemon or broker."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import warnings
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msrecd.cli.errors import UsageError

if TYPE_CHECKING:
    from msrecd.recorder.single_file import Recorded

_EXAMPLES = {
    "video": """write for example --video '{"width": 1280, "frame_rate": 30}'""",
    "audio": """write for example --audio '{"device_id": "…"}' with an id of `msrecd devices`""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--video", metavar="JSON", help="MediaTrackConstraints, true or false (default: true if a camera is there)"
    )
    parser.add_argument(
        "--audio", metavar="JSON", help="MediaTrackConstraints, true or false (default: true if a microphone is there)"
    )
    parser.add_argument(
        "--mime-type", metavar="T", help="for example video/webm;codecs=vp9,opus (default: by the extension of OUT)"
    )
    parser.add_argument("--duration", metavar="D", help="for example 10s or 5m (default: until Ctrl-C)")
    parser.add_argument(
        "--source", metavar="URL", help="record a file or network stream (rtsp, http, …) instead of devices"
    )
    parser.add_argument("--virtual", action="store_true", help="record the virtual camera and microphone")
    parser.add_argument("out", metavar="OUT", help="the file to write; must not exist")


def run(args: argparse.Namespace) -> int:
    from msrecd.cli.output import Progress, error, note
    from msrecd.dom.exceptions import DOMException
    from msrecd.vocabulary.formats import TYPE_OF_FILE_NAME
    from msrecd.vocabulary.units import parse_duration

    warnings.showwarning = lambda message, *_: note(str(message))  # a place in the source is nothing to a user
    out = Path(args.out)
    mime_type = args.mime_type or TYPE_OF_FILE_NAME.get(out.suffix.lower())
    if mime_type is None:
        return error(f"OUT: {out.suffix or 'no extension'} is not known; name the type with --mime-type", 2)
    try:
        constraints = {kind: _constraints(kind, getattr(args, kind)) for kind in ("video", "audio")}
        duration_s = None if args.duration is None else parse_duration(args.duration)
    except (TypeError, ValueError) as exc:
        return error(str(exc), 2)
    if duration_s is not None and duration_s <= 0:
        return error("--duration: more than 0 is expected; leave it out to record until Ctrl-C", 2)
    if args.source is not None and (args.virtual or args.video or args.audio):
        return error("--source: records what the input has; leave out --video, --audio and --virtual", 2)
    part = out.with_name(out.name + ".part")
    if out.exists():
        return error(f"{out} exists already", 1)
    if part.exists():
        return error(f"{part} is what an interrupted recording has left: play, rename or remove it, then try again", 1)
    try:
        result = asyncio.run(_record(args, out, mime_type, constraints, duration_s, Progress()))
    except DOMException as exc:
        return error(str(exc), 2 if exc.name in ("NotSupportedError",) else 1)
    except TypeError as exc:
        return error(str(exc), 2)
    except OSError as exc:
        return error(f"{out}: {exc.strerror or exc}", 1)
    if result is None:
        return error("no camera and no microphone found; `msrecd devices` shows what there is, --virtual adds some", 1)
    if not out.exists():
        return error("nothing was recorded: it ended before the first frame or sound came", 1)
    lost = f", {result.dropped} units lost" if result.dropped else ""
    print(f"{out}: {result.duration_s:.2f} s, {result.bytes} bytes, {result.mime_type}{lost}")
    return 0


async def _record(
    args: argparse.Namespace,
    out: Path,
    mime_type: str,
    constraints: dict[str, Any],
    duration_s: float | None,
    progress: Any,
) -> Recorded | None:
    """What was recorded; None when there is no device."""
    from msrecd.daemon.backends import backends_for_command
    from msrecd.media.devices import MediaDevices
    from msrecd.recorder.single_file import record_input, record_to_file

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` wants it to go on
            loop.add_signal_handler(number, stop.set)

    def show(elapsed: float, size: int) -> None:
        total = "" if duration_s is None else f" of {duration_s:.0f} s"
        progress.show(f"recording {elapsed:5.1f} s{total}  {size / 1e6:7.1f} MB")

    how: Any = {"mime_type": mime_type, "duration_s": duration_s, "stop": stop, "progress": show}
    if args.source is not None:
        try:
            return await record_input(args.source, out, **how)
        finally:
            progress.clear()
    devices = MediaDevices(
        backends=backends_for_command(args.config, is_named=args.is_config_named, virtual=args.virtual)
    )
    try:
        kinds = {info.kind for info in await devices.enumerate_devices()}
        wanted = {
            kind: value if value is not None else f"{kind}input" in kinds and _fits(kind, mime_type)
            for kind, value in constraints.items()
        }

        if not any(wanted.values()):
            if not kinds and any(value is None for value in constraints.values()):
                return None
            raise UsageError(_nothing_left(constraints, kinds, mime_type))
        return await record_to_file(devices, wanted, out, **how)
    finally:
        progress.clear()
        await devices.close()


def _nothing_left(constraints: Mapping[str, Any], kinds: Container[str], mime_type: str) -> str:
    reasons = []
    for kind, name in (("video", "camera"), ("audio", "microphone")):
        if constraints[kind] is False:
            reasons.append(f"--{kind} is false")
        elif not _fits(kind, mime_type):
            reasons.append(f"{mime_type} holds no {kind}")
        elif f"{kind}input" not in kinds:
            reasons.append(f"no {name} is found")
    return f"nothing is left to record: {', '.join(reasons)}"


def _fits(kind: str, mime_type: str) -> bool:
    return kind == "audio" or mime_type.startswith("video/")


def _constraints(kind: str, text: str | None) -> Any:
    """
    Raises:
        TypeError: neither an object nor a boolean. ValueError: not JSON.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"--{kind}: not JSON ({exc}); {_EXAMPLES[kind]}") from exc
    if not isinstance(value, (bool, dict)):
        raise TypeError(f"--{kind}: must be an object, true or false; {_EXAMPLES[kind]}")
    return value
