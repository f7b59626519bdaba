"""What must hold between the keys of a configuration.

Pure, but for the names of time zones on this machine, and for whether a folder can be where it shall be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from msrecd.config.model import Camera, Config, Mqtt, Storage, VirtualDevice, Web
from msrecd.config.offload_table import check_offload
from msrecd.config.problems import Report, suggestion
from msrecd.config.recorder_model import DAYS, Recorder, Schedule, Source
from msrecd.config.recorder_tables import Snapshots, TimeLapse, check_filters, check_overlay
from msrecd.config.trigger_keys import check_triggers
from msrecd.vocabulary.formats import PASSTHROUGH_ONLY, codec_of, parse_mime_type
from msrecd.vocabulary.listen import parse_listen
from msrecd.vocabulary.secrets import web_password_command
from msrecd.vocabulary.tls import is_loopback

_CLOCK_TIME = re.compile(r"([01]?\d|2[0-3]):[0-5]\d", re.ASCII)
_SUN_TIME = re.compile(r"(sunrise|sunset)\s*([+-].+)?", re.IGNORECASE)
_MIME_TYPE = re.compile(r"\s*(video|audio)/[!#$&^_.+\-0-9a-z]+\s*(;.*)?", re.IGNORECASE)
Judge = Callable[[str], str | None]
FileJudge = Callable[[Path], str | None]
_ALWAYS_ENCODED = ("rtsp", "rtsps", "rtmp", "srt", "udp")  # network streams whose sound passes through in any case
_PSEUDO_FILE_SYSTEMS = (Path("/proc"), Path("/sys"), Path("/dev"))


def _no_opinion(value: object) -> str | None:
    return None


def _no_opinions(*_: object) -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Judges that other packages own: each tells what is wrong with a text, None when nothing is.

    time: `start` and `stop` of a schedule. mime_type: whether it can be recorded. url: whether it can be a source.
    secret_file: a file with a password. hash_file: one with the hash of a password. ca_file: one with certificates.
    certificate: the `cert_file` and `key_file` of the table that is named first; its words begin with the key's name.
    aws_file: one with keys of the AWS tools. rclone_file: rclone's configuration, after the remote that it has to name.
    rclone_place: where a remote ends, by rclone's configuration: remote, that file, prefix, folder of the recordings.
    """

    time: Judge = _no_opinion
    mime_type: Judge = _no_opinion
    url: Judge = _no_opinion
    secret_file: FileJudge = _no_opinion
    hash_file: FileJudge = _no_opinion
    ca_file: FileJudge = _no_opinion
    certificate: Callable[[str, Path, Path | None], str | None] = _no_opinions
    aws_file: FileJudge = _no_opinion
    rclone_file: Callable[[str, Path], str | None] = _no_opinions
    rclone_place: Callable[[str, Path, str, Path], str | None] = _no_opinions


def check_rules(config: Config, report: Report, checks: Checks) -> None:
    """Report what does not go together. Wrong values have been reported before and are replaced by any right one."""
    seen: dict[str, int] = {}
    for i, recorder in enumerate(config.recorders):
        at = f"recorder[{i}]"
        if recorder.name and seen.setdefault(recorder.name, i) != i:
            other = report.place_of(f"recorder[{seen[recorder.name]}]")
            report.add(f"{at}.name", f'"{recorder.name}" is the name of {other} already')
        _check_recorder(recorder, at, report, checks)
        shots = recorder.snapshots
        if shots is not None and shots.at and _SUN_TIME.fullmatch(shots.at.strip()) and config.location is None:
            report.add(f"{at}.snapshots.at", f'"{shots.at}" needs [location] with latitude and longitude')
        for j, schedule in enumerate(recorder.schedules):
            _check_schedule(schedule, f"{at}.schedule[{j}]", config, report, checks)
    cameras: dict[str, int] = {}
    for i, camera in enumerate(config.cameras):
        _check_camera(camera, f"camera[{i}]", cameras, i, report)
    if config.mqtt is not None:
        _check_mqtt(config.mqtt, report, checks)
    if config.web is not None:
        _check_web(config.web, report, checks)
    labels: set[tuple[str, str, str | None]] = set()
    for i, device in enumerate(config.devices.virtual):
        _check_virtual(device, f"devices.virtual[{i}]", labels, report)
    _check_storage(config.storage, report)
    if config.offload is not None:
        check_offload(config.offload, config.storage.path, report, checks)


