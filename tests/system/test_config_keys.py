"""Keys of the configuration that no other test sees at work: each changes what a running daemon does."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import pytest
from config_text import camera, configuration, microphone
from console import Console
from daemon import DaemonFor, DaemonProcess

from msrecd.clock.wall import WallTime


def with_mqtt(text: str, lines: str) -> str:
    return text.replace("[mqtt]\n", f"[mqtt]\n{lines}\n", 1)


@pytest.mark.effect("config: mqtt.allow_verbs", "config: mqtt.command_max_age")
def test_allow_verbs_and_command_max_age(tmp_path: Path, broker: object, console: Console) -> None:
    text = configuration(tmp_path, port=broker.port, recorders=camera())  # type: ignore[attr-defined]
    text = with_mqtt(text, 'allow_verbs = ["get", "start"]\ncommand_max_age = "5s"')
    with DaemonProcess(tmp_path, text) as daemon:
        console.wait("availability")
        assert console.command("recorder/cam0/get")["status"] == "ok"
        assert console.command("recorder/cam0/split")["error"]["code"] == "unknown_verb"
        assert console.command("daemon/ping")["error"]["code"] == "unknown_verb"
        WallTime(daemon.state, trusted=True)
        daemon.stop()
    with DaemonProcess(tmp_path, text):
        console.wait("availability")
        old = (datetime.now(UTC) - timedelta(seconds=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
        console.raw("recorder/cam0/start", json.dumps({"id": "old", "issued_at": old}).encode())
        reply = console.wait("reply/recorder/cam0/start", lambda reply: reply.get("id") == "old")
        assert reply["error"]["code"] == "expired", reply


@pytest.mark.effect("config: recorder.chunk_max_size")
def test_chunk_max_size(daemon_for: DaemonFor) -> None:
    sound = microphone(mime_type="audio/wav", chunk_duration="1h", chunk_max_size="1MiB", autostart=True)
    with daemon_for(sound) as daemon:
        (first, *_) = daemon.wait_for_chunks(1, recorder="mic0")
        assert 500_000 < first.stat().st_size <= 1 << 20


@pytest.mark.effect(
    "config: recorder.audio.device_id.label",
    "config: devices.virtual.kind",
    "config: devices.virtual.label",
    "config: devices.virtual.channels",
    "config: devices.virtual.sample_rate",
    "config: devices.virtual.signal",
)
def test_the_label_of_a_device_and_its_channels(daemon_for: DaemonFor) -> None:
    recorder = microphone(
        audio={"device_id": {"label": "Right"}}, mime_type="audio/wav", chunk_duration="1s", autostart=True
    )
    devices = """
[devices]
virtual = [
  { kind = "microphone", label = "Left", signal = "silence" },
  { kind = "microphone", label = "Right", signal = "tone", channels = 1, sample_rate = 16000 },
]
"""
    with daemon_for(recorder, more=devices) as daemon:
        (first, *_) = daemon.wait_for_chunks(1, recorder="mic0")
    with av.open(str(first)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (16_000, 1)
        assert max(abs(int(sample)) for frame in container.decode(stream) for sample in frame.to_ndarray()[0]) > 10_000


@pytest.mark.effect("config: camera.device_id.label", "config: camera.rotation")
def test_the_properties_of_a_camera_are_in_the_file(daemon_for: DaemonFor) -> None:
    turned = '[[camera]]\ndevice_id = { label = "Test Camera" }\nrotation = 90\n' + camera(autostart=True)
    with daemon_for(turned) as daemon:
        (first, *_) = daemon.wait_for_chunks(1)
    with av.open(str(first)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation in (90, -90, 270)
