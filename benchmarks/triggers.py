"""The motion trigger beside the program `motion`, on the same clips: the table of docs/performance.md.

    scripts/apt-install.sh motion opencv-doc
    python benchmarks/triggers.py                  # four clips, some five minutes: motion plays in real time
    python benchmarks/triggers.py --rounds 3       # each by motion three times: it counts not always the same
    python benchmarks/triggers.py --cost           # what a motion trigger costs a daemon, a camera (three minutes)

Clips of the generator have known truth (tests/support/scenes.py); vtest.avi is that of Debian's opencv-doc.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

from scenes import NS, RATE, WITHOUT_FOLIAGE, Passage, Scene, frames  # noqa: E402

from msrecd.triggers.decide import MOTION, Progress, step  # noqa: E402
from msrecd.triggers.motion import MotionDetector, Polygon  # noqa: E402

CAMERAS = 4
VTEST = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")
PASSAGES = tuple(Passage(at_s=10 + 17 * n, size=size, speed=60, y=100) for n, size in enumerate((12, 20, 40)))
LAMPS = {"light_steps": ((10.0, 0.7), (20.0, 1.4), (40.0, 0.7), (50.0, 1.4)), "half_light_steps": (15.0, 45.0)}
SCENES = {
    "passages": Scene(duration_s=64, passages=PASSAGES),
    "lamps": Scene(duration_s=60, light_steps=LAMPS["light_steps"], half_light_steps=LAMPS["half_light_steps"]),
    "foliage": Scene(duration_s=60, seed=7, has_foliage=True),
}
MOTION_CONF = """
daemon off
setup_mode off
netcam_url file://{clip}
width {width}
height {height}
framerate 10
event_gap 10
picture_output off
movie_output off
webcontrol_port 0
stream_port 0
target_dir {folder}
log_level 4
on_event_start echo %s >> {folder}/events
"""


def written(scene: Scene, path: Path) -> Path:
    """The scene as a clip, each frame twice: ten a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=int(2 * RATE), options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        number = 0
        for _, luma in frames(scene):
            for _ in range(2):
                frame = av.VideoFrame.from_ndarray(luma, format="gray").reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, int(2 * RATE))
                number += 1
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def of_msrecd(clip: Path, mask: tuple[Polygon, ...] = ()) -> list[float]:
    """When events began."""
    import numpy as np

    detector, progress, begun, looked_s = MotionDetector(mask=mask), Progress(), [], -1.0
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            if frame.time - looked_s < 0.199:
                continue
            looked_s = frame.time
            luma = np.frombuffer(bytes(frame.planes[0]), np.uint8).reshape(frame.height, -1)[:, : frame.width]
            progress, change = step(MOTION, progress, detector.look(luma, round(frame.time * NS)))
            begun += [frame.time] if change == "begin" else []
    return begun


def of_motion(clip: Path) -> int | None:
    """How many events motion begins at its defaults; None: it is not installed."""
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        width, height, seconds = video.width, video.height, float((container.duration or 0) / av.time_base)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "motion.conf").write_text(MOTION_CONF.format(clip=clip, folder=folder, width=width, height=height))
        try:
            process = subprocess.Popen(
                ["motion", "-n", "-c", str(folder / "motion.conf")],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            return None
        try:
            time.sleep(seconds + 3)  # it would begin the clip again
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        events = folder / "events"
        return len(events.read_text().splitlines()) if events.exists() else 0


def armed(folder: Path, *, has_triggers: bool) -> subprocess.Popen[bytes]:
    """A daemon with armed recorders of virtual cameras, whose triggers look at a corner in which nothing moves."""
    labels = [f"Camera {number}" for number in range(CAMERAS)]
    made = ", ".join(f'{{ kind = "camera", label = "{label}", modes = [[640, 360, 15]] }}' for label in labels)
    text = f"""config_version = 1
[device]
id = "cost"
[storage]
path = "{folder}/recordings"
state_path = "{folder}/state"
[devices]
virtual = [{made}]
"""
    for number, label in enumerate(labels):
        text += f"""[[recorder]]
name = "cam{number}"
video = {{ device_id = {{ label = "{label}" }}, width = 640, height = 360, frame_rate = 15 }}
pre_roll = "3s"
"""
        if has_triggers:
            text += """[[recorder.trigger]]
kind = "motion"
mask = [[[0, 0.12], [0.02, 0.12], [0.02, 0.14], [0, 0.14]]]
"""
    folder.mkdir()
    config = folder / "msrecd.toml"
    config.write_text(text)
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "msrecd", "run", "--config", str(config)]
        return subprocess.Popen(command, stdout=log, stderr=log)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def print_cost(rounds: int) -> None:
    """CPU time of two daemons side by side, without and with triggers; parts of a core."""
    with tempfile.TemporaryDirectory() as name:
        daemons = [armed(Path(name) / str(which), has_triggers=which) for which in (False, True)]
        try:
            time.sleep(20)  # until all is open, and numpy loaded
            for _ in range(rounds):
                before, begun_s = [cpu_s(daemon.pid) for daemon in daemons], time.monotonic()
                time.sleep(40)
                took_s = time.monotonic() - begun_s
                without, with_ = ((cpu_s(d.pid) - b) / took_s for d, b in zip(daemons, before, strict=True))
                each = (with_ - without) / CAMERAS
                print(f"{CAMERAS} cameras: {without:.2%} without, {with_:.2%} with; a camera: {each:.2%}", flush=True)
        finally:
            for daemon in daemons:
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(60)
        recorded = list(Path(name).rglob("*.jsonl"))
        if recorded:
            print(f"a trigger has begun recordings, which cost, too: {len(recorded)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("clips", nargs="*", help=f"of {', '.join(SCENES)}, vtest; all by default")
    parser.add_argument("--rounds", type=int, default=1, help="how often motion looks at each clip")
    parser.add_argument("--cost", action="store_true", help="what a trigger costs, and nothing else")
    args = parser.parse_args()
    if args.cost:
        print_cost(args.rounds)
        return 0
    wanted = args.clips or [*SCENES, "vtest"]
    print("| clip | motion: events | msrecd: events |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for clip in wanted:
            if clip == "vtest" and not VTEST.exists():
                print("| vtest | not there: scripts/apt-install.sh opencv-doc | |")
                continue
            path = VTEST if clip == "vtest" else written(SCENES[clip], Path(name) / f"{clip}.mp4")
            counts = [of_motion(path) for _ in range(args.rounds)]
            theirs = "not installed" if None in counts else ", ".join(map(str, counts))
            ours = ", ".join(f"{at:.1f} s" for at in of_msrecd(path)) or "none"
            if clip == "foliage":
                masked = ", ".join(f"{at:.1f} s" for at in of_msrecd(path, WITHOUT_FOLIAGE)) or "none"
                ours = f"without a mask {ours}; with one {masked}"
            print(f"| {clip} | {theirs} | {ours} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
