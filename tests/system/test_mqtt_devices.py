"""What a device says of its own devices and health, and every code it can refuse a command with.

The daemon runs in this process, so that its devices are at hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Observer
from config_text import camera, configuration
from console import BASE, Console
from waiting import until

import msrecd.daemon.daemon as daemon_module
from msrecd.config.load import load
from msrecd.daemon import vitals
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone

CAM0 = camera(frame_rate=15, chunk_duration="1s")
Watch = Callable[[daemon_module.Daemon], None]
Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: Broker, console: Console) -> Run:
    """Runs a daemon with these devices, and `watch` in a thread beside its loop."""

    def run_with(devices: list[VirtualCamera | VirtualMicrophone], watch: Watch, recorders: str = CAM0) -> None:
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
        monkeypatch.setattr(daemon_module, "backends_for", lambda _config: [VirtualBackend(devices)])
        for name in ("recordings", "state"):
            (tmp_path / name).mkdir()
        path = tmp_path / "msrecd.toml"
        path.write_text(configuration(tmp_path, port=broker.port, recorders=recorders))

        async def both() -> None:
            daemon = daemon_module.Daemon(load(path), path)
            running = asyncio.create_task(daemon.run())
            try:
                async with asyncio.timeout(60):
                    await daemon.reloader.ready.wait()
                    await asyncio.to_thread(console.wait, "availability", lambda text: text == "online")
                    await asyncio.to_thread(watch, daemon)
            finally:
                daemon._on_signal()
                assert await running == 0

        asyncio.run(both())

    return run_with


@pytest.mark.promise("devices-come-and-go")
@pytest.mark.effect(
    "event-device: event_type",
    "event-device: device_id",
    "event-device: kind",
    "event-device: label",
    "state-devices: label",
    "state-devices: state",
)
@pytest.mark.effect("event-device: event_id", "event-device: ts", "event-device: group_id")
def test_devices_that_come_and_go_are_told(run: Run, console: Console) -> None:
    garden = VirtualCamera("Garden", modes=[(320, 240, 15)])
    microphone = VirtualMicrophone("Nest", sample_rate=8000, channels=1)

    def listed(label: str, state: str, since: int = 0) -> Any:
        return console.wait(
            "state/devices",
            lambda devices: any(d["label"] == label and d["state"] == state for d in devices),
            since=since,
        )

    def watch(_: daemon_module.Daemon) -> None:
        listed("Garden", "free")
        console.command("recorder/cam0/start")
        listed("Garden", "busy")
        since = len(console.messages)
        console.command("recorder/cam0/stop")
        (described,) = [one for one in listed("Garden", "free", since) if one["label"] == "Nest"]
        for change, event_type, state in (
            (microphone.unplug, "removed", "missing"),
            (microphone.plug, "added", "free"),
        ):
            since = len(console.messages)
            change()
            event = console.wait("event/device", lambda event: event["label"] == "Nest", since=since)
            assert event["event_type"] == event_type
            assert event["device_id"] == microphone.device_id
            assert event["group_id"] == described["group_id"] != ""
            assert abs((datetime.fromisoformat(event["ts"]) - datetime.now(UTC)).total_seconds()) < 60
            assert event["kind"] == "audioinput"
            listed("Nest", state, since)

    run([garden, microphone], watch)
    first, second = (event["event_id"] for event in console.told("event/device"))
    assert first < second
    assert first.startswith("test-device/")


def test_a_pause_outlives_a_camera_that_goes_and_comes(run: Run, console: Console) -> None:
    garden = VirtualCamera("Garden", modes=[(320, 240, 15)])

    def watch(_: daemon_module.Daemon) -> None:
        recording = console.command("recorder/cam0/start")["data"]["recording_id"]
        console.wait_event("chunk")
        console.command("recorder/cam0/pause")
        since = len(console.messages)
        garden.unplug()
        console.wait_state("error", code="device_missing", since=since)
        since = len(console.messages)
        garden.plug()
        back = console.wait("state/recorder/cam0", lambda state: state["state"] != "error", since=since)
        assert (back["state"], back["recording_id"]) == ("paused", recording)
        assert console.command("recorder/cam0/pause")["changed"] is False
        chunks = back["chunks"]
        assert console.command("recorder/cam0/resume")["changed"] is True
        console.wait("state/recorder/cam0", lambda state: state["chunks"] > chunks, since=since)
        assert console.command("recorder/cam0/stop")["changed"] is True

    run([garden], watch)


def test_the_first_device_of_all_is_told(run: Run, console: Console) -> None:
    microphone = VirtualMicrophone("Nest", sample_rate=8000, channels=1)
    microphone.unplug()

    def watch(_: daemon_module.Daemon) -> None:
        assert console.wait("state/devices") == []
        microphone.plug()
        assert console.wait("event/device")["event_type"] == "added"

    run([microphone], watch)


def test_health_comes_again_and_again(run: Run, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vitals.INTERVAL_S == 60
    monkeypatch.setattr(vitals, "INTERVAL_S", 0.1)

    def watch(_: daemon_module.Daemon) -> None:
        seen = set()
        while len(seen) < 3:
            health = console.wait("state/health", lambda health: health["ts"] not in seen)
            seen.add(health["ts"])
        assert health["mqtt"]["connected"] is True
        assert health["disk"]["free_bytes"] > 0
        assert health["recorders"]["cam0"]["state"] == "inactive"

    run([VirtualCamera("Garden", modes=[(320, 240, 15)])], watch)


@pytest.mark.promise("health-follows-states")
def test_health_says_within_seconds_what_the_state_says(run: Run, console: Console) -> None:
    garden = VirtualCamera("Garden", modes=[(320, 240, 15)])

    def follows(state: str, since: int) -> None:
        health = console.wait(
            "state/health", lambda it: it["recorders"]["cam0"]["state"] == state, since=since, timeout=30
        )
        assert health["recorders"]["cam0"]["state"] == state

    def watch(_: daemon_module.Daemon) -> None:
        console.wait("state/health")
        since = len(console.messages)
        console.command("recorder/cam0/start")
        follows("recording", since)
        garden.unplug()
        follows("error", since)

    run([garden], watch)


@pytest.mark.effect("reply: code", "reply: error", "reply: retryable")
def test_every_code_that_a_device_can_give(
    run: Run, broker: Broker, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the list but `expired`, `retained_rejected` and `rate_limited`, which are in test_commands and tests/mqtt;
    and no refused command leaves the recorder in another state or wanted."""
    busy, gone = VirtualCamera("Busy", modes=[(320, 240, 15)]), VirtualCamera("Gone", modes=[(320, 240, 15)])
    fine = VirtualCamera("Fine", modes=[(320, 240, 15)])
    recorders = "".join(
        camera(name, video={"device_id": {"exact": device.device_id}, "width": 320, "height": 240, "frame_rate": 15})
        for name, device in (("fine", fine), ("busy", busy), ("gone", gone), ("broken", fine))
    )
    expected = [
        ("recorder/fine/start", b"{", "bad_payload"),
        ("recorder/fine/start", b'{"args": {"duration_s": 0}}', "bad_args"),
        ("recorder/fine/fly", b"", "unknown_verb"),
        ("daemon/reboot", b"", "unknown_verb"),
        ("recorder/nobody/start", b"", "unknown_recorder"),
        ("recorder/fine/pause", b"", "wrong_state"),
        ("recorder/fine/resume", b"", "wrong_state"),
        ("recorder/fine/split", b"", "wrong_state"),
        ("recorder/busy/start", b"", "device_busy"),
        ("recorder/gone/start", b"", "device_missing"),
        ("recorder/gone/snapshot", b"", "device_missing"),
        ("recorder/broken/start", b"", "internal"),
    ]

    async def fails(*_: object, **__: object) -> bool:
        raise ZeroDivisionError("nobody thought of this")

    def watch(daemon: daemon_module.Daemon) -> None:
        busy.fail()
        gone.unplug()
        monkeypatch.setattr(daemon.recorders.units["broken"], "start", fails)
        for path, payload, code in expected:
            since = len(console.messages)
            console.raw(path, payload)
            reply = console.wait(f"reply/{path}", since=since)
            assert (reply["status"], reply["error"]["code"]) == ("error", code), path
        # Full is what the configuration calls full.
        daemon.archive.store.limits = type(daemon.archive.store.limits)(min_free_bytes=1 << 60)
        reply = console.command("recorder/fine/start")
        assert reply["error"]["code"] == "no_space"
        assert reply["error"]["retryable"] is True
        for name in ("fine", "busy", "gone", "broken"):
            state = console.command(f"recorder/{name}/get")["data"]
            assert (state["state"], state["cause"]) == ("inactive", None), name
        assert not [unit for unit in daemon.recorders.units.values() if unit.is_wanted]

    run([fine, busy, gone], watch, recorders)
    with Observer(broker) as late:
        late.subscribe(BASE + "availability")
        assert late.wait_for(lambda message: message.payload == b"offline").retain


