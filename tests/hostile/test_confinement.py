"""Code that runs in a reading process, as after a flaw of libav was exploited: what it may still do to others."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from msrecd.inputs import syscalls
from msrecd.inputs.address import SourceOptions
from msrecd.inputs.processes import Process
from msrecd.inputs.syscalls import INTERNET, LOCAL, Rights, filter_program, this_machine
from tests.inputs.cameras import RtspCamera, clip
from tests.inputs.test_network import Played

ROOT = Path(__file__).parents[2]
# The arguments: which rights; whether the kernel has Landlock; the pid of another process; a folder with "kept" in it.
TRIES = """
import ctypes, os, resource, signal, socket, sys, threading
from msrecd.inputs import confine as it
from msrecd.inputs.syscalls import INTERNET, Rights
which, landlock, victim, folder = sys.argv[1], sys.argv[2] == "landlock", int(sys.argv[3]), sys.argv[4]
kept = folder + "/kept"
rights = {
    "file": Rights(),
    "network": Rights(families=INTERNET),
    "address": Rights(families=INTERNET, may_open=False),
    "rtsp": Rights(families=INTERNET, may_fork=True),
}[which]
if not landlock:
    it.restrict_files = lambda **_: False
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
def fork():
    if os.fork() == 0:
        os._exit(0)
    os.wait()
def tried(name, what):
    try:
        what()
        print(name, "done", flush=True)
    except (OSError, MemoryError, RuntimeError) as exc:
        print(name, "refused", flush=True)
def opened(path, flags):
    os.close(os.open(path, flags, 0o600))
def threads():
    for _ in range(2000):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
socket.getaddrinfo("127.0.0.1", 1)
it.confine(rights=rights)
tried("read", lambda: opened(kept, os.O_RDONLY))
tried("list", lambda: os.listdir(folder))
tried("memory-of-another", lambda: opened(f"/proc/{victim}/mem", os.O_RDONLY))
tried("write", lambda: opened(kept, os.O_WRONLY))
tried("empty", lambda: opened(kept, os.O_RDONLY | os.O_TRUNC))
tried("create", lambda: opened(folder + "/new", os.O_CREAT | os.O_RDONLY))
tried("truncate", lambda: os.truncate(kept, 0))
tried("delete", lambda: os.unlink(kept))
tried("rename", lambda: os.rename(kept, kept + "2"))
tried("attribute", lambda: os.setxattr(kept, "user.x", b"x"))
tried("time", lambda: os.utime(kept, (0, 0)))
tried("pipe", lambda: os.mkfifo(folder + "/pipe"))
tried("program", lambda: os.execv("/bin/true", ["true"]))
tried("fork", fork)
tried("kill", lambda: os.kill(victim, 0))
tried("tgkill", lambda: call("tgkill", victim, victim, 0))
tried("queue", lambda: call("sigqueue", victim, 0, 0))
tried("ptrace", lambda: call("ptrace", 16, victim, 0, 0))
tried("limit", lambda: resource.prlimit(victim, resource.RLIMIT_NOFILE))
tried("priority", lambda: os.setpriority(os.PRIO_PROCESS, victim, 19))
tried("affinity", lambda: os.sched_setaffinity(victim, os.sched_getaffinity(0)))
tried("scheduler", lambda: os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0)))
tried("namespace", lambda: call("unshare", 0x10000000))
tried("outlive", lambda: call("prctl", 1, 0, 0, 0, 0))
tried("memory", lambda: bytes(200 << 20))
tried("memory-in-a-file", lambda: os.memfd_create("x"))
tried("memory-of-the-system", lambda: call("shmget", 0, 1 << 20, 0o1600))
tried("internet", lambda: socket.socket().close())
tried("local-socket", lambda: socket.socket(socket.AF_UNIX).close())
tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close())
tried("be-called", lambda: socket.socket().listen())
tried("raise", lambda: signal.raise_signal(signal.SIGCONT))
tried("thread", lambda: threading.Thread(target=int).start())
tried("clock", lambda: os.times())
if os.getuid():
    tried("threads", threads)
