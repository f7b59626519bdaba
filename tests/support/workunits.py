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
    """xdist's by scope, with these units as scopes: units of many tests first, then in the order of collection.

    A process that dies fails the test that it ran, and the run goes on to its end. xdist 3.8 gives all units of such a
    process out again, those that are done as well: the next process gets a unit without a test, never reports one, and
    gets no more. It also repeats the test that killed the process, in one process after the other.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid, config.rootpath)

        def remove_node(self, node: Any) -> str | None:
            units = self.assigned_work[node]
            left = {test: unit for unit, tests in units.items() for test, done in tests.items() if not done}
            killer = next(iter(left), None)  # tests run in the order in which they were assigned
            if killer is not None:
                units[left[killer]][killer] = True
            self.assigned_work[node] = {}
            super().remove_node(node)
            for unit in dict.fromkeys(unit for test, unit in left.items() if test != killer):
                self.workqueue[unit] = units[unit]
            for other in self.nodes:
                self._reschedule(other)
            return killer

        def _reschedule(self, node: Any) -> None:
            """A process begins a test when it knows the next one: one unit may be too little for one that is new. One
            that has not told its tests yet gets none; xdist comes again when it has."""
            if node not in self.registered_collections:
                return
            super()._reschedule(node)
            while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
                super()._reschedule(node)

    return ByUnit(config, log)
