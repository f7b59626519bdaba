"""The installed daemon under its shipped unit, seen from outside: systemctl, the broker, the files."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from broker import Observer, Received

DEVICE = "hw-test"
TREE = f"msrecd/v1/{DEVICE}/"
_FOLDER = Path(
    "/var/lib/msrecd/hw-tests"
)  # the unit's sandbox allows writing there; recordings of the field are elsewhere
_CONFIG = Path("/run/msrecd-hw-tests/msrecd.toml")
# Only where the configuration is: user, sandbox, watchdog and restarts are those of the shipped unit.
_DROP_IN = Path("/run/systemd/system/msrecd.service.d/hw-tests.conf")


def systemctl(*arguments: str, timeout: float = 90) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


class InstalledService:
    """Use as a context manager: what was there before is there again afterwards."""

    def __init__(self, config: str) -> None:
        self.recordings = _FOLDER / "recordings"
        self.config = config
        self._stack = contextlib.ExitStack()
        self.started = ""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            was_active = subprocess.run(["systemctl", "is-active", "--quiet", "msrecd"], timeout=30).returncode == 0
            systemctl("stop", "msrecd")
            if was_active:
                stack.callback(systemctl, "start", "msrecd")
            stack.callback(systemctl, "daemon-reload")
            for path in (_CONFIG, _DROP_IN):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.callback(path.unlink, missing_ok=True)
            _DROP_IN.write_text(f"[Service]\nExecStart=\nExecStart=/usr/bin/msrecd run --config {_CONFIG}\n")
            systemctl("daemon-reload")
            for folder in (_FOLDER, self.recordings, _FOLDER / "state"):
                subprocess.run(["install", "-d", "-o", "msrecd", "-g", "msrecd", folder], check=True, timeout=10)
            self._write()
            check = ["msrecd", "check-config", "--config", str(_CONFIG)]
            done = subprocess.run(check, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            stack.callback(systemctl, "stop", "msrecd")
            stack.callback(
                subprocess.run, ["systemctl", "kill", "--signal=CONT", "msrecd"], capture_output=True, timeout=30
            )
            place = SimpleNamespace(
                host="localhost", port=1883, certificates=None, log=lambda: "see journalctl -u mosquitto"
            )
            self.observer = stack.enter_context(Observer(place, client_id="hw-tests"))  # type: ignore[arg-type]
            self.observer.subscribe(TREE + "#")
            self.started = time.strftime("%Y-%m-%d %H:%M:%S")
            begun = time.monotonic()
            systemctl("start", "msrecd")
            topic = f"{TREE}availability"
            self.observer.wait_for(lambda m: m.topic == topic and m.payload == b"online" and m.at > begun, 60)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _write(self) -> None:
        _CONFIG.write_text(
            f'config_version = 1\n[device]\nid = "{DEVICE}"\n[mqtt]\nhost = "localhost"\n'
            f'[storage]\npath = "{self.recordings}"\nstate_path = "{_FOLDER / "state"}"\nsync_interval = "2s"\n'
            + self.config
        )
        shutil.chown(_CONFIG, "root", "msrecd")
        _CONFIG.chmod(0o640)

    @property
    def main_pid(self) -> int:
        return int(systemctl("show", "--property=MainPID", "--value", "msrecd"))

    def command(self, recorder: str, verb: str, **arguments: Any) -> dict[str, Any]:
        """Send a command over the broker and wait for its reply, which must be ok."""
        mark = f"{verb}-{time.monotonic_ns()}"
        payload = {"id": mark, **({"args": arguments} if arguments else {})}
        self.observer.publish(f"{TREE}cmd/recorder/{recorder}/{verb}", payload)
        topic = f"{TREE}reply/recorder/{recorder}/{verb}"
        reply = self.observer.wait_for(lambda m: m.topic == topic and m.json.get("id") == mark, 60).json
        assert reply["status"] == "ok", reply
        return dict(reply)

    def state(self, recorder: str) -> dict[str, Any]:
        """The last state that was told."""
        states = [m.json for m in self.observer.messages if m.topic == f"{TREE}state/recorder/{recorder}" and m.payload]
        return dict(states[-1]) if states else {}

    def wait_state(self, recorder: str, state: str, timeout: float, *, after: float = 0.0, **more: Any) -> Received:
        """The first message after a monotonic time that tells this state."""
        topic = f"{TREE}state/recorder/{recorder}"

        def fits(message: Received) -> bool:
            if message.topic != topic or message.at < after or not message.payload:
                return False
            told = message.json
            return bool(told["state"] == state and all(told.get(name) == value for name, value in more.items()))

        return self.observer.wait_for(fits, timeout)

    def wait_whole(self, recorder: str, timeout: float, *, after: float) -> Received:
        """The first state after a monotonic time that has picture and sound recorded, and no complaint."""
        topic = f"{TREE}state/recorder/{recorder}"

        def fits(message: Received) -> bool:
            if message.topic != topic or message.at < after or not message.payload:
                return False
            told = message.json
            kinds = {track["kind"] for track in told["tracks"]}
            return bool(told["state"] == "recording" and told["error"] is None and kinds == {"audio", "video"})

        return self.observer.wait_for(fits, timeout)

    def events(self, recorder: str, kind: str, *, after: float = 0.0) -> list[Received]:
        topic = f"{TREE}event/recorder/{recorder}"
        return [
            m for m in self.observer.messages if m.topic == topic and m.at >= after and m.json["event_type"] == kind
        ]

    def wait_events(
        self, recorder: str, kind: str, count: int, timeout: float, *, after: float = 0.0
    ) -> list[Received]:
        topic = f"{TREE}event/recorder/{recorder}"
        return self.observer.wait_count(
            lambda m: m.topic == topic and m.at >= after and m.json["event_type"] == kind, count, timeout
        )

    def wait_missing(self, recorder: str, timeout: float, *, after: float) -> Received:
        """The event that says that a device went away; on a slow machine it may first be said to give nothing."""
        topic = f"{TREE}event/recorder/{recorder}"
        return self.observer.wait_for(
            lambda m: m.topic == topic and m.at >= after and m.json.get("code") == "device_missing", timeout
        )

    def journal(self) -> str:
        """What the daemon said since `started`."""
        command = ["journalctl", "-u", "msrecd", "-o", "short-precise", "--no-pager", "--since", self.started]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    def chunks(self, recording_id: str) -> list[Path]:
        """The finished files of a recording, in order; there may be no torn one."""
        parts = list(self.recordings.rglob(f"{recording_id}-*.part"))
        assert not parts, f"unfinished: {parts}"
        return sorted(
            path for path in self.recordings.rglob(f"{recording_id}-*") if path.suffix in (".mp4", ".mkv", ".webm")
        )

    def manifest(self, recording_id: str) -> list[dict[str, Any]]:
        (path,) = self.recordings.rglob(f"{recording_id}.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if "file" in line]

    def verify(self) -> None:
        """`msrecd recordings verify` has nothing to complain about."""
        command = ["msrecd", "recordings", "verify", str(self.recordings), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]} {done.stderr[-500:]}"


@contextlib.contextmanager
def kept(service: InstalledService, folder: str | None, name: str) -> Iterator[dict[str, Any]]:
    """Journal, messages and figures of a test into `folder`/`name`, whether it passes or not.

    The files of the recordings whose ids the test puts into figures["recordings"] go there too.
    """
    figures: dict[str, Any] = {}
    try:
        yield figures
    finally:
        recordings = tuple(figures.pop("recordings", ()))
        print(f"{name}: {json.dumps(figures)}")
        if folder is not None:
            target = Path(folder) / name
            target.mkdir(parents=True, exist_ok=True)
            (target / "journal.txt").write_text(service.journal())
            (target / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
            (target / "mqtt.txt").write_text("".join(_line(message) for message in service.observer.messages))
            for path in service.recordings.rglob("*"):
                if path.is_file() and recordings and path.name.startswith(recordings):
                    shutil.copy2(path, target / path.name)


def _line(message: Received) -> str:
    return f"{message.at:.3f} {message.topic} {message.payload[:2000].decode(errors='replace')}\n"


def spread(values: list[float]) -> Mapping[str, float]:
    return {"min": round(min(values), 2), "max": round(max(values), 2), "mean": round(sum(values) / len(values), 2)}
