"""What a docstring or the architecture page names is there: what was removed leaves no description behind."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from test_imports import PACKAGE, ROOT, modules

ARCHITECTURE = ROOT / "docs" / "architecture.md"
# "name: …", "first, second: …", "*rest: …", in a section indented by four; a class may do without a section.
ENTRY = re.compile(r"^(?:    )?(\*{0,2}[a-z_]\w*(?:, \*{0,2}[a-z_]\w*)*): ")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def section(docstring: str, title: str) -> Iterator[str]:
    """The names that a section of a docstring ("Args:") describes."""
    lines = docstring.splitlines()
    if f"{title}:" not in lines:
        return
    for line in lines[lines.index(f"{title}:") + 1 :]:
        if line and not line.startswith(" "):
            return
        yield from described(line)


def described(line: str) -> list[str]:
    found = ENTRY.match(line)
    return [name.lstrip("*") for name in found[1].split(", ")] if found else []


def parameters(function: Function) -> set[str]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in every if argument is not None}


def attributes(node: ast.ClassDef) -> set[str]:
    """What a class defines: fields, methods and properties, what its methods set on `self`, what it is made with."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, Function):
            found.add(inner.name)
            if inner.name == "__init__":
                found |= parameters(inner)
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id)
        elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            found.add(inner.attr)
    return found


def described_and_not_there(source: str) -> list[str]:
    """ "Thing.field", "function(parameter)": described by a docstring, and not there."""
    wrong = []
    tree = ast.parse(source)
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            known = parameters(node)
            docstring = ast.get_docstring(node) or ""
            wrong += [f"{node.name}({name})" for name in section(docstring, "Args") if name not in known]
        elif isinstance(node, ast.ClassDef):
            own = [
                node,
                *(classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes),
            ]
            known = {name for one in own for name in attributes(one)}
            docstring = ast.get_docstring(node) or ""
            names = [*section(docstring, "Attributes")]
            names += [name for line in docstring.splitlines() if not line.startswith(" ") for name in described(line)]
            wrong += [f"{node.name}.{name}" for name in names if name not in known]
    return wrong


def test_docstrings_describe_what_there_is() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {one}" for path in modules() for one in described_and_not_there(path.read_text())
    ]
    assert not wrong, "described, and not there:\n" + "\n".join(wrong)


def names_in_page(page: str) -> Iterator[str]:
    """The files (`flow/queue.py`) and names of code (`UnitQueue`, `HOLD_S`, `max_buffered`) that a page mentions."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    for quoted in re.findall(r"`([^`\n]+)`", prose):
        if re.fullmatch(r"[\w/]+\.py|[A-Z]\w+|[a-z]+(?:_[a-z]+)+(?:\(\))?", quoted):
            yield quoted.removesuffix("()")


def test_the_architecture_page_names_what_there_is() -> None:
    files = {str(path.relative_to(base)) for path in modules() for base in (PACKAGE, path.parent)}
    files |= {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    sources = "\n".join(path.read_text() for path in modules())
    known = set(re.findall(r"\w+", sources))
    found = set(names_in_page(ARCHITECTURE.read_text()))
    assert len(found) > 60, "the page is read"
    missing = sorted(name for name in found if (name not in files if name.endswith(".py") else name not in known))
    assert not missing, f"docs/architecture.md names what is not there: {missing}"


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        (
            'class A:\n    """A.\n\n    Attributes:\n        x: it.\n        gone: it.\n    """\n    x: int\n',
            ["A.gone"],
        ),
        ('class A:\n    """x: it.\n\n    gone: it.\n    """\n    x: int\n', ["A.gone"]),
        ('def f(a, *, b):\n    """F.\n\n    Args:\n        a, b: them.\n        c: it.\n    """\n', ["f(c)"]),
        ('def f(a):\n    """F.\n\n    Args:\n        a: it, which\n            takes: long.\n    """\n', []),
    ],
)
def test_the_rule_would_notice(source: str, wrong: list[str]) -> None:
    assert described_and_not_there(source) == wrong
    assert list(names_in_page("a `flow/early.py` with `Early`\n```\n`x_y`\n```\n")) == ["flow/early.py", "Early"]
