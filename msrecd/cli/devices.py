"""`msrecd devices`: cameras and microphones with ids, labels, capabilities."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--virtual", action="store_true", help="show the virtual camera and microphone")


def run(args: argparse.Namespace) -> int:
    from msrecd.cli.output import print_json, table

    found = asyncio.run(_devices(args))
    if args.json:
        print_json(found)
        return 0
    if not found:
        print("no camera and no microphone found; [devices] virtual = true adds virtual ones")
        return 0
    print(table(["kind", "label", "device_id", "state", "can do"], [_row(device) for device in found]))
    return 0


async def _devices(args: argparse.Namespace) -> list[dict[str, Any]]:
    from msrecd.control.device_list import device_list
    from msrecd.daemon.backends import backends_for_command
    from msrecd.media.devices import MediaDevices

    devices = MediaDevices(
        backends=backends_for_command(args.config, is_named=args.is_config_named, virtual=args.virtual)
    )
    try:
        return await device_list(devices)
    finally:
        await devices.close()


def _row(device: dict[str, Any]) -> list[str]:
    able = device.get("capabilities", {})
    if device["kind"] == "videoinput":
        width, height, rate = able.get("width", {}), able.get("height", {}), able.get("frame_rate", {})
        text = f"up to {width.get('max', '?')}x{height.get('max', '?')} at {rate.get('max', 0):g} fps"
    else:
        rates, channels = able.get("sample_rate", {}), able.get("channel_count", {})
        low, high = rates.get("min", "?"), rates.get("max", "?")
        text = f"{low if low == high else f'{low} to {high}'} Hz, up to {channels.get('max', '?')} channels"
    return [device["kind"], device["label"], device["device_id"], device["state"], text]
