"""What the documentation promises exists: links, commands, the version in the change log."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

import msrecd

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def tracked(*patterns: str) -> list[Path]:
    """The files of the repository, or, in a tree without git, what lies there."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.splitlines()
        return [ROOT / name for name in listed if (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        return [path for pattern in patterns for path in ROOT.rglob(pattern) if ".venv" not in path.parts]


def pages() -> list[Path]:
    return [page for page in tracked("*.md") if "tests" not in page.relative_to(ROOT).parts]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made the way code hosts make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def test_links_lead_somewhere() -> None:
    broken = []
    for page in pages():
        for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            goal = (page.parent / name).resolve() if name else page
            if not goal.exists() or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_readme_names_the_two_commands(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()


def test_make_has_the_targets_that_pages_name() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(page.name, word) for page in pages() for word in re.findall(r"`make ([a-z-]+)", page.read_text())}
    unknown = {pair for pair in named if pair[1] not in targets}
    assert not unknown


def test_change_log_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{msrecd.__version__}]" in text


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [page.name for page in tracked("docs/*.md") if page.parent == ROOT / "docs" and page.name not in readme]
    assert not missing, f"README.md does not link {missing}"


def test_no_path_of_somebodys_machine() -> None:
    """Files of the repository name no home folder or build place of the machine they were written on."""
    pattern = re.compile(r"(?<![\w.}>$/-])/(?:root|work|home/(?!pi\b)[a-z]+)/[\w.]")
    found = []
    for path in tracked("*.py", "*.md", "*.toml", "*.sh", "*.service", "Makefile", "*.conf"):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def is_said(text: str) -> bool:
    """Whether a string of the program, other than a docstring, has it."""
    for path in (ROOT / "msrecd").rglob("*.py"):
        if text not in (source := path.read_text()):
            continue
        nodes = list(ast.walk(ast.parse(source)))
        docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
        strings = [node for node in nodes if isinstance(node, ast.Constant) and node not in docstrings]
        if any(isinstance(node.value, str) and text in node.value for node in strings):
            return True
    return False


def test_what_the_checklist_for_a_board_looks_for_is_said() -> None:
    """A pattern that no message has would find nothing on any board, and the row would be ticked."""
    page = (ROOT / "hw-tests/README.md").read_text()
    patterns = re.findall(r"journalctl [^`]*-g (?:\"([^\"`]+)\"|(\w+))", page)
    assert len(patterns) >= 3
    assert not [pattern for pattern in map("".join, patterns) if not is_said(pattern)]
    schemas = {
        "state/health": (ROOT / "docs/schemas/state-health.json").read_text(),
        "manifest": (ROOT / "docs/schemas/manifest-line.json").read_text(),
    }
    fields = re.findall(r"`(\w+)` (?:of|in) (?:the )?`?(state/health|manifest)", page)
    assert {place for _, place in fields} == set(schemas)
    assert not [(name, place) for name, place in fields if f'"{name}"' not in schemas[place]]