@pytest.mark.effect("state-health: failed", "state-health: missed", "event-error: recorder")
def test_snapshots_that_fail_or_take_too_long_are_counted_and_told(run: Run, console: Console) -> None:
    """One frame a second takes seconds to settle, and the next ones are left out; one without a camera fails each time,
    and that is told once."""
    slow, gone = VirtualCamera("Slow", modes=[(320, 240, 1)]), VirtualCamera("Gone", modes=[(320, 240, 15)])
    recorders = "".join(
        camera(name, video={"device_id": {"label": label}}, snapshots={"every": "1s", "idle": True})
        for name, label in (("slow", "Slow"), ("gone", "Gone"))
    )
    gone.unplug()

    def counted(name: str, what: str) -> int:
        return int(console.command("daemon/health")["data"]["recorders"][name]["snapshots"][what])

    def watch(_: daemon_module.Daemon) -> None:
        until(lambda: counted("gone", "failed") >= 2, "they do not fail")
        until(lambda: counted("slow", "taken") >= 1, "there is none")
        assert counted("slow", "missed") >= 2

    run([slow, gone], watch, recorders)
    told = [event for event in console.told("event/error") if event["recorder"] == "gone"]
    assert {event["code"] for event in told} == {"device_missing"}
    assert sum(event["count"] for event in told) == 1
