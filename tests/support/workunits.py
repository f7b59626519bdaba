"""Which tests pytest-xdist keeps in one process: those that share what takes long to make.

Used with `--dist loadscope` (scripts/test.py). A daemon, a browser or recordings that a fixture makes for a module are
made once, not once in each process that got a test of it. All other tests go singly to the next process that is free.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HOUSE = "tests/house"  # its tests read the same files, once in each process
APART = ("tests/house/test_linters.py",)  # these start programs that take long


def unit_of(nodeid: str, root: Path = ROOT) -> str:
    """Tests with the same unit run in one process, one after the other."""
    path = nodeid.partition("::")[0]
    if path.startswith(f"{HOUSE}/") and path not in APART:
        return HOUSE
    return path if has_shared_fixtures(root / path) else nodeid


@cache
def has_shared_fixtures(path: Path) -> bool:
    """Whether a test module, or the conftest.py beside it, makes something for a whole module."""
    files = (path, path.with_name("conftest.py"))
    return any('scope="module"' in file.read_text("utf-8") for file in files if file.exists())


def scheduler(config: Any, log: Any) -> Any:
    """xdist's by scope, with these units as scopes: units of many tests first, then in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid, config.rootpath)

    return ByUnit(config, log)
