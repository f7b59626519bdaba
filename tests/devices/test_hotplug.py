from __future__ import annotations

import os
import queue
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msrecd.devices.hotplug import HotplugWatcher, PolledEvents, UdevEvents


class Scripted:
    """Events that a test sends."""

    def __init__(self) -> None:
        self.sent: queue.Queue[bool] = queue.Queue()
        self.closed = threading.Event()

    def wait(self, timeout_s: float | None) -> bool:
        try:
            return self.sent.get(timeout=timeout_s)
        except queue.Empty:
            return False

    def wake(self) -> None:
        self.sent.put(False)

    def close(self) -> None:
        self.closed.set()


class Calls:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.came = threading.Semaphore(0)

    def __call__(self) -> None:
        self.times.append(time.monotonic())
        self.came.release()


def test_a_burst_is_one_change() -> None:
    events, calls = Scripted(), Calls()
    watcher = HotplugWatcher(changed=calls, events=events)
    watcher.start()
    began = time.monotonic()
    for _ in range(12):
        events.sent.put(True)
    assert calls.came.acquire(timeout=5)
    assert calls.times[0] - began >= 0.29
    assert not calls.came.acquire(timeout=0.5)
    events.sent.put(True)
    assert calls.came.acquire(timeout=5)
    watcher.close()
    watcher.close()
    assert events.closed.wait(5)
    assert len(calls.times) == 2


def test_a_device_that_flaps_does_not_keep_the_news_back() -> None:
    events, calls = Scripted(), Calls()
    watcher = HotplugWatcher(changed=calls, events=events)
    watcher.start()
    began = time.monotonic()
    while not calls.times and time.monotonic() < began + 8:
        events.sent.put(True)
        time.sleep(0.1)
    watcher.close()
    assert 1.9 <= calls.times[0] - began < 6


def test_no_call_after_close() -> None:
    events, calls = Scripted(), Calls()
    watcher = HotplugWatcher(changed=calls, events=events)
    watcher.start()
    events.sent.put(True)
    watcher.close()
    assert events.closed.wait(5)
    assert calls.times == []


def test_close_without_start() -> None:
    HotplugWatcher(changed=Calls(), events=Scripted()).close()


def test_polling_sees_cards_and_cameras(tmp_path: Path) -> None:
    cards = tmp_path / "proc" / "asound" / "cards"
    cards.parent.mkdir(parents=True)
    cards.write_text("--- no soundcards ---\n")
    events = PolledEvents(root=tmp_path, interval_s=0.02)
    assert not events.wait(None)
    cards.write_text(" 0 [Device ]: USB-Audio - Mic\n")
    assert events.wait(None)
    assert not events.wait(None)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "video0").touch()
    assert events.wait(None)
    (tmp_path / "dev" / "v4l" / "by-path").mkdir(parents=True)
    assert events.wait(None)
    (tmp_path / "dev" / "v4l" / "by-path" / "usb-1").symlink_to("../../video0")
    assert events.wait(None)
    (tmp_path / "dev" / "video0").unlink()
    assert events.wait(None)
    events.close()


def test_polling_ends_at_once() -> None:
    calls = Calls()
    watcher = HotplugWatcher(changed=calls, events=PolledEvents(interval_s=60))
    watcher.start()
    began = time.monotonic()
    watcher.close()
    assert time.monotonic() - began < 1.5


class FakeMonitor:
    """pyudev.Monitor on a pipe: one byte is one event."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.subsystems: list[str] = []
        self.started = False

    def filter_by(self, subsystem: str) -> None:
        self.subsystems.append(subsystem)

    def start(self) -> None:
        self.started = True

    def fileno(self) -> int:
        return self.reader

    def poll(self, timeout: float) -> Any:
        assert timeout == 0
        try:
            return SimpleNamespace(action="add", device_path="/devices/x") if os.read(self.reader, 1) else None
        except BlockingIOError:
            return None


def test_udev(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = FakeMonitor()
    pyudev = SimpleNamespace(Context=object, Monitor=SimpleNamespace(from_netlink=lambda context, source: monitor))
    monkeypatch.setitem(sys.modules, "pyudev", pyudev)
    events = UdevEvents(("sound", "video4linux"))
    assert (monitor.subsystems, monitor.started) == (["sound", "video4linux"], True)
    assert not events.wait(0.01)
    os.write(monitor.writer, b"abc")
    assert events.wait(None)
    assert not events.wait(0.01)  # all of them were taken
    calls = Calls()
    watcher = HotplugWatcher(changed=calls, events=events)
    watcher.start()
    os.write(monitor.writer, b"a")
    assert calls.came.acquire(timeout=5)
    watcher.close()
    os.close(monitor.reader)
    os.close(monitor.writer)


def test_without_udev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyudev", None)
    with pytest.raises(OSError, match="no udev"):
        UdevEvents(("sound",))
