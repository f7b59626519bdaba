"""The direction of imports, and one importer for each vendor library: docs/architecture.md as a test."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import msrecd

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "msrecd"

BASE = {"clock", "errors", "statefolder", "systembus", "tasks", "vocabulary"}
# What the modules of a package may import of msrecd; a package may always import itself.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "vocabulary": {"errors"},
    "tasks": set(),
    "statefolder": set(),
    "systembus": set(),
    "clock": {"errors", "statefolder", "systembus", "vocabulary"},
    "pixels": {"flow"} | BASE,
    "dom": BASE,
    "flow": {"dom"} | BASE,
    "libav": {"flow", "dom", "pixels"} | BASE,
    "inputs": {"libav", "flow", "dom", "pixels"} | BASE,
    "codecs": {"flow", "dom", "libav", "pixels"} | BASE,
    "muxing": {"codecs", "inputs", "flow", "dom", "libav", "pixels"} | BASE,
    "devices": {"flow", "dom", "libav", "pixels"} | BASE,  # libav: JPEGs of USB cameras
    "media": {"inputs", "devices", "muxing", "codecs", "flow", "dom", "libav", "pixels"} | BASE,
    "webaudio": {"media", "codecs", "flow", "dom", "libav", "pixels"} | BASE,
    "rtc": {"media", "muxing", "codecs", "flow", "dom", "libav", "inputs"} | BASE,
    "storage": {"muxing"} | BASE,  # muxing.finish, which completes a file
    "offload": {"storage"} | BASE,
    "schedule": set(BASE),
    "config": set(BASE),
    "triggers": set(),  # arrays and numbers: nothing of msrecd
    "recorder": {"public", "storage", "triggers", "vocabulary"} | BASE,  # public: the names of msrecd.__all__
    "control": {"recorder", "triggers", "media", "schedule", "config", "dom"} | BASE,  # and no transport
    "mqtt": {"control"} | BASE,
    "local": {"control"} | BASE,
    "web": {"control", "recorder", "storage", "public", "media", "muxing", "inputs", "libav"} | BASE,
}
TOP = {"daemon", "cli", "__init__", "__main__"}  # may import all that is below them
ORDER_OF_TOP = ["daemon", "cli"]

# Top-level name of a vendor library -> the one file that imports it, or the one package ("…/").
VENDORS: dict[str, str | tuple[str, ...] | None] = {
    "av": "msrecd/libav/",
    # frames as arrays; arithmetic on sound; arithmetic on both, which only recorders with triggers load
    "numpy": ("msrecd/pixels.py", "msrecd/webaudio/", "msrecd/triggers/"),
    "aiortc": "msrecd/rtc/aio/",
    "aioice": "msrecd/rtc/aio/",
    "alsaaudio": None,
    "picamera2": None,
    "libcamera": None,
    "pyudev": None,
    "paho": None,
    "systemd": None,
    "cronsim": None,
    "astral": None,
    "h11": None,
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def imports_of(path: Path) -> tuple[tuple[str, int, bool], ...]:
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(dotted name, line, only for type checkers) of every import of a module, also those inside functions."""
    tree = ast.parse(path.read_text(), filename=str(path))
    typing_only: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            typing_only.update(id(inner) for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno, id(node) in typing_only
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), node.lineno, False


def package_of(path: Path) -> str:
    """Where a module stands: "media" for msrecd/media/track.py, "clock" for msrecd/clock.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def may_import(importer: str, imported: str) -> bool:
    if importer == imported or imported in {"__version__", "__init__"}:
        return True
    if importer in {"__init__", "__main__"}:
        return True
    if imported in msrecd.__all__:
        imported = "public"
    if importer in ORDER_OF_TOP:
        below = {"public"} | set(ALLOWED) | set(ORDER_OF_TOP[: ORDER_OF_TOP.index(importer)])
        return imported in below
    return imported in ALLOWED[importer]


def test_every_package_has_its_place() -> None:
    unknown = {package_of(path) for path in modules()} - set(ALLOWED) - TOP
    assert not unknown, f"say in this test (and in docs/architecture.md) what {sorted(unknown)} may import"


@pytest.mark.promise("imports-go-down")
def test_imports_go_down_only() -> None:
    wrong = []
    for path in modules():
        for name, line, _ in imports_of(path):
            parts = name.split(".")
            if parts[0] == "msrecd" and len(parts) > 1 and not may_import(package_of(path), parts[1]):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.promise("imports-go-down")
def test_one_importer_for_each_vendor_library(vendor: str) -> None:
    importers = {
        str(path.relative_to(ROOT))
        for path in modules()
        for name, _, typing_only in imports_of(path)
        if name.split(".")[0] == vendor and not typing_only
    }
    place = VENDORS[vendor]
    if place is not None:
        places = (place,) if isinstance(place, str) else place
        strangers = sorted(
            name for name in importers if not any(f"{name}/".startswith(f"{one.rstrip('/')}/") for one in places)
        )
        assert not strangers, f"{vendor} belongs into {place}, not {strangers}"
    else:
        assert len(importers) <= 1, f"{vendor} is imported by {sorted(importers)}"


def test_every_run_time_dependency_is_imported() -> None:
    names = {"paho-mqtt": "paho", "pyalsaaudio": "alsaaudio", "systemd-python": "systemd"}
    wanted = {
        names.get(found := re.match(r"[a-z0-9-]+", entry)[0], found)  # type: ignore[index]
        for entry in tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    imported = {name.partition(".")[0] for path in modules() for name, *_ in imports_of(path)}
    assert wanted <= imported, "a dependency that nothing imports"


def test_the_rules_would_notice(tmp_path: Path) -> None:
    """The walk sees plain, from-, nested and dynamic imports; the rules refuse a way up."""
    module = tmp_path / "m.py"
    module.write_text(
        "import av\nfrom msrecd.media import track\n"
        "def f():\n    import numpy.linalg\n    importlib.import_module('paho')\n"
    )
    assert [name for name, _, _ in imports_of(module)] == ["av", "msrecd.media.track", "numpy.linalg", "paho"]
    assert not may_import("devices", "media")
    assert not may_import("storage", "mqtt")
    assert not may_import("daemon", "cli")
    assert not may_import("recorder", "control")
    assert not may_import("control", "mqtt")
    assert not may_import("recorder", "media")
    assert may_import("recorder", "MediaRecorder")
    assert not may_import("muxing", "MediaRecorder")
    assert may_import("cli", "daemon")
    assert may_import("media", "flow")


def test_the_garbage_collector_runs_no_code_of_ours() -> None:
    """It runs in any thread, also where that one holds a lock: flow/forgotten.py leaves a note for another thread."""
    allowed = {"flow/forgotten.py", "web/recordings.py"}  # the latter closes a file descriptor, which waits for nothing
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(
            r"weakref\.finalize|import finalize|def __del__|weakref\.(ref|proxy)\([^()]*,", path.read_text("utf-8")
        )
    }
    assert found == allowed
