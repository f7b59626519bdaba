"""One daemon, a camera that it records all the while, and everything hostile that it can meet: what must come out.

In all of them the daemon's process stays the same, the camera's recording has every frame, and the daemon's memory
grows by less than 40 MiB. `test_inputs.py` and `test_decoding.py` look at the same from inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from config_text import camera, configuration, recorder
from daemon import DaemonProcess
from judge import assert_consecutive, numbers_of
from waiting import until

from msrecd.local.client import LocalDaemon
from msrecd.local.protocol import socket_path
from tests.hostile import servers as it
from tests.hostile.servers import HEAD, SOUND, Hostile, HostileBroker, http, rtsp, says
from tests.inputs.cameras import Clip, Faults, RtspCamera, clip

# Ten small frames a second: what is looked for are frames lost to an input, not to a busy machine.
CAMERA = """
[devices]
virtual = [{ kind = "camera", label = "Camera", modes = [[160, 120, 10]] }]
"""
MOST_MIB = 40
IS_LONG = "MSRECD_FUZZ_S" in os.environ  # `make fuzz`: the broker, whose connections last some seconds, to its end
AT_ONCE = 14  # the local socket has 16 clients
ERROR, RECORDS = "error", "records"
GIF = b"GIF89a\x01\0\x01\0\0\0\0;"
SDP, M3U8 = "Content-Type: application/sdp", "Content-Type: application/vnd.apple.mpegurl"
ALL = b"\xff" * 1000

RTSP: dict[str, tuple[it.Behaviour, str]] = {
    "x-pn-realaudio (SIGSEGV in libav)": (rtsp(HEAD + SOUND % b"x-pn-realaudio"), ERROR),
    "X-QDM (SIGABRT in libav)": (rtsp(HEAD + SOUND % b"X-QDM"), ERROR),
    "an ASF header without an end (endless loop)": (
        rtsp(it.ASF_DESCRIPTION, name=b"WMServer/9.1.1.3862"), ERROR,
    ),
    "900 MB of description": (rtsp(b"a=x:" + b"y" * 996 + b"\r\n" * 12, repeat=900_000), ERROR),
    "a description of noise": (rtsp(ALL), ERROR),
    "an empty description": (rtsp(b""), ERROR),
    "a thousand streams": (rtsp(HEAD + SOUND % b"H264" * 1000), ERROR),
    "no answer": (it.nothing, ERROR),
    "a closed connection": (it.closes, ERROR),
    "a reset": (it.resets, ERROR),
    "an answer that is cut": (says(b"RTSP/1.0 200 OK\r\nCSe"), ERROR),
    "a header line without an end": (it.endless(b"RTSP/1.0 200 OK\r\nX: ", b"y" * 65536), ERROR),
    "headers without an end": (it.endless(b"RTSP/1.0 200 OK\r\n", b"X: y\r\n" * 10_000), ERROR),
    "a negative length": (rtsp(length=b"-1"), ERROR),
    "a length of 4 GiB": (rtsp(length=b"4294967295"), ERROR),
    "a password is refused for ever": (
        rtsp(status=b"401 No", extra=b'WWW-Authenticate: Digest realm="' + b"r" * 60_000 + b'", nonce="n"'), ERROR,
    ),
    "a redirection to a file": (rtsp(status=b"302 Found", extra=b"Location: file:///etc/passwd"), ERROR),
    "redirections without an end": (it.rtsp_redirect, ERROR),
    "a redirection to nowhere": (rtsp(status=b"302 Found", extra=b"Location: "), ERROR),
    "another number of the answer": (rtsp(cseq=b"-99999999999999999999"), ERROR),
    "packets of noise": (rtsp(play=it.random_packets), ERROR),
    "no packets but noise": (rtsp(play=it.not_rtp), ERROR),
    "a unit of 600 MB": (rtsp(play=it.endless_unit), ERROR),
    "600 000 tiny packets": (rtsp(play=it.tiny_packets), ERROR),
    "silence behind PLAY": (rtsp(), ERROR),
    "frames of 16384x16384": (
        rtsp(HEAD + it.FRAMES % b";sprop-parameter-sets=Z0LAHtoAgAIABAACAEA=,aMuDyw=="), ERROR,
    ),
    "a byte every 0.2 s": (it.drip(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n"), ERROR),
    "a name of a megabyte": (rtsp(HEAD.replace(b"s=x", b"s=" + b"x" * (1 << 20))), ERROR),
    "control characters in the answer": (rtsp(status=b"500 \x1b]0;owned\x07\x1b[2J"), ERROR),
}  # fmt: skip
HTTP: dict[str, tuple[it.Behaviour, str]] = {
    "no answer": (it.nothing, ERROR),
    "a closed connection": (it.closes, ERROR),
    "noise in place of an answer": (says(ALL), ERROR),
    "a header without an end": (it.endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536), ERROR),
    "an endless body of zeros": (it.endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(65536)), ERROR),
    "an endless body of noise": (
        it.endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(range(7, 256)) * 256), ERROR,
    ),
    "an error with a page": (http(b"<html>" * 1000, status="503 Busy"), ERROR),
    "a length that is not kept": (http(b"\0\0\0\x18ftypisom", "Content-Length: 1000000000"), ERROR),
    "chunks of 2^63": (http(b"7fffffffffffffff\r\nx", "Transfer-Encoding: chunked"), ERROR),
    "gzip that unpacks to nothing": (http(b"\x1f\x8b\x08\0" + bytes(100), "Content-Encoding: gzip"), ERROR),
    "a redirection to itself": (it.redirect(lambda server: server.url), ERROR),
    "a redirection to a file": (it.redirect("file:///etc/passwd"), ERROR),
    "a redirection to another host": (it.redirect("http://localhost:1/x"), ERROR),
    "a redirection with line breaks": (it.redirect("http://127.0.0.1:1/\rX: y"), ERROR),
    "a playlist of files": (
        http(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", M3U8),
        ERROR,
    ),
    "a playlist of itself": (
        http(b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nx\n", M3U8), ERROR,
    ),
    "a description of local streams": (http(HEAD + SOUND % b"PCMU", SDP), ERROR),
    "parts that are no JPEGs": (it.parts(lambda n: b"--b\r\nContent-Type: image/jpeg\r\n\r\n" + GIF + b"\r\n"), ERROR),
    "a part of 2 GiB": (
        it.parts(lambda n: bytes(65536) if n else b"--b\r\nContent-Length: 2147483647\r\n\r\n", pause_s=0), ERROR,
    ),
    "parts without a boundary": (it.parts(lambda n: b"x" * 65536, pause_s=0), ERROR),
}  # fmt: skip


def _box(kind: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack(">I4s", 8 + len(body) if size is None else size, kind) + body


def _nested(kinds: bytes, body: bytes) -> bytes:
    for kind in reversed(kinds.split()):
        body = _box(kind, body)
    return _box(b"ftyp", b"isom\0\0\0\0") + body


FILES: dict[str, bytes] = {
    "zeros.mkv": bytes(100_000),
    "noise.ts": ALL * 100,
    "huge-box.mp4": _box(b"ftyp", b"isom\0\0\0\0") + _box(b"moov", b"", 0xFFFFFFFF),
    "deep.mp4": b"".join(struct.pack(">I4s", 8 + 8 * (2000 - n), b"moov") for n in range(2000)),
    "samples.mp4": _nested(b"moov trak mdia minf stbl", _box(b"stsz", b"\0\0\0\0" + b"\0\0\0\1\x7f\xff\xff\xff")),
    "sound.aiff": b"FORM" + struct.pack(">I", 46) + b"AIFFCOMM" + struct.pack(">IhIh", 18, 0, 0, 16)
    + b"\x40\x0e\xac\x44" + bytes(6) + b"SSND" + struct.pack(">III", 8, 0, 0),
    "list.m3u8": b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    "list.ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "wide.wav": b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0" + b"\xff" * 12 + b"\x20\0data\xff\xff\xff\x7f",
}  # fmt: skip

_PUBLISH = b"\x30\x09\0\x02c/\0abcd"
BROKER: list[tuple[str, Callable[[socket.socket], None]]] = [
    ("closes at once", lambda client: None),
    ("a publication of 200 MB", it.broker_grants_then(b"\x30\xff\xff\xff\x5f\0\1t\0" + b"x" * (4 << 20))),
    ("noise in place of CONNACK", it.broker_says(ALL)),
    ("a topic that is no text", it.broker_grants_then(b"\x30\x06\0\x02\xff\xfe\0x")),
    ("CONNACK twice", it.broker_says(it.CONNACK * 2)),
    ("an alias that was never given", it.broker_grants_then(b"\x30\x06\0\0\3\x23\0\x09")),
    ("a length of five bytes", it.broker_grants_then(b"\x30\xff\xff\xff\xff\x7f")),
    ("an answer to nothing", it.broker_grants_then(b"\x40\x02\xff\xff" + b"\x62\x02\x12\x34" + _PUBLISH)),
    ("properties beyond the packet", it.broker_grants_then(b"\x30\x07\0\x01t\xff\x7f\x01x")),
    (
        "a disconnection with a reason of control characters",
        it.broker_grants_then(b"\xe0\x0b\x8b\x09\x1f\0\x06\x1b[2J\r\n"),
    ),
]
SITUATIONS = [*RTSP, *HTTP, *FILES, *(name for name, _ in BROKER)]  # those of the card are in its own test


@pytest.fixture(scope="module")
def media() -> Clip:
    return clip()


class Watch:
    """Looks at the daemon's memory all the while."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._stop = threading.Event()
        self.before_mib = self.peak_mib = daemon.status("VmRSS") >> 20
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            with contextlib.suppress(OSError, StopIteration):
                self.peak_mib = max(self.peak_mib, self._daemon.status("VmRSS") >> 20)


