"""`make demo`: a broker, the daemon and twenty seconds of recording under MQTT control, from nothing.

Uses what every other program can use: the command `msrecd run`, a configuration file, and MQTT. The broker is private
(loopback, a free port, gone at the end). Recordings stay in ./demo-recordings.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = Path.cwd() / "demo-recordings"
SCRIPT = Path(sys.executable).parent / "msrecd"  # of the virtual environment
MSRECD: list[str | Path] = [SCRIPT] if SCRIPT.exists() else [sys.executable, "-m", "msrecd"]
DEVICE = "demo"
RECORDER = "cam0"
TREE = f"msrecd/v1/{DEVICE}/"
SHEET_COLUMNS, SHEET_ROWS, SHEET_WIDTH, GAP = 4, 2, 1280, 2

CONFIG = """\
config_version = 1

[device]
id = "{device}"

[devices]
virtual = {virtual}

[mqtt]
host = "127.0.0.1"
port = {port}

[storage]
path = {storage}
state_path = {state}
max_total = "500MiB"

[[recorder]]
name = "{recorder}"
video = {video}
audio = {audio}
mime_type = "video/mp4"
video_bits_per_second = 2_000_000
timeslice = "1s"
chunk_duration = "5s"
"""


class DemoError(Exception):
    """The demo cannot go on; the message says why, for a person."""


class Screen:
    """What is shown: time since the start, who speaks, what is said."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def heading(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    def line(self, who: str, text: str) -> None:
        print(f"  {time.monotonic() - self._start:5.1f} s  {who:<8} {text}", flush=True)


@dataclass
class Seen:
    """What the daemon has said so far."""

    online: bool = False
    state: str = ""
    error: str = ""
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)
    chunks: list[dict[str, Any]] = field(default_factory=list)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_interrupted = threading.Event()


