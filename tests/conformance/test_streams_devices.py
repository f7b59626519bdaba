"""mediacapture-streams of web-platform-tests: get_user_media and the list of devices; file and subtest are named."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rig import Log, Rig, on_loop, on_rig, turns, until

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone


def resolved(constraints: dict[str, Any]) -> list[dict[str, Any]]:
    """Settings of the tracks that get_user_media gives."""
    found: list[dict[str, Any]] = []

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media(constraints)
        assert {track.kind for track in stream.get_tracks()} == {kind for kind in constraints if constraints[kind]}
        found.extend(track.get_settings() for track in stream.get_tracks())

    on_rig(run)
    return found


def overconstrained(constraints: dict[str, Any]) -> str:
    """The constraint that get_user_media blames; nothing may stay open."""
    found: list[str] = []

    async def run(rig: Rig) -> None:
        with pytest.raises(msrecd.OverconstrainedError) as caught:
            await rig.devices.get_user_media(constraints)
        assert isinstance(caught.value, msrecd.DOMException)
        assert caught.value.name == "OverconstrainedError"
        await until(lambda: not rig.microphone.is_open and not rig.camera.is_open)
        found.append(caught.value.constraint)

    on_rig(run)
    return found[0]


@pytest.mark.parametrize("argument", [{}, None, {"doesnotexist": True}, {"video": False, "audio": None}])
def test_nothing_asked_for_is_a_type_error(argument: Any) -> None:
    """GUM-empty-option-param, GUM-unknownkey-option-param."""

    async def run(rig: Rig) -> None:
        with pytest.raises(TypeError):
            await rig.devices.get_user_media(argument)

    on_rig(run)


@pytest.mark.parametrize("property", ["width", "height", "frame_rate"])
@pytest.mark.parametrize("limits", [{"max": 0}, {"max": -1}, {"min": 100, "max": 10}, {"min": 100_000_000}])
def test_impossible_constraint(property: str, limits: dict[str, int]) -> None:
    """GUM-impossible-constraint."""
    assert overconstrained({"video": {property: limits}, "audio": True}) == property


def test_invalid_facing_mode() -> None:
    """GUM-invalid-facing-mode."""
    assert overconstrained({"video": {"facing_mode": {"exact": ""}}}) == "facing_mode"


@pytest.mark.parametrize(
    "constraints",
    [
        {"audio": {"width": {"min": 0}, "frame_rate": {"min": 0}}},
        {
            "audio": {
                "width": {"min": 100_000_000},
                "height": {"max": 0},
                "facing_mode": {"exact": "invalid"},
                "resize_mode": {"exact": "invalid"},
            }
        },
        {"video": {"sample_rate": {"min": 0}}},
        {
            "video": {
                "echo_cancellation": {"exact": True},
                "latency": {"max": 0},
                "channel_count": {"max": 0},
                "sample_size": {"exact": 7},
            }
        },
    ],
)
def test_constraints_of_the_other_kind_are_ignored(constraints: dict[str, Any]) -> None:
    """GUM-non-applicable-constraint."""
    assert len(resolved(constraints)) == 1


def test_constraints_that_no_track_has_are_ignored() -> None:
    """GUM-non-applicable-constraint; one warning says so."""
    with pytest.warns(UserWarning, match="no constraint '(volume|voice_isolation)'"):
        assert len(resolved({"video": {"volume": {"min": 0}, "voice_isolation": True}})) == 1


def test_impossible_advanced_set_is_skipped() -> None:
    """GUM-optional-constraint."""
    assert resolved({"video": {"advanced": [{"width": {"min": 1024, "max": 800}}]}})[0]["width"] == 640


def test_required_with_ideal() -> None:
    """GUM-required-constraint-with-ideal-value."""
    settings = resolved({"video": {"width": {"ideal": 160, "min": 80}}})[0]
    assert settings["width"] == 160
    assert type(settings["width"]) is int


def test_trivial_constraint() -> None:
    """GUM-trivial-constraint."""
    assert resolved({"video": {"width": {"min": 0}}})[0]["width"] == 640


def test_echo_cancellation() -> None:
    """GUM-echoCancellation-boolean, -all: there is none, and it says so."""
    assert resolved({"audio": {"echo_cancellation": {"exact": False}}})[0]["echo_cancellation"] is False
    for wanted in (True, "all", "remote-only"):
        assert overconstrained({"audio": {"echo_cancellation": {"exact": wanted}}}) == "echo_cancellation"


@pytest.mark.parametrize(
    "constraints",
    [{"video": "yes"}, {"video": {"width": "wide"}}, {"video": {"width": {"min": "x"}}}, {"audio": 1}, []],
)
def test_wrong_types(constraints: Any) -> None:
    """Types as WebIDL has them, without its conversions from strings."""

    async def run(rig: Rig) -> None:
        with pytest.raises(TypeError):
            await rig.devices.get_user_media(constraints)

    on_rig(run)


def test_resize_modes() -> None:
    """MediaDevices-getUserMedia: resizeMode none, crop-and-scale, with downscaling, with decimation, invalid."""
    assert resolved({"video": {"resize_mode": {"exact": "none"}}})[0]["resize_mode"] == "none"
    scaled = {"resize_mode": {"exact": "crop-and-scale"}}
    assert resolved({"video": scaled})[0] | {"device_id": "", "group_id": ""} == {
        "device_id": "",
        "group_id": "",
        "width": 640,
        "height": 360,
        "aspect_ratio": 640 / 360,
        "frame_rate": 30.0,
        "resize_mode": "crop-and-scale",
    }
    assert resolved({"video": scaled | {"width": {"max": 30}}})[0]["width"] <= 30
    assert resolved({"video": scaled | {"frame_rate": {"max": 5}}})[0]["frame_rate"] <= 5
    assert overconstrained({"video": {"resize_mode": {"exact": "INVALID"}}}) == "resize_mode"


def test_constraints_that_fail_together() -> None:
    """overconstrained_error: a size that is not native, without scaling, blames the size."""
    assert overconstrained({"video": {"width": {"exact": 639}, "resize_mode": {"exact": "none"}}}) == "width"
    assert isinstance(msrecd.OverconstrainedError("constraint"), msrecd.DOMException)


def test_group_id_selects() -> None:
    """MediaDevices-getUserMedia: groupId for video and for audio devices."""

    async def run(rig: Rig) -> None:
        infos = await rig.devices.enumerate_devices()
        for kind, wanted in (("video", "videoinput"), ("audio", "audioinput")):
            groups = {info.group_id for info in infos if info.kind == wanted}
            for group in {info.group_id for info in infos}:
                request = rig.devices.get_user_media({kind: {"group_id": {"exact": group}}})
                if group in groups:
                    assert (await request).get_tracks()[0].get_settings()["group_id"] == group
                else:
                    with pytest.raises(msrecd.OverconstrainedError) as caught:
                        await request
                    assert caught.value.constraint == "group_id"

    on_rig(run)


def test_device_id_selects_and_settings_report_it() -> None:
    """MediaStreamTrack-getSettings: deviceId and groupId are correctly reported for all input devices."""

    async def run(rig: Rig) -> None:
        for info in await rig.devices.enumerate_devices():
            kind = "video" if info.kind == "videoinput" else "audio"
            stream = await rig.devices.get_user_media({kind: {"device_id": {"exact": info.device_id}}})
            (track,) = stream.get_tracks()
            settings = track.get_settings()
            assert (settings["device_id"], settings["group_id"]) == (info.device_id, info.group_id)
            assert info.device_id
            assert info.group_id
            assert track.label == info.label
            assert track.get_capabilities() == info.get_capabilities()  # type: ignore[attr-defined]

    on_rig(run)


def test_list_of_devices() -> None:
    """MediaDevices-enumerateDevices, -returned-objects: order, types, new objects with equal content."""

    async def run(rig: Rig) -> None:
        first, second = await rig.devices.enumerate_devices(), await rig.devices.enumerate_devices()
        assert [info.kind for info in first] == ["audioinput", "videoinput", "videoinput"]
        assert [info.label for info in first] == ["Voice", "Front", "Back"]
        assert [info.to_json() for info in first] == [info.to_json() for info in second]
        assert set(first[0].to_json()) == {"device_id", "kind", "label", "group_id"}
        for one, two in zip(first, second, strict=True):
            assert one is not two
            assert isinstance(one, msrecd.InputDeviceInfo)
            assert isinstance(one, msrecd.MediaDeviceInfo)
        assert len({info.device_id for info in first}) == 3
        with pytest.raises(AttributeError):
            first[0].label = "other"  # type: ignore[misc]

    on_rig(run)


def test_ids_are_the_same_for_everybody() -> None:
    """MediaDevices-enumerateDevices-per-origin-ids: stable over MediaDevices objects."""

    async def run() -> None:
        ids = []
        for _ in range(2):
            async with msrecd.MediaDevices(
                backends=[VirtualBackend([VirtualCamera("A"), VirtualMicrophone("A")])]
            ) as d:
                ids.append([info.device_id for info in await d.enumerate_devices()])
        assert ids[0] == ids[1]
        assert len(set(ids[0])) == 2

    on_loop(run)


def test_supported_constraints() -> None:
    """MediaDevices-getSupportedConstraints."""
    names = (
        "width height aspect_ratio frame_rate facing_mode resize_mode sample_rate sample_size echo_cancellation"
        " auto_gain_control noise_suppression latency channel_count device_id group_id"
    )
    of_image_capture = (
        "brightness color_temperature contrast exposure_compensation exposure_mode exposure_time focus_distance"
        " focus_mode iso pan saturation sharpness tilt torch white_balance_mode zoom"
    )
    devices = msrecd.MediaDevices(backends=[])
    expected = dict.fromkeys([*names.split(), *of_image_capture.split()], True)
    assert devices.get_supported_constraints() == expected
    devices.close()


def test_closed_devices() -> None:
    """MediaDevices-after-discard: InvalidStateError, and the tracks have ended without an event."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media({"video": True, "audio": True})
        log = Log().on(stream.get_tracks()[0], "ended")
        await rig.devices.close()
        assert not stream.active
        assert not rig.camera.is_open
        for call in (rig.devices.enumerate_devices(), rig.devices.get_user_media({"video": True})):
            with pytest.raises(msrecd.InvalidStateError):
                await call
        await turns()
        assert log.types == []

    on_rig(run)


