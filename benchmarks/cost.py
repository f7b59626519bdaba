"""What recording costs: the whole daemon against ffmpeg's segment muxer, on the same encoded input, at the same time.

    python benchmarks/cost.py [--seconds 60] [--repeat 3]

Input: H.264 1080p30 at 8 Mbit/s and PCM, made once by ffmpeg. Both pass the picture through and encode the sound to AAC
at 128 kbit/s, in real time, into chunks of 10 s. They run side by side so that both meet the same load of the machine.
CPU is user + system time of the process from /proc, over the recording; RSS is the peak (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def make_input(folder: Path, seconds: int) -> Path:
    """The input file; kept in the cache folder for the next run."""
    path = folder / f"input-{seconds}.mkv"
    if path.exists():
        return path
    print(f"making {path.name} …", file=sys.stderr)
    part = path.with_suffix(".part.mkv")
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-y"),
            *("-f", "lavfi", "-i", f"testsrc2=size=1920x1080:rate=30:duration={seconds}"),
            *(
                "-f",
                "lavfi",
                "-i",
                f"sine=frequency=440:sample_rate=48000:duration={seconds},aformat=channel_layouts=stereo",
            ),
            *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"),
            *("-b:v", "8M", "-minrate", "8M", "-maxrate", "8M", "-bufsize", "8M"),
            *("-x264-params", "nal-hrd=cbr", "-g", "30", "-keyint_min", "30", "-sc_threshold", "0", "-bf", "0"),
            *("-c:a", "pcm_s16le", str(part)),
        ],
        check=True,
    )
    part.rename(path)
    return path


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Ffmpeg:
    """`ffmpeg -re … -f segment`."""

    name = "ffmpeg"

    def __init__(self, source: Path, folder: Path) -> None:
        folder.mkdir()
        self.process = subprocess.Popen(
            [
                *("ffmpeg", "-v", "error", "-re", "-i", str(source), "-map", "0:v", "-map", "0:a"),
                *("-c:v", "copy", "-c:a", "aac", "-b:a", "128k"),
                *("-f", "segment", "-segment_time", "10", "-reset_timestamps", "1", "-segment_format", "mp4"),
                *("-segment_format_options", "movflags=+frag_keyframe+empty_moov+default_base_moof"),
                str(folder / "%03d.mp4"),
            ],
            stdin=subprocess.DEVNULL,
        )
        self.pid = self.process.pid

    def begin(self) -> None:
        """It has begun by itself."""

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)


class Msrecd:
    """The whole daemon, connected to a broker, started over MQTT."""

    name = "msrecd"

    def __init__(self, source: Path, folder: Path, port: int) -> None:
        folder.mkdir()
        self.config = folder / "msrecd.toml"
        self.config.write_text(
            f"""config_version = 1
[device]
id = "bench"
[mqtt]
host = "127.0.0.1"
port = {port}
[storage]
path = "{folder / "recordings"}"
state_path = "{folder / "state"}"
[[recorder]]
name = "cam0"
source = {{ url = "file://{source}", loop = true }}
mime_type = "video/mp4;codecs=avc1,mp4a.40.2"
audio_bits_per_second = 128_000
chunk_duration = "10s"
"""
        )
        (folder / "recordings").mkdir()
        address = f"\0msrecd-bench-{os.getpid()}-{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(address)
            ready.settimeout(30)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "msrecd", "run", "--config", str(self.config), "--log-level", "warning"],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"NOTIFY_SOCKET": "@" + address[1:]},
            )
            while "READY=1" not in ready.recv(4096).decode().splitlines():
                pass
        self.pid = self.process.pid

    def begin(self) -> None:
        self._ctl("start")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def _ctl(self, verb: str) -> None:
        command = [sys.executable, "-m", "msrecd", "ctl", "--config", str(self.config), "cam0", verb]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)


def measure(source: Path, seconds: int, work: Path, port: int) -> dict[str, dict[str, float]]:
    """One run of both side by side."""
    daemon = Msrecd(source, work / "msrecd", port)
    both: list[Msrecd | Ffmpeg] = [daemon]
    try:
        time.sleep(2)  # what comes with the start of a daemon that then runs for months is not counted
        daemon.begin()
        both.append(Ffmpeg(source, work / "ffmpeg"))
        return watch(both, seconds, work)
    finally:
        for program in both:
            program.end()


def watch(both: list[Msrecd | Ffmpeg], seconds: int, work: Path) -> dict[str, dict[str, float]]:
    """CPU and memory of running programs over so many seconds."""
    before = {program.name: cpu_s(program.pid) for program in both}
    before["ffmpeg"] = 0.0  # its start belongs to each of its recordings
    begun = time.monotonic()
    time.sleep(seconds)
    minutes = (time.monotonic() - begun) / 60
    result = {}
    for program in both:
        files = list((work / program.name).rglob("*.mp4*"))
        result[program.name] = {
            "cpu_s_per_min": (cpu_s(program.pid) - before[program.name]) / minutes,
            "peak_rss_mb": peak_rss_mb(program.pid),
            "written_mb": sum(file.stat().st_size for file in files) / 1e6,
        }
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cache = Path(__file__).parent.parent / ".cache" / "benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    source = make_input(cache, args.seconds + 10)
    port = free_port()
    runs = []
    with tempfile.TemporaryDirectory(prefix="msrecd-bench-") as folder:
        conf = Path(folder) / "mosquitto.conf"
        conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
        mosquitto = "/usr/sbin/mosquitto"
        broker = subprocess.Popen([mosquitto, "-c", str(conf)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            for number in range(args.repeat):
                work = Path(folder) / str(number)
                work.mkdir()
                runs.append(measure(source, args.seconds, work, port))
        finally:
            broker.terminate()
            broker.wait(10)
    table = {
        program: {key: statistics.median(run[program][key] for run in runs) for key in runs[0][program]}
        for program in ("msrecd", "ffmpeg")
    }
    ratio = {key: table["msrecd"][key] / table["ffmpeg"][key] for key in table["ffmpeg"]}
    if args.json:
        print(json.dumps({"runs": runs, "median": table, "ratio": ratio}))
        return 0
    print(f"{'':14}{'msrecd':>10}{'ffmpeg':>10}{'ratio':>8}   (median of {args.repeat} runs of {args.seconds} s)")
    for key in ratio:
        print(f"{key:14}{table['msrecd'][key]:10.2f}{table['ffmpeg'][key]:10.2f}{ratio[key]:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
