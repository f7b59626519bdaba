"""Constraints of the configuration in a running daemon: which device and mode they choose, what is refused and told."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from config_text import camera, microphone, recorder
from console import Console
from daemon import DaemonFor

DEVICES = """
[devices]
virtual = [
  { kind = "camera", label = "Left", modes = [[640, 360, 30]] },
  { kind = "camera", label = "Right", group_id = "right", modes = [[480, 360, 30]] },
  { kind = "microphone", label = "Left", signal = "silence" },
  { kind = "microphone", label = "Right", group_id = "right", channels = 1, sample_rate = 16000, signal = "tone" },
]
"""


def picture(path: Path) -> tuple[int, int, float]:
    """Width, height and frames a second of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.pts is not None]
        return stream.width, stream.height, (len(times) - 1) / (max(times) - min(times))


def sound(path: Path) -> tuple[int, int]:
    """Sample rate and channels of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return stream.rate, stream.channels


@pytest.mark.effect(
    "config: recorder.video.width",
    "config: recorder.video.height",
    "config: recorder.video.frame_rate",
    "config: recorder.video.aspect_ratio",
    "config: recorder.video.resize_mode",
    "config: recorder.video.group_id",
    "config: recorder.video.device_id.label",
    "config: devices.virtual.modes",
    "config: devices.virtual.group_id",
)
def test_which_camera_and_which_frames(daemon_for: DaemonFor) -> None:
    def made(name: str, **wanted: object) -> str:
        return camera(name, video=wanted, autostart=True)

    recorders = (
        made("scaled", device_id={"label": "Left"}, width=320, height=180, frame_rate=15)
        + made("square", device_id={"label": "Left"}, aspect_ratio={"exact": 1.0}, height=200)
        + made("grouped", group_id={"exact": "right"})
        + made("labelled", device_id={"label": "Right"})
        + made("native", width=400, resize_mode={"exact": "none"}, frame_rate={"exact": 10})
    )
    with daemon_for(recorders, more=DEVICES) as daemon:
        names = ("scaled", "square", "grouped", "labelled", "native")
        found = {name: picture(daemon.wait_for_chunks(1, recorder=name)[0]) for name in names}
    assert found["scaled"][:2] == (320, 180)
    assert found["scaled"][2] < 16, "30 without it; less where a machine is busy"
    assert found["square"][:2] == (200, 200)
    assert found["grouped"][:2] == found["labelled"][:2] == found["native"][:2] == (480, 360)
    assert found["native"][2] < 11


@pytest.mark.effect(
    "config: recorder.audio.sample_rate", "config: recorder.audio.channel_count", "config: recorder.audio.group_id"
)
def test_which_microphone(daemon_for: DaemonFor) -> None:
    wanted = {
        "slow": {"sample_rate": {"exact": 16_000}},
        "mono": {"channel_count": {"exact": 1}},
        "grouped": {"group_id": {"exact": "right"}},
        "first": {},
    }
    recorders = "".join(
        microphone(name, audio=one or True, mime_type="audio/wav", chunk_duration="1s", autostart=True)
        for name, one in wanted.items()
    )
    with daemon_for(recorders, more=DEVICES) as daemon:
        found = {name: sound(daemon.wait_for_chunks(1, recorder=name)[0]) for name in wanted}
    assert found == {"slow": (16_000, 1), "mono": (16_000, 1), "grouped": (16_000, 1), "first": (48_000, 2)}


@pytest.mark.effect(
    "config: recorder.audio.echo_cancellation",
    "config: recorder.audio.auto_gain_control",
    "config: recorder.audio.noise_suppression",
    "config: recorder.audio.latency",
    "config: recorder.audio.sample_size",
    "config: recorder.video.facing_mode",
    "config: recorder.video.torch",
)
def test_what_no_device_has_is_refused_or_told(daemon_for: DaemonFor, console: Console) -> None:
    """Required, it names what is missing; asked for, it stands in `unmet`."""
    lacking: dict[str, object] = {
        "echo_cancellation": True,
        "auto_gain_control": True,
        "noise_suppression": True,
        "latency": 9.0,
        "sample_size": 32,
    }
    required = {name.replace("_", "-"): ({"audio": {name: {"exact": value}}}, name) for name, value in lacking.items()}
    required["facing-mode"] = {"video": {"facing_mode": {"exact": "user"}}}, "facing_mode"  # type: ignore[assignment]
    recorders = "".join(recorder(name, autostart=True, **keys) for name, (keys, _) in required.items())
    asked = camera("asked", video={"facing_mode": "user", "torch": True, "zoom": 2.0}, audio=lacking)
    with daemon_for(recorders + asked, more=DEVICES):
        for name, (_, constraint) in required.items():
            error = console.wait_state("error", recorder=name, code="device_missing")["error"]
            assert constraint in error["message"], error
        console.command("recorder/asked/start")
        unmet = console.wait_state("recording", recorder="asked")["unmet"]
    told = {one["constraint"]: (one["asked"], one["got"]) for one in unmet}
    assert told.keys() == {*lacking, "facing_mode", "torch", "zoom"}
    assert (told["torch"], told["facing_mode"], told["zoom"]) == ((True, None), ("user", None), (2, None))
    assert told["echo_cancellation"] == told["auto_gain_control"] == told["noise_suppression"] == (True, False)
    assert told["sample_size"] == (32, 16)
    assert told["latency"][0] == 9
