"""What MediaDevices knows of a backend, and a backend of a device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from msrecd.flow.source import Source
from msrecd.flow.units import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMode:
    """A native mode of a camera: what it delivers without scaling or decimation; frame_rate is its highest."""

    width: int
    height: int
    frame_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDescription:
    """One device as its backend found it.

    device_id: stable over processes, boots and re-plugs, unique per kind, hashed (no serial number shows).
    group_id: equal for devices of one physical unit.
    video_modes: native modes of a camera, best (default) first.
    sample_rates, channel_counts, sample_sizes: of a microphone, default first.
    latency_s: of a microphone: (smallest, largest).
    controls: camera controls under their W3C image-capture names in snake_case: name -> (min, max, default)
        or tuple of strings.
    state: "free" or "busy" ("missing" is what MediaDevices calls a device that it knew and that is gone).
    driver: "libcamera", "alsa", "virtual"; address: what the backend opens it by; detail: facts for `msrecd devices`.
    """

    kind: Kind
    device_id: str
    group_id: str
    label: str
    driver: str
    address: str = ""
    facing_mode: Literal["user", "environment", "left", "right"] | None = None
    video_modes: tuple[VideoMode, ...] = ()
    sample_rates: tuple[int, ...] = (48000,)
    channel_counts: tuple[int, ...] = (2,)
    sample_sizes: tuple[int, ...] = (16,)
    latency_s: tuple[float, float] = (0.01, 0.5)
    controls: Mapping[str, Any] = field(default_factory=dict)
    state: Literal["free", "busy"] = "free"
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraProperties:
    """A `[[camera]]` table: what holds for one camera, whoever records it. `device_id` or `label` names the camera.

    hflip, vflip: mirror the frames; both turn them upside down.
    rotation: degrees clockwise by which a frame must be turned to stand upright. 180 is done by the camera; 90 and 270
        become the display matrix of the file.
    tuning_file: of libcamera; a path, or a name in the folder of libcamera's own ("imx219_noir.json").
    autofocus: None is "continuous" where there is a lens motor. focus_distance: metres; needs "manual".
    """

    device_id: str | None = None
    label: str | None = None
    hflip: bool = False
    vflip: bool = False
    rotation: Literal[0, 90, 180, 270] = 0
    tuning_file: str | None = None
    autofocus: Literal["continuous", "manual"] | None = None
    focus_distance: float | None = None

    @property
    def is_hflipped(self) -> bool:
        """Whether the camera mirrors its frames left to right: a turn by 180 degrees is both flips."""
        return self.hflip != (self.rotation == 180)

    @property
    def is_vflipped(self) -> bool:
        """Whether the camera mirrors its frames top to bottom."""
        return self.vflip != (self.rotation == 180)

    @property
    def display_rotation(self) -> Literal[0, 90, 270]:
        """What is left for the player to turn."""
        return 0 if self.rotation == 180 else self.rotation


def properties_of(cameras: Sequence[CameraProperties], *, device_id: str, label: str) -> CameraProperties:
    """The properties of a camera: those given by its id, else those given by its label, else none at all."""
    for camera in cameras:
        if camera.device_id == device_id:
            return camera
    return next((camera for camera in cameras if camera.label == label), CameraProperties())


class Backend(Protocol):
    """A family of devices. All methods block and are called in worker threads, with a deadline; `watch` on the loop."""

    name: str

    def describe(self) -> list[DeviceDescription]:
        """All devices present, the default of each kind first; a bad one is left out and logged."""

    def open(self, device: DeviceDescription, settings: Mapping[str, Any]) -> Source:
        """Open the device in the native mode nearest to `settings` (W3C names in snake_case: width, height, frame_rate,
        sample_rate, channel_count, sample_size, …) that is not smaller; scaling down is done by whoever records.

        Raises:
            NotFoundError: it is gone. NotAllowedError: access denied.
            NotReadableError: busy (the message names the holder) or faulty.
            AbortError: anything else.
        """

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed()` from any thread when `describe()` may have a new answer, until `close()`."""

    def close(self) -> None:
        """Stop watching; opened sources stay open."""


def stable_id(*parts: str) -> str:
    """An identifier that is the same in every process and tells nothing: 32 hex digits of a hash over `parts`."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16, person=b"msrecd-device").hexdigest()