def ask(daemon: DaemonProcess, path: str) -> dict[str, Any]:
    """A command's reply, once it is not refused for coming too fast."""
    for _ in range(100):
        assert daemon.is_running, daemon.log.read_text()[-3000:]
        with LocalDaemon(socket_path({"RUNTIME_DIRECTORY": str(daemon.runtime)})) as local:
            reply = local.send(path, b"{}", 60.0)
        if reply.get("error", {}).get("code") != "rate_limited":
            return reply
        time.sleep(0.1)
    raise AssertionError("always too fast")


def states_of(daemon: DaemonProcess) -> dict[str, Any]:
    with LocalDaemon(socket_path({"RUNTIME_DIRECTORY": str(daemon.runtime)})) as local:
        return local.states(20.0)


def _meet(daemon: DaemonProcess, name: str, situation: str, expected: str) -> None:
    """Start this recorder, wait for what must come out, stop it."""
    reply = ask(daemon, f"recorder/{name}/start")
    deadline = time.monotonic() + 120
    while True:
        state = states_of(daemon)[f"recorder/{name}"]
        error = state["error"] or reply.get("error")
        if expected == RECORDS and state["bytes"] > 10_000:
            break
        if expected == ERROR and error:
            assert not [word for word in ("Traceback", "internal") if word in error["message"]], (situation, error)
            assert error["message"].isprintable(), situation
            break
        assert time.monotonic() < deadline, f"{situation}: not what must come out: {state}"
        time.sleep(0.4)
    ask(daemon, f"recorder/{name}/stop")


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.promise("hostile-servers-and-files")
def test_a_daemon_among_hostile_servers_files_and_a_broker(tmp_path: Path, media: Clip) -> None:
    assert len(SITUATIONS) + len(CARD) >= 75
    expected = {f"rtsp: {name}": outcome for name, (_, outcome) in RTSP.items()}
    expected |= {f"http: {name}": outcome for name, (_, outcome) in HTTP.items()}
    expected |= {f"file: {name}": ERROR for name in FILES}
    expected["a good camera"] = RECORDS
    with contextlib.ExitStack() as stack:
        urls: dict[str, str] = {}
        for name, (behaviour, _) in RTSP.items():
            urls[f"rtsp: {name}"] = stack.enter_context(Hostile(behaviour, "rtsp")).url
        for name, (behaviour, _) in HTTP.items():
            urls[f"http: {name}"] = stack.enter_context(Hostile(behaviour, "http")).url
        (tmp_path / "inputs").mkdir()
        for name, content in FILES.items():
            (tmp_path / "inputs" / name).write_bytes(content)
            urls[f"file: {name}"] = str(tmp_path / "inputs" / name)
        urls["a good camera"] = stack.enter_context(RtspCamera(media, Faults())).url
        broker = stack.enter_context(HostileBroker(BROKER))
        recorders = {f"s{number:02}": situation for number, situation in enumerate(urls)}
        text = camera("good", chunk_duration="10s", video={"width": 160, "height": 120, "frame_rate": 10})
        for name, situation in recorders.items():
            source = {"url": urls[situation]} | ({} if situation.startswith("file") else {"timeout": "1s"})
            text += recorder(name, source=source, mime_type="video/x-matroska", timeslice="500ms")
        daemon = DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=text, more=CAMERA))
        stack.enter_context(daemon)
        pid = daemon.pid
        assert ask(daemon, "recorder/good/start")["status"] == "ok"
        good = next(name for name, situation in recorders.items() if situation == "a good camera")
        _meet(daemon, good, "a good camera", RECORDS)  # what is loaded for inputs counts for none of them
        watch = stack.enter_context(Watch(daemon))
        others = [(name, situation) for name, situation in recorders.items() if name != good]
        begun = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda one: _meet(daemon, *one, expected[one[1]]), others))
        took_s = time.monotonic() - begun
        grown = watch.peak_mib - watch.before_mib
        assert grown < MOST_MIB, f"{grown} MiB more"
        if IS_LONG:
            assert broker.all_served.wait(120), f"the broker was asked {len(broker.served)} times: {broker.served}"
        assert broker.served
        assert ask(daemon, "recorder/good/stop")["status"] == "ok"
        assert daemon.pid == pid
        assert daemon.is_running
        met = len(others) + 1 + len(broker.served)
        mib = f"{watch.before_mib} MiB, at most {watch.peak_mib} MiB"
        print(f"\n{met} situations, those of inputs in {took_s:.0f} s; memory {mib}")
        watch.__exit__()
        assert daemon.stop() == 0
    log = daemon.log.read_text()
    assert "Traceback" not in log, log[max(0, log.index("Traceback") - 300) :][:6000]
    assert "\x1b" not in log
    chunks = sorted((daemon.recordings / "good").rglob("*.mp4"))
    assert chunks
    assert_consecutive(numbers_of(chunks))
    (manifest,) = (daemon.recordings / "good").rglob("*.jsonl")
    gaps = [json.loads(line).get("gaps") for line in manifest.read_text().splitlines()]
    assert not any(gaps)


