"""Whatever check-config accepts runs: random configurations, up to the first frames of their recorders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from config_text import toml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import msrecd
from msrecd.config import Config, check, load
from msrecd.daemon.backends import virtual_backend
from msrecd.daemon.checks import config_checks
from msrecd.daemon.from_config import mqtt_settings, recorder_settings
from msrecd.schedule import Planner

NUMBERS = st.one_of(st.integers(1, 4000), st.floats(0.01, 4000, allow_nan=False).map(lambda value: round(value, 3)))
IDEALS = {
    "video": {
        "width": NUMBERS,
        "height": NUMBERS,
        "frame_rate": st.sampled_from([0.0166667, 0.5, 5, 29.97, 30, 240]),
        "aspect_ratio": st.sampled_from([0.5, 1.333, 1.7778]),
        "facing_mode": st.sampled_from(["user", "environment"]),
        "resize_mode": st.sampled_from(["none", "crop-and-scale"]),
        "device_id": st.just({"ideal": "nobody"}),
        "zoom": st.sampled_from([True, 2.0]),
        "torch": st.booleans(),
        "exposure_mode": st.sampled_from(["manual", "continuous"]),
    },
    "audio": {
        "sample_rate": st.sampled_from([8000, 22_050, 44_100, 48_000]),
        "channel_count": st.integers(1, 8),
        "sample_size": st.sampled_from([16, 24, 32]),
        "latency": st.sampled_from([0.01, 0.5]),
        "echo_cancellation": st.sampled_from([True, False, "browser"]),
        "noise_suppression": st.booleans(),
    },
}


def constraints(kind: str) -> st.SearchStrategy[object]:
    ideals = st.fixed_dictionaries({}, optional=IDEALS[kind])  # type: ignore[arg-type]
    return st.one_of(st.just(True), ideals)


STARTS = st.sampled_from(["06:30", "6:30", "30 6 * * mon-fri", "*/5 * * * *", "sunrise-30m", "sunset + 1h"])
MORE = {
    "timezone": st.sampled_from(["Europe/Berlin", "UTC", "Asia/Kathmandu"]),
    "polar": st.sampled_from(["skip", "always"]),
    "unsynchronized": st.sampled_from(["wait", "run"]),
}
SCHEDULES = st.one_of(
    st.fixed_dictionaries(
        {"start": STARTS, "stop": st.sampled_from(["23:30", "sunset+30m", "0 8 * * *"])}, optional=MORE
    ),
    st.fixed_dictionaries(
        {"start": st.just("06:30"), "duration": st.sampled_from(["1s", "90m", "1h30m", "31d"])},
        optional=MORE | {"days": st.lists(st.sampled_from(["mon", "sun"]), min_size=1, unique=True)},
    ),
)
TYPES = st.sampled_from(
    [
        *("", "video/mp4", "audio/mp4", "video/webm", "audio/webm", "video/x-matroska", "audio/ogg", "audio/flac"),
        *("audio/wav", "audio/x-flac", "video/mp4;codecs=avc1", "video/mp4;codecs=hvc1", "video/webm;codecs=vp8,opus"),
        *("video/x-matroska;codecs=mjpeg,pcm", "audio/ogg;codecs=opus", 'video/mp4; codecs="av01, mp4a.40.2"'),
    ]
)
RECORDERS = st.fixed_dictionaries(
    {"audio": constraints("audio")},
    optional={
        "video": constraints("video"),
        "mime_type": TYPES,
        "video_bits_per_second": st.sampled_from([10_000, 500_000, 1_000_000_000]),
        "audio_bits_per_second": st.sampled_from([6_000, 128_000, 10_000_000]),
        "audio_bitrate_mode": st.sampled_from(["variable", "constant"]),
        "video_key_frame_interval_duration": st.sampled_from(["40ms", "2s", "1h"]),
        "timeslice": st.sampled_from(["100ms", "1s", "1m"]),
        "chunk_duration": st.sampled_from(["1s", "1m", "1d"]),
        "chunk_max_size": st.sampled_from(["1MiB", "3.9GiB"]),
        "pre_roll": st.sampled_from(["0s", "5s", "1m"]),
        "max_duration": st.sampled_from(["1s", "3660d"]),
        "retention": st.sampled_from([{}, {"max_total": "1MiB"}, {"max_age": "1m"}]),
        "schedule": st.lists(SCHEDULES, max_size=2),
    },
)
TROMSO = {"latitude": 69.6, "longitude": 18.9}
CONFIGURATIONS = st.fixed_dictionaries(
    {
        "recorder": st.lists(RECORDERS, min_size=1, max_size=2),
        "location": st.just({"latitude": 69.6, "longitude": 18.9}),
    },
    optional={
        "mqtt": st.fixed_dictionaries(
            {"host": st.sampled_from(["localhost", "::1", "[::1]", "broker.lan", "fe80::1%eth0", "192.168.1.4"])},
            optional={"port": st.sampled_from([1, 1883, 65535]), "groups": st.just(["north-field"])},
        ),
        "storage": st.sampled_from([{"path": "r", "max_age": "1m"}, {"path": "/srv/../srv/r", "min_free": "0B"}]),
    },
)


def text(configuration: dict[str, Any]) -> str:
    lines = ["[device]", 'id = "x"', "[devices]", "virtual = true"]
    for name in set(configuration) - {"recorder"}:
        lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in configuration[name].items())]
    for number, recorder in enumerate(configuration["recorder"]):
        lines += ["[[recorder]]", f'name = "r{number}"']
        lines += [f"{key} = {toml(value)}" for key, value in recorder.items() if key != "schedule"]
        for schedule in recorder.get("schedule", []):
            lines += ["[[recorder.schedule]]", *(f"{key} = {toml(value)}" for key, value in schedule.items())]
    return "\n".join(lines) + "\n"


def edge(codec: str, width: int, height: int, frame_rate: int = 30) -> dict[str, Any]:
    """What is at the edge of what an encoder takes, or beyond it."""
    video = {"width": width, "height": height, "frame_rate": frame_rate, "resize_mode": "crop-and-scale"}
    recorder = {"video": video, "audio": False, "mime_type": f"video/x-matroska;codecs={codec}"}
    return {"recorder": [recorder], "location": TROMSO}


async def begin(config: Config) -> None:
    """All that a daemon does with a configuration before a recorder's first frame.

    Raises:
        TypeError, DOMException, ConfigError, ScheduleError: the configuration is at fault.
    """
    if (settings := mqtt_settings(config)) is not None:
        assert settings.effective_port
        assert "[" not in settings.host
    devices = msrecd.MediaDevices(backends=[virtual_backend(config.devices.virtual)])
    try:
        for recorder in config.recorders:
            Planner(recorder.schedules, config.location)
            wanted = recorder_settings(recorder)
            stream = await devices.get_user_media(wanted.constraints)
            made = msrecd.MediaRecorder(stream, wanted.options)
            events: asyncio.Queue[msrecd.Event] = asyncio.Queue()
            made.onstart = made.onerror = events.put_nowait
            made.start(wanted.timeslice_ms)
            if all(track.get_settings().get("frame_rate", 30) > 1 for track in stream.get_tracks()):
                event = await asyncio.wait_for(events.get(), 60)
                assert event.type == "start", (event.error, recorder)  # type: ignore[attr-defined]
            made.stop()
            for track in stream.get_tracks():
                track.stop()
    finally:
        await devices.close()


def test_what_is_accepted_starts(tmp_path: Path) -> None:
    path, accepted = tmp_path / "m.toml", []

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(CONFIGURATIONS)
    @example(edge("av01", 2, 2))
    @example(edge("av01", 1, 640))
    @example(edge("av01", 640, 480, 4000))
    @example(edge("avc1", 1, 1))
    @example(edge("vp8", 1, 1))
    @example(edge("vp09", 3, 1))
    @example(edge("mjpeg", 1, 1))
    def starts(configuration: dict[str, Any]) -> None:
        path.write_text(text(configuration))
        if not check(path, checks=config_checks()):
            accepted.append(1)
            asyncio.run(begin(load(path, checks=config_checks())))

    starts()
    assert len(accepted) >= 15
