"""The event bus, and what the publisher puts on it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from msrecd.control.bus import Adapter, Bus, Event, Image, Item, State
from msrecd.control.publisher import Revisions


def test_a_subscriber_gets_the_present_states_and_what_follows() -> None:
    bus = Bus()
    bus.set_state("daemon", {"version": "1"})
    bus.set_state("recorder/cam0", {"state": "inactive"})
    bus.emit("device", {"event_type": "added"})
    got: list[Item] = []
    bus.subscribe(got.append)
    bus.set_state("recorder/cam0", {"state": "recording"})
    bus.emit("recorder/cam0", {"event_type": "started"})
    bus.show("cam0", b"jpeg")
    bus.clear_state("recorder/cam0")
    assert got == [
        State("daemon", {"version": "1"}),
        State("recorder/cam0", {"state": "inactive"}),
        State("recorder/cam0", {"state": "recording"}),
        Event("recorder/cam0", {"event_type": "started"}),
        Image("cam0", b"jpeg"),
        State("recorder/cam0", None),
    ]
    assert bus.recorders == frozenset()
    bus.unsubscribe(got.append)
    bus.emit("device", {})
    assert len(got) == 6


def test_a_subscriber_that_fails_affects_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    got: list[Item] = []

    def fails(_: Item) -> None:
        raise ZeroDivisionError

    bus.subscribe(fails)
    bus.subscribe(got.append)
    bus.emit("device", {})
    assert got == [Event("device", {})]
    assert "ZeroDivisionError" in caplog.text


def test_an_adapter_may_say_nothing() -> None:
    adapter = Adapter()
    assert adapter.health() is None
    assert adapter.summary() == ""


# --- rev -------------------------------------------------------------------------------------------------------------


def run_of(path: Path, count: int) -> list[int]:
    """What a run of the daemon gives one recorder, ended by a kill."""
    revisions = Revisions(path)
    revisions.open()
    return [revisions.next("cam0") for _ in range(count)]


def test_rev_grows_over_kills(tmp_path: Path) -> None:
    path = tmp_path / "state" / "revisions.json"
    runs = [run_of(path, count) for count in (3, 0, 1, 50)]
    given = [rev for run in runs for rev in run]
    assert given == sorted(set(given))
    assert runs[0] == [1, 2, 3]


def test_each_recorder_counts_by_itself(tmp_path: Path) -> None:
    revisions = Revisions(tmp_path / "revisions.json")
    revisions.open()
    assert [revisions.next(name) for name in ("cam0", "mic", "cam0", "mic")] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"rev": -1}', b'{"rev": true}', b'{"rev": 1e99}', b"\xff", b"[" * 9999]
)
def test_what_is_not_readable_begins_above_all_that_was(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "revisions.json"
    last = run_of(path, 5)[-1]
    path.write_bytes(content)
    assert run_of(path, 1)[0] > last


def test_a_state_folder_that_takes_nothing_gives_no_number_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    first = run_of(tmp_path / "revisions.json", 5)
    monkeypatch.setattr("msrecd.control.statefile.save", refuses)
    second = run_of(tmp_path / "revisions.json", 1)
    assert second[0] > first[-1] + 1_000_000, "from the date: the block cannot be reserved"
    assert "Read-only" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
