#!/usr/bin/env python3
"""Branch coverage: runs the tests of some packages, the daemons that they start included, and holds what is gated.

Arguments go to pytest instead of the folders below. The report of every line is in .cache/coverage/html. Exit status 1:
a package takes fewer of its branches than its gate; what fails among the tests is shown and decides nothing here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache" / "coverage"
GOAL = 95.0
# Percent of a package's branches that must be taken: what was measured, with some room for what depends on the moment;
# raise them towards the goal. storage, control and recorder: measured with most of the tests below.
GATES = {"vocabulary": 97.0, "storage": 88.0, "schedule": 97.0, "control": 88.0, "recorder": 76.0, "config": 86.0}
TESTS = [
    *(f"tests/{name}" for name in ("config", "schedule", "control", "recorder", "storage", "mqtt", "cli", "daemon")),
    *(f"tests/{name}" for name in ("vocabulary", "triggers", "local", "offload", "system")),
]
CONFIG = """
[run]
branch = true
parallel = true
source = {root}/msrecd
data_file = {folder}/data
disable_warnings = no-data-collected,module-not-imported,module-not-measured
[html]
directory = {folder}/html
[json]
output = {folder}/coverage.json
"""


def coverage(*arguments: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "coverage", *arguments, f"--rcfile={FOLDER / 'rc'}"], cwd=ROOT
    ).returncode


def main(arguments: list[str]) -> int:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "rc").write_text(CONFIG.format(root=ROOT, folder=FOLDER))
    tests = arguments or [name for name in TESTS if (ROOT / name).exists()]
    # Every Python process that the tests start finds this, their workers and daemons as well.
    environment = os.environ | {"COVERAGE_PROCESS_START": str(FOLDER / "rc")}
    subprocess.run([sys.executable, ROOT / "scripts" / "test.py", "-q", *tests], cwd=ROOT, env=environment)
    coverage("combine", "--quiet")
    coverage("html", "--quiet", "--ignore-errors")
    if coverage("json", "--quiet", "--ignore-errors"):
        return 1
    files = json.loads((FOLDER / "coverage.json").read_text())["files"]
    low = []
    for package, gate in GATES.items():
        summaries = [f["summary"] for name, f in files.items() if Path(name).is_relative_to(f"msrecd/{package}")]
        taken = sum(summary["covered_branches"] for summary in summaries)
        percent = 100 * taken / max(1, sum(summary["num_branches"] for summary in summaries))
        print(f"{package:12} {percent:5.1f} % of branches (gate {gate:.1f} %, goal {GOAL:.0f} %)")
        if percent < gate:
            low.append(package)
    if low:
        print(f"fewer branches than the gate: {', '.join(low)}; see {FOLDER / 'html' / 'index.html'}")
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
