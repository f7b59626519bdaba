"""Inputs that want to harm: what reads them dies, hangs or runs out of memory; this process and other inputs do not."""

from __future__ import annotations

import base64
import os
import signal
import struct
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from msrecd.dom.exceptions import DOMException
from msrecd.inputs.address import SourceOptions
from msrecd.inputs.processes import Process
from msrecd.inputs.sharing import Sharing
from msrecd.media.playback import Playback
from tests.inputs.cameras import Clip, RtspCamera, RtspScript, clip
from tests.inputs.test_network import Played

QUICK = SourceOptions(timeout_s=2.0)
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14) + b"\x11" * 16 + bytes(72)
HEAD = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
SOUND = b"m=audio 0 RTP/AVP 96\r\na=rtpmap:96 %s/1000\r\na=control:t\r\n"
SCRIPTS = {
    "x-pn-realaudio (SIGSEGV in libav)": (HEAD + SOUND % b"x-pn-realaudio", "camera", 1),
    "X-QDM (SIGABRT in libav)": (HEAD + SOUND % b"X-QDM", "camera", 1),
    "an ASF header that never ends (endless loop in libav)": (
        HEAD + b"a=pgmpu:data:application/vnd.ms.wms-hdr.asfv1;base64," + base64.b64encode(_ASF)
        + b"\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 x-asf-pf/1000\r\na=control:t\r\n", "WMServer/9.1.1.3862", 1,
    ),
    "900 MB of description": (b"a=x:" + b"y" * 996 + b"\r\n" * 12, "camera", 900_000),
    "no description at all": (b"\xff" * 100, "camera", 1),
    "a description of nothing": (HEAD, "camera", 1),
    "a thousand streams": (HEAD + SOUND % b"H264" * 1000, "camera", 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def media() -> Clip:
    return clip()


def _rss_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.promise("hostile-servers-and-files")
def test_a_hostile_rtsp_server_costs_its_own_input_alone(media: Clip, name: str) -> None:
    description, server, repeat = SCRIPTS[name]
    with RtspCamera(media, has_sound=False) as good, Played(good.url, SourceOptions(timeout_s=30)) as other:
        before = len(other.taken["video"].wait(10))
        memory, begun = _rss_mib(), time.monotonic()
        with RtspScript(description, server, repeat) as bad, pytest.raises(DOMException) as caught:
            Playback(bad.url, QUICK).close()
        assert time.monotonic() - begun < 40, "it has an end"
        assert _rss_mib() - memory < 40
        assert str(bad.port) in caught.value.message
        frames = other.taken["video"].wait(before + 50)
        steps = {round((b.pts_ns - a.pts_ns) / 1e6) for a, b in pairwise(frames)}
        assert max(steps) < 80, "no frame of the other one is lost"


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each input has a process of its own; tests/inputs/test_sharing.py is about the one that reads many."""
    monkeypatch.setattr(Sharing, "takes", lambda self, address: False)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.promise("silent-process-is-killed")
@pytest.mark.usefixtures("apart")
def test_a_reading_process_that_dies_or_stops_is_a_lost_input(media: Clip, number: signal.Signals) -> None:
    """SIGSTOP stands for one that hangs: it is killed when nothing has come for the time-out."""
    with (
        RtspCamera(media, has_sound=False) as camera,
        Played(camera.url, QUICK) as victim,
        Played(camera.url, SourceOptions(timeout_s=30)) as other,
    ):
        victim.taken["video"].wait(10)
        count = len(other.taken["video"].wait(10))
        process = victim.playback._reader._process
        assert isinstance(process, Process), "it is not read together with others"
        signal.pidfd_send_signal(process.pidfd, number)
        error = victim.taken["video"].wait_end(30)
        assert isinstance(error, DOMException)
        assert ("silent for" if number == signal.SIGSTOP else number.name) in error.message
        other.taken["video"].wait(count + 30)


@pytest.mark.promise("dead-process-is-a-lost-input")
def test_the_first_process_dies_and_another_takes_its_place(media: Clip) -> None:
    from msrecd.inputs.processes import helpers

    with RtspCamera(media, has_sound=False) as camera:
        with Played(camera.url) as played:
            played.taken["video"].wait(5)
        process = helpers._process
        assert process is not None
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "500", "it goes before the daemon"
        process.kill()
        process.wait()
        with Played(camera.url) as played:
            played.taken["video"].wait(5)


def test_nothing_is_left_behind(media: Clip) -> None:
    with RtspCamera(media, has_sound=False) as camera:
        with Played(camera.url) as first:  # two processes stay, for the next input
            first.taken["video"].wait(3)

        def left() -> int:
            return _open_files() - camera.connections  # which the camera keeps to its end

        before = left()
        threads = threading.active_count()
        for _ in range(8):
            with Played(camera.url) as played:
                played.taken["video"].wait(3)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (left() > before + 2 or threading.active_count() > threads + 2):
            time.sleep(0.1)
        assert left() <= before + 2
        assert threading.active_count() <= threads + 2


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- files ----------------------------------------------------------------------------------------------------------

AIFF_WITHOUT_CHANNELS = (
    b"FORM" + struct.pack(">I", 46) + b"AIFFCOMM" + struct.pack(">IhIh", 18, 0, 0, 16)
    + b"\x40\x0e\xac\x44" + bytes(6) + b"SSND" + struct.pack(">III", 8, 0, 0)
)  # fmt: skip
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n"
FILES = {
    "sound.aiff": AIFF_WITHOUT_CHANNELS,
    "list.m3u8": PLAYLIST,
    "list.ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "session.sdp": HEAD + b"m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
    "empty.mp4": b"",
    "zeros.mkv": bytes(100_000),
    "deep.mp4": b"".join(struct.pack(">I4s", 8 + 8 * (2000 - n), b"moov") for n in range(2000)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.promise("hostile-servers-and-files")
def test_a_hostile_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    memory, begun = _rss_mib(), time.monotonic()
    with pytest.raises(DOMException, match=name.partition(".")[0]):
        Playback(str(tmp_path / name)).close()
    assert time.monotonic() - begun < 30
    assert _rss_mib() - memory < 40


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(DOMException, match="regular"):
        Playback(str(tmp_path / "pipe.mp4")).close()