def test_no_device() -> None:
    """No web-platform-test: a kind without devices is NotFoundError, and nothing stays open."""

    async def run() -> None:
        camera = VirtualCamera("A")
        async with msrecd.MediaDevices(backends=[VirtualBackend([camera])]) as devices:
            with pytest.raises(msrecd.NotFoundError):
                await devices.get_user_media({"video": True, "audio": True})
            assert not camera.is_open

    on_loop(run)


def test_denied_and_failed_devices() -> None:
    """GUM-deny, and NotReadableError: all or nothing; nothing is open afterwards."""

    async def run() -> None:
        camera, microphone = VirtualCamera("A"), VirtualMicrophone("A")
        async with msrecd.MediaDevices(backends=[VirtualBackend([camera, microphone])]) as devices:
            camera.deny()
            with pytest.raises(msrecd.NotAllowedError):
                await devices.get_user_media({"video": True, "audio": True})
            await until(lambda: not microphone.is_open)
            camera.plug()
            camera.fail()
            with pytest.raises(msrecd.NotReadableError):
                await devices.get_user_media({"video": True, "audio": True})
            await until(lambda: not microphone.is_open)
            camera.plug()
            assert (await devices.get_user_media({"video": True, "audio": True})).active

    on_loop(run)


def test_next_device_when_one_cannot_be_read() -> None:
    """get_user_media step 6: another device that satisfies the constraints is taken; none is when one is named."""

    async def run(rig: Rig) -> None:
        rig.camera.fail()
        stream = await rig.devices.get_user_media({"video": True})
        assert stream.get_tracks()[0].label == "Back"
        with pytest.raises(msrecd.NotReadableError):
            await rig.devices.get_user_media({"video": {"device_id": {"exact": rig.camera.device_id}}})

    on_rig(run)


