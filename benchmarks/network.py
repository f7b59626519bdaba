"""What it costs to record network cameras, next to ffmpeg, GStreamer and mediamtx: the same cameras at the same time.

    python benchmarks/network.py [--cameras 1] [--seconds 60] [--repeat 5] [--sound aac] [--kills 10] [--json]
    python benchmarks/network.py --table

Each camera (camera.py) sends H.264 1080p30 at 8 Mbit/s and sound over RTSP; all programs pass both through into chunks
of 10 s. CPU and memory (PSS) are those of all processes of a program. With several cameras the programs take turns:
two cores could not carry them together. `--kills`: SIGKILL in mid-chunk, and how much of what the camera had sent is
not in the file; how long the first playable file takes; how soon it is recorded again after an outage. `--table`: one,
eight, sixteen and sixty-four cameras beside ffmpeg and mediamtx, in twelve minutes, part by part.

mediamtx is looked for in `--mediamtx PATH` or $MSRECD_MEDIAMTX, in PATH and in the cache; where Go is there, it is
built from Go's module proxy. Otherwise its rows are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import programs

MEDIAMTX = "v1.20.1"
DEADLINE_S = 20.0
FRAGMENTED = "movflags=+frag_keyframe+empty_moov+default_base_moof"
COLUMNS = {
    "cpu_s_per_min": "CPU s a minute and camera",
    "pss_mib": "PSS MiB",
    "switches": "context switches a second and camera",
    "lost": "frames lost",
    "doubled": "doubled",
}


def make_media(sound: str, seconds: int = 30, bit_rate: str = "") -> Path:
    """What the cameras send; kept in the cache.

    Args:
        bit_rate: empty: the 1080p30 at 8 Mbit/s of the other benchmarks; else 640x360 at that rate.
    """
    source = programs.make_input(seconds)
    path = programs.CACHE / f"camera-{sound}{'-' + bit_rate if bit_rate else ''}-{seconds}.mkv"
    if path.exists():
        return path
    small = ["-s", "640x360", "-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-b:v", bit_rate]
    small += ["-maxrate", bit_rate, "-bufsize", bit_rate, "-x264-params", "nal-hrd=cbr:keyint=30:scenecut=0"]
    video = small if bit_rate else ["-c:v", "copy"]
    audio = ["-c:a", sound, *(("-b:a", "128k") if sound == "aac" else ("-ar", "8000", "-ac", "1"))]
    part = path.with_suffix(".part.mkv")
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(source), *video, *audio, str(part)], check=True)
    part.rename(path)
    return path


def find_mediamtx(given: str | None) -> Path | None:
    """The program, built if need be; None, and a word why, where it cannot be had."""
    cached = programs.CACHE / f"mediamtx-{MEDIAMTX}"
    for path in (given, os.environ.get("MSRECD_MEDIAMTX"), shutil.which("mediamtx"), cached):
        if path and Path(path).is_file():
            return Path(path)
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        print("no mediamtx: neither the program nor Go is here; its rows will be missing", file=sys.stderr)
        return None
    print(f"building mediamtx {MEDIAMTX} …", file=sys.stderr)
    module = f"github.com/bluenviron/mediamtx@{MEDIAMTX}"
    try:
        text = subprocess.run([go, "mod", "download", "-json", module], check=True, capture_output=True).stdout
        with tempfile.TemporaryDirectory(prefix="msrecd-bench-") as folder:
            source = Path(folder) / "source"
            shutil.copytree(json.loads(text)["Dir"], source)
            for one in (source, *source.rglob("*")):
                one.chmod(0o755)
            # What its own build would fetch from elsewhere, and what recording does not need.
            (source / "internal/core/VERSION").write_text(MEDIAMTX)
            (source / "internal/servers/hls/hls.min.js").write_text("")
            subprocess.run([go, "build", "-o", str(cached), "."], cwd=source, check=True, capture_output=True)
    except (subprocess.CalledProcessError, OSError, KeyError) as exc:
        print(f"no mediamtx: it cannot be built ({exc}); its rows will be missing", file=sys.stderr)
        return None
    return cached


class Camera:
    """One camera process, for any number of clients; a context manager."""

    def __init__(self, media: Path) -> None:
        self._media = media
        self.port = programs.free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/cam"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("camera.py")), str(self._media), "--port", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def next_play_s(self) -> float:
        """When the next client began to play (CLOCK_MONOTONIC); waits for one."""
        assert self._process.stdout is not None
        return float(self._process.stdout.readline().split()[1])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


class Recorders(programs.Program):
    """A rival with a process for each camera, or one for all."""

    def __init__(
        self, name: str, folder: Path, commands: Sequence[Sequence[str]], finish: int = signal.SIGTERM
    ) -> None:
        super().__init__(folder)
        self.name = name
        self._all = [programs.Command(name, folder / str(n), one, finish=finish) for n, one in enumerate(commands)]

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self._all]

    def begin(self) -> None:
        for one in self._all:
            one.begin()

    def end(self) -> None:
        for one in self._all:
            one.end()

    def kill(self) -> None:
        for one in self._all:
            one.kill()


def ffmpeg(folder: Path, urls: Sequence[str], _path: Path | None = None) -> Recorders:
    return Recorders(
        "ffmpeg, fragmented MP4",
        folder,
        [
            [
                *("ffmpeg", "-v", "error", "-rtsp_transport", "tcp", "-i", url, "-map", "0", "-c", "copy"),
                *("-f", "segment", "-segment_time", "10", "-reset_timestamps", "1"),
                *(("-segment_format", "mp4", "-segment_format_options", FRAGMENTED)),
                str(folder / str(number) / "%03d.mp4"),
            ]
            for number, url in enumerate(urls)
        ],
    )


def gstreamer(folder: Path, urls: Sequence[str], _path: Path | None = None) -> Recorders:
    return Recorders(
        "GStreamer splitmuxsink",
        folder,
        [
            [
                *(
                    "gst-launch-1.0",
                    "-q",
                    "-e",
                    "rtspsrc",
                    f"location={url}",
                    "protocols=tcp",
                    "latency=200",
                    "name=src",
                ),
                *("splitmuxsink", "name=sink", f"location={folder / str(number)}/%03d.mp4"),
                *("max-size-time=10000000000", "muxer=mp4mux"),
                *("src.", "!", "rtph264depay", "!", "h264parse", "!", "queue", "!", "sink.video"),
                *("src.", "!", "rtpmp4gdepay", "!", "aacparse", "!", "queue", "!", "sink.audio_0"),
            ]
            for number, url in enumerate(urls)
        ],
        signal.SIGINT,
    )


def mediamtx(folder: Path, urls: Sequence[str], path: Path | None = None) -> Recorders:
    assert path is not None
    off = "".join(f"{name}: no\n" for name in ("rtmp", "hls", "webrtc", "srt", "api", "metrics", "pprof", "playback"))
    cameras = "".join(f"  cam{n}:\n    source: {url}\n    rtspTransport: tcp\n" for n, url in enumerate(urls))
    made = Recorders("mediamtx", folder, [[str(path), str(folder / "mediamtx.yml")]])
    (folder / "mediamtx.yml").write_text(
        f"logLevel: error\nrtspAddress: 127.0.0.1:{programs.free_port()}\nrtspTransports: [tcp]\n{off}"
        f"pathDefaults:\n  record: yes\n  recordPath: {folder}/0/%path/%s-%f\n  recordSegmentDuration: 10s\n"
        f"paths:\n{cameras}"
    )
    return made


class Msrecd(programs.Daemon):
    """The daemon with a recorder for each camera."""

    def __init__(self, folder: Path, port: int, urls: Sequence[str], more: str = "") -> None:
        body = "".join(
            f'[[recorder]]\nname = "cam{n}"\nsource = {{ url = "{url}" }}\nmime_type = "video/mp4"\n'
            f'chunk_duration = "10s"\n{more}\n'
            for n, url in enumerate(urls)
        )
        super().__init__(folder, port, body, recorders=[f"cam{n}" for n in range(len(urls))])


def everybody(
    folder: Path, port: int, urls: Sequence[str], path: Path | None
) -> dict[str, Callable[[], programs.Program]]:
    """The programs that are there, by name, to be made when they are wanted."""
    found: dict[str, Callable[[], programs.Program]] = {
        "msrecd": lambda: Msrecd(folder / "msrecd", port, urls),
        "ffmpeg": lambda: ffmpeg(folder / "ffmpeg", urls),
    }
    if shutil.which("gst-launch-1.0"):
        found["GStreamer"] = lambda: gstreamer(folder / "gstreamer", urls)
    if path is not None:
        found["mediamtx"] = lambda: mediamtx(folder / "mediamtx", urls, path)
    return found


def frames(files: Sequence[Path]) -> list[int]:
    """A number for each frame in the files, by what it shows: equal for equal ones."""
    found = []
    for path in files:
        try:
            with av.open(str(path)) as container:
                found += [hash(bytes(packet)[-64:]) for packet in container.demux(video=0) if packet.size]
        except (av.error.FFmpegError, IndexError):
            continue  # one that its program did not finish
    return found


def missing(files: Sequence[Path], sent: Sequence[int]) -> tuple[int, int]:
    """(frames that are missing between the first and the last one, frames that are there twice)."""
    place = {frame: number for number, frame in enumerate(sent)}
    lost = doubled = 0
    before: int | None = None
    for frame in frames(files):
        number = place.get(frame)
        if number is None:
            continue
        if before is not None:
            step = (number - before) % len(sent)
            lost += 0 if step in (0, 1) or step > len(sent) // 2 else step - 1
            doubled += step == 0 or step > len(sent) // 2
        before = number
    return lost, doubled


def files_of(program: programs.Program, cameras: int) -> list[list[Path]]:
    """Those of each camera."""
    if isinstance(program, Msrecd):
        return [[path for path in program.files if f"/cam{n}/" in str(path)] for n in range(cameras)]
    if program.name == "mediamtx":
        return [[path for path in program.files if f"/cam{n}/" in str(path)] for n in range(cameras)]
    return [[path for path in program.files if path.parent.name == str(n)] for n in range(cameras)]


def counted(program: programs.Program) -> tuple[float, int]:
    """(CPU seconds, context switches) of all processes so far."""
    pids = [one for pid in program.pids for one in programs.family(pid)]
    return sum(map(programs.cpu_exact_s, pids)), sum(map(programs.switches, pids))


def watch(running: Sequence[programs.Program], seconds: float, cameras: int) -> dict[str, dict[str, float]]:
    """What each takes, from now on for so long."""
    before = {program.name: counted(program) for program in running}
    begun = time.monotonic()
    time.sleep(seconds)
    passed_s = time.monotonic() - begun
    found = {}
    for program in running:
        cpu_s, switches = (now - then for now, then in zip(counted(program), before[program.name], strict=True))
        found[program.name] = {
            "cpu_s_per_min": cpu_s / passed_s * 60 / cameras,
            "pss_mib": sum(programs.pss_mib(one) for pid in program.pids for one in programs.family(pid)),
            "switches": switches / passed_s / cameras,
        }
    return found


def measure(
    media: Path,
    cameras: int,
    seconds: float,
    work: Path,
    port: int,
    path: Path | None,
    only: Sequence[str] = (),
    first: int = 0,
) -> dict[str, dict[str, float]]:
    """One round: side by side with one camera, otherwise one program after the other, beginning with the `first`."""
    sent = frames([media])
    found: dict[str, dict[str, float]] = {}
    with Camera(media) as camera:
        makers = everybody(work, port, [camera.url] * cameras, path)
        names = [name for name in makers if not only or name in only]
        names = names[first % len(names) :] + names[: first % len(names)]
        makers = {name: makers[name] for name in names}
        turns = [list(makers.values())] if cameras == 1 else [[one] for one in makers.values()]
        for turn in turns:
            running = [make() for make in turn]
            try:
                for program in running:
                    program.begin()
                time.sleep(6 if cameras < 32 else 12)  # what comes with the beginning is not counted
                found |= watch(running, seconds, cameras)
            finally:
                for program in running:
                    program.end()
            for program in running:
                pairs = [missing(files, sent) for files in files_of(program, cameras)]
                found[program.name] |= {"lost": sum(one for one, _ in pairs), "doubled": sum(two for _, two in pairs)}
    return found


def has_frame(files: Sequence[Path]) -> bool:
    """Whether somebody could play something by now."""
    return bool(files) and bool(frames(files))


def frames_on_disk(files: Sequence[Path]) -> int:
    return len(frames(files))


def kills(media: Path, times: int, work: Path, port: int, path: Path | None) -> dict[str, dict[str, list[float]]]:
    """Seconds from the beginning to the first playable file, and seconds of media that a SIGKILL costs."""
    found: dict[str, dict[str, list[float]]] = {}
    chance = random.Random(1)
    with Camera(media) as camera:
        for number in range(times):
            makers = everybody(work / str(number), port, [camera.url], path)
            for make in makers.values():
                program = make()
                entry = found.setdefault(program.name, {"first_file_s": [], "lost_s": []})
                begun = time.monotonic()
                program.begin()
                played = camera.next_play_s()
                while not has_frame(program.files) and time.monotonic() < begun + DEADLINE_S:
                    time.sleep(0.02)
                entry["first_file_s"].append(time.monotonic() - begun)
                time.sleep(max(0.0, played + 5 + 4 * chance.random() - time.monotonic()))
                program.kill()
                sent_s = time.monotonic() - played
                entry["lost_s"].append(sent_s - frames_on_disk(program.files) / 30)
    return found


def outages(media: Path, times: int, work: Path, port: int) -> list[float]:
    """Seconds from the return of a camera to the first frame that msrecd records of it."""
    found = []
    with Camera(media) as camera, Msrecd(work / "outage", port, [camera.url]) as daemon:
        daemon.begin()
        camera.next_play_s()
        for number in range(times):
            time.sleep(4)
            camera.stop()
            time.sleep(3 + number % 3)
            camera.start()
            back = time.monotonic()
            found.append(camera.next_play_s() - back)
    return found


def run(
    *,
    cameras: int,
    seconds: float,
    repeat: int,
    sound: str,
    path: Path | None,
    bit_rate: str = "",
    only: Sequence[str] = (),
) -> dict[str, dict[str, list[float]]]:
    """The values of all rounds, by program."""
    media = make_media(sound, bit_rate=bit_rate)
    result: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="msrecd-bench-") as temporary:
        folder = Path(temporary)
        with programs.Broker(folder) as broker:
            for number in range(repeat):
                work = folder / str(number)
                work.mkdir()
                for name, values in measure(media, cameras, seconds, work, broker.port, path, only, number).items():
                    for key, value in values.items():
                        result.setdefault(name, {}).setdefault(key, []).append(value)
                shutil.rmtree(work)
    return result


def run_kills(times: int, path: Path | None) -> dict[str, dict[str, list[float]]]:
    media = make_media("aac")
    with tempfile.TemporaryDirectory(prefix="msrecd-bench-") as temporary:
        folder = Path(temporary)
        with programs.Broker(folder) as broker:
            found = kills(media, times, folder, broker.port, path)
            found["msrecd"]["back_s"] = outages(media, max(3, times // 2), folder, broker.port)
    return found


def table(found: Mapping[str, Mapping[str, Sequence[float]]], columns: Mapping[str, str]) -> str:
    """Medians with the smallest and the largest in brackets; ×: msrecd's part."""
    ours = found["msrecd"]
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---|" + "---|" * len(columns)]
    for name, values in found.items():
        cells = []
        for key in columns:
            if not (one := values.get(key)):
                cells.append("")
                continue
            text = f"{statistics.median(one):.2f} ({min(one):.2f}–{max(one):.2f})"
            if key == "cpu_s_per_min" and name != "msrecd" and all(one):  # else it refused: ffmpeg, G.711 in MP4
                text += f" × {statistics.median(a / b for a, b in zip(ours[key], one, strict=True)):.2f}"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