def _check_storage(storage: Storage, report: Report) -> None:
    total, kept = storage.max_total_bytes, storage.max_protected_bytes
    if total is not None and kept is not None and kept > total and not report.concerns("storage.max_total"):
        report.add("storage.max_protected", "is more than max_total: all may be protected, and then recording stops")
    for at, path in (("storage.path", storage.path), ("storage.state_path", storage.state_path)):
        if not report.concerns(at) and (message := folder_problem(path)):
            report.add(at, message)
    if report.concerns("storage.path") or report.concerns("storage.state_path"):
        return
    if storage.state_path == storage.path or storage.path in storage.state_path.parents:
        report.add("storage.state_path", "must not lie in the folder of the recordings, storage.path")


def folder_problem(path: Path) -> str | None:
    """Why there can never be a folder at `path`; one that is not there yet, or on a drive that is away, may come."""
    for place in (path, *path.parents):
        if place in _PSEUDO_FILE_SYSTEMS and Path("/dev/shm") not in (path, *path.parents):
            return f"{path} lies in {place}, which holds no files; write a folder of a disk"
        if os.path.lexists(place) and not place.is_dir():
            return f"{place} is no folder" if place == path else f"{path} lies below {place}, which is no folder"
    return None


def _check_file(path: Path | None, at: str, judge: FileJudge, report: Report) -> None:
    if path is not None and not report.concerns(at) and (message := judge(path)):
        report.add(at, message)


def _check_certificate(cert: Path | None, key: Path | None, table: str, report: Report, checks: Checks) -> None:
    if cert is None or report.concerns(f"{table}.cert_file") or report.concerns(f"{table}.key_file"):
        return
    if words := checks.certificate(table, cert, key):
        at, _, message = words.partition(": ")
        report.add(at, message)


def _check_recorder(recorder: Recorder, at: str, report: Report, checks: Checks) -> None:
    if recorder.source is not None:
        for name, value in (("video", recorder.video), ("audio", recorder.audio)):
            if value is not False:
                report.add(f"{at}.{name}", "cannot stand together with source; remove one of them")
        _check_source(recorder.source, f"{at}.source", report, checks)
    elif (
        recorder.video is False
        and recorder.audio is False
        and not any(report.concerns(f"{at}.{name}") for name in ("video", "audio", "source"))
        and not report.names(at)
    ):
        report.add(at, "records nothing: give video, audio or source")
    if recorder.snapshots is not None:
        _check_snapshots(recorder.snapshots, recorder, f"{at}.snapshots", report, checks)
    if recorder.overlay is not None:
        _check_overlay(recorder, f"{at}.overlay", report)
    if recorder.time_lapse is not None:
        _check_time_lapse(recorder.time_lapse, recorder, at, report)
    check_triggers(recorder.triggers, recorder, f"{at}.trigger", report)
    for j, schedule in enumerate(recorder.schedules):
        if schedule.action == "arm" and not recorder.triggers and not report.concerns(f"{at}.schedule[{j}].action"):
            report.add(f"{at}.schedule[{j}].action", '"arm" needs a [[recorder.trigger]]')
    if recorder.audio_filters:
        _check_filters(recorder, f"{at}.audio_filters", report)
    if not report.concerns(f"{at}.mime_type"):
        _check_mime_type(recorder, f"{at}.mime_type", report, checks)
    is_judged = report.concerns(f"{at}.timeslice") or report.concerns(f"{at}.chunk_duration")
    if recorder.timeslice_s > recorder.chunk_duration_s and not is_judged:
        report.add(f"{at}.timeslice", "is longer than chunk_duration")


