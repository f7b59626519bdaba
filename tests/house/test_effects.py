"""Every key, verb, field and exit code has a test of its effect, but for those on a list that may only shrink."""

from __future__ import annotations

from pathlib import Path

from effects import MARKER, names
from promises import marked_tests

LEFT = Path(__file__).with_name("effects_left.txt")


def left() -> list[str]:
    return LEFT.read_text().splitlines()


def test_every_name_has_a_test_of_its_effect_or_is_known_to_have_none() -> None:
    seen = marked_tests(MARKER)
    unknown = [name for name in names() if name not in seen and name not in left()]
    assert not unknown, f"no test is marked as seeing the effect of {unknown}"


def test_the_list_of_names_without_a_test_shrinks() -> None:
    seen, known = marked_tests(MARKER), set(names())
    over = [name for name in left() if name in seen or name not in known]
    assert not over, f"take out of {LEFT.name}: {over}"


def test_marks_name_what_there_is() -> None:
    known = set(names())
    strays = {name: tests for name, tests in marked_tests(MARKER).items() if name not in known}
    assert not strays
    assert len(known) > 150  # the schemas are understood
