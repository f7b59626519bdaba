"""The programs of docs/examples do what the documentation says, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import urllib.request
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import judge
import pytest
from peers import unmuted, until
from recording import Scene, delivered

import msrecd

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
DEADLINE_S = 60.0


def command(name: str, *arguments: object) -> list[str]:
    # A warning is an error, a forgotten coroutine or file too; that of aiortc 1.11 in Debian 13 is not ours.
    known = [
        f"ignore:Passing pyOpenSSL {what} objects:DeprecationWarning" for what in ("X509", "PKey")
    ]  # Debian's aiortc
    warnings = [word for one in ("error", *known) for word in ("-W", one)]
    return [sys.executable, "-X", "dev", *warnings, str(EXAMPLES / name), *map(str, arguments)]


def environment() -> dict[str, str]:
    # The loop's debug mode (of -X dev) reports slow callbacks, which a busy machine has at any time.
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONASYNCIODEBUG": "0"}


def example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run an example to its end, which must be a good one."""
    done = subprocess.run(
        command(name, *arguments), env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done


def times(path: Path, kind: str) -> tuple[float, float, int]:
    """Begin of the first packet and end of the last one, in seconds, and their number."""
    with av.open(str(path)) as container:
        (stream,) = [one for one in container.streams if one.type == kind]
        base = stream.time_base or Fraction(1, 1000)
        packets = [packet for packet in container.demux(stream) if packet.size and packet.pts is not None]
    begin = min(packet.pts * base for packet in packets)
    end = max((packet.pts + (packet.duration or 0)) * base for packet in packets)
    return float(begin), float(end), len(packets)


def codecs(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {stream.type: stream.codec_context.codec.canonical_name for stream in container.streams}


@pytest.mark.slow
def test_canvas_nine_seconds(tmp_path: Path) -> None:
    """MDN's example: 25 fps, nine seconds, VP9 in WebM."""
    path = tmp_path / "canvas.webm"
    example("canvas_nine_seconds.py", path)
    assert codecs(path) == {"video": "vp9"}
    with av.open(str(path)) as container:
        assert "webm" in container.format.name
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert {picture.shape for picture in pictures} == {(240, 320, 3)}
    begin, end, count = times(path, "video")
    assert begin == pytest.approx(0, abs=0.1)
    assert 5 < end - begin < 30  # a busy machine begins to paint late, and wakes late
    # The program paints in real time: a machine that is slow paints less, never more; what stands still is repeated.
    assert 45 <= count <= 25 * (end - begin) + 2
    # It is what was painted, when it was: a yellow ball in the middle row that needs four seconds, on green.
    with av.open(str(path)) as container:
        seconds = [float(frame.time) for frame in container.decode(video=0)]
    looked, late, last = 0, 0, -1
    for picture, second in zip(pictures, seconds, strict=True):
        assert picture[5, 5, 0] < 40
        assert 35 < picture[5, 5, 1] < 90
        expected = second % 4 / 4 * 320
        if 70 < expected < 250:  # it is in the picture as a whole
            yellow = (picture[120, :, 0] > 170).nonzero()[0]
            assert len(yellow), "no ball"
            middle = int(yellow.mean())
            if middle != last:  # what stands still is repeated, however long the program had no time to paint
                looked, late, last = looked + 1, late + (abs(middle - expected) > 40), middle
    assert looked > 20
    assert late < looked / 5  # it had to wait between looking at the clock and painting


@pytest.mark.promise("example-programs-run")
def test_camera_to_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    done = example("camera_to_file.py", "--seconds", 3, "--virtual", path)
    assert [one.name for one in tmp_path.iterdir()] == ["out.mp4"], "left something behind"
    assert codecs(path) == {"video": "h264", "audio": "aac"}
    judged = judge.read_chunk(path)
    # The program counts seconds, whatever the machine does in them.
    assert 1.5 < judged.times[-1] - judged.times[0] < 15
    assert judged.numbers == list(range(judged.numbers[0], judged.numbers[0] + len(judged.numbers)))
    assert abs(judged.av_offset_ms) < 40
    assert "'width': 640" in done.stdout


def test_camera_to_file_ends_with_ctrl_c(tmp_path: Path) -> None:
    """What was recorded is there, complete, under its name."""
    path = tmp_path / "out.mp4"
    with subprocess.Popen(
        command("camera_to_file.py", "--seconds", 50, "--virtual", path), env=environment(), stdout=subprocess.DEVNULL
    ) as process:
        try:
            part = tmp_path / "out.mp4.part"
            end = time.monotonic() + DEADLINE_S
            while not (part.exists() and part.stat().st_size > 10_000):
                assert process.poll() is None, "ended by itself"
                assert time.monotonic() < end, "wrote nothing"
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    _, end_s, count = times(path, "video")
    assert end_s > 0.7
    assert count > 20


def test_camera_to_file_without_room(tmp_path: Path) -> None:
    """A folder that is not there is one line on stderr, and exit code 1."""
    done = subprocess.run(
        command("camera_to_file.py", "--seconds", 2, "--virtual", tmp_path / "none" / "out.mp4"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_watch_and_listen() -> None:
    done = example("watch_and_listen.py", "--seconds", 3.6, "--virtual")
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) >= 3
    # Ten a second are asked for; what a busy machine does not look at in time is left out.
    assert 1 < sum(line["pictures"] for line in lines) / len(lines) < 12.5
    # Something moves in the virtual camera's picture, and its microphone beeps at -6 dBFS once a second.
    assert max(line["motion"] for line in lines) > 0.001
    assert max(line["peak_dbfs"] or -99 for line in lines) == pytest.approx(-6, abs=0.3)
    assert sum(line["lost_samples"] for line in lines) < 48_000 * len(lines) / 4


def test_two_recorders(tmp_path: Path) -> None:
    example("two_recorders.py", "--seconds", 5, "--chunk", 2, "--virtual", tmp_path)
    names = sorted(one.name for one in tmp_path.iterdir())
    chunks = [name for name in names if name.startswith("all-")]
    assert names == [*chunks, "sound-1.webm"]
    assert len(chunks) >= 2
    numbers: list[int] = []
    for name in chunks:
        judged = judge.read_chunk(tmp_path / name)
        numbers += judged.numbers
        assert judged.samples is not None
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "frames lost or doubled between chunks"
    assert codecs(tmp_path / "sound-1.webm") == {"audio": "opus"}
    begin, end, _ = times(tmp_path / "sound-1.webm", "audio")
    assert 3 < end - begin < 30


def test_high_pass_and_record(tmp_path: Path) -> None:
    """The beep of 1 kHz is above the filter's 200 Hz: it is there, and where the flash is."""
    path = tmp_path / "out.mp4"
    example("high_pass_and_record.py", "--seconds", 3.5, "--virtual", path)
    judged = judge.read_chunk(path)
    judge.assert_consecutive(judged.numbers)
    assert abs(judged.av_offset_ms) <= 10


def test_two_microphones(tmp_path: Path) -> None:
    """The tone of the one, at half of its level, and the beeps of the other one above it."""
    path = tmp_path / "out.webm"
    example("two_microphones.py", "--seconds", 3, "--virtual", path)
    assert codecs(path) == {"audio": "opus"}
    loud = abs(judge.read_chunk(path).samples[:, 0])
    assert 0.1 < sorted(loud)[len(loud) // 2] < 0.3
    assert loud.max() > 0.55


def test_motion_while_recording(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    done = example("motion_while_recording.py", "--seconds", 3, "--virtual", path)
    assert done.stdout.startswith("motion ")
    judge.assert_consecutive(judge.read_chunk(path).numbers)


def test_overlay(tmp_path: Path) -> None:
    """The square is in the frames, the numbers of the frames rise, and the sound is where it was."""
    path = tmp_path / "out.mp4"
    example("overlay.py", "--seconds", 3.5, "--virtual", path)
    judged = judge.read_chunk(path)
    assert judged.numbers == sorted(set(judged.numbers))
    assert abs(judged.av_offset_ms) <= 10
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    red, green, blue = frame[-24, 24]
    assert red > 150
    assert max(green, blue) < 100


def test_camera_to_browser() -> None:
    """A peer that does what the page does sees the camera and hears its microphone."""
    pytest.importorskip("aiortc")
    with subprocess.Popen(
        command("camera_to_browser.py", "--virtual", "--port", 0), env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            page = urllib.request.urlopen(address, timeout=20).read()
            assert b"RTCPeerConnection" in page
            asyncio.run(_watch(address))
        finally:
            process.kill()


async def _watch(address: str) -> None:
    viewer = msrecd.RTCPeerConnection()
    came: list[Any] = []
    viewer.ontrack = came.append
    for kind in ("video", "audio"):
        viewer.add_transceiver(kind, {"direction": "recvonly"})
    await viewer.set_local_description()
    assert viewer.local_description is not None
    offer = urllib.request.Request(f"{address}whep", viewer.local_description.sdp.encode(), method="POST")
    answer = (await asyncio.to_thread(urllib.request.urlopen, offer, timeout=20)).read().decode()
    await viewer.set_remote_description({"type": "answer", "sdp": answer})
    await unmuted(*(event.track for event in came))
    assert {event.track.kind for event in came} == {"audio", "video"}
    viewer.close()


def test_record_peer(tmp_path: Path) -> None:
    """Frames and sound of a peer, which ends the recording when it closes."""
    pytest.importorskip("aiortc")
    path = tmp_path / "out.mp4"
    asyncio.run(_send_to_recorder(path))
    judged = judge.read_chunk(path)
    assert len(judged.numbers) > 30
    judge.assert_consecutive(judged.numbers)
    assert codecs(path) == {"video": "h264", "audio": "opus"}


async def _send_to_recorder(path: Path) -> None:
    with Scene("av") as scene:
        sender = msrecd.RTCPeerConnection()
        for track in scene.stream.get_tracks():
            sender.add_track(track, scene.stream)
        await sender.set_local_description()
        assert sender.local_description is not None
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command("record_peer.py", "--seconds", 40, path), env=environment(), stdin=pipe, stdout=pipe
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(sender.local_description.sdp.encode())
            process.stdin.close()
            answer = b""
            async with asyncio.timeout(DEADLINE_S):
                while answer.count(b"a=setup:") < 2 or not answer.endswith(b"\r\n"):
                    piece = await process.stdout.read(65536)
                    assert piece, "no answer"
                    answer += piece
                await sender.set_remote_description({"type": "answer", "sdp": answer.decode()})
                await until(sender, "connectionstatechange", lambda: sender.connection_state == "connected")
                await delivered(scene.stream, 4)
                sender.close()
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()  # to the end of its output: an open pipe is another test's warning


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
@pytest.mark.promise("examples-run")
def test_every_example_is_tested_explained_and_linked(path: Path) -> None:
    """It says how it is run, does nothing when imported, has a test here and a link in docs/w3c.md."""
    names = runpy.run_path(str(path))
    assert f"python {path.name}" in names["__doc__"]
    assert f"def test_{path.stem}(" in Path(__file__).read_text()
    assert f"examples/{path.name}" in (ROOT / "docs" / "w3c.md").read_text()
