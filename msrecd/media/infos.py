"""What enumerate_devices tells of a device (https://w3c.github.io/mediacapture-main/#device-info)."""

from __future__ import annotations

import copy
from typing import Any, Literal

from msrecd.devices.base import DeviceDescription
from msrecd.media.space import capabilities

DeviceKind = Literal["audioinput", "videoinput", "audiooutput"]
DeviceState = Literal["free", "busy", "missing"]


class MediaDeviceInfo:
    """One device, as it was when it was asked for; every call of enumerate_devices makes new ones."""

    __slots__ = ("_device_id", "_group_id", "_kind", "_label")

    def __init__(self, *, device_id: str, group_id: str, kind: DeviceKind, label: str) -> None:
        self._device_id = device_id
        self._group_id = group_id
        self._kind: DeviceKind = kind
        self._label = label

    @property
    def device_id(self) -> str:
        """The same over restarts and re-plugs."""
        return self._device_id

    @property
    def group_id(self) -> str:
        """Equal for the devices of one physical unit."""
        return self._group_id

    @property
    def kind(self) -> DeviceKind:
        return self._kind

    @property
    def label(self) -> str:
        """The name for people."""
        return self._label

    def to_json(self) -> dict[str, str]:
        """The four members."""
        return {"device_id": self.device_id, "kind": self.kind, "label": self.label, "group_id": self.group_id}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._kind} {self._label!r} {self._device_id}>"


class InputDeviceInfo(MediaDeviceInfo):
    """A camera or a microphone."""

    __slots__ = ("_description", "_state")

    def __init__(self, description: DeviceDescription, state: DeviceState | None = None) -> None:
        """
        Args:
            description: as the backend gave it.
            state: if it is another than the backend knows.
        """
        super().__init__(
            device_id=description.device_id,
            group_id=description.group_id,
            kind="videoinput" if description.kind == "video" else "audioinput",
            label=description.label,
        )
        self._description = description
        self._state: DeviceState = state or description.state

    def get_capabilities(self) -> dict[str, Any]:
        """What a track of this device would report as its capabilities."""
        return copy.deepcopy(capabilities(self._description))

    @property
    def state(self) -> DeviceState:
        """Whether it can be opened: "free", "busy" (somebody has it open), "missing" (it was here); an extension."""
        return self._state

    @property
    def driver(self) -> str:
        """Where it comes from: "libcamera", "alsa", "virtual"; an extension."""
        return self._description.driver

    @property
    def detail(self) -> dict[str, Any]:
        """Facts for people, as the driver gave them; an extension."""
        return dict(self._description.detail)
