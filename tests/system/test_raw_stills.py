"""Raw frames beside snapshots, in a daemon on the real picamera2 over a stand-in for libcamera; who refuses them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_picamera2
from broker import Broker
from config_text import camera, configuration
from console import Console
from daemon import DaemonFor
from dng_reader import read_dng
from fake_picamera2 import imx219
from libcamera_stub import raw_samples
from waiting import until

from msrecd.codecs.parameters import camera_parameters
from msrecd.config import InvalidConfigError, load
from msrecd.daemon import daemon as daemon_module
from msrecd.storage.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")  # picamera2's own


@pytest.fixture
def standin() -> Iterator[None]:
    if not real_picamera2.is_installed():
        pytest.skip("scripts/setup.sh --tests installs picamera2 for this")
    yield
    for found in real_picamera2.MACHINE.cameras:
        found.unhang.set()


@pytest.mark.usefixtures("standin")
@pytest.mark.promise("raw-stills")
@pytest.mark.effect("config: recorder.snapshots.dng", "command: dng", "event-recorder: mime_type")
def test_each_snapshot_has_its_raw_frame_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: Broker, console: Console
) -> None:
    """By time and by command: two files, two lines, two events; what is published stays a JPEG."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    backend = real_picamera2.install(monkeypatch, imx219()).PicameraBackend(
        camera_parameters=camera_parameters, encoder_node=tmp_path / "video11", meminfo=tmp_path / "meminfo"
    )
    monkeypatch.setattr(daemon_module, "backends_for", lambda _config: [backend])
    for name in ("recordings", "state"):
        (tmp_path / name).mkdir()
    path = tmp_path / "msrecd.toml"
    shots = {"every": "1h", "idle": True, "settle": "0s", "dng": True}
    picture = {"width": 640, "height": 480, "frame_rate": 10}
    recorders = camera(video=picture, snapshots=shots) + camera("cam1", video=picture)
    path.write_text(configuration(tmp_path, port=broker.port, recorders=recorders))

    def watch() -> None:
        console.wait("image/cam0")
        by_time = [
            console.wait("event/recorder/cam0", lambda event, mime=mime: event.get("mime_type") == mime)
            for mime in ("image/jpeg", "image/x-adobe-dng")
        ]
        assert [event["snapshot"] for event in by_time] == [1, 2]
        assert by_time[0]["taken"] == by_time[1]["taken"]
        plain = console.command("recorder/cam0/snapshot")["data"]  # as configured
        assert plain["dng"].endswith("-0004.dng")
        asked = console.command("recorder/cam1/snapshot", {"dng": True})["data"]
        assert asked["dng"].endswith("-0002.dng")
        assert console.command("recorder/cam1/snapshot", {"dng": 1})["error"]["code"] == "bad_args"

    async def both() -> None:
        daemon = daemon_module.Daemon(load(path), path)
        running = asyncio.create_task(daemon.run())
        try:
            async with asyncio.timeout(90):
                await daemon.reloader.ready.wait()
                await asyncio.to_thread(watch)
        finally:
            daemon._on_signal()
            assert await running == 0

    asyncio.run(both())
    recordings = tmp_path / "recordings"
    lines = [json.loads(line) for found in recordings.rglob("*.jsonl") for line in found.read_text().splitlines()]
    raws = [line for line in lines if line.get("mime_type") == "image/x-adobe-dng"]
    assert len(raws) == 3
    assert len([line for line in lines if line.get("mime_type") == "image/jpeg"]) == 3
    for line in raws:
        data = (recordings / line["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (line["bytes"], line["sha256"])
        dng = read_dng(data)
        assert (dng.size, dng.model) == ((3280, 2464), "imx219")
        assert (dng.samples[0::2, 1::2] == raw_samples(10)[0][1]).all()
    assert verify(recordings).findings == ()


@pytest.mark.promise("dng-is-refused")
def test_who_gives_no_raw_frames_says_so(daemon_for: DaemonFor, console: Console) -> None:
    shots = {"every": "1s", "idle": True, "settle": "0s", "dng": True}
    with daemon_for(camera() + camera("cam1", snapshots=shots)) as daemon:
        reply = console.command("recorder/cam0/snapshot", {"dng": True})
        assert reply["error"]["code"] == "bad_args"
        assert "needs a camera at the board's own connector" in reply["error"]["message"]
        error = console.wait("event/error", lambda event: "raw frames" in event["message"])
        assert error["message"].startswith("cam1: no snapshot: Test Camera gives no raw frames")
        until(
            lambda: console.command("daemon/health")["data"]["recorders"]["cam1"]["snapshots"]["failed"] >= 2,
            lambda: daemon.log.read_text(),
        )
        assert not daemon.snapshot_lines("cam1")


@pytest.mark.promise("dng-is-refused")
def test_a_network_camera_with_dng_is_refused_by_check_config(tmp_path: Path) -> None:
    config = tmp_path / "msrecd.toml"
    source = camera(snapshots={"every": "1h", "dng": True}, source={"url": "rtsp://cam.lan/stream"})
    text = "\n".join(line for line in source.splitlines() if not line.startswith("video ="))
    config.write_text(configuration(tmp_path, port=None, recorders=text))
    with pytest.raises(InvalidConfigError) as refused:
        load(config)
    problems = {problem.path: problem.message for problem in refused.value.problems}
    assert "gives finished ones only" in problems["recorder[0].snapshots.dng"]
