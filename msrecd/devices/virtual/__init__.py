"""Virtual cameras and microphones: devices that need no hardware, with frames and sound a machine can check.

They are part of the product: for trying out a configuration, for other people's tests, for judging a recorder
(frame numbers in the frame, a flash and a beep at every whole second of CLOCK_MONOTONIC).
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msrecd.clock import SYSTEM_CLOCK, Clock
from msrecd.devices.base import CameraProperties, DeviceDescription, VideoMode, properties_of, stable_id
from msrecd.devices.virtual.sources import (
    BLOCKS_PER_SECOND,
    PacedSource,
    VirtualCameraSource,
    VirtualMicrophoneSource,
)
from msrecd.devices.virtual.testframe import SMALLEST
from msrecd.devices.virtual.testsound import Signal
from msrecd.dom.exceptions import NotAllowedError, NotFoundError, NotReadableError
from msrecd.flow.source import Source
from msrecd.flow.units import AudioFormat, Kind, Presentation, VideoFormat

log = logging.getLogger(__name__)

LARGEST_SIDE = 8192
FASTEST = 1000.0  # frames a second
SAMPLE_RATES = (8_000, 192_000)
MOST_CHANNELS = 32
MOST_PPM = 10_000.0


class VirtualDevice(ABC):
    """What virtual cameras and microphones have in common. All methods may be called from any thread.

    One program at a time may have it open, as is usual for real devices.
    """

    kind: Kind

    def __init__(self, label: str, group_id: str | None) -> None:
        if not isinstance(label, str) or not label:
            raise ValueError("label: a virtual device needs a name")
        self.label = label
        self.device_id = stable_id("virtual", self.kind, label)
        self.group_id = group_id or stable_id("virtual group", self.kind, label)
        self._lock = threading.RLock()
        self._source: PacedSource[Any] | None = None
        self._is_plugged = True
        self._is_denied = False
        self._is_faulty = False
        self._is_muted = False
        self._watchers: tuple[Callable[[], None], ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether somebody has opened it and not closed it, and it has not ended by itself."""
        return self._source is not None

    @property
    def is_plugged(self) -> bool:
        """Whether it is on the list of devices."""
        return self._is_plugged

    def unplug(self) -> None:
        """Pull it out: tracks end, it leaves the list of devices."""
        with self._lock:
            was_plugged, self._is_plugged = self._is_plugged, False
            source, self._source = self._source, None
        if source is not None:
            source.terminate(None)
        if was_plugged:
            self._notify_watchers()

    def plug(self) -> None:
        """Put it in again and make all well: no fault, no denial, not muted."""
        with self._lock:
            was_plugged, self._is_plugged = self._is_plugged, True
            self._is_denied = self._is_faulty = False
        self.unmute()
        if not was_plugged:
            self._notify_watchers()

    def mute(self) -> None:
        """Have nothing to give for a while."""
        self._set_muted(True)

    def unmute(self) -> None:
        """Have something to give again."""
        self._set_muted(False)

    def fail(self) -> None:
        """Break: tracks end, it stays on the list, opening it is a NotReadableError until `plug()`."""
        with self._lock:
            self._is_faulty = True
            source, self._source = self._source, None
        if source is not None:
            source.terminate(NotReadableError(f"{self.label} failed while it was read"))

    def deny(self) -> None:
        """Refuse: opening it is a NotAllowedError until `plug()`; who has it open keeps it."""
        with self._lock:
            self._is_denied = True

    @abstractmethod
    def describe(self) -> DeviceDescription:
        """What a backend tells of it."""

    @abstractmethod
    def _make_source(self, settings: Mapping[str, Any], clock: Clock) -> PacedSource[Any]:
        """A source for the settings that come nearest; the caller holds the lock."""

    def open(self, settings: Mapping[str, Any], clock: Clock = SYSTEM_CLOCK) -> Source:
        """Open it; for backends.

        Raises:
            NotFoundError: it is unplugged. NotAllowedError: it is denied. NotReadableError: it is open, or faulty.
        """
        with self._lock:
            if not self._is_plugged:
                raise NotFoundError(f"{self.label} is unplugged")
            if self._is_denied:
                raise NotAllowedError(f"{self.label}: access is denied")
            if self._is_faulty:
                raise NotReadableError(f"{self.label} is faulty")
            if self._source is not None:
                raise NotReadableError(f"{self.label} is busy: this program has it open already")
            self._source = source = self._make_source(settings, clock)
            return source

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed()` whenever it comes or goes; for backends."""
        with self._lock:
            self._watchers = (*self._watchers, changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        """Call `changed()` no more; an unknown one is ignored."""
        with self._lock:
            self._watchers = tuple(known for known in self._watchers if known != changed)

    def _notify_watchers(self) -> None:
        for changed in self._watchers:
            changed()

    def _set_muted(self, muted: bool) -> None:
        with self._lock:
            self._is_muted = muted
            source = self._source
        if source is not None:
            source.set_muted(muted)

    def _release(self, source: PacedSource[Any]) -> None:
        with self._lock:
            if self._source is source:
                self._source = None


class VirtualCamera(VirtualDevice):
    """A camera whose frames carry their number; see `msrecd.devices.virtual.testframe` for what it shows.

    Frames are yuv420p and numbered from 0 since it was opened; one lies on every whole second of CLOCK_MONOTONIC.
    """

    kind: Kind = "video"

    def __init__(
        self,
        label: str = "Virtual Camera",
        modes: Sequence[tuple[int, int, float]] = ((1280, 720, 30),),
        group_id: str | None = None,
    ) -> None:
        """
        Args:
            label: its name; with the kind it gives the device id.
            modes: (width, height, frames a second), the default first.
            group_id: equal for devices of one unit; without it the camera is a unit of its own.

        Raises:
            ValueError: there is no mode, or one is out of range; the message names it.
        """
        super().__init__(label, group_id)
        if not modes:
            raise ValueError("modes: a camera needs at least one (width, height, frame_rate)")
        self.modes = tuple(_checked_mode(index, mode) for index, mode in enumerate(modes))
        self.properties = CameraProperties()

    def describe(self) -> DeviceDescription:
        return DeviceDescription(
            kind=self.kind,
            device_id=self.device_id,
            group_id=self.group_id,
            label=self.label,
            driver="virtual",
            address=self.label,
            video_modes=self.modes,
            state="busy" if self.is_open else "free",
        )

    def _make_source(self, settings: Mapping[str, Any], clock: Clock) -> VirtualCameraSource:
        mode = nearest_mode(self.modes, settings)
        largest = max(self.modes, key=lambda known: known.width * known.height)
        is_larger = largest.width * largest.height > mode.width * mode.height
        source = VirtualCameraSource(
            VideoFormat(
                width=mode.width,
                height=mode.height,
                pixel_format="yuv420p",
                frame_rate=mode.frame_rate,
                presentation=Presentation(rotation=self.properties.display_rotation),
            ),
            label=self.label,
            device_id=self.device_id,
            group_id=self.group_id,
            clock=clock,
            muted=self._is_muted,
            released=lambda: self._release(source),
            hflip=self.properties.is_hflipped,
            vflip=self.properties.is_vflipped,
            still_size=(largest.width, largest.height) if is_larger else None,
        )
        return source


class VirtualMicrophone(VirtualDevice):
    """A microphone that hears a beep every second, a tone or nothing, with a crystal that may be off."""

    kind: Kind = "audio"

    def __init__(
        self,
        label: str = "Virtual Microphone",
        sample_rate: int = 48_000,
        channels: int = 2,
        group_id: str | None = None,
        signal: str = "beep",
        ppm: float = 0.0,
    ) -> None:
        """
        Args:
            label: its name; with the kind it gives the device id.
            sample_rate: samples a second, 8000 to 192000.
            channels: 1 to 32, all with the same sound.
            group_id: equal for devices of one unit; without it the microphone is a unit of its own.
            signal: "beep", "tone" or "silence".
            ppm: how much its sample clock is too fast (+) or too slow (-), at most 10000.

        Raises:
            ValueError: an argument is out of range; the message names it.
        """
        super().__init__(label, group_id)
        if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1] or sample_rate != int(sample_rate):
            raise ValueError(f"sample_rate: {sample_rate} is not a whole number from 8000 to 192000")
        if not 1 <= channels <= MOST_CHANNELS or channels != int(channels):
            raise ValueError(f"channels: {channels} is not a whole number from 1 to {MOST_CHANNELS}")
        try:
            self._signal = Signal(signal)
        except ValueError as exc:
            known = ", ".join(repr(known.value) for known in Signal)
            raise ValueError(f"signal: {signal!r} is none of {known}") from exc
        self.sample_rate = int(sample_rate)
        self.channels = int(channels)
        self._ppm = _checked_ppm(ppm)

    @property
    def signal(self) -> str:
        return self._signal.value

    @property
    def ppm(self) -> float:
        """How much its sample clock is off; may be set while it runs and holds from the next block on."""
        return self._ppm

    @ppm.setter
    def ppm(self, ppm: float) -> None:
        with self._lock:
            self._ppm = _checked_ppm(ppm)
            if isinstance(self._source, VirtualMicrophoneSource):
                self._source.set_ppm(self._ppm)

    def overrun(self, duration_s: float) -> None:
        """Lose the next `duration_s` seconds of sound once, as a card does that nobody reads; nothing if not open.

        Raises:
            ValueError: the duration is not above 0.
        """
        if not duration_s > 0:
            raise ValueError(f"duration_s: {duration_s} is not above 0")
        with self._lock:
            source = self._source
        if isinstance(source, VirtualMicrophoneSource):
            source.overrun(duration_s)

    def describe(self) -> DeviceDescription:
        block_s = 1 / BLOCKS_PER_SECOND
        return DeviceDescription(
            kind=self.kind,
            device_id=self.device_id,
            group_id=self.group_id,
            label=self.label,
            driver="virtual",
            address=self.label,
            sample_rates=(self.sample_rate,),
            channel_counts=(self.channels,),
            sample_sizes=(16,),
            latency_s=(block_s, block_s),
            state="busy" if self.is_open else "free",
            detail={"signal": self.signal, "ppm": self._ppm},
        )

    def _make_source(self, settings: Mapping[str, Any], clock: Clock) -> VirtualMicrophoneSource:
        source = VirtualMicrophoneSource(
            AudioFormat(sample_rate=self.sample_rate, channels=self.channels),
            signal=self._signal,
            ppm=self._ppm,
            label=self.label,
            device_id=self.device_id,
            group_id=self.group_id,
            clock=clock,
            muted=self._is_muted,
            released=lambda: self._release(source),
        )
        return source


class VirtualBackend:
    """The virtual devices of a program, as a `Backend`. The first camera and the first microphone are the defaults."""

    name = "virtual"

    def __init__(
        self,
        devices: Sequence[VirtualDevice] = (),
        clock: Clock = SYSTEM_CLOCK,
        cameras: Sequence[CameraProperties] = (),
    ) -> None:
        """
        Args:
            cameras: what the configuration says of single cameras.

        Raises:
            ValueError: two devices of one kind have the same label and the same group, and so the same device id.
        """
        self.devices = tuple(devices)
        labels = Counter((device.kind, device.label) for device in self.devices)
        for device in self.devices:
            if labels[device.kind, device.label] > 1:  # the group tells them apart, whichever comes first
                device.device_id = stable_id("virtual", device.kind, device.label, device.group_id)
            if isinstance(device, VirtualCamera):
                device.properties = properties_of(cameras, device_id=device.device_id, label=device.label)
        self._clock = clock
        self._changed: Callable[[], None] | None = None
        by_id: dict[tuple[Kind, str], VirtualDevice] = {}
        for device in self.devices:
            if by_id.setdefault((device.kind, device.device_id), device) is not device:
                raise ValueError(
                    f"label: two virtual {device.kind} devices are called {device.label!r} and have the same group_id"
                )
        self._by_id = by_id

    def describe(self) -> list[DeviceDescription]:
        return [device.describe() for device in self.devices if device.is_plugged]

    def open(self, device: DeviceDescription, settings: Mapping[str, Any]) -> Source:
        known = self._by_id.get((device.kind, device.device_id))
        if known is None:
            raise NotFoundError(f"there is no virtual device {device.label!r}")
        return known.open(settings, self._clock)

    def watch(self, changed: Callable[[], None]) -> None:
        self.close()
        self._changed = changed
        for device in self.devices:
            device.watch(changed)

    def close(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            for device in self.devices:
                device.unwatch(changed)


def nearest_mode(modes: Sequence[VideoMode], settings: Mapping[str, Any]) -> VideoMode:
    """The mode with the least to take away among those not smaller than `settings`; where none is, the largest.

    `settings` may have width, height and frame_rate as numbers. What is missing asks for the first mode's.
    """
    first = modes[0]
    width, height, frame_rate = (
        settings.get(name) or fallback for name, fallback in (("width", 0), ("height", 0), ("frame_rate", 0.0))
    )
    if not width and not height and not frame_rate:
        return first
    fitting = [
        mode for mode in modes if mode.width >= width and mode.height >= height and mode.frame_rate >= frame_rate
    ]
    if not width and not height:
        fitting = [mode for mode in fitting if (mode.width, mode.height) == (first.width, first.height)] or fitting
    if not fitting:
        large = [mode for mode in modes if mode.width >= width and mode.height >= height]
        return max(large or modes, key=lambda mode: (mode.frame_rate if large else 0, mode.width * mode.height))
    smallest = min(mode.width * mode.height for mode in fitting)
    same_size = [mode for mode in fitting if mode.width * mode.height == smallest]
    return min(same_size, key=lambda mode: mode.frame_rate if frame_rate else 0.0)


def _checked_mode(index: int, mode: tuple[int, int, float]) -> VideoMode:
    try:
        width, height, frame_rate = mode
    except (TypeError, ValueError) as exc:
        raise ValueError(f"modes[{index}]: {mode!r} is not (width, height, frame_rate)") from exc
    if width != int(width) or height != int(height):
        raise ValueError(f"modes[{index}]: {width}x{height} is not in whole pixels")
    if not (SMALLEST[0] <= width <= LARGEST_SIDE and SMALLEST[1] <= height <= LARGEST_SIDE):
        raise ValueError(
            f"modes[{index}]: {width}x{height} is not from {SMALLEST[0]}x{SMALLEST[1]} to {LARGEST_SIDE}x{LARGEST_SIDE}"
        )
    if not 0.1 <= frame_rate <= FASTEST:
        raise ValueError(f"modes[{index}]: {frame_rate} frames a second are not from 0.1 to {FASTEST:g}")
    return VideoMode(width=int(width), height=int(height), frame_rate=float(frame_rate))


def _checked_ppm(ppm: float) -> float:
    if not -MOST_PPM <= ppm <= MOST_PPM:
        raise ValueError(f"ppm: {ppm} is not from {-MOST_PPM:g} to {MOST_PPM:g}")
    return float(ppm)
