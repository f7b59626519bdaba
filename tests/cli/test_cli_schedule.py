"""`msrecd schedule` and what commands print."""

from __future__ import annotations

import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from msrecd.cli import main
from msrecd.cli.output import Progress, error, table, timestamp
from msrecd.cli.schedule import drawing
from msrecd.schedule import Window

CONFIG = """
[device]
id = "x"
[[recorder]]
name = "cam0"
audio = true
[[recorder.schedule]]
start = "22:00"
stop = "04:00"
timezone = "UTC"
[[recorder]]
name = "mic"
audio = true
autostart = true
[[recorder]]
name = "idle"
audio = true
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TZ", "UTC")
    path = tmp_path / "msrecd.toml"
    path.write_text(CONFIG, "utf-8")
    return path


def test_table_and_picture(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--config", str(config), "--days", "3"]) == 0
    out = capsys.readouterr().out
    assert out.count(" 6h") in (3, 4)
    assert "mic: no schedule; records from the start of the service" in out
    assert "idle: no schedule; records on command" in out


@pytest.mark.promise("schedule-rows")
def test_many_windows_of_a_day_are_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    path = tmp_path / "msrecd.toml"
    path.write_text(
        '[device]\nid = "x"\n[[recorder]]\nname = "mic"\naudio = true\n'
        '[[recorder.schedule]]\nstart = "*/15 20-23 * * *"\nduration = "2m"\n'
    )
    assert main(["schedule", "--config", str(path), "--days", "4"]) == 0
    out = capsys.readouterr().out.splitlines()
    rows = [line for line in out if line.startswith("mic") and line.endswith("16 windows") and " 32m " in line]
    assert 3 <= len(rows) <= 4
    assert all(" 20:00 UTC" in row and " 23:47 UTC" in row for row in rows)
    assert any(bar.endswith(("▒" * 8, "-" * 8)) for bar in out)


@pytest.mark.promise("schedule-rows")
def test_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--config", str(config), "--json", "--recorder", "cam0"]) == 0
    windows = json.loads(capsys.readouterr().out)
    assert 7 <= len(windows) <= 8
    for window in windows:
        assert window["recorder"] == "cam0"
        assert window["start"].endswith("T22:00:00Z")
        assert window["stop"].endswith("T04:00:00Z")
        assert window["duration_s"] == 6 * 3600


@pytest.mark.promise("schedule-rows")
def test_windows_of_triggers_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    moves = '[[recorder.trigger]]\nkind = "motion"\n'
    arm = '[[recorder.schedule]]\nstart = "22:00"\nduration = "6h"\naction = "arm"\n'
    day = '[[recorder.schedule]]\nstart = "10:00"\nduration = "30m"\n'
    path = tmp_path / "msrecd.toml"
    path.write_text(
        '[device]\nid = "x"\n'
        + "".join(
            f'[[recorder]]\nname = "{name}"\nvideo = true\n{more}'
            for name, more in (("night", arm + moves), ("both", day + arm + moves), ("always", moves), ("plain", day))
        )
    )
    assert main(["schedule", "--config", str(path), "--days", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len([line for line in out if line.startswith("night (arm)") and " 6h " in line]) in (3, 4)
    assert len([line for line in out if line.startswith("both ") and " 30m " in line]) in (3, 4)
    assert [line for line in out if ": " in line and "records" in line] == [
        "night: records on motion while armed, on command",
        "both: records on motion while armed",
        "always: no schedule; records on motion, on command",
    ]
    assert main(["schedule", "--config", str(path), "--json"]) == 0
    windows = json.loads(capsys.readouterr().out)
    assert {(one["recorder"], one["action"], *one["schedules"], one["duration_s"]) for one in windows} >= {
        ("night", "arm", 0, 21600.0),
        ("both", "record", 0, 1800.0),
        ("both", "arm", 1, 21600.0),
    }
    assert "always" not in {one["recorder"] for one in windows}


def test_wrong_arguments(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "--config", str(config), "--days", "0"]) == 2
    assert main(["schedule", "--config", str(config), "--recorder", "cam9"]) == 2
    assert main(["schedule", "--config", str(config.with_name("none.toml"))]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "cam0, mic, idle" in lines[1]


def test_picture_of_the_day_the_clocks_change() -> None:
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight there
    windows = {"a": [Window(start=begin + timedelta(hours=3), stop=begin + timedelta(hours=4))]}  # 02:00 again to 03:00
    ruler, bar = drawing(windows, begin, begin + timedelta(hours=25), zone)
    assert bar == "Sun 10-25   a  " + "." * 5 + "-" + "." * 42  # half an hour that lasts an hour and a half
    assert ruler.index("3") == bar.index("a") + 3 + 6
    whole = {"a": [Window(start=begin, stop=begin + timedelta(hours=25))]}
    assert drawing(whole, begin, begin + timedelta(hours=25), zone)[1].endswith("#" * 48)


def test_picture_of_the_day_with_a_gap_has_an_empty_cell_there() -> None:
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 3, 28, 23, tzinfo=UTC)
    whole = {"a": [Window(start=begin, stop=begin + timedelta(hours=23))]}
    assert drawing(whole, begin, begin + timedelta(hours=23), zone)[1].endswith("####..".ljust(48, "#"))


def test_table_aligns_and_defuses() -> None:
    text = table(("NAME", "N"), [("Käse", 5), ("録音", None), ("a\x1b[31m", 1234)], right=(1,))
    lines = text.splitlines()
    assert lines[0] == "NAME       N"
    assert lines[1] == "Käse       5"
    assert lines[2] == "録音       -"
    assert "\x1b" not in text


def test_timestamp_and_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05Z"
    assert error("two\nlines", 3) == 3
    assert capsys.readouterr() == ("", "msrecd: two lines\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_on_a_terminal_and_leaves_nothing_behind() -> None:
    stream = Terminal()
    with Progress("verifying", 200, stream=stream) as progress:
        progress.update(100, "cam0")
        progress.update(150)  # too soon
    assert stream.getvalue().startswith("\rverifying   50 %  cam0")
    assert "75 %" not in stream.getvalue()
    assert stream.getvalue().endswith(" \r")


def test_progress_writes_nothing_into_a_pipe() -> None:
    stream = io.StringIO()
    with Progress("verifying", 200, stream=stream) as progress:
        progress.update(100)
        progress.show("x")
        progress.clear()
    assert stream.getvalue() == ""


def test_narrow_encodings_get_ascii(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["schedule", "--config", str(config)]) == 0
    stream.flush()
    assert b"#" in raw.getvalue()
    assert os.linesep.encode() in raw.getvalue()
