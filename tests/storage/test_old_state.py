"""The state folder of the first edition is moved to where it lies now: once, and only that of the same recordings."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from msrecd.config import load
from msrecd.config.model import Config
from msrecd.daemon import storing
from msrecd.daemon.storing import move_old_state

RECORDING = "20260101T000000Z-b1-cam0"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Of recordings in `recordings`, with the state in `state`; a first edition's would be in `service` or `shell`."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "service"))
    monkeypatch.setattr(storing, "_OLD_STATES", (tmp_path / "shell",))
    path = tmp_path / "msrecd.toml"
    path.write_text(f'[storage]\npath = "{tmp_path}/recordings"\nstate_path = "{tmp_path}/state"\n')
    (tmp_path / "recordings").mkdir()
    return load(path)


def first_edition(folder: Path, recordings: Path, word: str = "old") -> None:
    """What the first edition kept: its boots, its clock, messages, protected and open recordings."""
    for kind in ("protected", "open"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / RECORDING).write_text(word)
    (folder / "storage.json").write_text(json.dumps({"path": str(recordings)}))
    for name in ("boot.json", "clock.jsonl", "mqtt-events.sqlite3", "mqtt-memory.json", "restarts.json"):
        (folder / name).write_text(word)
    (folder / "lock").touch()
    (folder / "somebody.txt").write_text("not ours")


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("place", ["service", "shell"])
def test_all_of_it_is_moved_once(config: Config, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture) -> None:
    old, new = tmp_path / place, tmp_path / "state"
    first_edition(old, tmp_path / "recordings")
    before = contents(old)
    move_old_state(config)
    assert contents(old) == {"lock": "", "somebody.txt": "not ours"}
    assert contents(new) == {name: text for name, text in before.items() if name not in contents(old)} | {"moved": ""}
    assert f"moved the state from {old} to {new}" in caplog.text
    shutil.rmtree(old)
    first_edition(old, tmp_path / "recordings", "another")  # somebody ran the first edition once more
    caplog.clear()
    move_old_state(config)
    assert contents(new)[f"protected/{RECORDING}"] == "old"
    assert contents(old)["boot.json"] == "another"
    assert not caplog.records


def test_the_services_state_holds_where_both_know_something(config: Config, tmp_path: Path) -> None:
    first_edition(tmp_path / "service", tmp_path / "recordings", "service")
    first_edition(tmp_path / "shell", tmp_path / "recordings", "shell")
    move_old_state(config)
    assert contents(tmp_path / "state")["boot.json"] == "service"
    assert contents(tmp_path / "shell")["boot.json"] == "shell"


@pytest.mark.parametrize("storage_note", ['{"path": "/elsewhere"}', "{}", "[]", "not JSON", None])
def test_the_state_of_other_recordings_stays(config: Config, tmp_path: Path, storage_note: str | None) -> None:
    first_edition(tmp_path / "service", tmp_path / "recordings")
    if storage_note is None:
        (tmp_path / "service/storage.json").unlink()
    else:
        (tmp_path / "service/storage.json").write_text(storage_note)
    before = contents(tmp_path / "service")
    move_old_state(config)
    assert contents(tmp_path / "service") == before
    assert not (tmp_path / "state").exists()


def test_the_state_that_a_daemon_uses_stays(config: Config, tmp_path: Path) -> None:
    first_edition(tmp_path / "service", tmp_path / "recordings")
    before = contents(tmp_path / "service")
    fd = os.open(tmp_path / "service/lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        move_old_state(config)
        assert contents(tmp_path / "service") == before
    finally:
        os.close(fd)
    move_old_state(config)
    assert contents(tmp_path / "state")["boot.json"] == "old"


def test_a_state_that_was_used_since_keeps_its_clock_and_gets_what_is_protected(config: Config, tmp_path: Path) -> None:
    first_edition(tmp_path / "service", tmp_path / "recordings")
    os.utime(tmp_path / "service/boot.json", (1, 1))
    (tmp_path / "state").mkdir()
    (tmp_path / "state/boot.json").write_text("new")
    move_old_state(config)
    assert contents(tmp_path / "state") == {
        "boot.json": "new",
        "moved": "",
        f"open/{RECORDING}": "old",
        f"protected/{RECORDING}": "old",
    }


def test_a_state_of_this_edition_takes_nothing(config: Config, tmp_path: Path) -> None:
    first_edition(tmp_path / "service", tmp_path / "recordings")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/media.json").write_text("{}")
    move_old_state(config)
    assert contents(tmp_path / "state") == {"media.json": "{}"}


def test_what_cannot_be_moved_is_logged_and_tried_again(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first_edition(tmp_path / "service", tmp_path / "recordings")
    (tmp_path / "state").write_text("a file")
    move_old_state(config)
    assert "cannot be moved" in caplog.text
    assert contents(tmp_path / "service")["boot.json"] == "old"
    (tmp_path / "state").unlink()
    move_old_state(config)
    assert contents(tmp_path / "state")["boot.json"] == "old"
