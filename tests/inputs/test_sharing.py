"""Many RTSP cameras are read by one process: what that costs, and what its end does to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from msrecd.dom.exceptions import DOMException
from msrecd.inputs import shared, sharing, wire
from msrecd.inputs.address import SourceOptions
from msrecd.inputs.processes import helpers
from msrecd.inputs.rtspinput import Flow
from msrecd.inputs.sharing import SharedInput, Sharing
from msrecd.inputs.syscalls import this_machine
from tests.inputs.cameras import Clip, RtspCamera, clip
from tests.inputs.test_network import Played
from tests.inputs.test_rtsp_units import IDR, PPS, SPS, VIDEO, Sender

LONG = SourceOptions(timeout_s=30.0)
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def media() -> Clip:
    return clip()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sharing]:
    """A process for this test alone; nothing of other tests is remembered."""
    made = Sharing()
    monkeypatch.setattr("msrecd.inputs.reader.sharing", made)
    yield made
    if made._life is not None:
        made._life.process.close()


@pytest.fixture
def cameras(media: Clip) -> Iterator[list[RtspCamera]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(RtspCamera(media)) for _ in range(3)]


def input_of(played: Played) -> SharedInput:
    found = played.playback._reader._process
    assert isinstance(found, SharedInput)
    return found


def playing(stack: contextlib.ExitStack, cameras: list[RtspCamera], options: SourceOptions = LONG) -> list[Played]:
    found = [stack.enter_context(Played(camera.url, options)) for camera in cameras]
    for one in found:
        one.taken["video"].wait(20)
        one.taken["audio"].wait(20)
    return found


def pid_of(life: sharing._Life) -> int:
    return int(Path(f"/proc/self/fdinfo/{life.process.pidfd}").read_text().split("Pid:")[1].split()[0])


def end_between_two_rounds(life: sharing._Life, number: signal.Signals) -> None:
    """So that it looks at none of its cameras, which would be to blame."""
    pid = pid_of(life)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if shared.BOARD.unpack_from(life._board)[1] == 0:
            break
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)
    os.kill(pid, number)
    if number == signal.SIGSEGV:  # SIGKILL ends a stopped process, which may be reaped by now
        os.kill(pid, signal.SIGCONT)


def test_one_process_reads_all_cameras(own: Sharing, cameras: list[RtspCamera]) -> None:
    with contextlib.ExitStack() as stack:
        found = playing(stack, cameras)
        assert len({id(input_of(one).life) for one in found}) == 1
        assert input_of(found[0]).life.cameras == 3
        for one in found:
            frames = one.taken["video"].wait(100)
            assert max(b.pts_ns - a.pts_ns for a, b in pairwise(frames)) < 80e6, "no frame is missing"
    deadline = time.monotonic() + DEADLINE_S
    while not all(camera.requests[-1].startswith("TEARDOWN") for camera in cameras):
        assert time.monotonic() < deadline, "the cameras are told"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
@pytest.mark.promise("cameras-outlive-their-process")
@pytest.mark.promise("one-camera-falls-alone")
def test_cameras_outlive_the_process_that_reads_them(
    own: Sharing, cameras: list[RtspCamera], number: signal.Signals
) -> None:
    """Another process takes their connections: nothing ends, and what is missing is less than a second or so."""
    with contextlib.ExitStack() as stack:
        found = playing(stack, cameras)
        first = input_of(found[0]).life
        counts = [len(one.taken["video"].packets) for one in found]
        end_between_two_rounds(first, number)
        for one, count in zip(found, counts, strict=True):
            frames = one.taken["video"].wait(count + 60, DEADLINE_S)
            steps = sorted(b.pts_ns - a.pts_ns for a, b in pairwise(frames))
            assert steps[0] > 0, "times go forward"
            assert steps[-1] < 1.2e9, f"a hole of {steps[-1] / 1e9:.2f} s; a key frame comes each second"
            hole = next(n for n, (a, b) in enumerate(pairwise(frames)) if b.pts_ns - a.pts_ns == steps[-1])
            assert steps[-1] < 45e6 or frames[hole + 1].is_keyframe
            assert input_of(one).life is not first
        sound = found[0].taken["audio"].wait(200, DEADLINE_S)
        assert max(b.pts_ns - a.pts_ns for a, b in pairwise(sound)) < 1.2e9


@pytest.mark.promise("cameras-outlive-their-process")
def test_cameras_outlive_the_process_that_starts_the_others(own: Sharing, cameras: list[RtspCamera]) -> None:
    """With it, all end, at any moment; where memory ends, the kernel kills it before the recorders."""
    with contextlib.ExitStack() as stack:
        found = playing(stack, cameras)
        counts = [len(one.taken["video"].packets) for one in found]
        life = input_of(found[0]).life
        life._board = shared.BOARD.pack(time.monotonic_ns(), input_of(found[0]).number)  # type: ignore[assignment]
        assert helpers._process is not None
        helpers._process.kill()
        for one, count in zip(found, counts, strict=True):
            one.taken["video"].wait(count + 60, DEADLINE_S)


@pytest.mark.promise("dead-process-is-a-lost-input")
def test_the_camera_that_was_looked_at_is_alone_from_then_on(own: Sharing, cameras: list[RtspCamera]) -> None:
    with contextlib.ExitStack() as stack:
        found = playing(stack, cameras)
        victim = input_of(found[1])
        victim.life._board = shared.BOARD.pack(time.monotonic_ns(), victim.number)  # type: ignore[assignment]
        counts = [len(one.taken["video"].packets) for one in found]
        signal.pidfd_send_signal(victim.life.process.pidfd, signal.SIGSEGV)
        error = found[1].taken["video"].wait_end(DEADLINE_S)
        assert isinstance(error, DOMException)
        assert "SIGSEGV" in error.message
        for number in (0, 2):
            found[number].taken["video"].wait(counts[number] + 40, DEADLINE_S)
        with Played(cameras[1].url, LONG) as again:
            again.taken["video"].wait(20)
            assert not isinstance(again.playback._reader._process, SharedInput)
        with Played(cameras[0].url, LONG) as other:
            other.taken["video"].wait(20)
            assert isinstance(other.playback._reader._process, SharedInput)


def test_processes_that_die_young_end_the_sharing(own: Sharing, cameras: list[RtspCamera]) -> None:
    with contextlib.ExitStack() as stack:
        (one,) = playing(stack, cameras[:1])
        deadline = time.monotonic() + DEADLINE_S
        killed: list[sharing._Life] = []
        while not one.taken["video"]._ended:
            assert time.monotonic() < deadline
            life = own._life
            if life is not None and life.cameras and life not in killed:
                killed.append(life)
                life.kill()
            time.sleep(0.01)
        assert 2 <= len(killed) <= sharing._SHORT_LIVES + 1
        with Played(cameras[0].url, LONG) as again:
            again.taken["video"].wait(20)
            assert not isinstance(again.playback._reader._process, SharedInput)


@pytest.mark.parametrize(
    "facts",
    [b"", b"[]", b"{}", b"\xff", b"[" * 50_000, b'{"session": {"login": {}}}', b'{"session": 1, "tracks": []}'],
)
def test_facts_that_are_none_are_refused(facts: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for body in (wire.handover(facts, b"", b""), wire.handover(facts, b"[[0, 1]]", b"x"), facts):
            with pytest.raises(ValueError, match="no camera"):
                Flow.of(ours, body)


# --- one camera among others, in the process that reads them ---------------------------------------------------------

FACTS = {
    "session": {
        "session_s": 60, "login": {"scheme": "", "realm": "", "nonce": "", "opaque": "", "algorithm": "", "qop": "",
        "count": 0}, "user": "", "password": "", "control": "rtsp://camera/", "session": "1", "number": 5,
        "keep_alive": "OPTIONS",
    },
    "tracks": [asdict(VIDEO)], "indexes": [0], "timeout_s": 10.0, "stamps": [],
}  # fmt: skip


class Wired:
    """A camera as the process has it, with the other ends of both of its connections."""

    def __init__(self, raw: bytes = b"") -> None:
        self.program, theirs = socket.socketpair()
        self.sender, camera = socket.socketpair()
        self.camera = shared._Camera(1, theirs, camera)
        self.frames = wire.FrameReader(self.program, (wire.PACKETS, wire.END))
        body = wire.handover(json.dumps(FACTS).encode(), b"", raw)
        giving = threading.Thread(target=self.program.sendall, args=(wire.frame(wire.REQUEST, body),))
        giving.start()
        while self.camera._flow is None and not self.camera.is_ending:
            self.camera.take_request()
        giving.join()

    def __enter__(self) -> Wired:
        return self

    def __exit__(self, *_: object) -> None:
        self.camera.close()
        self.program.close()
        self.sender.close()

    def end(self) -> dict[str, object]:
        """What the program hears at the end."""
        while True:
            kind, body = self.frames.read(5.0)
            if kind == wire.END:
                found: dict[str, object] = json.loads(body)
                return found


def frames_of(sender: Sender, numbers: range) -> bytes:
    units = [
        piece for n in numbers for piece in (sender(SPS, 3600 * n, False), sender(PPS, 3600 * n, False),
                                             *sender.fragments(IDR, 3600 * n))
    ]  # fmt: skip
    return b"".join(units)


def test_what_came_before_and_what_comes_are_one_stream() -> None:
    sender = Sender()
    data = frames_of(sender, range(6))
    with Wired(data[: len(data) // 2 + 7]) as wired:
        wired.sender.sendall(data[len(data) // 2 + 7 :])
        wired.camera.look()
        packets = []
        while len(packets) < 6:
            _, body = wired.frames.read(5.0)
            packets += wire.read_packets(body, {0})
        assert [packet.pts_ns for packet in packets] == [n * 40_000_000 for n in range(6)]
        assert not any(packet.is_damaged for packet in packets)


@pytest.mark.parametrize(
    "noise", [b"A" * 100_000, b"RTSP/1.0 200 OK\r\nContent-Length: 999999\r\n\r\n"], ids=["endless", "long"]
)
@pytest.mark.promise("hostile-servers-and-files")
@pytest.mark.promise("one-camera-falls-alone")
def test_a_camera_that_sends_what_is_no_rtp_is_alone_from_then_on(noise: bytes) -> None:
    with Wired(frames_of(Sender(), range(2))) as wired:
        wired.sender.sendall(noise)
        wired.camera.look()
        assert wired.end()["alone"] is True
        assert wired.camera.is_over


@pytest.mark.promise("hostile-servers-and-files")
def test_one_look_at_a_camera_that_floods_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond it waits in its connection."""
    sender = Sender(0, 99)  # of a kind that was not set up
    tiny = b"".join(sender(b"\x41", 0, False) for _ in range(4000))
    with Wired() as wired:
        came = iter([tiny] * 100)
        monkeypatch.setattr(wired.camera._flow._session, "waiting", lambda: next(came))  # type: ignore[union-attr]
        wired.camera.look()
        assert len(list(came)) >= 95
        monkeypatch.setattr(shared, "_BUSY_S", 0.0)
        monkeypatch.setattr(wired.camera._flow._session, "waiting", lambda: b"")  # type: ignore[union-attr]
        wired.camera.look()
        assert wired.end()["alone"] is True


def test_what_the_program_does_not_take_stays_in_the_cameras_connection() -> None:
    sender = Sender()
    big = b"".join(sender.fragments(IDR + bytes(1 << 20), 0, 60_000)) + frames_of(sender, range(1, 3))
    with Wired(big) as wired:
        assert wired.camera.sends, "more than a socket holds"
        wired.sender.sendall(frames_of(sender, range(3, 6)))
        held = wired.camera.held_bytes
        wired.camera.look()
        assert wired.camera.held_bytes == held


@pytest.mark.promise("reading-process-is-confined")
def test_the_process_that_reads_many_is_confined(own: Sharing, cameras: list[RtspCamera]) -> None:
    with contextlib.ExitStack() as stack:
        (one,) = playing(stack, cameras[:1])
        pid = pid_of(input_of(one).life)
        status = Path(f"/proc/{pid}/status").read_text()
        limits = Path(f"/proc/{pid}/limits").read_text()
    assert "NoNewPrivs:\t1" in status
    if this_machine():
        assert "Seccomp:\t2" in status
    assert re.search(r"Max file size +0 ", limits)
    assert re.search(r"Max address space +\d", limits)
