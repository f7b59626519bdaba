"""The device list as the daemon publishes it: state/devices, event/device and `msrecd devices`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from msrecd.control import payloads
from msrecd.control.bus import Bus
from msrecd.media.devices import MediaDevices

log = logging.getLogger(__name__)


async def device_list(devices: MediaDevices) -> list[dict[str, Any]]:
    """Each device with its capabilities and `state`: free, busy, or missing (it was here before)."""
    found = []
    for info in await devices.known_devices():
        entry: dict[str, Any] = dict(info.to_json())
        entry["capabilities"] = info.get_capabilities()
        entry["state"] = str(info.state)
        entry["driver"] = info.driver
        if info.detail:
            entry["detail"] = info.detail
        found.append(entry)
    return found


def changes(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(added or removed, device) from one list to the next."""
    old = {device["device_id"]: device for device in before if device["state"] != "missing"}
    new = {device["device_id"]: device for device in now if device["state"] != "missing"}
    return [("removed", old[id_]) for id_ in old if id_ not in new] + [
        ("added", new[id_]) for id_ in new if id_ not in old
    ]


class DeviceWatch:
    """Publishes the devices and what is plugged in or out. Lives on the loop."""

    def __init__(self, devices: MediaDevices, bus: Bus, stamp: Callable[[], str], looked: Callable[[], None]) -> None:
        """`looked` is called after every look: a recorder may wait for what has come."""
        self._devices = devices
        self._bus = bus
        self._stamp = stamp
        self._looked = looked
        self._known: list[dict[str, Any]] | None = None
        self._lock = asyncio.Lock()

    async def look(self) -> list[dict[str, Any]]:
        """Publish the list and what has changed; the list."""
        async with self._lock:  # the answers of two looks at a time could come in the wrong order
            now = await device_list(self._devices)
            before, self._known = self._known, now
            if now != before:
                self._bus.set_state("devices", now)
            for event_type, device in changes(before, now) if before is not None else []:
                log.info("%s %s %s", device["kind"], device["label"], event_type)
                self._bus.emit("device", payloads.device_event(event_type, device, self._stamp()))
        self._looked()
        return now
