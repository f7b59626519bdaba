"""How long a start and a stop take, as who asks sees it.

    python benchmarks/latency.py [--times 50] [--json]

msrecd: MQTT command to the state `recording`, and from `stop` to the event of the last chunk, which then lies on the
disk under its final name; a camera and a microphone (virtual ones) that another recorder keeps running. ffmpeg and
GStreamer record while they run: from starting the program to the first bytes of its file, from the signal to its end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cost
import paho.mqtt.client as paho
import programs
from paho.mqtt.enums import CallbackAPIVersion

DEADLINE_S = 20.0
DEVICES = """
[devices]
virtual = [
  { kind = "camera", label = "Camera", modes = [[640, 360, 30]] },
  { kind = "microphone", label = "Microphone", signal = "beep" },
]
"""
RECORDER = '[[recorder]]\nname = "{name}"\nvideo = true\naudio = true\nmime_type = "video/mp4"\n{more}\n'


class Ear:
    """Waits for messages; times are those of their arrival."""

    def __init__(self, port: int) -> None:
        self._arrived = threading.Condition()
        self._messages: list[tuple[str, Any]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("msrecd/v1/bench/#", 1)
        self._client.loop_start()

    def _take(self, _client: Any, _userdata: Any, message: Any) -> None:
        body = json.loads(message.payload) if message.payload[:1] == b"{" else {}
        with self._arrived:
            self._messages.append((message.topic, body))
            self._arrived.notify_all()

    def command(self, verb: str, until: Callable[[str, Any], bool]) -> float:
        """Milliseconds from the command to the first message that fits."""
        with self._arrived:
            self._messages.clear()
            begun = time.monotonic()
            self._client.publish(f"msrecd/v1/bench/cmd/recorder/cam0/{verb}", b"", 1)
            while not any(until(topic, body) for topic, body in self._messages):
                if not self._arrived.wait(DEADLINE_S):
                    raise TimeoutError(f"no answer to {verb}")
            return 1000 * (time.monotonic() - begun)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def is_recording(topic: str, body: Any) -> bool:
    return topic.endswith("state/recorder/cam0") and body["state"] == "recording"


def is_last_chunk(topic: str, body: Any) -> bool:
    return topic.endswith("event/recorder/cam0") and body["event_type"] == "chunk" and bool(body["final"])


def of_msrecd(folder: Path, times: int) -> dict[str, list[float]]:
    body = DEVICES + RECORDER.format(name="cam0", more="") + RECORDER.format(name="other", more="autostart = true")
    starts, stops = [], []
    with programs.Broker(folder) as broker, programs.Daemon(folder / "msrecd", broker.port, body):
        ear = Ear(broker.port)
        time.sleep(2)
        for _ in range(times):
            starts.append(ear.command("start", is_recording))
            time.sleep(0.5)
            stops.append(ear.command("stop", is_last_chunk))
            time.sleep(0.1)
        ear.close()
    return {"start": starts, "stop": stops}


def of_rival(make: Callable[[Path], programs.Command], folder: Path, times: int, number: int) -> dict[str, list[float]]:
    starts, stops = [], []
    for turn in range(times):
        program = make(folder / f"{turn}")
        begun = time.monotonic()
        program.begin()
        while not any(path.stat().st_size for path in program.files):
            if time.monotonic() > begun + DEADLINE_S:
                raise TimeoutError(f"{program.name} writes nothing")
            time.sleep(0.002)
        starts.append(1000 * (time.monotonic() - begun))
        time.sleep(0.5)
        begun = time.monotonic()
        program.signal(number)
        stops.append(1000 * (time.monotonic() - begun))
    return {"start": starts, "stop": stops}


def run(times: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each start and stop, by program."""
    source = programs.make_input(70)
    with tempfile.TemporaryDirectory(prefix="msrecd-bench-") as temporary:
        folder = Path(temporary)
        found = {"msrecd": of_msrecd(folder, times)}
        rivals = {"ffmpeg, fragmented MP4": lambda path: cost.ffmpeg(source, path, "aac", fragmented=True)}
        if shutil.which("gst-launch-1.0"):
            rivals["GStreamer splitmuxsink"] = lambda path: cost.gstreamer(source, path, "aac")
        for name, make in rivals.items():
            found[name] = of_rival(make, folder / name, max(3, times // 10), signal.SIGINT)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * len(values)))]


def table(found: dict[str, dict[str, list[float]]]) -> str:
    lines = ["| ms, median (99 %) | start | stop |", "|---|---|---|"]
    for name, both in found.items():
        cells = [f"{statistics.median(both[key]):.0f} ({quantile(both[key], 0.99):.0f})" for key in ("start", "stop")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = run(args.times)
    print(json.dumps(found) if args.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