def _check_snapshots(snapshots: Snapshots, recorder: Recorder, at: str, report: Report, checks: Checks) -> None:
    if recorder.video is False and recorder.source is None and not report.concerns(f"{at[: -len('.snapshots')]}.video"):
        report.add(at, "needs video")
    if snapshots.dng and recorder.source is not None and not report.concerns(f"{at}.dng"):
        report.add(f"{at}.dng", "needs the sensor's own frames; a file or network camera gives finished ones only")
    if snapshots.at is not None and snapshots.every_s is not None:
        report.add(f"{at}.at", "cannot stand together with every; remove one of them")
    elif snapshots.at is None or report.concerns(f"{at}.at"):
        return
    elif message := checks.time(snapshots.at) or _time_problem(snapshots.at):
        report.add(f"{at}.at", message)


def _check_overlay(recorder: Recorder, at: str, report: Report) -> None:
    if recorder.overlay is not None:
        check_overlay(recorder.overlay, at, report)
    if recorder.source is not None:
        # What a file or an HTTP server gives is known when it is played: `start` refuses it then.
        mime = parse_mime_type(recorder.mime_type)
        is_encoded = recorder.source.url.partition(":")[0].lower() in _ALWAYS_ENCODED
        if is_encoded and (mime is None or not mime.codecs):
            report.add(
                at, "the video of a network stream passes through as it is encoded; nothing can be drawn into it"
            )
    elif recorder.video is False and not report.concerns(f"{at}"):
        report.add(at, "needs video")


def _check_time_lapse(lapse: TimeLapse, recorder: Recorder, at: str, report: Report) -> None:
    here = f"{at}.time_lapse"
    if recorder.source is not None:
        report.add(here, "is for cameras: the video of a source passes through as it is encoded; remove one of them")
    elif recorder.audio is not False:
        report.add(here, "has no sound; remove audio, or record it with another recorder")
    elif recorder.video is False and not report.concerns(f"{at}.video"):
        report.add(here, "needs video")
    if recorder.pre_roll_s:
        report.add(here, "cannot stand together with pre_roll; remove one of them")
    if lapse.closes_camera and lapse.interval_s < 15 and not report.concerns(f"{here}.interval"):
        report.add(f"{here}.closes_camera", "needs an interval of 15s at least: a camera takes seconds to settle")
    if lapse.closes_camera and recorder.triggers:
        report.add(f"{here}.closes_camera", "leaves nothing for the triggers to look at; remove one of them")
    is_judged = report.concerns(f"{here}.interval") or report.concerns(f"{at}.chunk_duration")
    if lapse.interval_s > recorder.chunk_duration_s and not is_judged:
        report.add(f"{here}.interval", "is longer than chunk_duration")


def _check_filters(recorder: Recorder, at: str, report: Report) -> None:
    check_filters(recorder.audio_filters, at, report)
    if recorder.source is not None:
        # What a file or an HTTP server gives is known when it is played: `start` refuses it then.
        if recorder.source.url.partition(":")[0].lower() in _ALWAYS_ENCODED:
            report.add(at, "the sound of a network stream passes through as it is encoded; filters are for devices")
    elif recorder.audio is False:
        report.add(at, "needs audio")


def _check_source(source: Source, at: str, report: Report, checks: Checks) -> None:
    if not report.concerns(f"{at}.url"):
        is_path = source.url.startswith("/")
        scheme = "" if is_path else source.url.partition(":")[0].lower()
        if not is_path and "://" not in source.url and scheme != "file":
            report.add(f"{at}.url", "takes a URL with its scheme, like rtsp://camera.lan/main, or an absolute path")
        elif message := checks.url(source.url):
            report.add(f"{at}.url", message)
        else:
            _check_source_options(source, scheme, at, report)
    _check_file(source.password_file, f"{at}.password_file", checks.secret_file, report)
    if len(set(source.tracks)) != len(source.tracks) and not report.concerns(f"{at}.tracks"):
        report.add(f"{at}.tracks", "names a kind of track twice")


