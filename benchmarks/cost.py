"""What recording costs next to the best C programs: the same input at the same time, in real time.

    python benchmarks/cost.py [--seconds 60] [--repeat 3] [--only aac|opus] [--json]

Input: H.264 1080p30 at 8 Mbit/s and PCM, made once by ffmpeg. All pass the picture through and encode the sound at
128 kbit/s into chunks of 10 s: the whole daemon with its broker (fragmented MP4, synced, hashed, with manifest),
ffmpeg's segment muxer (MP4 and fragmented MP4) and GStreamer's splitmuxsink, if it is installed. They run side by side
so that all meet the same load of the machine; the median of the repetitions counts. CPU is user and system time of the
process, RSS its peak, `written` the size of all files it leaves for each byte of media in them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import programs

FRAGMENTED = "movflags=+frag_keyframe+empty_moov+default_base_moof"
COLUMNS = {"cpu_s_per_min": "CPU s a minute", "peak_rss_mib": "peak RSS MiB", "written": "bytes written a media byte"}
ENCODERS = {"aac": ("aac", "avenc_aac bitrate=128000"), "opus": ("libopus", "opusenc bitrate=128000")}
MIME_TYPES = {"aac": "video/mp4;codecs=avc1,mp4a.40.2", "opus": "video/mp4;codecs=avc1,opus"}


def ffmpeg(source: Path, folder: Path, codec: str, *, fragmented: bool) -> programs.Command:
    """ffmpeg's segment muxer."""
    form = ["-segment_format_options", FRAGMENTED] if fragmented else []
    command = [
        *("ffmpeg", "-v", "error", "-re", "-i", str(source), "-map", "0:v", "-map", "0:a"),
        *("-c:v", "copy", "-c:a", ENCODERS[codec][0], "-b:a", "128k"),
        *("-f", "segment", "-segment_time", "10", "-reset_timestamps", "1", "-segment_format", "mp4", *form),
        str(folder / "%03d.mp4"),
    ]
    return programs.Command("ffmpeg, fragmented MP4" if fragmented else "ffmpeg, MP4", folder, command)


def gstreamer(source: Path, folder: Path, codec: str) -> programs.Command:
    """GStreamer's splitmuxsink."""
    command = [
        *("gst-launch-1.0", "-q", "-e", "filesrc", f"location={source}", "!", "matroskademux", "name=demux"),
        *("splitmuxsink", "name=sink", f"location={folder}/%03d.mp4", "max-size-time=10000000000", "muxer=mp4mux"),
        *("demux.video_0", "!", "queue", "!", "h264parse", "!", "identity", "sync=true", "!", "sink.video"),
        *("demux.audio_0", "!", "queue", "!", "audioconvert", "!", *ENCODERS[codec][1].split(), "!", "sink.audio_0"),
    ]
    return programs.Command("GStreamer splitmuxsink", folder, command, finish=signal.SIGINT)


def media_bytes(files: Sequence[Path]) -> int:
    """Payload of all packets of the readable files."""
    total = 0
    for path in files:
        try:
            with av.open(str(path)) as container:
                total += sum(packet.size for packet in container.demux())
        except av.error.FFmpegError:
            continue  # one that its program did not finish
    return total


def measure(source: Path, codec: str, seconds: float, work: Path, port: int) -> dict[str, dict[str, float]]:
    """One run of all programs side by side."""
    body = programs.recorder("cam0", source, MIME_TYPES[codec])
    daemon = programs.Daemon(work / "msrecd", port, body)
    rivals = [
        ffmpeg(source, work / "ffmpeg", codec, fragmented=False),
        ffmpeg(source, work / "ffmpeg-fragmented", codec, fragmented=True),
    ]
    if shutil.which("gst-launch-1.0"):
        rivals.append(gstreamer(source, work / "gstreamer", codec))
    everybody: list[programs.Program] = [daemon, *rivals]
    try:
        time.sleep(2)  # what comes with the start of a daemon that then runs for months is not counted
        before = {program.name: 0.0 for program in rivals}  # the others start for each recording
        before[daemon.name] = programs.cpu_s(daemon.pid)
        daemon.begin()
        for rival in rivals:
            rival.begin()
        begun = time.monotonic()
        time.sleep(seconds)
        minutes = (time.monotonic() - begun) / 60
        result = {
            program.name: {
                "cpu_s_per_min": (programs.cpu_s(program.pid) - before[program.name]) / minutes,
                "peak_rss_mib": programs.memory_mib(program.pid),
            }
            for program in everybody
        }
    finally:
        for program in everybody:
            program.end()
    for program in everybody:
        written = sum(path.stat().st_size for path in program.folder.rglob("*") if path.is_file())
        result[program.name]["written"] = written / max(1, media_bytes(program.files))
    return result


def run(codec: str, seconds: float, repeat: int) -> dict[str, dict[str, float]]:
    """The medians of so many runs, by program."""
    source = programs.make_input(max(70, int(seconds) + 10))
    runs = []
    with tempfile.TemporaryDirectory(prefix="msrecd-bench-") as temporary:
        folder = Path(temporary)
        with programs.Broker(folder) as broker:
            for number in range(repeat):
                work = folder / f"{codec}-{number}"
                work.mkdir()
                runs.append(measure(source, codec, seconds, work, broker.port))
                shutil.rmtree(work)
    return {name: {key: statistics.median(run[name][key] for run in runs) for key in runs[0][name]} for name in runs[0]}


def table(codec: str, found: Mapping[str, Mapping[str, float]]) -> str:
    """Values, and in brackets msrecd's share of each."""
    ours = found["msrecd"]
    lines = [f"H.264 passed through, {codec.upper()} encoded", "", "| | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---|" + "---|" * len(COLUMNS))
    for name, values in found.items():
        ratios = {key: "" if name == "msrecd" else f" (× {ours[key] / values[key]:.2f})" for key in COLUMNS}
        cells = [f"{values[key]:.2f}{ratios[key]}" for key in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=list(MIME_TYPES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {codec: run(codec, args.seconds, args.repeat) for codec in MIME_TYPES if args.only in (None, codec)}
    if args.json:
        print(json.dumps(found))
        return 0
    print("\n\n".join(table(codec, values) for codec, values in found.items()))
    print(f"\n(median of {args.repeat} runs of {args.seconds:g} s; × : msrecd's part of it)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
