"""CPU of showing a passed-through 1080p30 stream to a WebRTC viewer, beside a Go program on pion; and of a sound graph.

    python benchmarks/webrtc.py [--seconds 20]

The viewer is the same for both, and is not counted. Where Go is absent the rows of pion are left out. Figures are CPU
seconds a minute of one process, user and system, and mean something only beside those of the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from programs import cpu_s

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualMicrophone

HERE = Path(__file__).parent
GO = shutil.which("go") or "/usr/local/go/bin/go"
BIT_RATE = "8M"
WARM_UP_S = 4.0


def make_streams(folder: Path, seconds: int) -> tuple[Path, Path]:
    """The same frames as MP4 (for msrecd) and as a byte stream (for pion)."""
    movie, raw = folder / "in.mp4", folder / "in.h264"
    source = f"testsrc2=size=1920x1080:rate=30:duration={seconds},noise=alls=8"
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-b:v", BIT_RATE, "-g", "60"]
    quiet = ["ffmpeg", "-v", "error", "-y"]
    subprocess.run([*quiet, "-f", "lavfi", "-i", source, *encode, "-pix_fmt", "yuv420p", str(movie)], check=True)
    with_sets = ["-bsf:v", "h264_mp4toannexb,h264_metadata=aud=insert"]
    subprocess.run([*quiet, "-i", str(movie), "-c", "copy", *with_sets, "-f", "h264", str(raw)], check=True)
    return movie, raw


async def show(movie: str, seconds: float) -> None:
    """msrecd as the sender: an offer on standard input, an empty one for no viewer."""
    offer = await asyncio.to_thread(sys.stdin.read)
    element = msrecd.MediaElement(movie)
    element.loop = True
    stream = element.capture_stream()
    await element.play()
    session = None
    if offer:
        session = await msrecd.StreamView(stream).answer(offer)
        print(session.sdp, end="")
    print("END", flush=True)  # the process that reads the file holds standard output open
    await asyncio.sleep(seconds)
    if session is not None:
        await session.close()
    element.close()


async def record_sound(path: str, seconds: float, *, filtered: bool, channels: int = 1) -> None:
    """AAC of a microphone, plain or behind high-pass, gain and the mean of both channels; in one channel or two."""
    devices = msrecd.MediaDevices(backends=[VirtualBackend([VirtualMicrophone("microphone", signal="tone")])])
    stream = await devices.get_user_media({"audio": True})
    if filtered:
        context = msrecd.AudioContext()
        high_pass = msrecd.BiquadFilterNode(context, {"type": "highpass", "frequency": 200})
        gain = msrecd.GainNode(context, {"gain": 2, "channel_count": 1, "channel_count_mode": "explicit"})
        end = context.create_media_stream_destination()
        end.channel_count = channels
        context.create_media_stream_source(stream).connect(high_pass).connect(gain).connect(end)
        stream = end.stream
    recorder = msrecd.MediaRecorder(stream, {"mime_type": "audio/mp4"})
    blobs: list[bytes] = []
    recorder.ondataavailable = lambda event: blobs.append(bytes(event.data))
    recorder.start()
    await asyncio.sleep(seconds)
    recorder.stop()
    await recorder.stopped
    await asyncio.to_thread(Path(path).write_bytes, b"".join(blobs))
    await devices.close()


async def measure(command: list[str], seconds: float, viewer: msrecd.RTCPeerConnection | None) -> float:
    """CPU seconds a minute of a process, once it has begun: what a start costs is not what a viewer costs."""
    offer = b""
    if viewer is not None:
        viewer.add_transceiver("video", {"direction": "recvonly"})
        await viewer.set_local_description()
        assert viewer.local_description is not None
        offer = viewer.local_description.sdp.encode()
    process = await asyncio.to_thread(subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    answer, _ = await asyncio.to_thread(_exchange, process, offer)
    if viewer is not None:
        await viewer.set_remote_description({"type": "answer", "sdp": answer.decode()})
    over = asyncio.ensure_future(asyncio.to_thread(process.wait, seconds + 60))
    packets = 0
    await asyncio.wait([over], timeout=WARM_UP_S)
    begun, before = time.monotonic(), cpu_s(process.pid)
    until, spent = begun, 0.0
    while not over.done():
        try:
            until, spent = time.monotonic(), cpu_s(process.pid) - before
        except OSError:
            break  # it has just ended
        await asyncio.wait([over], timeout=1)
        stats = {} if viewer is None else await viewer.get_stats()  # none are left once the peer has gone
        received = [one["packets_received"] for one in stats.values() if one["type"] == "inbound-rtp"]
        packets = max(packets, sum(received))
    await over
    if viewer is not None:
        print(f"  {packets} packets received", file=sys.stderr)
        viewer.close()
    return spent / (until - begun) * 60


def _exchange(process: subprocess.Popen[bytes], offer: bytes) -> tuple[bytes, None]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(offer)
    process.stdin.close()
    answer = b""
    while (line := process.stdout.readline()) and line != b"END\n":
        answer += line
    return answer, None


def build(program: Path) -> bool:
    """The Go program; False where Go is absent, or its modules."""
    if not Path(GO).exists():
        return False
    return subprocess.run([GO, "build", "-o", str(program), "."], cwd=HERE / "pion", check=False).returncode == 0


async def compare(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        movie, raw = make_streams(folder, 10)
        ours = [sys.executable, __file__, "--show", str(movie), "--seconds", str(seconds)]
        rows = {
            "msrecd, no viewer": await measure(ours, seconds, None),
            "msrecd, one viewer": await measure(ours, seconds, msrecd.RTCPeerConnection()),
        }
        program = folder / "pion"
        built = await asyncio.to_thread(build, program)
        if built:
            theirs = [str(program), str(raw), str(seconds)]
            rows["pion, no viewer"] = await measure(theirs, seconds, None)
            rows["pion, one viewer"] = await measure(theirs, seconds, msrecd.RTCPeerConnection())
        else:
            print("Go is not installed, or the program cannot be built: pion is left out", file=sys.stderr)
        for kind in ("plain", "filtered", "filtered, as stereo"):
            command = [sys.executable, __file__, "--sound", kind, "--seconds", str(seconds)]
            rows[f"AAC, {kind}"] = await measure(command, seconds, None)
    print(f"{'CPU seconds a minute':24}")
    for row, spent in rows.items():
        print(f"{row:24} {spent:6.2f}")
    viewer = rows["msrecd, one viewer"] - rows["msrecd, no viewer"]
    print(f"{'a viewer, msrecd':24} {viewer:6.2f}")
    if built:
        theirs_net = rows["pion, one viewer"] - rows["pion, no viewer"]
        print(f"{'a viewer, pion':24} {theirs_net:6.2f}  msrecd is {viewer / theirs_net:.2f} x")
    for kind in ("filtered", "filtered, as stereo"):
        share = rows[f"AAC, {kind}"] / rows["AAC, plain"] - 1
        print(f"{'AAC, ' + kind:24} {100 * share:+5.1f} % of AAC, plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--show", help=argparse.SUPPRESS)
    parser.add_argument("--sound", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.show:
        asyncio.run(show(arguments.show, arguments.seconds))
    elif arguments.sound:
        print("END", flush=True)
        asyncio.run(
            record_sound(
                os.devnull,
                arguments.seconds,
                filtered=arguments.sound != "plain",
                channels=1 + arguments.sound.endswith("stereo"),
            )
        )
    else:
        asyncio.run(compare(arguments.seconds))


if __name__ == "__main__":
    main()