def _check_source_options(source: Source, scheme: str, at: str, report: Report) -> None:
    is_file = scheme in ("", "file")
    if scheme not in ("rtsp", "rtsps") and source.transport != "auto" and not report.concerns(f"{at}.transport"):
        report.add(f"{at}.transport", "is for RTSP; remove it")
    if (
        scheme in ("", "file", "udp", "srt")
        and source.redirects != "same-host"
        and not report.concerns(f"{at}.redirects")
    ):
        report.add(f"{at}.redirects", "is for HTTP, RTSP and RTMP; remove it")
    if source.loop and not is_file:
        report.add(f"{at}.loop", "is for files; remove it")
    for name, value in (("user", source.user), ("password_file", source.password_file)):
        if is_file and value is not None and not report.concerns(f"{at}.{name}"):
            report.add(f"{at}.{name}", "is for network streams; remove it")
    if is_file or source.password_file is None or report.concerns(f"{at}.user"):
        return
    if source.user is None and not urlsplit(source.url).username:
        report.add(f"{at}.password_file", "needs user, or a user name in url")


def _check_camera(camera: Camera, at: str, seen: dict[str, int], number: int, report: Report) -> None:
    if isinstance(camera.device_id, str):
        name = f'id "{camera.device_id}"'
    else:
        name = f'label "{camera.device_id.get("label")}"'
    if not report.concerns(f"{at}.device_id") and seen.setdefault(name, number) != number:
        other = report.place_of(f"camera[{seen[name]}]")
        report.add(f"{at}.device_id", f"the camera with the {name} has its properties in {other} already")
    if camera.rotation not in (0, 90, 180, 270):
        report.add(f"{at}.rotation", f"{camera.rotation} is not 0, 90, 180 or 270")
    if camera.focus_distance is not None and camera.autofocus != "manual" and not report.concerns(f"{at}.autofocus"):
        report.add(f"{at}.focus_distance", 'needs autofocus = "manual"')


def _check_mime_type(recorder: Recorder, at: str, report: Report, checks: Checks) -> None:
    text = recorder.mime_type
    if not _MIME_TYPE.fullmatch(text):
        report.add(at, f'"{text}" is not a MIME type of video or audio; write for example "video/mp4"')
    elif recorder.has_video and text.strip().lower().startswith("audio/"):
        report.add(at, f'"{text}" cannot hold video; take a type that begins with "video/", or video = false')
    elif message := checks.mime_type(text):
        report.add(at, message)
    elif recorder.source is None and (codecs := _only_passed_through(text)):
        report.add(at, f"{', '.join(codecs)} is recorded only as a source delivers it; devices need another codec")


def _only_passed_through(mime_type: str) -> list[str]:
    """The codecs of a type that are never encoded here."""
    mime = parse_mime_type(mime_type)
    named = [] if mime is None else [(name, codec_of(name)) for name in mime.codecs]
    return [name for name, codec in named if codec is not None and codec[0] in PASSTHROUGH_ONLY]


def _check_schedule(schedule: Schedule, at: str, config: Config, report: Report, checks: Checks) -> None:
    if (schedule.stop is None) == (schedule.duration_s is None) and not report.names(at):
        report.add(at, "needs either stop or duration" + ("" if schedule.stop is None else ", not both"))
    for name, text in (("start", schedule.start), ("stop", schedule.stop)):
        if text is None or report.concerns(f"{at}.{name}"):
            continue
        message = checks.time(text) or _time_problem(text)
        if message is not None:
            report.add(f"{at}.{name}", message)
        elif _SUN_TIME.fullmatch(text.strip()) and config.location is None:
            report.add(f"{at}.{name}", f'"{text}" needs [location] with latitude and longitude')
    if len(schedule.start.split()) == 5 and set(schedule.days) != set(DAYS):
        report.add(f"{at}.days", "cannot stand together with a cron start, whose fifth field names the days")
    if not schedule.days and not report.concerns(f"{at}.days"):
        report.add(f"{at}.days", "must not be empty")
    if schedule.timezone is not None and not report.concerns(f"{at}.timezone"):
        _check_timezone(schedule.timezone, f"{at}.timezone", report)


