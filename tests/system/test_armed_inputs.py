"""A recorder that waits for its triggers or keeps a pre-roll, and whose camera or stream is not there: it says so."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Broker
from config_text import camera, configuration, recorder, trigger
from console import Console
from daemon import DaemonFor
from gstcamera import gst_camera, require_gst_camera
from ports import free_port

import msrecd.daemon.daemon as daemon_module
from msrecd.config.load import load
from msrecd.devices.virtual import VirtualBackend, VirtualCamera

NOTHING_MOVES = trigger(kind="motion", sensitivity=0.0)


def armed(state: Any) -> bool:
    return bool(state["armed"])


def missing(state: Any) -> bool:
    return (state["error"] or {}).get("code") == "device_missing"


def health_of(console: Console, name: str) -> Any:
    return console.command("daemon/health")["data"]["recorders"][name]


@pytest.mark.promise("not-armed-is-told")
@pytest.mark.effect("state-recorder: armed")
def test_a_camera_that_is_away_is_told_while_nothing_is_recorded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broker: Broker,
    console: Console,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One recorder has triggers, one a pre-roll, one both; the camera is plugged in later, and out, and in again."""
    garden = VirtualCamera("Garden", modes=[(320, 240, 15)])
    garden.unplug()
    wants = {"watched": "triggers", "early": "pre-roll", "both": "triggers and no pre-roll"}
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(daemon_module, "backends_for", lambda _config: [VirtualBackend([garden])])
    recorders = (
        camera("watched") + NOTHING_MOVES + camera("early", pre_roll="1s") + camera("both", pre_roll="1s")
    ) + NOTHING_MOVES
    (tmp_path / "recordings").mkdir()
    (tmp_path / "state").mkdir()
    path = tmp_path / "msrecd.toml"
    path.write_text(configuration(tmp_path, port=broker.port, recorders=recorders))

    def watch() -> None:
        for name, what in wants.items():
            told = console.wait_event("error", recorder=name)
            assert told["code"] == "device_missing"
            assert told["message"].startswith("no ")
            state = console.wait(
                f"state/recorder/{name}",
                lambda said, what=what: missing(said) and said["error"]["message"].startswith(f"no {what} for now: "),
            )
            assert (state["state"], state["armed"], state["recording_id"]) == ("inactive", False, None)
            assert console.command(f"recorder/{name}/get")["data"]["error"] == state["error"]
            assert all(not one["armed"] for one in health_of(console, name).get("triggers", ()))
        refused = console.command("recorder/watched/start")
        assert refused["error"]["code"] == "device_missing"
        assert console.command("recorder/watched/get")["data"]["error"]["code"] == "device_missing"
        for change, is_there in ((garden.plug, True), (garden.unplug, False), (garden.plug, True)):
            since = len(console.messages)
            change()
            for name in wants:
                state = console.wait(f"state/recorder/{name}", armed if is_there else missing, since=since)
                assert (state["state"], state["armed"], state["error"] is None) == ("inactive", is_there, is_there)
                if not is_there:
                    assert "went away" in state["error"]["message"]
                assert all(one["armed"] is is_there for one in health_of(console, name).get("triggers", ()))
        for name in wants:
            assert [one["event_type"] for one in console.events(name)] == ["error", "error"], "once for each time"

    async def both() -> None:
        daemon = daemon_module.Daemon(load(path), path)
        running = asyncio.create_task(daemon.run())
        try:
            async with asyncio.timeout(90):
                await daemon.reloader.ready.wait()
                await asyncio.to_thread(console.wait, "availability", lambda text: text == "online")
                await asyncio.to_thread(watch)
        finally:
            daemon._on_signal()
            assert await running == 0

    with caplog.at_level("INFO"):
        asyncio.run(both())
    for name, what in (("watched", "triggers"), ("early", "pre-roll"), ("both", "triggers and pre-roll")):
        assert caplog.messages.count(f"{name}: {what} armed, the input is there again") == 2
    assert not [line for line in caplog.messages if line.startswith("watched") and "pre-roll" in line]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Begins a network camera at a port."""
    require_gst_camera()
    media = tmp_path / "camera.mp4"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=gray:size=320x240:rate=5:duration=60", "-c:v", "libx264",
         "-preset", "ultrafast", "-g", "5", "-bf", "0", "-pix_fmt", "yuv420p", str(media)], check=True, timeout=120,
    )  # fmt: skip

    def begin(port: int) -> subprocess.Popen[bytes]:
        return ends.enter_context(gst_camera(media, port))

    with contextlib.ExitStack() as ends:
        yield begin


@pytest.mark.timeout(180)
@pytest.mark.promise("not-armed-is-told")
def test_a_stream_that_comes_later_and_goes_is_told(
    daemon_for: DaemonFor, console: Console, serve: Callable[[int], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    port = free_port()
    source = {"url": f"rtsp://127.0.0.1:{port}/camera", "timeout": "3s"}
    tape = {"url": f"file://{tmp_path}/later.mp4"}
    recorders = recorder("cam0", source=source) + NOTHING_MOVES + recorder("tape", source=tape) + NOTHING_MOVES
    with daemon_for(recorders) as daemon:
        console.wait("state/recorder/tape", missing)
        state = console.wait("state/recorder/cam0", missing)
        assert (state["state"], state["armed"]) == ("inactive", False)
        server = serve(port)
        (tmp_path / "later.mp4").hardlink_to(tmp_path / "camera.mp4")
        state = console.wait("state/recorder/cam0", armed)
        assert state["error"] is None
        assert health_of(console, "cam0")["triggers"][0]["armed"]
        since = len(console.messages)
        tape_state = console.wait("state/recorder/tape", lambda said: said["error"] is None)
        assert not tape_state["armed"], "a file is not open before it is played"
        server.kill()
        server.wait(10)
        told = console.wait_event("error", since=since)
        assert told["code"] == "device_missing"
        assert console.wait("state/recorder/cam0", missing, since=since)["state"] == "inactive"
        photo = console.command("recorder/cam0/snapshot")
        assert photo["error"]["code"] == "device_missing", "it has video, but is not there"
        serve(port)
        assert console.wait("state/recorder/cam0", armed, since=since + 2)["error"] is None
        assert len([one for one in console.events() if one["event_type"] == "error"]) == 2
        log = daemon.log.read_text()
    assert log.count("triggers armed, the input is there again") == 2
    assert "pre-roll" not in log
