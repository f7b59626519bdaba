"""Constraints and spaces: pure."""

from __future__ import annotations

import math
from typing import Any

import pytest
from recording import run

from msrecd.devices.base import DeviceDescription, VideoMode
from msrecd.devices.virtual import VirtualBackend, VirtualCamera
from msrecd.flow.units import AudioFormat, VideoFormat
from msrecd.media.constraints import Constraint, choose, convert, distance, select_settings
from msrecd.media.devices import MediaDevices
from msrecd.media.space import capabilities, device_space, opening_settings, with_modes


def camera(*modes: tuple[int, int, float], **more: Any) -> DeviceDescription:
    return DeviceDescription(
        kind="video",
        device_id="cam",
        group_id="unit",
        label="Camera",
        driver=more.pop("driver", "virtual"),
        video_modes=tuple(VideoMode(width=w, height=h, frame_rate=r) for w, h, r in modes),
        **more,
    )


def microphone(**more: Any) -> DeviceDescription:
    return DeviceDescription(kind="audio", device_id="mic", group_id="unit", label="Mic", driver="virtual", **more)


def picture(device: DeviceDescription, constraints: dict[str, Any]) -> tuple[int, int, float, str] | str:
    """Width, height, rate and resize mode that are chosen, or what failed."""
    chosen = choose(device_space(device), convert(constraints, "video"))
    if isinstance(chosen, str):
        return chosen
    return chosen["width"], chosen["height"], chosen["frame_rate"], chosen["resize_mode"]


TWO = camera((1280, 720, 30), (640, 480, 60))
NONE, SCALED = "none", "crop-and-scale"


@pytest.mark.parametrize(
    ("constraints", "chosen"),
    [
        ({}, (1280, 720, 30, NONE)),
        ({"width": 640}, (640, 480, 60, NONE)),
        ({"width": 320}, (320, 180, 30, SCALED)),
        ({"width": {"exact": 639}}, (639, 360, 30, SCALED)),
        ({"width": {"max": 700}, "resize_mode": {"exact": NONE}}, (640, 480, 60, NONE)),
        ({"width": 2000}, (1280, 720, 30, NONE)),
        ({"frame_rate": 60}, (640, 480, 60, NONE)),
        ({"frame_rate": 15}, (1280, 720, 15, NONE)),
        ({"frame_rate": 25}, (1280, 720, 30, NONE)),
        ({"frame_rate": {"max": 1}}, (1280, 720, 1, NONE)),
        ({"frame_rate": {"max": 0.1}}, (1280, 720, 0.1, NONE)),
        ({"frame_rate": {"exact": 25}}, "frame_rate"),
        ({"aspect_ratio": {"exact": 1.0}}, (720, 720, 30, SCALED)),
        ({"aspect_ratio": {"exact": 4 / 3}, "width": {"max": 100}}, (100, 75, 30, SCALED)),
        ({"aspect_ratio": 16 / 9, "height": 360}, (640, 360, 30, SCALED)),
        ({"width": {"min": 1281}}, "width"),
        ({"width": {"exact": 1280}, "frame_rate": {"exact": 60}}, "width"),
        ({"advanced": [{"width": 640, "height": 480}]}, (640, 480, 60, NONE)),
        ({"advanced": [{"width": 5000}, {"height": 480}, {"height": 720}]}, (640, 480, 60, NONE)),
        ({"width": {"min": 641}, "advanced": [{"width": 640}]}, (1280, 720, 30, NONE)),
    ],
)
def test_pictures(constraints: dict[str, Any], chosen: tuple[int, int, float, str] | str) -> None:
    assert picture(TWO, constraints) == chosen


