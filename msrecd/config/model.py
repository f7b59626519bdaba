"""The configuration as the program uses it: one frozen dataclass for each table, one field for each key.

Attributes are named like the keys, with the unit where the value has one: `chunk_duration = "60s"` is
`chunk_duration_s`, `chunk_max_size` is `chunk_max_size_bytes`. Arrays of tables are plural: `[[recorder]]` is
`recorders`. The descriptions are the manual's (`docs/configuration.md`).
"""

# ruff: noqa: RUF009 - `key` makes a dataclasses.field

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from msrecd.config.constraints import Constraints, DeviceId
from msrecd.config.kinds import (
    Duration,
    FilePath,
    Flag,
    FlagOr,
    ListOf,
    Number,
    Size,
    Table,
    Text,
    key,
)
from msrecd.config.offload_table import Offload
from msrecd.config.overlay_keys import Overlay
from msrecd.config.recorder_tables import AudioFilter, Snapshots, TimeLapse
from msrecd.config.trigger_keys import Trigger
from msrecd.vocabulary.names import NAME
from msrecd.vocabulary.verbs import VERBS

_NAME = Text(
    pattern=NAME,
    form="a name of a-z, 0-9 and -, 1 to 63 characters, with a letter or digit at both ends",
    max_length=63,
)
_DAY_S = 86_400.0
_YEAR_S = 366 * _DAY_S
_TIB = 2**40
_MIB = 2**20
CHUNK_MAX_SIZE_BYTES = round(3.9 * 2**30)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SIGNALS = ("beep", "tone", "silence")
TrackConstraints = bool | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """[device]: who this machine is on the broker."""

    id: str = key(
        _NAME,
        "The device's name in all MQTT topics and its client id at the broker; also its user name there, where "
        "there is a password and no `mqtt.username`.",
        default="",
        default_doc='"pi-" and 8 hex digits made from /etc/machine-id',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualDevice:
    """One entry of `devices.virtual`: a camera with `modes`, or a microphone with the other keys."""

    kind: Literal["camera", "microphone"] = key(Text(choices=("camera", "microphone")), "What it plays.")
    label: str = key(Text(max_length=64), "Its name; the device id is made from kind and label.")
    group_id: str | None = key(
        Text(max_length=64), "Equal for devices of one physical unit.", default=None, default_doc="its own"
    )
    modes: tuple[tuple[int, int, int], ...] = key(
        ListOf(item=ListOf(item=Number(minimum=1, maximum=16384), max_items=3), max_items=32),
        "Camera: native modes as [width, height, frame rate], the default one first.",
        default=((1280, 720, 30),),
    )
    sample_rate: int = key(
        Number(minimum=8000, maximum=192_000), "Microphone: samples in a second of each channel.", default=48000
    )
    channels: int = key(Number(minimum=1, maximum=32), "Microphone: number of channels.", default=2)
    signal: Literal["beep", "tone", "silence"] = key(
        Text(choices=SIGNALS),
        "Microphone: a beep on each whole second, a steady 440 Hz tone, or silence.",
        default="beep",
    )
    ppm: float = key(
        Number(minimum=-1000, maximum=1000, fractions=True),
        "Microphone: how fast (+) or slow (-) its sample clock runs, in parts per million.",
        default=0.0,
    )


VIRTUAL_PAIR = (
    VirtualDevice(kind="camera", label="Virtual Camera"),
    VirtualDevice(kind="microphone", label="Virtual Microphone"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """[devices]: devices beyond those found on the machine."""

    virtual: tuple[VirtualDevice, ...] = key(
        FlagOr(other=ListOf(item=Table(model=VirtualDevice), max_items=16), yes=VIRTUAL_PAIR, no=()),
        "Cameras and microphones without hardware, for trying out and tests; true adds one of each.",
        default=(),
        default_doc="`false`",
    )
    alsa: tuple[str, ...] = key(
        ListOf(item=Text(max_length=128), max_items=16),
        'ALSA PCMs to offer as microphones by name, like "dsnoop:CARD=Device"; cards of the machine are found without.',
        default=(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """[[camera]]: properties of one camera, whichever recorder uses it."""

    device_id: str | Mapping[str, Any] = key(
        DeviceId(), "Which camera: its id, or its label as { label = ... }; `msrecd devices` shows both."
    )
    hflip: bool = key(Flag(), "Mirror the frames left to right.", default=False)
    vflip: bool = key(Flag(), "Mirror the frames top to bottom; with `hflip`: upside down.", default=False)
    rotation: Literal[0, 90, 180, 270] = key(
        Number(minimum=0, maximum=270),
        "Degrees clockwise by which a frame must be turned to stand upright: 0, 90, 180 or 270. What the camera cannot "
        "turn is written as the file's display matrix.",
        default=0,
    )
    tuning_file: str | None = key(
        Text(max_length=1024),
        'Tuning file of libcamera, like "imx219_noir.json".',
        default=None,
        default_doc="the sensor's usual one",
    )
    autofocus: Literal["continuous", "manual"] | None = key(
        Text(choices=("continuous", "manual")),
        "How a camera with a lens motor focuses.",
        default=None,
        default_doc='"continuous"',
    )
    focus_distance: float | None = key(
        Number(minimum=0.01, maximum=1000, fractions=True),
        'Metres; with `autofocus = "manual"`.',
        default=None,
        default_doc="none",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mqtt:
    """[mqtt]: the broker. Without this table there is none; recording never depends on one."""

    host: str = key(Text(max_length=253), "Host name or address of the broker.", default="localhost")
    port: int = key(Number(minimum=1, maximum=65535), "Its port.", default=0, default_doc="1883, with TLS 8883")
    username: str | None = key(
        Text(max_length=256),
        "User name at the broker.",
        default=None,
        default_doc="`device.id` with a password; without one, none: anonymous",
    )
    password_file: Path | None = key(
        FilePath(),
        "File with the password in its first line; readable by the service's user only.",
        default=None,
        default_doc="the systemd credential `mqtt-password`, if there is one",
    )
    ca_file: Path | None = key(
        FilePath(),
        "Certificates (PEM) of the authorities that the broker's certificate is checked against.",
        default=None,
        default_doc="the system's",
    )
    cert_file: Path | None = key(
        FilePath(), "This device's own certificate (PEM) for the broker.", default=None, default_doc="none"
    )
    key_file: Path | None = key(FilePath(), "The key (PEM) of `cert_file`.", default=None, default_doc="in `cert_file`")
    allow_plaintext: bool = key(
        Flag(),
        "TLS is on whenever `host` is not this machine; true switches it off. Then everybody on the network can read "
        "the password and forge commands.",
        default=False,
    )
    groups: tuple[str, ...] = key(
        ListOf(item=_NAME), "Groups whose commands this device obeys too; every device is in `all`.", default=()
    )
    allow_verbs: tuple[str, ...] = key(
        ListOf(item=Text(choices=VERBS)), "The commands that are obeyed over MQTT.", default=VERBS, default_doc="all"
    )
    command_max_age_s: float = key(
        Duration(minimum=1, maximum=_DAY_S),
        "A command whose `issued_at` is older is refused as `expired`, once the clock is trusted.",
        default=60.0,
    )
    keepalive_s: float = key(
        Duration(minimum=5, maximum=3600),
        "A broken connection is noticed after about one and a half times this.",
        default=30.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """[web]: the page in a browser. Without this table nothing listens."""

    listen: str = key(
        Text(max_length=256),
        'Where the page is to be had: "host:port", "[::]:port" or "unix:/path"; a socket of systemd named `web` takes '
        "its place. Other machines reach it only at an address of the network, which needs `password_file`.",
        default="127.0.0.1:8080",
    )
    password_file: Path | None = key(
        FilePath(),
        "File with the hash of the operator's password, made by `msrecd web-password`; readable by the service's user "
        "only.",
        default=None,
        default_doc="none: whoever reaches the address is the operator",
    )
    viewer_password_file: Path | None = key(
        FilePath(),
        "The same for a second password, with which one may look and listen, and nothing else.",
        default=None,
        default_doc="none",
    )
    cert_file: Path | None = key(
        FilePath(), "Certificate (PEM) of the page: TLS.", default=None, default_doc="none: plain HTTP"
    )
    key_file: Path | None = key(FilePath(), "The key (PEM) of `cert_file`.", default=None, default_doc="in `cert_file`")
    metrics: bool = key(Flag(), "Give `/metrics` (Prometheus text format) without a login.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """[storage]: where recordings lie and how much of them is kept."""

    path: Path = key(FilePath(), "Folder of the recordings.", default=Path("/var/lib/msrecd/recordings"))
    max_total_bytes: int | None = key(
        Size(minimum=_MIB, maximum=1024 * _TIB),
        "All recordings together take at most this much; the oldest chunks are deleted first.",
        default=None,
        default_doc="no limit",
    )
    max_age_s: float | None = key(
        Duration(minimum=60, maximum=100 * _YEAR_S),
        "Chunks are deleted when older.",
        default=None,
        default_doc="no limit",
    )
    min_free_bytes: int | None = key(
        Size(minimum=0, maximum=1024 * _TIB),
        "The oldest chunks are deleted when less is free on the file system.",
        default=None,
        default_doc="no limit",
    )
    sync_interval_s: float = key(
        Duration(minimum=0.1, maximum=60), "At most this much finished media may be lost to a power cut.", default=2.0
    )
    state_path: Path = key(
        FilePath(),
        "Folder of the event spool, the index and the boot counter.",
        default=Path(),  # the loader puts in the folder that belongs to the file
        default_doc="/var/lib/msrecd/state for a configuration below /etc/msrecd, else the folder `state` beside the "
        "configuration",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """[location]: where the device stands, for sunrise and sunset. It is never sent anywhere."""

    latitude: float = key(Number(minimum=-90, maximum=90, fractions=True), "Degrees, north positive.")
    longitude: float = key(Number(minimum=-180, maximum=180, fractions=True), "Degrees, east positive.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeAssistant:
    """[homeassistant]: entities that appear by themselves."""

    discovery: bool = key(Flag(), "Publish discovery messages for Home Assistant.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """recorder.source: a file or a network stream instead of devices; what is encoded passes through untouched."""

    url: str = key(
        Text(max_length=2048),
        "URL with the scheme rtsp, rtsps, http, https, rtmp, srt, udp or file, or an absolute path.",
    )
    loop: bool = key(Flag(), "Begin again at the end of a file.", default=False)
    transport: Literal["auto", "tcp", "udp"] = key(
        Text(choices=("auto", "tcp", "udp")),
        'How RTSP sends media: "auto" tries TCP, then UDP.',
        default="auto",
    )
    tracks: tuple[str, ...] = key(
        ListOf(item=Text(choices=("audio", "video")), min_items=1, max_items=2),
        "What to record of the stream.",
        default=(),
        default_doc="all that it has",
    )
    timeout_s: float = key(
        Duration(minimum=1, maximum=600), "A network stream that is silent for this long has ended.", default=10.0
    )
    user: str | None = key(
        Text(max_length=256),
        "User name, instead of one in the URL; `password_file` needs one of them.",
        default=None,
        default_doc="that of `url`",
    )
    password_file: Path | None = key(
        FilePath(),
        "File with the password in its first line; readable by the service's user only.",
        default=None,
        default_doc="the password in `url`",
    )
    redirects: Literal["same-host", "any"] = key(
        Text(choices=("same-host", "any")),
        "Where a server, or an HLS playlist, may send msrecd; the password goes to no other host.",
        default="same-host",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """recorder.retention: limits of this recorder alone, besides those of [storage]."""

    max_total_bytes: int | None = key(
        Size(minimum=_MIB, maximum=1024 * _TIB),
        "This recorder's recordings take at most this much.",
        default=None,
        default_doc="no limit",
    )
    max_age_s: float | None = key(
        Duration(minimum=60, maximum=100 * _YEAR_S),
        "This recorder's chunks are deleted when older.",
        default=None,
        default_doc="no limit",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """[[recorder.schedule]]: windows in which the recorder records."""

    start: str = key(
        Text(max_length=256, is_time=True),
        'When windows begin: "06:30" each day, "sunrise-30m", "sunset+1h", or five cron fields, '
        'like "30 6 * * mon-fri".',
    )
    stop: str | None = key(
        Text(max_length=256, is_time=True),
        "When they end, in the same forms: at the first such time after the start.",
        default=None,
        default_doc="none: give `duration`",
    )
    duration_s: float | None = key(
        Duration(minimum=1, maximum=31 * _DAY_S),
        "How long they last, in elapsed time, instead of `stop`.",
        default=None,
        default_doc="none: give `stop`",
    )
    days: tuple[str, ...] = key(
        ListOf(item=Text(choices=DAYS), max_items=7),
        "Local days on which windows begin; not together with a cron `start`, which has its own.",
        default=DAYS,
        default_doc="all",
    )
    timezone: str | None = key(
        Text(max_length=64), 'Name of the time zone, like "Europe/Berlin".', default=None, default_doc="the system's"
    )
    unsynchronized: Literal["wait", "run"] = key(
        Text(choices=("wait", "run")),
        'While the clock is not synchronized: "wait" lets windows wait for it, for 5 minutes if the date can be true, '
        'else until it can; "run" believes the clock as it is.',
        default="wait",
    )
    action: Literal["record", "arm"] = key(
        Text(choices=("record", "arm")),
        'What happens in the windows: "record" records, "arm" lets the triggers of the recorder begin recordings. '
        'Where there is a schedule with "arm", triggers are off outside of its windows; without one they are always '
        "on.",
        default="record",
    )
    polar: Literal["skip", "always"] = key(
        Text(choices=("skip", "always")),
        'On days without sunrise or sunset, when `start` or `stop` names one: "skip" leaves the window out, "always" '
        "takes midnight instead, for `start` the one before, for `stop` the one after.",
        default="skip",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """[[recorder]]: which devices, which format, which chunks, and when."""

    name: str = key(_NAME, "Names the recorder in topics and the folder of its recordings.")
    video: TrackConstraints = key(
        Constraints(kind="video", example_text="{ width = 1920, height = 1080 }"),
        "The camera: true takes the default one, a table of MediaTrackConstraints chooses.",
        default=False,
    )
    audio: TrackConstraints = key(
        Constraints(kind="audio", example_text='{ device_id = "..." }'),
        "The microphone: true takes the default one, a table of MediaTrackConstraints chooses.",
        default=False,
    )
    source: Source | None = key(
        Table(model=Source),
        "A file or network stream instead of `video` and `audio`.",
        default=None,
        default_doc="none",
    )
    mime_type: str = key(
        Text(max_length=256),
        'Format and codecs of the chunks, like "video/mp4" or "audio/ogg;codecs=opus".',
        default="",
        default_doc='"video/mp4"; "audio/mp4" without video',
    )
    video_bits_per_second: int | None = key(
        Number(minimum=10_000, maximum=1_000_000_000),
        "Target bit rate of video.",
        default=None,
        default_doc="by size and rate",
    )
    audio_bits_per_second: int | None = key(
        Number(minimum=6_000, maximum=10_000_000),
        "Target bit rate of audio.",
        default=None,
        default_doc="by codec and channels",
    )
    audio_bitrate_mode: Literal["variable", "constant"] = key(
        Text(choices=("variable", "constant")),
        "Whether the bit rate of audio may follow the sound.",
        default="variable",
    )
    video_key_frame_interval_duration_s: float | None = key(
        Duration(minimum=0.04, maximum=3600),
        "A key frame at least this often; chunks are cut at key frames.",
        default=None,
        default_doc="the encoder's choice",
    )
    timeslice_s: float = key(
        Duration(minimum=0.1, maximum=60), "Media is handed to the file system in pieces of this length.", default=0.25
    )
    chunk_duration_s: float = key(
        Duration(minimum=1, maximum=_DAY_S), "A chunk is finished and the next begun after this time.", default=60.0
    )
    chunk_max_size_bytes: int = key(
        Size(minimum=_MIB, maximum=CHUNK_MAX_SIZE_BYTES),
        "A chunk is finished early before it grows larger; files of FAT file systems end at 4 GiB.",
        default=CHUNK_MAX_SIZE_BYTES,
    )
    pre_roll_s: float = key(
        Duration(minimum=0, maximum=60),
        "A recording begins with this much from before the start. The inputs are held open while nothing is recorded "
        "(`armed` in the state): costs power, and memory up to 64 MiB (`pre_roll_bytes` in `state/health`).",
        default=0.0,
    )
    audio_filters: tuple[AudioFilter, ...] = key(
        ListOf(item=Table(model=AudioFilter), max_items=16),
        "Filters of this recorder's sound, in order; others on the same microphone do not hear them. Behind them the "
        "sound has 16 bits.",
        default=(),
    )
    snapshots: Snapshots | None = key(
        Table(model=Snapshots), "JPEG files at intervals or times, beside the chunks.", default=None, default_doc="none"
    )
    overlay: Overlay | None = key(
        Table(model=Overlay),
        "Text that is drawn into the frames before they are encoded. The camera's own encoder is not used then: it "
        "costs CPU.",
        default=None,
        default_doc="none",
    )
    time_lapse: TimeLapse | None = key(
        Table(model=TimeLapse),
        "One frame an interval, played faster than it was captured: of a camera, without sound and `pre_roll`. The "
        "camera's own encoder is not used then.",
        default=None,
        default_doc="none",
    )
    autostart: bool = key(Flag(), "Record from the start of the service.", default=False)
    max_duration_s: float | None = key(
        Duration(minimum=1, maximum=10 * _YEAR_S),
        "Dead-man limit: a recording is stopped after this time, whatever started it.",
        default=None,
        default_doc="no limit",
    )
    retention: Retention = key(
        Table(model=Retention), "Limits of this recorder alone.", default=Retention, default_doc="those of `[storage]`"
    )
    schedules: tuple[Schedule, ...] = key(
        ListOf(item=Table(model=Schedule)), "Windows in which it records.", default=(), name="schedule"
    )
    triggers: tuple[Trigger, ...] = key(
        ListOf(item=Table(model=Trigger), max_items=8),
        "What makes it begin by itself. The inputs are held open while nothing is recorded (`armed` in the state).",
        default=(),
        name="trigger",
    )

    def schedules_that(self, action: Literal["record", "arm"]) -> tuple[Schedule, ...]:
        """Those whose windows do this."""
        return tuple(schedule for schedule in self.schedules if schedule.action == action)

    @property
    def has_video(self) -> bool:
        """Whether video is asked for; of a source it is only known when it plays."""
        return self.video is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration. `hash` is the same for files that mean the same."""

    config_version: Literal[1] = key(Number(minimum=1, maximum=1), "Version of this format.", default=1)
    device: Device = key(Table(model=Device), "Who this machine is.", default=Device)
    devices: Devices = key(Table(model=Devices), "Devices beyond those found on the machine.", default=Devices)
    mqtt: Mqtt | None = key(Table(model=Mqtt), "The broker.", default=None, default_doc="no broker")
    web: Web | None = key(Table(model=Web), "The page.", default=None, default_doc="no page")
    storage: Storage = key(Table(model=Storage), "Where recordings lie and how much is kept.", default=Storage)
    offload: Offload | None = key(
        Table(model=Offload), "A store to which finished files go.", default=None, default_doc="none"
    )
    location: Location | None = key(
        Table(model=Location), "Where the device stands.", default=None, default_doc="not known"
    )
    homeassistant: HomeAssistant = key(Table(model=HomeAssistant), "Home Assistant discovery.", default=HomeAssistant)
    cameras: tuple[Camera, ...] = key(
        ListOf(item=Table(model=Camera), max_items=16),
        "Properties of cameras, whichever recorder uses them.",
        default=(),
        name="camera",
    )
    recorders: tuple[Recorder, ...] = key(
        ListOf(item=Table(model=Recorder)), "The recorders.", default=(), name="recorder"
    )

    @property
    def hash(self) -> str:
        """sha256 (hex) of the content: the order of keys and the way of writing do not count. No secret is in it."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def recorder(self, name: str) -> Recorder | None:
        """The recorder of that name."""
        return next((recorder for recorder in self.recorders if recorder.name == name), None)