# --- the card --------------------------------------------------------------------------------------------------------


def _link(to: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(to)


def _written(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def _hole(path: Path, begin: bytes) -> None:
    path.write_bytes(begin + _box(b"ftyp", b"isom\0\0\0\0") + struct.pack(">I4sQ", 1, b"mdat", 300 << 30))
    os.truncate(path, 301 << 30)


DAY = "cam0/2026/01/02"
STEM = "20260102T030405Z-cam0-00ff"
LINE = {"seq": 1, "file": f"{DAY}/{STEM}-0001.mp4", "bytes": 10, "sha256": "0" * 64, "prev": ""}
# What lies there -> where, and how it is made.
CARD: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a pipe as a chunk": (f"{DAY}/{STEM}-0002.mp4", os.mkfifo),
    "a link to an endless device": (f"{DAY}/{STEM}-0003.mp4", _link("/dev/zero")),
    "a link out of the folder": (f"{DAY}/{STEM}-0004.mp4", _link("/etc/passwd")),
    "a link to itself": (f"{DAY}/{STEM}-0005.mp4", _link(f"{STEM}-0005.mp4")),
    "a folder as a chunk": (f"{DAY}/{STEM}-0006.mp4", Path.mkdir),
    "an unfinished chunk of noise": (f"{DAY}/{STEM}-0007.mp4.part", _written(ALL * 50)),
    "an unfinished chunk with a box of 4 GiB": (f"{DAY}/{STEM}-0008.mp4.part", _written(FILES["huge-box.mp4"])),
    "an unfinished FLAC of noise": (f"{DAY}/{STEM}-0009.flac.part", _written(b"fLaC\0\0\0\x22" + ALL)),
    "an unfinished Ogg of noise": (f"{DAY}/{STEM}-0010.ogg.part", _written(b"OggS" + ALL)),
    "an unfinished chunk of 300 GB that is a hole": (f"{DAY}/{STEM}-0013.mp4.part", lambda path: _hole(path, b"")),
    "an unfinished FLAC of 300 GB": (
        f"{DAY}/{STEM}-0014.flac.part",
        lambda path: _hole(path, b"fLaC\x80\0\0\x22" + bytes(10) + b"\x0b\xb8\x02" + bytes(21)),
    ),
    "a pipe as an unfinished chunk": (f"{DAY}/{STEM}-0011.mp4.part", os.mkfifo),
    "a manifest of noise": (f"{DAY}/20260102T030406Z-cam0-0001.jsonl", _written(ALL * 10)),
    "a manifest of one endless line": (f"{DAY}/20260102T030407Z-cam0-0001.jsonl", _written(b"{" * (8 << 20))),
    "a manifest that names another folder": (
        f"{DAY}/20260102T030408Z-cam0-0001.jsonl",
        _written(json.dumps({**LINE, "file": "../../../etc/passwd"}).encode() + b"\n"),
    ),
    "numbers that are none": (
        f"{DAY}/20260102T030409Z-cam0-0001.jsonl",
        _written(json.dumps({**LINE, "bytes": 1e308, "seq": -1, "duration_s": "NaN"}).encode() + b"\n"),
    ),
    "a chain of a million brackets": (f"{DAY}/20260102T030410Z-cam0-0001.jsonl", _written(b"[" * 1_000_000 + b"\n")),
    "a link as a manifest": (f"{DAY}/20260102T030411Z-cam0-0001.jsonl", _link("/etc/passwd")),
    "control characters in a name": (f"{DAY}/{STEM}-0012\x1b[2J.mp4", _written(b"x")),
    "a link as a recorder": ("cam1", _link("/etc")),
    "a folder of another's": ("photos", Path.mkdir),
}  # fmt: skip


@pytest.mark.slow
def test_a_daemon_with_a_hostile_card(tmp_path: Path) -> None:
    """It starts, records, lists, proves what is proven, and opens, follows and deletes nothing of all that; nor of what
    is put there while it records."""
    usual = DaemonProcess(tmp_path / "usual", _on_card(tmp_path / "usual"))
    daemon = DaemonProcess(tmp_path, _on_card(tmp_path))
    places = _put(daemon.recordings, "cam0")
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(_recorded_mib, usual, lambda: None)
        most_mib = _recorded_mib(daemon, lambda: _put(daemon.recordings, "cam2"))
        usual_mib = beside.result()
    assert most_mib - usual_mib < MOST_MIB, f"{usual_mib} MiB with a card of its own, {most_mib} MiB with this one"
    assert "Traceback" not in daemon.log.read_text()
    listed = _command(daemon, "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "\x1b" not in listed.stdout + listed.stderr + daemon.log.read_text()
    verdict = _command(daemon, "verify", str(daemon.recordings))
    assert verdict.returncode == 1, "what is not proven is said"
    assert "Traceback" not in verdict.stderr
    assert "\x1b" not in verdict.stdout + verdict.stderr
    for name in ("a pipe as a chunk", "a link to an endless device", "a link out of the folder"):
        assert places[name].name in verdict.stdout + verdict.stderr, name
    kept = [name for name in places if not os.path.lexists(places[name]) and ".part" not in places[name].name]
    assert not kept, "deleted what it does not know"
    assert Path("/etc/passwd").stat().st_size


def _on_card(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    good = camera("good", chunk_duration="1s", video={"width": 160, "height": 120, "frame_rate": 10})
    return configuration(folder, port=None, recorders=good, more=CAMERA)


def _put(recordings: Path, recorder: str) -> dict[str, Path]:
    places = {}
    for name, (place, make) in CARD.items():
        path = recordings / place.replace("cam0", recorder).replace("cam1", f"{recorder}x")
        if not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)
        places[name] = path
    return places


def _has_chunks(daemon: DaemonProcess, count: int) -> bool:
    return bool(states_of(daemon)["recorder/good"]["chunks"] >= count)


def _recorded_mib(daemon: DaemonProcess, meanwhile: Callable[[], object]) -> int:
    """The most memory of a daemon that records two chunks, then, behind `meanwhile`, two more: the same process, every
    frame."""
    with daemon:
        pid = daemon.pid
        assert ask(daemon, "recorder/good/start")["status"] == "ok"
        for _ in range(2):
            wanted = states_of(daemon)["recorder/good"]["chunks"] + 2
            until(partial(_has_chunks, daemon, wanted), lambda: daemon.log.read_text()[-3000:])
            meanwhile()
        assert ask(daemon, "recorder/good/stop")["status"] == "ok"
        assert daemon.pid == pid
        assert daemon.is_running
        most_mib = daemon.status("VmHWM") >> 20
        assert daemon.stop() == 0
    chunks = sorted((daemon.recordings / "good").rglob("*.mp4"))
    assert len(chunks) >= 4
    assert_consecutive(numbers_of(chunks))
    return most_mib


def _command(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msrecd", "recordings", arguments[0], "--config", str(daemon.config), *arguments[1:]],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