def test_parallel_requests() -> None:
    """parallel-capture-requests: two at once both succeed, on one opened device."""

    async def run(rig: Rig) -> None:
        first, second = await asyncio.gather(*(rig.devices.get_user_media({"video": True}) for _ in range(2)))
        one, two = first.get_tracks()[0], second.get_tracks()[0]
        assert one is not two
        assert one._source is two._source

    on_rig(run)


def test_device_change() -> None:
    """No web-platform-test: DeviceChangeEvent with the new list and what was plugged in."""

    async def run(rig: Rig) -> None:
        log = Log().on(rig.devices, "devicechange")
        await rig.devices.enumerate_devices()
        rig.other.unplug()
        gone = await log.wait("devicechange")
        assert gone.is_trusted
        assert isinstance(gone, msrecd.DeviceChangeEvent)
        assert [info.label for info in gone.devices] == ["Voice", "Front"]
        assert gone.user_inserted_devices == ()
        assert [(info.label, info.state) for info in await rig.devices.known_devices()] == [
            ("Voice", "free"),
            ("Front", "free"),
            ("Back", "missing"),
        ]
        rig.other.plug()
        back = await log.wait("devicechange", 2)
        assert [info.label for info in back.user_inserted_devices] == ["Back"]

    on_rig(run)


def test_handler_and_no_legacy() -> None:
    """GUM-api, historical."""
    devices = msrecd.MediaDevices(backends=[])
    assert devices.ondevicechange is None
    with pytest.raises(TypeError):
        devices.ondevicechange = "no function"
    for name in ("onactive", "oninactive", "onended", "stop"):
        assert not hasattr(msrecd.MediaStream, name)
    devices.close()
