"""New configurations for a running daemon, valid and invalid ones, while it records.

Short in the ordinary run; `MSRECD_RELOADS=1000` for the acceptance figures.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from broker import Broker
from console import Console
from daemon import VIRTUAL, DaemonProcess, configuration
from judge import assert_consecutive, read_chunk

RELOADS = int(os.environ.get("MSRECD_RELOADS", "50"))
CAM0 = """
[[recorder]]
name = "cam0"
video = { width = 320, height = 240, frame_rate = 30 }
timeslice = "500ms"
chunk_duration = "5s"
autostart = true
"""
MIC0 = """
[[recorder]]
name = "mic0"
audio = true
mime_type = "audio/flac"
autostart = true
"""
MIC1 = MIC0.replace("mic0", "mic1").replace("audio/flac", "audio/wav")
PLACE = "[location]\nlatitude = 52.5\nlongitude = 13.4\n"
VALID = [
    CAM0 + MIC0,
    CAM0 + MIC0.replace("audio/flac", "audio/wav"),
    CAM0 + MIC0 + MIC1,
    CAM0 + '[[recorder.schedule]]\nstart = "sunrise"\nstop = "sunset"\n' + MIC1 + PLACE,
    CAM0 + 'max_duration = "6h"\nretention = { max_age = "7d" }\n' + MIC0 + 'chunk_duration = "7s"\n',
    CAM0,
]
POOL = 6  # the most threads that asyncio.to_thread keeps on two cores; they come when first needed
INVALID = {
    "[[[": "the configuration is not valid",
    CAM0 + MIC0 + 'chunk_durations = "1s"\n': "recorder[1].chunk_durations",
    CAM0 + '[[recorder.schedule]]\nstart = "sunrise"\nstop = "sunset"\n': "location",
    CAM0 + '[[recorder.schedule]]\nstart = "06:00"\nstop = "07:00"\ntimezone = "Mars/Olympus"\n' + MIC0: "schedule",
    CAM0 + MIC0 + "[homeassistant]\ndiscovery = true\n": "homeassistant.discovery",
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def console(broker: Broker) -> Iterator[Console]:
    console = Console(broker.port)
    yield console
    console.close()


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    threads: int
    files: int
    rss_kib: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(
            threads=int(status["Threads"]),
            files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            rss_kib=int(status["VmRSS"].split()[0]),
        )


def put(daemon: DaemonProcess, port: int, recorders: str) -> None:
    """Write the configuration as an editor does: the daemon never sees half of it."""
    new = daemon.config.with_suffix(".new")
    new.write_text(configuration(daemon.folder, port=port, recorders=recorders))
    new.replace(daemon.config)


def reload_by_signal(daemon: DaemonProcess) -> None:
    """SIGHUP, and wait as systemd does: until READY=1 follows RELOADING=1."""
    asked, done = daemon.notified.count("RELOADING=1"), daemon.notified.count("READY=1")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while daemon.notified.count("RELOADING=1") == asked or daemon.notified.count("READY=1") == done:
        assert time.monotonic() < deadline, f"the reload does not end:\n{daemon.log.read_text()[-3000:]}"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * RELOADS)
def test_no_frame_is_lost_and_nothing_leaks_over_many_reloads(tmp_path: Path, broker: Broker, console: Console) -> None:
    begun = time.monotonic()
    footprints: list[tuple[int, Footprint]] = []
    invalid = list(INVALID.items())
    config = configuration(tmp_path, port=broker.port, recorders=VALID[0])
    with DaemonProcess(tmp_path, config, environment={"MALLOC_ARENA_MAX": "2"}) as daemon:  # as the service has it
        console.wait("state/recorder/cam0", lambda state: state["state"] == "recording")
        for i in range(RELOADS):
            wrong, reason = invalid[i // 2 % len(invalid)] if i % 2 else ("", "")
            put(daemon, broker.port, wrong or VALID[i // 2 % len(VALID)])
            if i % 3 == 0:
                reload_by_signal(daemon)
            else:
                reply = console.command("daemon/reload")
                assert reply["status"] == ("error" if wrong else "ok"), reply
                assert not wrong or reason in reply["error"]["message"]
            if i % (RELOADS // 10) == 0 and i >= RELOADS // 5:
                footprints.append((i, settled(daemon, broker, console)))
        before = footprints[0][1]
        after = settled(daemon, broker, console, most_threads=before.threads + POOL)
        footprints.append((RELOADS, after))
        elapsed = time.monotonic() - begun
        daemon.wait_for_chunks(1)
        daemon.stop()
    lines = [line for line in daemon.manifest() if "file" in line]
    assert len({line["file"].rsplit("-", 1)[0].rsplit("/", 1)[1] for line in lines}) == 1, "cam0 was interrupted"
    numbers = [number for path in daemon.chunks() for number in read_chunk(path).numbers]
    assert_consecutive(numbers)
    assert sum(line["tracks"]["video"]["dropped"] for line in lines) == 0
    assert not daemon.parts()
    growth = median_slope([(number, found.rss_kib) for number, found in footprints])
    print(f"{RELOADS} reloads in {elapsed:.0f} s: {len(numbers)} frames, none lost; before {before}, after {after};")
    print(f"memory {growth:+.1f} KiB a reload: {[found.rss_kib for _, found in footprints]}")
    assert after.threads <= before.threads + POOL
    assert after.files <= before.files + 2
    assert after.rss_kib <= before.rss_kib + 60_000
    assert RELOADS < 500 or growth < 10, "some 10 MB in a thousand reloads are a leak"
    assert "Traceback" not in daemon.log.read_text()


def settled(daemon: DaemonProcess, broker: Broker, console: Console, *, most_threads: int | None = None) -> Footprint:
    """What the daemon holds with the first configuration in force, recording, once threads of before have left.

    That is when their number stays the same for a second, or is at most `most_threads`.
    """
    put(daemon, broker.port, VALID[0])
    reload_by_signal(daemon)
    deadline = time.monotonic() + 40
    for name in ("cam0", "mic0"):
        while console.command(f"recorder/{name}/get")["data"]["state"] != "recording":
            assert time.monotonic() < deadline, f"{name} does not record"
            time.sleep(0.2)
    last: list[int] = []
    while True:
        found = Footprint.of(daemon.pid)
        last = [*last[-5:], found.threads]
        is_steady = len(last) == 6 and len(set(last)) == 1
        if time.monotonic() > deadline or (is_steady if most_threads is None else found.threads <= most_threads):
            return found
        time.sleep(0.2)


def median_slope(points: list[tuple[int, int]]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs; single high points do not move it."""
    pairs = itertools.combinations(points, 2)
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs if b[0] != a[0])


