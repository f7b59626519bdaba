"""Which backends a configuration asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msrecd.codecs.parameters import camera_parameters
from msrecd.config.model import VIRTUAL_PAIR, Camera, Config, VirtualDevice
from msrecd.devices import default_backends
from msrecd.devices.base import Backend, CameraProperties

if TYPE_CHECKING:
    from msrecd.devices.virtual import VirtualBackend


log = logging.getLogger(__name__)


def virtual_backend(devices: Sequence[VirtualDevice], cameras: Sequence[CameraProperties] = ()) -> VirtualBackend:
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
    return VirtualBackend(made, cameras=cameras)


def backends_for(config: Config) -> list[Backend]:
    """Virtual devices first where there are any (so that they are the defaults), then the machine's own."""
    cameras = [camera_properties(camera) for camera in config.cameras]
    backends: list[Backend] = []
    if config.devices.virtual:
        backends.append(virtual_backend(config.devices.virtual, cameras))
    backends.extend(
        default_backends(alsa_pcms=tuple(config.devices.alsa), camera_parameters=camera_parameters, cameras=cameras)
    )
    return backends


def camera_properties(camera: Camera) -> CameraProperties:
    """A `[[camera]]` table as devices take it."""
    named = {"device_id": camera.device_id} if isinstance(camera.device_id, str) else camera.device_id
    return CameraProperties(
        device_id=named.get("device_id"),
        label=named.get("label"),
        hflip=camera.hflip,
        vflip=camera.vflip,
        rotation=camera.rotation,
        tuning_file=camera.tuning_file,
        autofocus=camera.autofocus,
        focus_distance=camera.focus_distance,
    )


def backends_for_command(config_path: Path, *, is_named: bool, virtual: bool = False) -> list[Backend]:
    """For commands without a daemon: the devices of the configuration; those of the machine where it cannot be used.

    Args:
        is_named: a person named the file; otherwise it is the usual one, which may be absent.
        virtual: the virtual pair instead.

    Raises:
        ConfigError: a file that was named cannot be used.
    """
    from msrecd.config.load import load
    from msrecd.daemon.checks import config_checks
    from msrecd.errors import ConfigError

    config = None
    if is_named or (config_path.exists() and not virtual):
        try:
            config = load(config_path, checks=config_checks())
        except ConfigError as exc:
            if is_named:
                raise
            first, *others = str(exc).splitlines()
            more = f" (and {len(others)} more)" if others else ""
            log.warning("%s is ignored; the devices of [devices] are missing: %s%s", config_path, first, more)
    if virtual:
        return [virtual_backend(VIRTUAL_PAIR)]
    return list(default_backends(camera_parameters=camera_parameters)) if config is None else backends_for(config)
