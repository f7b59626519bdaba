"""Every promise of the documentation has a test, and every test that says it holds a promise holds one that is made."""

from __future__ import annotations

from collections import Counter

from promises import holders, names_in, promises, promises_of


def test_every_promise_has_a_test() -> None:
    held = holders()
    hollow = [f"{promise.place}: {promise.name}" for promise in promises() if promise.name not in held]
    assert not hollow, f"no test is marked as holding {hollow}"


def test_every_marked_test_holds_a_promise_that_is_made() -> None:
    made = {promise.name for promise in promises()}
    strays = {name: tests for name, tests in holders().items() if name not in made}
    assert not strays, f"no page has an anchor for {strays}"


def test_names_are_given_once_and_behind_a_sentence() -> None:
    found = promises()
    twice = [name for name, count in Counter(promise.name for promise in found).items() if count > 1]
    assert not twice
    assert not [promise for promise in found if len(promise.sentence) < 10], "an anchor stands behind its sentence"
    assert len(found) >= 30  # the anchors are understood


def test_what_is_read_as_a_promise_and_as_its_test() -> None:
    page = (
        "# Head\n\nFirst sentence,\nover two lines. <!-- promise: one --> Another. <!-- promise: two -->\n"
        "- an item <!-- promise: three -->\n| cell | how <!-- promise: four --> |\n"
    )
    assert [(p.name, p.sentence, p.place) for p in promises_of(page, "x.md")] == [
        ("one", "First sentence, over two lines", "x.md:4"),
        ("two", "Another", "x.md:4"),
        ("three", "an item", "x.md:5"),
        ("four", "cell how", "x.md:6"),
    ]
    (manual,) = promises_of('.PP\nIt exits\n.B always\nwith 0.\n.\\" promise: five\n', "x.1")
    assert (manual.name, manual.sentence) == ("five", "It exits always with 0")
    module = "@pytest.mark.slow\n@pytest.mark.promise('one', 'two')\ndef test_a():\n    pass\n"
    assert list(names_in(module)) == [("test_a", "one"), ("test_a", "two")]
