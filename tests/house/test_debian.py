"""What the Debian package says it needs, against what the program imports."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from test_imports import imports_of, modules

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {  # name of the import -> Debian's package
    "alsaaudio": "python3-alsaaudio",
    "aioice": "python3-aiortc",
    "aiortc": "python3-aiortc",
    "astral": "python3-astral",
    "av": "python3-av",
    "cronsim": "python3-cronsim",
    "h11": "python3-h11",
    "libcamera": "python3-picamera2",
    "numpy": "python3-numpy",
    "paho": "python3-paho-mqtt",
    "picamera2": "python3-picamera2",
    "pyudev": "python3-pyudev",
    "systemd": "python3-systemd",
}
OPTIONAL = {"python3-aiortc", "python3-picamera2"}  # imported when used, or where it is a Raspberry Pi


def fields() -> dict[str, set[str]]:
    text = (ROOT / "debian" / "control").read_text()
    found: dict[str, set[str]] = {}
    for name in ("Depends", "Recommends", "Suggests"):
        block = re.search(rf"^{name}:((?:.*\n)(?:[ \t].*\n)*)", text, re.MULTILINE)
        assert block is not None, name
        found[name] = {entry.split()[0] for entry in block[1].split(",") if entry.strip()}
    return found


def imported() -> set[str]:
    found = {name.partition(".")[0] for path in modules() for name, *_ in imports_of(path)}
    return found - set(sys.stdlib_module_names) - {"msrecd"}


def test_everything_that_is_imported_has_a_package() -> None:
    needed = {PACKAGES[name] for name in imported()}
    said = fields()
    assert needed - OPTIONAL <= said["Depends"]
    assert needed & OPTIONAL <= said["Recommends"] | said["Suggests"]


def test_what_a_first_recording_needs_comes_along() -> None:
    """Lite images have no picamera2; a broker of one's own is what the shipped configuration names; TLS has roots."""
    assert {"python3-picamera2", "mosquitto", "ca-certificates"} <= fields()["Recommends"]


def test_the_page_is_in_the_package() -> None:
    assert '"web/static/*"' in (ROOT / "pyproject.toml").read_text()
    assert {path.suffix for path in (ROOT / "msrecd" / "web" / "static").iterdir()} >= {".html", ".js", ".css"}
