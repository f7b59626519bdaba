"""Behind every sentence a test: what the documentation promises, and the tests that hold msrecd to it.

A promise is a sentence with an anchor behind it: `<!-- promise: name -->` in Markdown, a line `.\\" promise: name` in a
manual page. A test that holds it says `@pytest.mark.promise("name")`. Each run of pytest keeps the results of such
tests in .cache/promises.json (conftest.py); as a program (`make promises`) this prints sentence, test and last result.
Exit status 1: a promise has no test, or its test failed when it last ran.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / ".cache" / "promises.json"
SUITES = ("tests", "fleet-tests")  # the latter is `make fleet-test`: servers, an hour
PAGES = ("README.md", "SECURITY.md", "docs/*.md", "docs/man/*")
ANCHOR = re.compile(r"<!-- promise: ([a-z0-9-]+) -->|^\.\\\" promise: ([a-z0-9-]+)$", re.MULTILINE)
BLOCK = re.compile(
    r"\n\s*\n|\n(?=\s*- |\|)|\n```[a-z]*\n|<!-- keys: [^>]*-->\n|<!-- end -->\n"
)  # a paragraph, an item, a row
ROFF_BLOCK = re.compile(r"^\.(?:SS|SH|TP|PP|TH|br|nf|fi)\b.*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """`place` is file:line of the anchor."""

    name: str
    sentence: str
    place: str


def promises_of(text: str, page: str) -> Iterator[Promise]:
    """The promises of a page: what stands in the same block, behind the anchor before and before this one."""
    for match in ANCHOR.finditer(text):
        before = text[: match.start()]
        block = (ROFF_BLOCK if match.group(2) else BLOCK).split(before)[-1]
        sentence = ANCHOR.split(block)[-1]
        if match.group(2):  # roff: requests are no words
            sentence = re.sub(r"^\.[A-Z]{1,2} ?|\\f[A-Z]", "", sentence, flags=re.MULTILINE)
        yield Promise(
            name=match.group(1) or match.group(2),
            sentence=" ".join(sentence.replace("|", " ").split()).strip(" -.;,"),
            place=f"{page}:{before.count(chr(10)) + 1}",
        )


def promises(root: Path = ROOT) -> list[Promise]:
    """All promises of the documentation, in the order of the pages."""
    found = []
    for pattern in PAGES:
        for page in sorted(root.glob(pattern)):
            found += promises_of(page.read_text(), str(page.relative_to(root)))
    return found


def names_in(source: str, marker: str = "promise") -> Iterator[tuple[str, str]]:
    """(test, name) for each test of a module that is marked with names; a marked class marks its tests.

    A model of hypothesis is marked where it gets its name: `TestX = pytest.mark.promise("name")(Machine.TestCase)`.
    """
    if f"mark.{marker}" not in source:
        return
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            for call in (c for c in ast.walk(node.value) if isinstance(c, ast.Call)):
                if ast.unparse(call.func) == f"pytest.mark.{marker}":
                    for argument in call.args:
                        yield f"{node.targets[0].id}::runTest", str(ast.literal_eval(argument))
        for owner, function in [(node, node)] if not isinstance(node, ast.ClassDef) else [(node, f) for f in node.body]:
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            test = function.name if owner is function else f"{owner.name}::{function.name}"  # type: ignore[attr-defined]
            decorators = function.decorator_list + ([] if owner is function else owner.decorator_list)  # type: ignore[attr-defined]
            for decorator in decorators:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{marker}":
                    for argument in decorator.args:
                        yield test, str(ast.literal_eval(argument))


@cache
def marked_tests(marker: str, root: Path = ROOT) -> dict[str, list[str]]:
    """Tests ("tests/system/test_x.py::test_y") by each name that they are marked with."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for suite in SUITES for path in (root / suite).rglob("test_*.py")):
        for test, name in names_in(path.read_text(), marker):
            found.setdefault(name, []).append(f"{path.relative_to(root)}::{test}")
    return found


def holders(root: Path = ROOT) -> dict[str, list[str]]:
    """Tests by the name of the promise they hold."""
    return marked_tests("promise", root)


def keep_results(results: dict[str, dict[str, str]]) -> None:
    """Add to what is known; `results` by test, each with "result" and "at"."""
    known: dict[str, dict[str, str]] = {}
    if RESULTS.exists():
        known = json.loads(RESULTS.read_text())
    RESULTS.parent.mkdir(exist_ok=True)
    fresh = RESULTS.with_suffix(".new")
    fresh.write_text(json.dumps(known | results, indent=1, sort_keys=True))
    fresh.replace(RESULTS)


def main() -> int:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    tests = holders()
    wrong, unseen = 0, 0
    all_promises = promises()
    for promise in all_promises:
        print(f"{promise.name}  ({promise.place})")
        print(textwrap.indent(textwrap.fill(promise.sentence, 110), "    "))
        held_by = tests.get(promise.name, [])
        wrong += not held_by
        for test in held_by or ["no test"]:
            last = results.get(test, {"result": "not run here yet", "at": ""})
            wrong += last["result"] == "failed"
            unseen += last["result"] != "failed" and last["result"] != "passed"
            print(f"    {last['result']:8} {last['at']:20} {test}")
    count = len({test for held_by in tests.values() for test in held_by})
    print(f"{len(all_promises)} promises, {count} tests; {wrong} without a test or failed, {unseen} skipped or not run")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
