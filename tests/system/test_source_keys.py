"""Keys of recorder.source in a running daemon: a network camera that wants a login, and a file."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from config_text import configuration, recorder
from console import Console
from daemon import DaemonFor, DaemonProcess

from tests.inputs.cameras import Faults, RtspCamera, clip

SECRET = "ri:g@ht/"


@pytest.mark.effect(
    "config: recorder.source.transport",
    "config: recorder.source.tracks",
    "config: recorder.source.user",
    "config: recorder.source.password_file",
    "config: recorder.source.timeout",
)
def test_a_network_camera(daemon_for: DaemonFor, console: Console, tmp_path: Path) -> None:
    """It is asked for UDP and for frames alone, by who may; when it falls silent that is told after `timeout`."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "secret").chmod(0o600)
    with RtspCamera(clip(), Faults(login=("admin", SECRET), silent_after_s=6.0)) as server:
        source = {
            "url": server.url,
            "transport": "udp",
            "tracks": ["video"],
            "user": "admin",
            "password_file": str(tmp_path / "secret"),
            "timeout": "2s",
        }
        recorders = recorder("cam0", source=source, chunk_duration="2s", timeslice="500ms", autostart=True)
        with daemon_for(recorders) as daemon:
            (track,) = console.wait_state("recording")["tracks"]
            assert track["kind"] == "video"
            (first, *_) = daemon.wait_for_chunks(1)
            lost = console.wait_state("error", code="device_missing")
            assert "silent for 2 s" in lost["error"]["message"], lost["error"]
        setups = [request for request in server.requests if request.startswith("SETUP")]
        assert setups
        assert all("client_port" in request and "interleaved" not in request for request in setups), (
            "TCP is tried first"
        )
    with av.open(str(first)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert SECRET not in daemon.log.read_text()


@pytest.mark.effect("config: recorder.source.loop")
def test_a_file_again_and_again(tmp_path: Path) -> None:
    """A second of sound lasts as long as it is wanted."""
    path = tmp_path / "second.flac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        for number in range(10):
            block = av.AudioFrame(format="s16", layout="mono", samples=1600)
            block.planes[0].update(bytes([number]) * block.planes[0].buffer_size)
            block.sample_rate, block.pts = 16_000, number * 1600
            container.mux(stream.encode(block))  # type: ignore[attr-defined]
        container.mux(stream.encode(None))  # type: ignore[attr-defined]
    source = {"url": str(path), "loop": True}
    recorders = recorder("cam0", source=source, mime_type="audio/flac", chunk_duration="2s", autostart=True)
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=recorders)) as daemon:
        daemon.wait_for_chunks(1)
    assert sum(line["tracks"]["audio"]["samples"] for line in daemon.chunk_lines()) >= 2 * 16_000
