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

from msrecd.config.constraints import DeviceId
from msrecd.config.kinds import Duration, FilePath, Flag, Number, Size, Text
from msrecd.config.offload_table import Offload
from msrecd.config.recorder_model import Recorder
from msrecd.config.tables import FlagOr, ListOf, Table, key
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
SIGNALS = ("beep", "tone", "silence")


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
        "A command whose `issued_at` is older, or as far ahead, is refused as `expired`, once the clock is trusted.",
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
    max_protected_bytes: int | None = key(
        Size(minimum=_MIB, maximum=1024 * _TIB),
        "At most this much may be protected; what would be more is refused, and recorded without protection.",
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