KILL_COLUMNS = {
    "first_file_s": "first playable file, s",
    "lost_s": "lost by SIGKILL, s",
    "back_s": "recorded again after an outage, s",
}


def print_table(path: Path | None) -> None:
    """All numbers of cameras, each part when it is there; some twelve minutes."""
    parts = ((1, 20.0, 5, ""), (8, 8.0, 5, ""), (16, 8.0, 5, ""), (64, 10.0, 1, "1M"))
    for cameras, seconds, repeat, bit_rate in parts:
        found = run(
            cameras=cameras,
            seconds=seconds,
            repeat=repeat,
            sound="aac",
            path=path,
            bit_rate=bit_rate,
            only=("msrecd", "ffmpeg", "mediamtx"),
        )
        what = f"{cameras} cameras" if cameras > 1 else "one camera"
        print(f"{what}, {bit_rate or '8M'}\n\n{table(found, COLUMNS)}\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cameras", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--sound", choices=("aac", "pcm_mulaw"), default="aac")
    parser.add_argument("--bit-rate", default="", help="640x360 at this rate (1M) instead of 1080p30 at 8 Mbit/s")
    parser.add_argument("--kills", type=int, default=0, help="so many times, instead of measuring the cost")
    parser.add_argument("--mediamtx", help="path of the program")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--table", action="store_true", help="one to sixty-four cameras, in twelve minutes")
    args = parser.parse_args()
    path = find_mediamtx(args.mediamtx)
    if args.table:
        print_table(path)
        return 0
    if args.kills:
        found, columns = run_kills(args.kills, path), KILL_COLUMNS
    else:
        found, columns = (
            run(
                cameras=args.cameras,
                seconds=args.seconds,
                repeat=args.repeat,
                sound=args.sound,
                path=path,
                bit_rate=args.bit_rate,
            ),
            COLUMNS,
        )
    print(json.dumps(found) if args.json else table(found, columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