def test_what_was_decided_by_hand_survives_a_reload(tmp_path: Path, broker: Broker, console: Console) -> None:
    by_hand = CAM0.replace("autostart = true\n", "")
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=by_hand)) as daemon:
        console.wait("availability")
        first = console.command("recorder/cam0/start", {"duration_s": 600})["data"]["recording_id"]
        until = console.command("recorder/cam0/get")["data"]["until"]
        put(daemon, broker.port, by_hand + 'max_duration = "6h"\n')  # a limit concerns no recording under way
        assert console.command("daemon/reload")["changed"] is True
        assert console.command("recorder/cam0/get")["data"]["recording_id"] == first
        put(daemon, broker.port, by_hand + "video_bits_per_second = 300_000\n")  # this needs another encoder
        since = len(console.messages)
        assert console.command("daemon/reload")["changed"] is True
        stopped = console.wait("event/recorder/cam0", lambda e: e["event_type"] == "stopped", since=since)
        assert stopped["cause"] == "reload"
        state = console.wait(
            "state/recorder/cam0", lambda s: s["state"] == "recording" and s["recording_id"] not in (None, first)
        )
        state = console.wait("state/recorder/cam0", lambda s: s["recording_id"] == state["recording_id"] and s["until"])
        assert state["until"][:16] == until[:16] or abs(seconds(state["until"]) - seconds(until)) < 2
        assert console.command("daemon/reload")["changed"] is False


def test_what_needs_a_restart_is_named_and_nothing_else_is_taken(
    tmp_path: Path, broker: Broker, console: Console
) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0)) as daemon:
        before = console.wait("state/daemon")["config_hash"]
        text = configuration(
            daemon.folder,
            port=broker.port,
            recorders=CAM0 + MIC0,
            storage='sync_interval = "5s"\nmax_total = "1GiB"',
            more=VIRTUAL.replace("Test Microphone", "Another"),
        ).replace("[mqtt]", '[mqtt]\ngroups = ["north"]')
        daemon.config.write_text(text)
        error = console.command("daemon/reload")["error"]
        assert error["code"] == "bad_args"
        for path in ("storage.sync_interval", "devices.virtual", "mqtt.groups"):
            assert path in error["message"]
        assert "max_total" not in error["message"]
        assert console.wait("event/error", lambda e: e["code"] == "bad_args")["message"] == error["message"]
        assert console.command("daemon/ping")["data"]["config_hash"] == before
        assert console.command("recorder/mic0/get")["error"]["code"] == "unknown_recorder"
        since = len(console.messages)
        reload_by_signal(daemon)
        console.wait("event/error", lambda e: "mqtt.groups" in e["message"], since=since)
        usec = [line for line in daemon.notified if line.startswith("MONOTONIC_USEC=")]
        assert abs(int(usec[-1].partition("=")[2]) / 1e6 - time.monotonic()) < 60


def test_a_limit_of_the_storage_holds_from_the_reload_on(tmp_path: Path, broker: Broker, console: Console) -> None:
    quick = MIC0.replace("audio/flac", "audio/wav") + 'chunk_duration = "1s"\n'  # 192 kB each
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=quick)) as daemon:
        first = daemon.wait_for_chunks(3, recorder="mic0")[0]
        put(daemon, broker.port, quick + 'retention = { max_total = "1MiB" }\n')
        assert console.command("daemon/reload")["changed"] is True
        deadline = time.monotonic() + 60
        while first.exists():
            assert time.monotonic() < deadline, daemon.chunks("mic0")
            time.sleep(0.1)
        assert any(
            "deleted" in json.loads(line) for line in next(daemon.recordings.rglob("*.jsonl")).read_text().splitlines()
        )


def seconds(text: str) -> float:
    """Of an hour, from the text of a time."""
    _, minute, second = text.rstrip("Z").partition("T")[2].split(":")
    return 60 * int(minute) + float(second)
