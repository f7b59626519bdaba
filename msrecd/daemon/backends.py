"""Which backends a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msrecd.codecs.parameters import camera_parameters
from msrecd.config.model import VIRTUAL_PAIR, Config, VirtualDevice
from msrecd.devices import default_backends
from msrecd.devices.base import Backend

if TYPE_CHECKING:
    from msrecd.devices.virtual import VirtualBackend


def virtual_backend(devices: Sequence[VirtualDevice]) -> VirtualBackend:
    """The virtual devices of `[devices] virtual`; loaded only where there are any."""
    from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone

    made: list[VirtualCamera | VirtualMicrophone] = []
    for device in devices:
        if device.kind == "camera":
            modes = [(width, height, float(rate)) for width, height, rate in device.modes]
            made.append(VirtualCamera(device.label, modes=modes, group_id=device.group_id))
        else:
            made.append(
                VirtualMicrophone(
                    device.label,
                    sample_rate=device.sample_rate,
                    channels=device.channels,
                    group_id=device.group_id,
                    signal=device.signal,
                    ppm=device.ppm,
                )
            )
    return VirtualBackend(made)


def backends_for(config: Config) -> list[Backend]:
    """Virtual devices first where there are any (so that they are the defaults), then the machine's own."""
    backends: list[Backend] = []
    if config.devices.virtual:
        backends.append(virtual_backend(config.devices.virtual))
    backends.extend(default_backends(alsa_pcms=tuple(config.devices.alsa), camera_parameters=camera_parameters))
    return backends


def backends_for_command(config_path: Path | None, *, virtual: bool = False) -> list[Backend]:
    """For commands without a daemon: the configuration's devices if there is a valid one, else the machine's."""
    from msrecd.config.load import load
    from msrecd.errors import ConfigError

    if virtual:
        return [virtual_backend(VIRTUAL_PAIR)]
    try:
        config = load(config_path) if config_path is not None else None
    except (ConfigError, OSError):
        config = None
    if config is not None:
        return backends_for(config)
    return list(default_backends(camera_parameters=camera_parameters))
