"""A wrong value has one error, which shows it and says what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrecd.config import InvalidConfigError, check, load
from msrecd.daemon.checks import config_checks

MOTION = '[[recorder]]\nname = "a"\nvideo = true\n[[recorder.trigger]]\nkind = "motion"\nmask = {}\n'
SOUND = '[[recorder]]\nname = "a"\naudio = true\n[[recorder.trigger]]\nkind = "sound"\nband = {}\n'
MIC = '[[recorder]]\nname = "a"\naudio = true\naudio_filters = {}\n'
POLYGON = "it takes a polygon of 3 to 64 points, like [[0, 0], [1, 0], [1, 1]]"
BAND = "it takes the lowest and the highest frequency in Hz, like [200, 8000]"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (MOTION.format("[[[0,0],[1,1]]]"), "trigger[0].mask[0]", f"[[0, 0], [1, 1]] has 2 entries; {POLYGON}"),
        (
            MOTION.format("[[0,0],[1,1],[0,1]]"),
            "trigger[0].mask",
            "[[0, 0], [1, 1], [0, 1]] has too few brackets; it takes at most 16 polygons, like "
            "[[[0, 0], [1, 0], [1, 1]]]",
        ),
        (
            MOTION.format("[[[0,0],[1],[0,1]]]"),
            "trigger[0].mask[0][1]",
            "[1] has 1 entry; it takes a point [x, y]",
        ),
        (SOUND.format("[200]"), "trigger[0].band", f"[200] has 1 entry; {BAND}"),
        (SOUND.format("[]"), "trigger[0].band", f"[] has 0 entries; {BAND}"),
        (SOUND.format("[1, 2, 3]"), "trigger[0].band", f"[1, 2, 3] has 3 entries; {BAND}"),
        (
            MIC.format('["mono"]'),
            "audio_filters[0]",
            'takes a table in { } or under a heading, with type, frequency, gain_db, q; not "mono"',
        ),
    ],
)
def test_a_list(tmp_path: Path, text: str, path: str, message: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[device]\nid = "x"\n' + text)
    (problem,) = check(file, checks=config_checks())
    assert (problem.path, problem.message) == (f"recorder[0].{path}", message)


@pytest.mark.parametrize(
    "text",
    [
        'mqtt = "x"\n',
        'web = "x"\n',
        'offload = "x"\n',
        "storage = 1\n",
        'recorder = ["x"]\n',
        "camera = [1]\n",
        "devices = { virtual = [1] }\n",
        'recorder = [{ name = "a", source = "rtsp://c/x" }]\n',
        'recorder = [{ name = "a", audio = true, schedule = ["06:30"] }]\n',
        'recorder = [{ name = "a", audio = true, trigger = ["motion"] }]\n',
        'recorder = [{ name = "a", audio = true, snapshots = "1m" }]\n',
        'recorder = [{ name = "a", audio = true, time_lapse = "1m" }]\n',
        'recorder = [{ name = "a", audio = true, overlay = "x" }]\n',
    ],
)
def test_what_is_no_table_has_no_second_error(tmp_path: Path, text: str) -> None:
    """In its place any valid table is checked, whose problems are not the person's."""
    file = tmp_path / "m.toml"
    file.write_text('device = { id = "x" }\n' + text)
    assert len(check(file, checks=config_checks())) == 1


@pytest.mark.parametrize(
    ("polygon", "is_valid"),
    [
        ("[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]", False),
        ("[[0, 0], [1, 1], [0.5, 0.5]]", False),  # a line
        ("[[0.5, 0.5], [0.5001, 0.5], [0.5, 0.5001]]", False),
        ("[[0, 0], [1, 1], [1, 0], [0, 1]]", True),  # crosses itself
        ("[[0.5, 0.5], [0.52, 0.5], [0.52, 0.52], [0.5, 0.52]]", True),
        ("[[0, 0], [1, 0], [1, 1], [0, 1]]", True),
    ],
)
def test_a_mask_that_encloses_nothing_is_refused(tmp_path: Path, polygon: str, is_valid: bool) -> None:
    """A trigger with it would be blind without a word."""
    file = tmp_path / "msrecd.toml"
    file.write_text("config_version = 1\n" + MOTION.format(f"[{polygon}]"))
    if is_valid:
        load(file)
        return
    with pytest.raises(InvalidConfigError) as refused:
        load(file)
    assert [problem.path for problem in refused.value.problems] == ["recorder[0].trigger[0].mask[0]"]


def test_more_protected_than_there_may_be_at_all_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "msrecd.toml"
    file.write_text('config_version = 1\n[storage]\nmax_total = "1GiB"\nmax_protected = "2GiB"\n')
    with pytest.raises(InvalidConfigError) as refused:
        load(file)
    assert [problem.path for problem in refused.value.problems] == ["storage.max_protected"]
