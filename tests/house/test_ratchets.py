"""What the house wants and does not have everywhere yet: each rule has a list of what is left, which may only shrink.

`python tests/house/test_ratchets.py` prints the lists as they are now, to be put here when they got shorter.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from test_imports import PACKAGE, imports_of, modules, package_of

import msrecd

# --- one word for each thing (CONTRIBUTING.md) ------------------------------------------------------------------------

# Words that have another in the glossary; in identifiers and in log messages.
REPLACED = {
    "picture": "frame",
    "pictures": "frames",
    "told": "published, reported",
    "tell": "publish, report",
    "tells": "publishes, reports",
    "untold": "unpublished",
    "mend": "recover",
    "mended": "recovered",
    "repair": "recover",
    "repaired": "recovered",
    "leftover": "unfinished chunk",
    "leftovers": "unfinished chunks",
    "lack": "gap",
    "lacking": "gap",
    "shed": "dropped",
    "patience": "poll_interval, timeout",
    "manieth": "n such that every n-th …",
}
# ... and those that are no plain English in a log line.
IN_LOGS = REPLACED | {
    "nobody": "no client, no process, …",
    "somebody": "another process, a user, …",
    "whoever": "the consumer, …",
    "anew": "again",
    "goes on": "resumed, continues",
    "mistake of this program": "internal error",
}
LOGS = {"log", "logger"}
# Uses that are left, by package.
WORDS_LEFT = {  # what a canvas shows is a picture
    "libav": 2,
    "media": 5,
}

# --- no import circles ------------------------------------------------------------------------------------------------

CIRCLES_LEFT: set[str] = set()

# --- the daemon is an application of the public API -------------------------------------------------------------------

LIBRARY = {"codecs", "devices", "dom", "flow", "libav", "media", "muxing", "pixels", "webaudio"}
APPLICATION = {"recorder", "control"}

# --- a file name says which file --------------------------------------------------------------------------------------

NAMES_LEFT = {
    "backend.py",
    "checks.py",
    "client.py",
    "constraints.py",
    "ctl.py",
    "device.py",
    "devices.py",
    "doctor.py",
    "errors.py",
    "events.py",
    "files.py",
    "fragments.py",
    "generators.py",
    "input.py",
    "listing.py",
    "model.py",
    "preroll.py",
    "problems.py",
    "reader.py",
    "recording.py",
    "settings.py",
    "source.py",
    "sources.py",
    "timeline.py",
    "units.py",
    "verify.py",
    "wire.py",
}


@cache
def words_of(identifier: str) -> list[str]:
    """ "frames", "of" for frames_of and FramesOf."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier).lower().strip("_").split("_")


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Names that a module gives: of functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def is_log(node: ast.AST) -> bool:
    """`log`, `logger`, `self.log`, `self._log`."""
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr.lstrip("_") in LOGS
    return isinstance(node, ast.Name) and node.id in LOGS


def log_messages(tree: ast.AST) -> Iterator[str]:
    """Every text within a call of `log.…()`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_log(node.func.value):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.value


def replaced_words(source: str) -> list[str]:
    """Words of a module that have another in the glossary."""
    tree = ast.parse(source)
    found = [word for name in identifiers(tree) for word in words_of(name) if word in REPLACED]
    for message in log_messages(tree):
        found += [word for word in IN_LOGS if word in message.lower() and re.search(rf"\b{word}\b", message.lower())]
    return found


def replaced_by_package() -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for path in modules():
        counts.setdefault(package_of(path), Counter()).update(replaced_words(path.read_text()))
    return {package: words for package, words in counts.items() if words}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or over others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead += graph.get(module, ())
        return seen

    reach = {module: reached(module) for module in graph}
    groups = {tuple(sorted(m for m in reach[module] if module in reach.get(m, ()))) for module in graph}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def import_graph() -> dict[str, set[str]]:
    """What each module imports when it is loaded or later, but for type checkers."""
    names = {dotted(path) for path in modules()}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for path in modules():
        for name, _, typing_only in imports_of(path):
            target = name if name in names else name.rpartition(".")[0]
            if target in names and target != "msrecd" and not typing_only:
                graph[dotted(path)].add(target)
    return graph


def private_imports() -> set[str]:
    """ "recorder: msrecd.flow.units.Packet" for what an application of the public API could not import."""
    found = set()
    for path in modules():
        if package_of(path) not in APPLICATION:
            continue
        for name, _, _ in imports_of(path):
            parts = name.split(".")
            if parts[0] == "msrecd" and len(parts) > 2 and parts[1] in LIBRARY and parts[-1] not in msrecd.__all__:
                found.add(f"{package_of(path)}: {name}")
    return found


def private_attributes() -> list[str]:
    """Places where the application reaches into an object of another module."""
    found = []
    for path in modules():
        if package_of(path) not in APPLICATION:
            continue
        source = path.read_text()
        found += [
            f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr) and f"self.{node.attr}" not in source
        ]
    return found


def repeated_names() -> set[str]:
    counts = Counter(path.name for path in modules())
    return {name for name, count in counts.items() if count > 1 and not name.startswith("__")}


def test_the_words_of_the_glossary() -> None:
    found = replaced_by_package()
    more = {package: dict(words) for package, words in found.items() if words.total() > WORDS_LEFT.get(package, 0)}
    assert not more, f"use the words of CONTRIBUTING.md ({IN_LOGS}); more than before: {more}"


def test_no_import_circles() -> None:
    new = {" ".join(group) for group in circles(import_graph())} - CIRCLES_LEFT
    assert not new


def test_the_daemon_uses_the_public_api() -> None:
    assert not private_imports(), "make public what another program would need as well, or do without"
    assert not private_attributes()


def test_a_file_name_says_which_file() -> None:
    new = repeated_names() - NAMES_LEFT
    assert not new


def test_every_test_module_has_a_name_of_its_own() -> None:
    """pytest imports them by their name alone and collects nothing at all when two are equal."""
    counts = Counter(path.name for path in (PACKAGE.parent / "tests").rglob("*.py"))
    assert not [name for name, count in counts.items() if count > 1 and name not in ("conftest.py", "__init__.py")]


def test_the_rules_would_notice() -> None:
    noticed = replaced_words("def tell_it(picture): self.log.info('nobody reads %s', 'the mended picture')")
    assert sorted(noticed) == ["mended", "nobody", "picture", "picture", "tell"]
    assert replaced_words("class PictureSize: pass") == ["picture"]
    assert replaced_words("def storytelling(): log.debug('a framework')") == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]


if __name__ == "__main__":
    from pprint import pprint

    sys.stdout.write("WORDS_LEFT = ")
    pprint({package: words.total() for package, words in sorted(replaced_by_package().items())}, width=1)
    pprint({package: dict(words) for package, words in sorted(replaced_by_package().items())}, width=110)
    for name, left in (
        ("CIRCLES_LEFT", {" ".join(group) for group in circles(import_graph())}),
        ("NAMES_LEFT", repeated_names()),
    ):
        sys.stdout.write(f"{name} = {{\n" + "".join(f'    "{item}",\n' for item in sorted(left)) + "}\n")