def _time_problem(text: str) -> str | None:
    """What a look at the form of a time finds; whoever owns the schedules judges more closely."""
    plain = text.strip()
    if _CLOCK_TIME.fullmatch(plain) or _SUN_TIME.fullmatch(plain) or len(plain.split()) == 5:
        return None
    return (
        f'"{text}" is not a time; write "06:30", "sunrise-30m", "sunset+1h" or five cron fields like "30 6 * * mon-fri"'
    )


def _check_timezone(name: str, at: str, report: Report) -> None:
    import zoneinfo  # here: with sysconfig, which it loads, it is a quarter of a megabyte

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(zoneinfo.available_timezones())
        report.add(at, f'"{name}" is not a time zone of this machine{suggestion(name, known)}')


def _check_mqtt(mqtt: Mqtt, report: Report, checks: Checks) -> None:
    _check_file(mqtt.password_file, "mqtt.password_file", checks.secret_file, report)
    _check_file(mqtt.ca_file, "mqtt.ca_file", checks.ca_file, report)
    _check_certificate(mqtt.cert_file, mqtt.key_file, "mqtt", report, checks)
    if mqtt.key_file is not None and mqtt.cert_file is None:
        report.add("mqtt.key_file", "needs mqtt.cert_file")
    if mqtt.allow_plaintext and (mqtt.ca_file or mqtt.cert_file):
        report.add("mqtt.allow_plaintext", "switches TLS off, but ca_file or cert_file asks for it; remove one of them")
    if "all" in mqtt.groups:
        report.add("mqtt.groups", '"all" has every device already; remove it')
    if any(char.isspace() or char in "/@?#" for char in mqtt.host) or (":" in mqtt.host and not _is_ipv6(mqtt.host)):
        report.add(
            "mqtt.host", f'"{mqtt.host}" is not a host name; write only name or address, the port goes to mqtt.port'
        )


def _check_web(web: Web, report: Report, checks: Checks) -> None:
    is_local = True
    if not report.concerns("web.listen"):
        try:
            is_local = parse_listen(web.listen).is_local
        except ValueError as exc:
            report.add("web.listen", str(exc))
    _check_file(web.password_file, "web.password_file", checks.hash_file, report)
    _check_file(web.viewer_password_file, "web.viewer_password_file", checks.hash_file, report)
    _check_certificate(web.cert_file, web.key_file, "web", report, checks)
    if web.password_file is None and not report.concerns("web.password_file"):
        if not is_local:
            report.add(
                "web.password_file",
                f"is missing: {web.listen} can be reached from the network; make a file with: "
                + web_password_command("FILE"),
            )
        elif web.viewer_password_file is not None:
            report.add("web.viewer_password_file", "needs password_file: without it everybody is the operator")
    if web.key_file is not None and web.cert_file is None:
        report.add("web.key_file", "needs web.cert_file")


def _is_ipv6(host: str) -> bool:
    return is_loopback(host) or (bool(re.fullmatch(r"\[?[0-9a-fA-F:.]+(%\w+)?\]?", host)) and host.count(":") >= 2)


def _check_virtual(device: VirtualDevice, at: str, labels: set[tuple[str, str, str | None]], report: Report) -> None:
    if device.label and (device.kind, device.label, device.group_id) in labels:
        report.add(
            f"{at}.label",
            f'"{device.label}" is the label of another virtual {device.kind}; give another label or another group_id',
        )
    labels.add((device.kind, device.label, device.group_id))
    if not device.modes and device.kind == "camera":
        report.add(f"{at}.modes", "must not be empty")
    for i, mode in enumerate(device.modes):
        if report.concerns(f"{at}.modes[{i}]"):
            continue
        if len(mode) != 3:
            report.add(f"{at}.modes[{i}]", "takes three numbers: width, height, frame rate")
        elif mode[0] % 2 or mode[1] % 2 or mode[0] < 64 or mode[1] < 32:
            report.add(f"{at}.modes[{i}]", "width and height must be even, 64 x 32 or larger")