"""
ALWAYS_DONE = {"raise", "thread", "clock"}
DONE = {
    "file": ALWAYS_DONE,
    "network": ALWAYS_DONE | {"internet"},
    "address": ALWAYS_DONE | {"internet"},
    "rtsp": ALWAYS_DONE | {"internet", "fork", "outlive"},
}


def has_landlock() -> bool:
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)) > 0


@pytest.fixture
def victim() -> Iterator[int]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process.pid
        assert process.poll() is None, "the other process was ended"
        process.kill()


def answers(kind: str, landlock: str, victim: int, folder: Path, **more: int) -> dict[str, str]:
    child = subprocess.run(
        [sys.executable, "-c", TRIES, kind, landlock, str(victim), str(folder)],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, **more,
    )  # fmt: skip
    found = dict(line.split() for line in child.stdout.splitlines())
    assert "clock" in found, child.stdout + child.stderr
    return found


@pytest.mark.skipif(not this_machine(), reason="a machine whose system calls are not known")
@pytest.mark.parametrize("landlock", ["landlock", "no landlock"])
@pytest.mark.parametrize("kind", list(DONE))
@pytest.mark.promise("reading-process-is-confined")
@pytest.mark.promise("reading-process-has-little-memory")
@pytest.mark.promise("reading-process-reads-no-file")
def test_what_a_reading_process_may_do(tmp_path: Path, victim: int, kind: str, landlock: str) -> None:
    """Without Landlock (Raspberry Pi OS), what may be read can be read; nothing more."""
    if landlock == "landlock" and not has_landlock():
        pytest.skip("this kernel has no Landlock")
    (tmp_path / "kept").write_text("kept")
    found = answers(kind, landlock, victim, tmp_path)
    done = {name for name, answer in found.items() if answer == "done"}
    may_read = landlock != "landlock" and kind != "address"
    reads = {"read", "list"} if may_read else set()
    if may_read and "memory-of-another" in done:
        done.discard("memory-of-another")  # a `sleep` of ours; not the daemon: see test_nobody_reads_the_daemons_memory
    assert done == DONE[kind] | reads
    assert (tmp_path / "kept").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.skipif(os.getuid() != 0 or not this_machine(), reason="needs root, to become somebody else")
@pytest.mark.promise("reading-process-is-confined")
def test_threads_of_a_reading_process_have_a_limit(victim: int) -> None:
    try:
        found = answers("file", "landlock", victim, Path("/"), user=65534, group=65534)
    except (AssertionError, OSError):
        pytest.skip("another user cannot run this Python")
    assert found["threads"] == "refused"


@pytest.mark.skipif(not this_machine(), reason="a machine whose system calls are not known")
@pytest.mark.promise("reading-process-is-confined")
def test_a_child_that_describes_streams_has_only_the_way_back() -> None:
    """It runs libav over what a camera sent: it has neither the camera's connection nor another."""
    code = """
import os, socket
from msrecd.inputs.confine import confine, in_child
from msrecd.inputs.syscalls import INTERNET, Rights
connection, other = socket.socketpair()
confine(rights=Rights(families=INTERNET, may_fork=True))
def work():
    found = []
    for name, what in (
        ("connection", lambda: connection.send(b"x")),
        ("socket", socket.socket),
        ("fork", lambda: os.fork() or os._exit(0)),
    ):
        try:
            what()
            found.append(name)
        except OSError:
            pass
    return " ".join(found).encode() + b"."
print(in_child(work))
"""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert child.stdout.strip() == "b'.'", child.stdout + child.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.promise("memory-is-not-read")
def test_nobody_reads_the_daemons_memory(tmp_path: Path) -> None:
    """As systemd starts it, another process of its user cannot; it can read its own files all the same."""
    (tmp_path / "own").write_text("own")
    tmp_path.chmod(0o755)
    code = """
import os, subprocess, sys
if sys.argv[1] == "private":
    from msrecd.cli.run import keep_memory_private
    keep_memory_private()
fd = os.open("own", os.O_RDONLY)
print(open(f"/proc/self/fd/{fd}").read(), end=" ", flush=True)
read = "import sys; open(f'/proc/{sys.argv[1]}/mem', 'rb'); print('read', flush=True)"
subprocess.run([sys.executable, "-c", read, str(os.getpid())], stderr=subprocess.DEVNULL)
"""
    for kind, expected in (("open", "own read"), ("private", "own")):
        child = subprocess.run(
            [sys.executable, "-c", code, kind], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
            user=65534, group=65534, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        if "own" not in child.stdout:
            pytest.skip("another user cannot run this Python")
        if kind == "open" and child.stdout.strip() == "own":
            pytest.skip("this kernel (Yama) allows no process to read another's memory")
        assert child.stdout.strip() == expected, child.stdout + child.stderr


# --- the filter itself ----------------------------------------------------------------------------------------------

KINDS = [Rights(), Rights(families=(*INTERNET, LOCAL)), Rights(families=INTERNET, may_fork=True, may_open=False)]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm"])
@pytest.mark.parametrize("rights", KINDS)
@pytest.mark.promise("reading-process-is-confined")
def test_the_filter_is_one(machine: str, rights: Rights) -> None:
    program = filter_program(machine, rights, 4711)
    assert len(program) % 8 == 0
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    assert len(steps) < 4096, "more than the kernel takes"
    for at, (code, yes, no, _) in enumerate(steps):
        if code in (0x15, 0x35, 0x45):
            assert at + 1 + max(yes, no) < len(steps), "a jump out of the program"
    assert steps[-1][0] == 0x06


def judged(machine: str, rights: Rights, number: int, *arguments: int, pid: int = 4711) -> int:
    """What the filter says: the error's number, 0 for allowed, -1 for the end of the process."""
    program = filter_program(machine, rights, pid)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}[machine]
    data = struct.pack("=IIQ6Q", number, arch, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    at = loaded = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return 0 if value == 0x7FFF0000 else -1 if value == 0x80000000 else value & 0xFFFF
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm"])
@pytest.mark.promise("reading-process-is-confined")
def test_what_the_filter_says(machine: str) -> None:
    column = ("x86_64", "aarch64", "arm").index(machine)
    clone, tgkill, limit = (numbers[column] for numbers in (syscalls._CLONE, syscalls._TGKILL, syscalls._PRLIMIT))
    opening, making = syscalls._OPENAT[column], syscalls._SOCKET[column]
    nothing, network, forks = Rights(), Rights(families=INTERNET), Rights(families=INTERNET, may_fork=True)
    assert (judged(machine, nothing, clone, 0x11), judged(machine, forks, clone, 0x11)) == (1, 0)
    assert judged(machine, nothing, clone, 0x3D0F00) == 0, "a thread"
    assert judged(machine, forks, clone, 0x10000011) == 1, "a namespace"
    assert judged(machine, nothing, tgkill, 4711, 5, 6) == 0
    assert judged(machine, nothing, tgkill, 1, 1, 9) == 1
    assert (judged(machine, nothing, limit, 0, 7), judged(machine, nothing, limit, 99, 7)) == (0, 1)
    assert judged(machine, network, making, socket.AF_INET6, 1) == 0
    assert judged(machine, network, making, socket.AF_UNIX, 1) == 97
    assert judged(machine, nothing, making, socket.AF_INET, 1) == 1
    assert judged(machine, nothing, opening, 0xFFFFFF9C, 0, os.O_RDONLY | os.O_CLOEXEC) == 0
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC):
        assert judged(machine, nothing, opening, 0xFFFFFF9C, 0, flags) == 13
    assert judged(machine, Rights(may_open=False), opening, 0xFFFFFF9C, 0, 0) == 2
    assert judged(machine, nothing, 435, 0) == 38, "clone3: for glibc to take clone"
    assert judged(machine, nothing, 437) == 38, "openat2 has its flags in memory"
    assert judged(machine, nothing, 439) == 0
    assert judged(machine, nothing, 9999) == 38, "what is not known yet"
    for numbers in syscalls._FORBIDDEN.values():
        if numbers[column] is not None:
            assert judged(machine, forks, numbers[column]) == 1


