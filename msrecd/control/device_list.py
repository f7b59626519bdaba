"""The device list as the daemon publishes it: state/devices and `msrecd devices`."""

from __future__ import annotations

from typing import Any

from msrecd.media.devices import MediaDevices


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