def test_camera_with_any_rate() -> None:
    """libcamera sets the frame duration: a mode's rate is its highest."""
    device = camera((1536, 864, 120.13), driver="libcamera")
    assert picture(device, {"frame_rate": {"exact": 25}}) == (1536, 864, 25, NONE)
    assert picture(device, {"frame_rate": 30, "width": 768}) == (768, 432, 30, SCALED)
    assert opening_settings(device, {"width": 768, "height": 432, "frame_rate": 30.0, "resize_mode": SCALED}) == {
        "width": 1536,
        "height": 864,
        "aspect_ratio": 1536 / 864,
        "frame_rate": 30.0,
        "resize_mode": NONE,
    }


def test_opened_camera_limits_the_choice() -> None:
    space = device_space(TWO, VideoFormat(width=640, height=480, frame_rate=60))
    assert choose(space, convert({"width": {"exact": 1280}}, "video")) == "width"
    chosen = choose(space, convert({"width": 1280}, "video"))
    assert isinstance(chosen, dict)
    assert (chosen["width"], chosen["frame_rate"]) == (640, 60)


def test_sound() -> None:
    device = microphone(sample_rates=(48000, 16000), channel_counts=(2, 1), sample_sizes=(16, 32))
    chosen = choose(device_space(device), convert({"channel_count": 1, "sample_rate": {"max": 20000}}, "audio"))
    assert isinstance(chosen, dict)
    assert (chosen["channel_count"], chosen["sample_rate"], chosen["sample_size"]) == (1, 16000, 16)
    opened = device_space(device, AudioFormat(sample_rate=48000, channels=2, sample_format="s32"))
    assert choose(opened, convert({"channel_count": {"exact": 1}}, "audio")) == "channel_count"
    chosen = choose(opened, convert({}, "audio"))
    assert isinstance(chosen, dict)
    assert chosen["sample_size"] == 32
    assert capabilities(device)["sample_rate"] == {"min": 16000, "max": 48000}


@pytest.mark.parametrize(
    ("constraint", "value", "expected"),
    [
        (Constraint(ideal=(100,)), 100, 0.0),
        (Constraint(ideal=(100,)), 50, 0.5),
        (Constraint(ideal=(50,)), 100, 0.5),
        (Constraint(min=10), 5, math.inf),
        (Constraint(max=10), 11, math.inf),
        (Constraint(exact=(10,)), 10, 0.0),
        (Constraint(exact=(10,)), None, math.inf),
        (Constraint(ideal=(10,)), None, 1.0),
        (Constraint(ideal=("a", "b")), "b", 0.0),
        (Constraint(ideal=("a",)), "b", 1.0),
        (Constraint(exact=("a", "b")), "b", 0.0),
        (Constraint(exact=(True,)), False, math.inf),
        (Constraint(exact=(True,)), 3.0, 0.0),
        (Constraint(ideal=(True,)), None, 1.0),
        (Constraint(ideal=(False,)), None, 0.0),
        (Constraint(), None, 0.0),
    ],
)
def test_fitness_distance(constraint: Constraint, value: Any, expected: float) -> None:
    assert distance("width", constraint, {} if value is None else {"width": value}) == expected


@pytest.mark.parametrize(
    ("constraints", "named"),
    [
        ({"width": "wide"}, "width"),
        ({"width": True}, "width"),
        ({"width": {"min": "1"}}, "width.min"),
        ({"width": [1]}, "width"),
        ({"frame_rate": math.nan}, "frame_rate"),
        ({"frame_rate": {"ideal": math.inf}}, "frame_rate.ideal"),
        ({"device_id": 5}, "device_id"),
        ({"device_id": {"exact": ["a", 5]}}, "device_id.exact"),
        ({"advanced": {"width": 1}}, "advanced"),
        ({"advanced": [5]}, r"advanced\[0\]"),
        ({"echo_cancellation": 1}, "echo_cancellation"),
        (5, "constraints"),
    ],
)
def test_wrong_types_are_named(constraints: Any, named: str) -> None:
    with pytest.raises(TypeError, match=f"^{named} must be"):
        convert(constraints, "video")


