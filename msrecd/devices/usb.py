"""Where on the USB a device sits: names that are the same after a reboot, and equal for the parts of one physical unit.

A card's number says in which order devices were found. The way through hubs and ports says which one it is. The number
of the bus is given in the order of discovery too and is left out, as libcamera leaves it out of its camera ids; the
firmware's name of the host controller (device tree or ACPI) takes its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_DUMMY_SERIALS = re.compile(r"(.)\1*|0123456789.*|1234567890?.*|.{0,3}")
_CAMERA_ID = re.compile(r"(?P<ports>[\d.]+):(?P<interface>\d+\.\d+)-(?P<product>[0-9a-f]{4}:[0-9a-f]{4})$")
_DEVICETREE = "/sys/firmware/devicetree"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbIdentity:
    """One USB device.

    controller: firmware name of the host controller ("/base/soc/usb@7e980000"), "" when the firmware names none.
    ports: ports from the controller to the device, "1.3".
    product: "vvvv:pppp" in lower-case hex. serial: as the device tells it, "" when it is none or obviously not one.
    """

    controller: str
    ports: str
    product: str
    serial: str = ""
    name: str = ""

    @property
    def place(self) -> str:
        """Where it is plugged in and what it is; equal for the camera and the microphone of one unit."""
        return f"{self.controller}-{self.ports}-{self.product}"


def identify(sys_device: Path) -> UsbIdentity | None:
    """The USB device to which the sysfs folder `sys_device` (an interface or something below) belongs; None if none."""
    try:
        start = sys_device.resolve(strict=True)
    except OSError:
        return None
    for folder in (start, *start.parents):
        vendor, product = _read(folder / "idVendor"), _read(folder / "idProduct")
        if vendor and product:
            return UsbIdentity(
                controller=_controller(folder),
                ports=folder.name.partition("-")[2],
                product=f"{vendor}:{product}".lower(),
                serial=trusted_serial(_read(folder / "serial")),
                name=_read(folder / "product"),
            )
    return None


def trusted_serial(serial: str) -> str:
    """`serial`, or "" where the maker put in the same for every unit (all zeros, "1234567890", one digit)."""
    return "" if _DUMMY_SERIALS.fullmatch(serial) else serial


def place_of_camera(camera_id: str) -> str | None:
    """What `UsbIdentity.place` is for the camera with libcamera's id, None when it is no USB camera.

    The id is `<controller>-<ports>:<configuration>.<interface>-<vendor>:<product>`
    (libcamera, src/libcamera/pipeline/uvcvideo/uvcvideo.cpp, generateId).
    """
    match = _CAMERA_ID.search(camera_id)
    if match is None:
        return None
    controller = camera_id[: match.start()].removesuffix("-")
    return f"{controller}-{match['ports']}-{match['product']}"


def _controller(device: Path) -> str:
    for folder in device.parents:
        name = _firmware_name(folder)
        if name:
            return name
    return ""


def _firmware_name(folder: Path) -> str:
    """libcamera's sysfs::firmwareNodePath: the device tree's path, else ACPI's."""
    node = folder / "of_node"
    if node.exists():
        return str(node.resolve()).partition(_DEVICETREE)[2] or str(node.resolve())
    return _read(folder / "firmware_node" / "path")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""
