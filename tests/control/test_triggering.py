"""How often what a trigger finds is told."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from msrecd.daemon.triggering import Triggering
from msrecd.errors import CommandError
from msrecd.recorder.watcher import Finding
from msrecd.tasks import Tasks

NS = 10**9


@pytest.mark.promise("triggers", "triggers-are-told-seldom")
def test_a_sound_that_comes_each_second_is_told_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told: list[tuple[int, str]] = []
    now = SimpleNamespace(s=0, action="start")
    clock = SimpleNamespace(monotonic_ns=lambda: now.s * NS)
    publisher = SimpleNamespace(
        stamp=str, happened=lambda unit, event_type, facts: told.append((now.s, str(facts["action"])))
    )
    conductor = SimpleNamespace(found=lambda name, number: now.action)
    unit = SimpleNamespace(name="mic0", log=logging.getLogger("test"))
    log = logging.getLogger("test")
    triggering = Triggering(
        lambda: cast(Any, conductor),
        cast(Any, publisher),
        cast(Any, None),
        Tasks(log),
        cast(Any, SimpleNamespace(begin=lambda *_, **__: None)),
        clock=cast(Any, clock),
    )
    for now.s in range(23):
        now.action = "start" if now.s in (0, 22) else "extend"
        finding = Finding(number=0, change="begin", kind="sound", score=20.0, at_ns=now.s * NS, protect=False)
        triggering.found(cast(Any, unit), finding)
    assert told == [(0, "start"), (1, "extend"), (11, "extend"), (21, "extend"), (22, "start")]
    lines = [record.message for record in caplog.records]
    assert lines == ["sound trigger: score 20.0 (start)"] * 2, "those that only go on are lines for debugging"


@pytest.mark.promise("max-protected")
def test_what_is_not_protected_each_second_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told: list[str] = []
    refused = asyncio.Event()

    def report(code: str, message: str, **_: object) -> None:
        told.append(message)
        refused.set()

    room = [True, False, False, False]  # one try for each wait: a part is kept, then nothing
    publisher = SimpleNamespace(
        stamp=str,
        happened=lambda *_: None,
        report_error=report,
    )
    conductor = SimpleNamespace(found=lambda *_: "extend", lost=lambda *_: None)
    settings = SimpleNamespace(options={}, triggers=[SimpleNamespace(hold_s=0.0)])
    unit = cast(Any, SimpleNamespace(name="mic0", log=logging.getLogger("test"), settings=settings))
    notes = SimpleNamespace(begin=lambda *_, **__: None, end=lambda *_, **__: None)

    async def protect(*_: object) -> dict[str, object]:
        if room and room.pop(0):
            return {}
        raise CommandError("no_space", f"{len(told)}KiB are protected")

    async def run() -> None:
        tasks = Tasks(logging.getLogger("test"))
        triggering = Triggering(lambda: cast(Any, conductor), cast(Any, publisher), protect, tasks, cast(Any, notes))
        for _ in range(3):
            for change in ("begin", "end"):
                triggering.found(
                    unit, Finding(number=0, change=cast(Any, change), kind="sound", score=20.0, at_ns=0, protect=True)
                )
            async with asyncio.timeout(20):
                await refused.wait()
            refused.clear()

    asyncio.run(run())
    assert told == [
        "mic0: what a trigger found is only in part protected: 0KiB are protected",
        "mic0: what a trigger found is not protected: 1KiB are protected",
        "mic0: what a trigger found is not protected: 2KiB are protected",
    ]
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == told[:1]