def test_conversion() -> None:
    sets = convert(
        {
            "width": -5,
            "height": {"max": 99.6},
            "group_id": ["a", "b"],
            "device_id": {"exact": ""},
            "latency": {"max": 0},
        },
        "video",
    )
    assert sets.basic == {
        "width": Constraint(ideal=(0,)),
        "height": Constraint(max=100),
        "group_id": Constraint(ideal=("a", "b")),
    }
    assert convert({"advanced": [{"width": 5}]}, "video").advanced == ({"width": Constraint(exact=(5,))},)


@pytest.mark.promise("unknown-options-warn")
def test_unknown_names_are_ignored_but_said() -> None:
    """One warning each, at the caller's line, with the nearest name; `get_constraints` does not return them."""

    async def scenario() -> None:
        camera = VirtualCamera("camera", modes=[(160, 96, 30)])
        async with MediaDevices(backends=[VirtualBackend([camera])]) as devices:
            wanted: Any = {"video": {"deviceId": {"exact": "x"}, "width": 160, "height": None, "colour": 5}}
            with pytest.warns(UserWarning, match="a track has no constraint") as caught:
                stream = await devices.get_user_media(wanted)
            messages = [str(one.message) for one in caught]
            assert messages == [
                "a track has no constraint 'deviceId'; did you mean device_id?",
                "a track has no constraint 'colour'",
            ]
            assert {one.filename for one in caught} == {__file__}
            (track,) = stream.get_tracks()
            assert track.get_constraints() == {"width": 160}
            with pytest.warns(UserWarning, match="did you mean") as caught:
                await track.apply_constraints({"framerate": 30, "advanced": [{"hight": 96}]})  # type: ignore
            assert len(caught) == 2
            assert {one.filename for one in caught} == {__file__}
            assert track.get_constraints() == {"advanced": [{}]}
            track.stop()

    run(scenario())
    assert convert({"deviceId": {"exact": "x"}, "colour": 5}, "video").basic == {}


CONTROLS = {
    "exposure_time": (1.0, 10_000.0, 200.0),
    "exposure_mode": ("continuous", "manual"),
    "zoom": (1.0, 16.0, 1.0),
    "brightness": (-1.0, 1.0, 0.0),
}


def test_camera_controls() -> None:
    device = camera((640, 480, 30), controls=CONTROLS)
    assert capabilities(device)["exposure_time"] == {"min": 1.0, "max": 10_000.0}
    assert capabilities(device)["exposure_mode"] == ["continuous", "manual"]
    chosen = choose(device_space(device), convert({"exposure_time": 50, "zoom": {"min": 2.5}}, "video"))
    assert isinstance(chosen, dict)
    assert (chosen["exposure_time"], chosen["zoom"], chosen["brightness"]) == (50, 2.5, 0.0)
    assert choose(device_space(device), convert({"zoom": {"exact": 17}}, "video")) == "zoom"
    assert isinstance(choose(device_space(device), convert({"zoom": {"exact": True}}, "video")), dict)
    assert choose(device_space(TWO), convert({"zoom": {"exact": True}}, "video")) == "zoom"


def test_a_value_means_its_mode_is_manual() -> None:
    settings = {"exposure_time": 50, "exposure_mode": "continuous", "zoom": 1.0}
    assert with_modes(settings, CONTROLS, frozenset({"exposure_time"})) == settings | {"exposure_mode": "manual"}
    assert with_modes(settings, CONTROLS, frozenset()) == {"exposure_mode": "continuous", "zoom": 1.0}


def test_distance_decides_between_devices() -> None:
    small, large = camera((320, 240, 30)), camera((1920, 1080, 30))
    sets = convert({"width": 1920}, "video")
    near, far = select_settings(device_space(large), sets), select_settings(device_space(small), sets)
    assert near is not None
    assert far is not None
    assert near.distance == 0
    assert far.distance == pytest.approx(1 - 320 / 1920)
