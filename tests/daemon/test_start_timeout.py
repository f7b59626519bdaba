"""A start that takes longer than systemd waits: recovery after a power cut, cold imports on a small board."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from msrecd.daemon import daemon


def test_a_slow_start_asks_for_time_and_one_that_hangs_ends_some_day(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(daemon, "systemd", SimpleNamespace(notify=told.append))
    monkeypatch.setattr(daemon, "_EXTEND_S", 0.0)
    asyncio.run(daemon.Daemon._extend_timeout(Any, 3))  # type: ignore[arg-type]
    assert told == ["EXTEND_TIMEOUT_USEC=10000000"] * 3
    longest_s = daemon._START_EXTENSIONS * 5
    assert 300 < longest_s < 1800
