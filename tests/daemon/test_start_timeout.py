"""A start that takes longer than systemd waits: recovery after a power cut, cold imports on a small board."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msrecd.config import load
from msrecd.daemon import daemon
from msrecd.errors import StorageError


def test_a_slow_start_asks_for_time_and_one_that_hangs_ends_some_day(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(daemon, "systemd", SimpleNamespace(notify=told.append))
    monkeypatch.setattr(daemon, "_EXTEND_S", 0.0)
    asyncio.run(daemon.Daemon._extend_timeout(Any, 3))  # type: ignore[arg-type]
    assert told == ["EXTEND_TIMEOUT_USEC=10000000"] * 3
    longest_s = daemon._START_EXTENSIONS * 5
    assert 300 < longest_s < 1800


def test_a_start_that_is_slow_asks_for_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the recovery of what a power cut left takes long, and then fails: the start itself is what asks."""
    told: list[str] = []
    is_asked = threading.Event()

    def notify(*lines: str) -> None:
        told.extend(lines)
        if any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in lines):
            is_asked.set()

    def recover(*_: object) -> None:
        is_asked.wait(10)
        raise StorageError("the end of the test")

    monkeypatch.setattr(daemon, "systemd", SimpleNamespace(notify=notify, notify_status=lambda text: None))
    monkeypatch.setattr(daemon, "_EXTEND_S", 0.05)
    monkeypatch.setattr(daemon, "open_store", recover)
    path = tmp_path / "msrecd.toml"
    state = f'path = "{tmp_path}/recordings"\nstate_path = "{tmp_path}/state"\n'
    path.write_text(f'config_version = 1\n[device]\nid = "slow"\n[storage]\n{state}')

    async def start() -> None:
        with pytest.raises(StorageError):
            await daemon.Daemon(load(path), path).run()

    asyncio.run(start())
    assert is_asked.is_set()
    assert "READY=1" not in told
