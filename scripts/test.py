#!/usr/bin/env python3
"""Runs the tests: side by side, for they wait more than they compute, then one by one those that are marked `alone`.

Arguments go to pytest. Without a marker expression of the caller's (`-m`), both parts run; the last line counts what
both of them did, in the words of pytest. With MSRECD_TEST_AGAIN (a number; .ci/run sets it), up to so many tests that
fail in a part run once more, one by one: if they pass then they are "unsteady", named and counted, and fail nothing.
What Python compiles is kept (`__pycache__`), whatever the environment says: each of the workers and each of the daemons
that they start would compile everything anew.
With MSRECD_TEST_UNTIL (a Unix time; .ci/run sets it) the virtual machine's tests come before that line, as far as there
is time for them. Exit status: 0 if all passed, otherwise pytest's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
WORKERS_PER_CORE = 4  # most of a test is waiting
BYTES_PER_WORKER = 512 << 20  # with the daemons and the browser that tests start
OK, FAILED, NO_TESTS = 0, 1, 5  # pytest's exit status
ORDER = ("failed", "unsteady", "passed", "skipped", "xfailed", "xpassed", "error")


def workers() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(WORKERS_PER_CORE * len(os.sched_getaffinity(0)), memory // BYTES_PER_WORKER))


class Part(NamedTuple):
    """What one run of pytest gave."""

    state: int  # pytest's exit status
    counts: dict[str, int]
    failed: list[str]


def environment() -> dict[str, str]:
    """Development mode checks warnings and asyncio's threads; its allocator, which fills all memory, is for C code."""
    usual = {"PYTHONMALLOC": "pymalloc"}  # takes a fifth off collecting, half off the tests of the storage
    return usual | {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def compile_once() -> None:
    """In a fresh clone: else all workers, which begin at the same time, compile the same files."""
    if any((ROOT / "tests" / "__pycache__").glob("*.pyc")):
        return
    folders = sorted(path for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py")))
    collect = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
    halves = [
        subprocess.Popen([*collect, *half], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
        for half in (folders[::2], folders[1::2])
    ]
    for half in halves:
        half.wait()


def those_alone(arguments: list[str]) -> list[str]:
    """The files with tests that are marked `alone`, if the arguments name no others: the rest need no import."""
    if any(Path(argument.partition("::")[0]).exists() for argument in arguments):
        return []
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path) for path in files if "mark.alone" in path.read_text("utf-8")]


def run(arguments: list[str]) -> Part:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-X", "dev", "-m", "pytest", *arguments]
        state = subprocess.run(command, env=environment() | {"MSRECD_TEST_REPORT": str(report)}).returncode
        found = json.loads(report.read_text()) if report.exists() else {"counts": {}, "failed": []}
    return Part(state, found["counts"], found["failed"])


def run_with_second_try(arguments: list[str], limit: int) -> Part:
    """Up to `limit` tests that fail beside others run again, one by one; if all of them pass, they are unsteady."""
    part = run(arguments)
    if part.state != FAILED or not 0 < len(part.failed) <= limit or run(["-n", "0", *part.failed]).state != OK:
        return part
    for test in part.failed:
        print(f"UNSTEADY: {test} failed beside other tests and passed alone", flush=True)
    return Part(OK, part.counts | {"failed": 0, "error": 0, "unsteady": len(part.failed)}, [])


def main(arguments: list[str]) -> int:
    quick = "--quick" in arguments
    arguments = [argument for argument in arguments if argument != "--quick"]
    also = "not slow and " if quick else ""
    together = ["-n", str(workers()), "--dist", "loadscope"]  # tests/support/workunits.py
    alone = ["-m", f"{also}alone", *arguments, *those_alone(arguments), "-n", "0"]
    parts = [[*together, "-m", f"{also}not alone", *arguments], alone]
    if "-m" in arguments:
        parts = [[*together, *arguments]]
    began = time.monotonic()
    compile_once()
    states = []
    counts: dict[str, int] = {}
    for part in parts:
        state, counted, _ = run_with_second_try(part, int(os.environ.get("MSRECD_TEST_AGAIN", "0")))
        states.append(state)
        for name, count in counted.items():
            counts[name] = counts.get(name, 0) + count
        if state not in (OK, FAILED, NO_TESTS):
            break  # interrupted, or pytest did not understand its arguments
    if states[-1] in (OK, FAILED, NO_TESTS) and (until := os.environ.get("MSRECD_TEST_UNTIL")):
        states.append(subprocess.run([ROOT / "scripts" / "vm-until.sh", until]).returncode)
        counts["error"] = counts.get("error", 0) + (states[-1] != 0)
    told = ", ".join(f"{counts[name]} {name}" for name in ORDER if counts.get(name)) or "no tests ran"
    print(f"===== {told} in {time.monotonic() - began:.2f}s =====", flush=True)
    failures = [state for state in states if state not in (OK, NO_TESTS)]
    if failures:
        return failures[0]
    return NO_TESTS if all(state == NO_TESTS for state in states) else OK


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