def test_the_numbers_are_those_of_the_kernel() -> None:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("needs libseccomp")
    resolve = ctypes.CDLL(name).seccomp_syscall_resolve_name_arch
    named = syscalls._FORBIDDEN | syscalls._NETWORK | {
        "clone": syscalls._CLONE, "tgkill": syscalls._TGKILL, "prlimit64": syscalls._PRLIMIT,
        "prctl": syscalls._PRCTL, "socket": syscalls._SOCKET, "open": syscalls._OPEN, "openat": syscalls._OPENAT,
    }  # fmt: skip
    for call, numbers in named.items():
        for machine, number in zip((0xC000003E, 0xC00000B7, 0x40000028), numbers, strict=True):
            known = resolve(ctypes.c_uint32(machine), call.encode())
            assert known == number if number is not None else known < 0, (call, hex(machine))


@pytest.mark.skipif(not this_machine(), reason="a machine whose system calls are not known")
@pytest.mark.promise("playing-needs-no-files")
def test_libav_opens_no_file_once_a_camera_plays() -> None:
    """Also where the kernel has no Landlock: a filter that refuses to open files comes behind those of before."""
    with RtspCamera(clip()) as camera, Played(camera.url, SourceOptions(timeout_s=10, transport="udp")) as played:
        played.taken["video"].wait(3)
        process = played.playback._reader._process
        assert isinstance(process, Process)
        pid = _field(Path(f"/proc/self/fdinfo/{process.pidfd}"), "Pid")
        filters = _field(Path(f"/proc/{pid}/status"), "Seccomp_filters")
    assert filters - _field(Path("/proc/self/status"), "Seccomp_filters") == 3, "the first one, libav's, this one"


def _field(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
