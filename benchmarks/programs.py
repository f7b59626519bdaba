"""What the benchmarks run: an input, a broker, the daemon and its rivals as processes, and what /proc tells of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msrecd.local.client import LocalDaemon

TICKS = os.sysconf("SC_CLK_TCK")
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "benchmarks"
UNIT = Path(__file__).resolve().parents[1] / "systemd" / "msrecd.service"


def unit_environment() -> dict[str, str]:
    """What the shipped unit sets for the daemon."""
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("Environment=")]
    return dict(item.split("=", 1) for line in lines for item in line.removeprefix("Environment=").split())


def make_input(seconds: int) -> Path:
    """H.264 1080p30 at 8 Mbit/s with a key frame a second, and stereo PCM; kept in the cache for the next run.

    A recorder that plays it again and again needs at least 20 s of it.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"input2-{seconds}.mkv"
    if path.exists():
        return path
    print(f"making {path.name} …", file=sys.stderr)
    part = path.with_suffix(".part.mkv")
    # A tone on the left, a slow sweep on the right, and the noise that every microphone has.
    tones = "0.125*sin(2*PI*440*t)+0.002*(random(0)-0.5)|0.5*sin(2*PI*(200+t*20)*t)+0.002*(random(1)-0.5)"
    sound = f"aevalsrc='{tones}':channel_layout=stereo:sample_rate=48000:duration={seconds}"
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-y"),
            *("-f", "lavfi", "-i", f"testsrc2=size=1920x1080:rate=30:duration={seconds}"),
            *("-f", "lavfi", "-i", sound),
            *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"),
            *("-b:v", "8M", "-minrate", "8M", "-maxrate", "8M", "-bufsize", "8M"),
            *("-x264-params", "nal-hrd=cbr", "-g", "30", "-keyint_min", "30", "-sc_threshold", "0", "-bf", "0"),
            *("-c:a", "pcm_s16le", str(part)),
        ],
        check=True,
    )
    part.rename(path)
    return path


def copy_video(source: Path, target: Path) -> None:
    """The picture of a file without its sound."""
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-i", str(source), "-map", "0:v", "-c", "copy", str(target)], check=True
    )


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_exact_s(pid: int) -> float:
    """User and system time of a process so far, to the nanosecond; of the threads that are there."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            total_ns += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it has just ended
    return total_ns / 1e9


def switches(pid: int) -> int:
    """Context switches of all threads so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            lines = (task / "status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def pss_mib(pid: int) -> float:
    """Memory of a process, what it shares counted in parts."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0  # it has just ended
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def memory_mib(pid: int, name: str = "VmHWM") -> float:
    """Peak (VmHWM) or present (VmRSS) resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def written_bytes(pid: int) -> int:
    """What a process has given to write(), into files, sockets and pipes."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    return 0


def count(pid: int, what: str) -> int:
    """How many entries a folder of /proc/PID has: "fd", "task"."""
    return len(list(Path(f"/proc/{pid}/{what}").iterdir()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A private mosquitto; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._conf = folder / "mosquitto.conf"
        self._conf.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")

    def __enter__(self) -> Self:
        mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._process = subprocess.Popen(
            [mosquitto, "-c", str(self._conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise RuntimeError("mosquitto does not listen")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)


class Program:
    """One process that is measured; `files` are the ones it has written."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """Those that were started; they may have children."""
        return [self.pid]

    def begin(self) -> None:
        """Record from now on."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL, and wait."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.wait(10)

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.suffix in (".mp4", ".mkv", ".part"))

    def end(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.end()


class Command(Program):
    """A rival: records from the moment it is started."""

    def __init__(self, name: str, folder: Path, command: Sequence[str], *, finish: int | None = None) -> None:
        super().__init__(folder)
        self.name = name
        self.command = list(command)
        self._finish = finish

    def begin(self) -> None:
        self._process = subprocess.Popen(
            self.command,
            cwd=self.folder.parent,  # mediamtx leaves a certificate where it is started
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def signal(self, number: int) -> None:
        """Send a signal and wait for the end."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)
        self._process.wait(40)

    def end(self) -> None:
        """As its user would: some need another signal than SIGTERM to finish their file."""
        if self._process is not None and self._process.poll() is None and self._finish is not None:
            self._process.send_signal(self._finish)
            self._process.wait(40)
        super().end()


class Daemon(Program):
    """`msrecd run` with its broker; ready when the constructor returns, records when `begin` does."""

    name = "msrecd"

    def __init__(self, folder: Path, port: int, body: str, *, recorders: Sequence[str] = ("cam0",)) -> None:
        """
        Args:
            body: what follows in the configuration: [storage] with limits, devices, recorders.
        """
        super().__init__(folder)
        self.recorders = recorders
        (folder / "recordings").mkdir()
        self.config = folder / "msrecd.toml"
        self.config.write_text(
            f'config_version = 1\n[device]\nid = "bench"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
            f'[storage]\npath = "{folder / "recordings"}"\nstate_path = "{folder / "state"}"\n{body}'
        )
        self._environment = os.environ | unit_environment() | {"RUNTIME_DIRECTORY": str(folder)}  # no other's socket
        address = f"\0msrecd-bench-{os.getpid()}-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(address)
            ready.settimeout(60)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "msrecd", "run", "--config", str(self.config), "--log-level", "warning"],
                stdin=subprocess.DEVNULL,
                env=self._environment | {"NOTIFY_SOCKET": "@" + address[1:]},
            )
            while "READY=1" not in ready.recv(4096).decode().splitlines():
                pass

    def begin(self) -> None:
        """All at once: a start waits for its input."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._start, self.recorders))

    def _start(self, recorder: str) -> None:
        with LocalDaemon(self.folder / "control.sock") as daemon:
            reply = daemon.send(f"recorder/{recorder}/start", b'{"id": "start-%d"}' % time.monotonic_ns(), 60)
        assert reply.get("status") == "ok", reply

    def control(self, recorder: str, verb: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "msrecd", "ctl", "--config", str(self.config), recorder, verb],
            check=True,
            stdout=subprocess.DEVNULL,
            env=self._environment,
            timeout=60,
        )

    @property
    def manifest(self) -> list[Mapping[str, Any]]:
        """The lines of all finished chunks that are still there."""
        lines = []
        for path in sorted(self.folder.rglob("*.jsonl")):
            lines += [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if "seq" in line]


def recorder(name: str, source: Path, mime_type: str, *, chunk: str = "10s", more: str = "") -> str:
    """The configuration of a recorder that plays the input again and again."""
    return (
        f'[[recorder]]\nname = "{name}"\nsource = {{ url = "file://{source}", loop = true }}\n'
        f'mime_type = "{mime_type}"\naudio_bits_per_second = 128_000\nchunk_duration = "{chunk}"\n{more}\n'
    )
