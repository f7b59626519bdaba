"""Configurations of daemons under test, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

VIRTUAL = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[320, 240, 30], [640, 360, 30]] },
  { kind = "microphone", label = "Test Microphone", signal = "beep" },
]
"""


def configuration(
    folder: Path,
    *,
    port: int | None,
    recorders: str,
    storage: str = "",
    more: str = VIRTUAL,
    groups: Sequence[str] = (),
) -> str:
    """A configuration whose recordings and state lie below `folder`; without a port, without a broker."""
    mqtt = "" if port is None else "[mqtt]\n" + _lines({"host": "127.0.0.1", "port": port, "groups": groups})
    return f"""config_version = 1
[device]
id = "test-device"
{mqtt}
[storage]
path = "{folder / "recordings"}"
state_path = "{folder / "state"}"
{storage}
{more}
{recorders}
"""


def recorder(name: str, **keys: object) -> str:
    """A `[[recorder]]` with these keys and no others."""
    return "\n[[recorder]]\n" + _lines({"name": name} | keys)


def camera(name: str = "cam0", *, frame_rate: int = 30, **keys: object) -> str:
    """A recorder of small pictures, in short chunks; `keys` are added or replace what is here."""
    picture = {"width": 320, "height": 240, "frame_rate": frame_rate}
    usual = {"video": picture, "mime_type": "video/mp4", "timeslice": "500ms", "chunk_duration": "2s"}
    return recorder(name, **usual | keys)


def microphone(name: str = "mic0", **keys: object) -> str:
    """A recorder of sound alone."""
    return recorder(name, **{"audio": True, "mime_type": "audio/flac", "timeslice": "500ms"} | keys)


def window(**keys: object) -> str:
    """A `[[recorder.schedule]]` of the recorder before it."""
    return "[[recorder.schedule]]\n" + _lines(keys)


def trigger(**keys: object) -> str:
    """A `[[recorder.trigger]]` of the recorder before it."""
    return "[[recorder.trigger]]\n" + _lines(keys)


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def _lines(keys: Mapping[str, object]) -> str:
    return "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())
