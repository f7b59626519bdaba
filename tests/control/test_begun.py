"""What triggers have begun, over a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrecd.control import begun


def test_it_holds_for_the_boot_that_wrote_it(tmp_path: Path) -> None:
    file, boot = tmp_path / "triggers.json", tmp_path / "boot_id"
    boot.write_text("one\n")
    known = {"cam0": {0: (1, 2), 3: (4,)}}
    begun.save(file, known, boot)
    assert begun.load(file, boot) == known
    boot.write_text("two\n")
    assert begun.load(file, boot) == {}


WRONG = ["", "[]", '{"boot_id": "one", "begun_ns": 3}', '{"boot_id": "one", "begun_ns": {"a": {"b": [1]}}}']


@pytest.mark.parametrize("text", WRONG)
def test_what_is_damaged_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "boot_id").write_text("one")
    (tmp_path / "triggers.json").write_text(text)
    assert begun.load(tmp_path / "triggers.json", tmp_path / "boot_id") == {}
    assert begun.load(tmp_path / "none", tmp_path / "boot_id") == {}