def end_if_interrupted() -> None:
    """Ctrl-C counts here only: raised anywhere, it can leave a lock of `subprocess` held, and a wait never ends."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def stop_process(process: subprocess.Popen[bytes], deadline_s: float) -> None:
    """SIGTERM, then SIGKILL when it does not end in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def tail(log: Path, lines: int = 12) -> str:
    with suppress(OSError):
        return "\n".join("    " + line for line in log.read_text(errors="replace").splitlines()[-lines:])
    return ""


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A private mosquitto; yields its port."""
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        raise DemoError("mosquitto is not installed; `make setup` installs it (or: apt-get install mosquitto)")
    port, log = free_port(), folder / "mosquitto.log"
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with log.open("wb") as output:
        process = subprocess.Popen([program, "-c", str(config)], stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the broker did not start; it said:\n{tail(log)}")
            time.sleep(0.05)
            end_if_interrupted()
        yield port
    finally:
        stop_process(process, 5)


def real_devices() -> tuple[bool, bool]:
    """Whether a real camera and a real microphone are here, as `msrecd devices` sees them.

    The microphone counts only beside a camera: a desktop's sound card without one says nothing about a recorder.
    """
    try:
        done = subprocess.run([*MSRECD, "devices", "--json"], capture_output=True, timeout=60, check=True)
        listed = json.loads(done.stdout)
        found = listed.get("devices", []) if isinstance(listed, dict) else listed
        kinds = {item.get("kind") for item in found}
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError):
        return False, False
    return "videoinput" in kinds, "videoinput" in kinds and "audioinput" in kinds


def write_config(folder: Path, port: int, screen: Screen) -> Path:
    camera, microphone = real_devices()
    if camera:
        virtual, video, audio = "false", "true", "true" if microphone else "false"
        screen.line("demo", "records this machine's camera" + (" and microphone" if microphone else ", no microphone"))
    else:
        mode = "[1280, 720, 30]" if platform.machine() == "x86_64" else "[640, 480, 15]"
        virtual = (
            f'[{{ kind = "camera", label = "Virtual Camera", modes = [{mode}] }}, '
            '{ kind = "microphone", label = "Virtual Microphone" }]'
        )
        video = audio = "true"
        screen.line("demo", "no camera here: records the virtual camera and microphone")
    text = CONFIG.format(
        device=DEVICE,
        recorder=RECORDER,
        virtual=virtual,
        port=port,
        storage=json.dumps(str(OUTPUT)),
        state=json.dumps(str(folder / "state")),
        video=video,
        audio=audio,
    )
    path = folder / "msrecd.toml"
    path.write_text(text)
    return path


@contextmanager
def daemon(config: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    if not SCRIPT.exists() and importlib.util.find_spec("msrecd") is None:
        raise DemoError(f"{SCRIPT} is missing; `make setup` installs it")
    log = folder / "msrecd.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*MSRECD, "run", "--config", config], stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process, log
    finally:
        stop_process(process, 20)


class Conversation:
    """Sends commands and shows what comes back. One thread uses it; paho's thread only fills the inbox."""

    def __init__(self, screen: Screen, process: subprocess.Popen[bytes], log: Path) -> None:
        self.seen = Seen()
        self._screen = screen
        self._process = process
        self._log = log
        self._inbox: queue.Queue[mqtt.MQTTMessage] = queue.Queue(1000)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_message = lambda _client, _userdata, message: self._inbox.put(message, timeout=5)
        self._client.on_connect = lambda client, *_: client.subscribe(TREE + "#", qos=1)

    @contextmanager
    def connected(self, port: int) -> Iterator[None]:
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        try:
            yield
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    def command(self, verb: str) -> None:
        """Send a command and wait for its reply."""
        identity = f"{verb}-{time.time_ns()}"
        self._screen.line("you", f"-> cmd/recorder/{RECORDER}/{verb}")
        self._client.publish(f"{TREE}cmd/recorder/{RECORDER}/{verb}", json.dumps({"id": identity}), qos=1)
        self.until(lambda: identity in self.seen.replies, 15, f"no reply to {verb}")
        error = self.seen.replies[identity].get("error")
        if error:
            raise DemoError(f"the daemon refused {verb}: {error['code']}: {error['message']}")

    def until(self, condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
        """Show what arrives until the condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._take(deadline)
            end_if_interrupted()
            if self._process.poll() is not None:
                raise DemoError(
                    f"the daemon ended with exit code {self._process.returncode}; it said:\n{tail(self._log)}"
                )
            if self.seen.state == "error":
                raise DemoError(f"the recorder reports an error: {self.seen.error}")
            if time.monotonic() > deadline and not condition():
                raise DemoError(f"{failure} within {timeout_s:.0f} s; the daemon's last words:\n{tail(self._log)}")

    def listen(self, duration_s: float) -> None:
        end = time.monotonic() + duration_s
        self.until(lambda: time.monotonic() >= end, duration_s + 5, "nothing happened")

    def _take(self, deadline: float) -> None:
        try:
            message = self._inbox.get(timeout=max(0.0, min(0.2, deadline - time.monotonic())))
        except queue.Empty:
            return
        topic = message.topic.removeprefix(TREE)
        payload: Any = message.payload.decode("utf-8", "replace")
        if payload[:1] == "{":
            payload = json.loads(payload)
        for prefix, show in (
            ("availability", self._availability),
            (f"state/recorder/{RECORDER}", self._state),
            ("reply/", self._reply),
            ("event/", self._event),
        ):
            if topic.startswith(prefix):
                show(topic, payload)

    def _availability(self, topic: str, payload: str) -> None:
        self.seen.online = payload == "online"
        self._screen.line("daemon", f"<- {topic}: {payload}")

    def _state(self, topic: str, payload: dict[str, Any]) -> None:
        error = payload.get("error") or {}
        self.seen.error = f"{error.get('code')}: {error.get('message')}" if error else ""
        if payload["state"] != self.seen.state:
            self.seen.state = payload["state"]
            self._screen.line("daemon", f"<- {topic}: {payload['state']}")

    def _reply(self, topic: str, payload: dict[str, Any]) -> None:
        self.seen.replies[str(payload.get("id"))] = payload
        said = payload["status"] + (", nothing to change" if payload.get("changed") is False else "")
        self._screen.line("daemon", f"<- {topic}: {said}")

    def _event(self, topic: str, payload: dict[str, Any]) -> None:
        what = str(payload.get("event_type", topic))
        if what == "chunk":
            self.seen.chunks.append(payload)
            what = f"chunk {payload['seq']}: {payload['duration_s']:.1f} s, {megabytes(payload['bytes'])}"
        elif what == "error":
            what = f"error: {payload.get('message') or payload.get('error')}"
        self._screen.line("daemon", f"<- {topic}: {what}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def table(chunks: list[dict[str, Any]]) -> str:
    rows = [("chunk", "start (UTC)", "duration", "frames", "size")]
    for chunk in chunks:
        started = datetime.fromisoformat(chunk["started"].replace("Z", "+00:00"))
        frames = chunk.get("tracks", {}).get("video", {}).get("frames", 0)
        name, size = Path(chunk["file"]).name, megabytes(chunk["bytes"])
        rows.append((name, f"{started:%H:%M:%S.%f}"[:-3], f"{chunk['duration_s']:.2f} s", str(frames), size))
    total_frames = sum(int(row[3]) for row in rows[1:])
    seconds, size = sum(c["duration_s"] for c in chunks), megabytes(sum(c["bytes"] for c in chunks))
    rows.append(("together", "", f"{seconds:.2f} s", str(total_frames), size))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [f"  {row[0]:<{widths[0]}}" + "".join(f"  {row[c]:>{widths[c]}}" for c in range(1, 5)) for row in rows]
    rule = "  " + "-" * (len(lines[0]) - 2)
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def pictures(file: Path, count: int, width: int, height: int) -> list[Any]:
    """`count` pictures, evenly over the file, as (height, width, 3) uint8."""
    with av.open(str(file)) as container:
        frames = [frame.pts for frame in container.decode(video=0)]
    wanted = {frames[(2 * n + 1) * len(frames) // (2 * count)] for n in range(count)}
    with av.open(str(file)) as container:
        chosen = [frame for frame in container.decode(video=0) if frame.pts in wanted]
        return [frame.reformat(width=width, height=height, format="rgb24").to_ndarray() for frame in chosen]


def contact_sheet(chunks: list[Path], target: Path) -> None:
    """A PNG with pictures of all chunks, in their order, left to right and down."""
    with av.open(str(chunks[0])) as container:
        video = container.streams.video[0]
        shape = video.width / video.height
    width = SHEET_WIDTH // SHEET_COLUMNS
    height = round(width / shape / 2) * 2
    cells = SHEET_COLUMNS * SHEET_ROWS
    tiles: list[Any] = []
    for n, chunk in enumerate(chunks):
        share = (n + 1) * cells // len(chunks) - n * cells // len(chunks)
        tiles += pictures(chunk, share, width - 2 * GAP, height - 2 * GAP) if share else []
    sheet = np.full((height * SHEET_ROWS, SHEET_WIDTH, 3), 32, dtype=np.uint8)
    for n, tile in enumerate(tiles[:cells]):
        row, column = divmod(n, SHEET_COLUMNS)
        top, left = row * height + GAP, column * width + GAP
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    with av.open(str(target), "w", format="image2", options={"update": "1"}) as output:
        stream = output.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = SHEET_WIDTH, height * SHEET_ROWS, "rgb24"
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(sheet, format="rgb24")), *stream.encode(None)]:
            output.mux(packet)


def shown(path: Path) -> str:
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def report(chunks: list[dict[str, Any]], screen: Screen) -> None:
    files = [OUTPUT / chunk["file"] for chunk in chunks]
    screen.heading("Recorded")
    print(table(chunks))
    sheet = OUTPUT / "contact-sheet.png"
    contact_sheet(files, sheet)
    print(f"\n  pictures   {shown(sheet)}")
    print(f"  play       ffplay {shown(files[0])}")
    print(f"  manifest   {shown(next(files[0].parent.glob(chunks[0]['recording_id'] + '.jsonl')))}")
    if files[0].name.startswith("boot"):
        print("\n  Names begin with boot... and not with the time: this machine's clock is not set by anyone.")
    print("\n  Every chunk is complete in itself and plays in any player. Next: README.md, 'First configuration'.")


def run() -> None:
    screen = Screen()
    OUTPUT.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msrecd-demo-")))
        screen.heading("msrecd demo: a recorder under MQTT control (about 25 seconds; Ctrl-C ends it)")
        port = stack.enter_context(broker(folder))
        screen.line("demo", f"private MQTT broker on 127.0.0.1:{port}")
        config = write_config(folder, port, screen)
        process, log = stack.enter_context(daemon(config, folder))
        talk = Conversation(screen, process, log)
        stack.enter_context(talk.connected(port))
        seen = talk.seen
        talk.until(lambda: seen.online and seen.state == "inactive", 45, "the daemon was not ready")
        screen.heading(f"Commands go to {TREE}cmd/..., answers come below {TREE}")
        for verb, state, then_s in (("start", "recording", 8), ("pause", "paused", 2), ("resume", "recording", 6)):
            talk.command(verb)
            talk.until(lambda state=state: seen.state == state, 15, f"not {state}")  # type: ignore[misc]
            talk.listen(then_s)
        talk.command("stop")
        talk.until(lambda: seen.state == "inactive" and any(c.get("final") for c in seen.chunks), 20, "no last chunk")
        talk.listen(0.5)  # what still comes
        report(sorted(seen.chunks, key=lambda chunk: chunk["seq"]), screen)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _interrupted.set())
    try:
        run()
    except DemoError as exc:
        print(f"\ndemo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped; broker and daemon are ended", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
