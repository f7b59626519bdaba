"""The configuration of one recorder: `[[recorder]]` and the tables below it; see model.py."""

# ruff: noqa: RUF009 - `key` makes a dataclasses.field

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msrecd.config.constraints import Constraints
from msrecd.config.kinds import Duration, FilePath, Flag, Number, Size, Text
from msrecd.config.recorder_tables import AudioFilter, Overlay, Snapshots, TimeLapse
from msrecd.config.tables import ListOf, Table, key
from msrecd.config.trigger_keys import Trigger
from msrecd.vocabulary.names import NAME

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
TrackConstraints = bool | Mapping[str, Any]


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
        "What to record of the stream. A camera that announces sound and never sends any is recorded with silence "
        'and a gap in each chunk: `["video"]` then.',
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
        "Text that is drawn into the frames before they are encoded; costs CPU, much where software encodes then.",
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
