"""How often what a trigger finds is told."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from msrecd.daemon.triggering import Triggering
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
