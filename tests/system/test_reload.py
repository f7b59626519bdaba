"""New configurations for a running daemon, valid and invalid ones, while it records.

Short in the ordinary run; `MSRECD_RELOADS=1000` for the acceptance figures.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from broker import Broker
from config_text import VIRTUAL, configuration, recorder, window
from console import Console
from daemon import DaemonFor, DaemonProcess
from judge import assert_consecutive, numbers_of
from waiting import until

RELOADS = int(os.environ.get("MSRECD_RELOADS", "50"))
IS_LONG = RELOADS >= 500
PICTURE = {"width": 320, "height": 240, "frame_rate": 30}
CAM0 = recorder("cam0", video=PICTURE, timeslice="500ms", chunk_duration="5s", autostart=True)
BY_HAND = recorder("cam0", video=PICTURE, timeslice="500ms", chunk_duration="5s")
MIC0 = recorder("mic0", audio=True, mime_type="audio/flac", autostart=True)
MIC1 = recorder("mic1", audio=True, mime_type="audio/wav", autostart=True)
SUNNY = window(start="sunrise", stop="sunset")
PLACE = "[location]\nlatitude = 52.5\nlongitude = 13.4\n"
VALID = [
    CAM0 + MIC0,
    CAM0 + MIC0.replace("audio/flac", "audio/wav"),
    CAM0 + MIC0 + MIC1,
    CAM0 + SUNNY + MIC1 + PLACE,
    CAM0 + 'max_duration = "6h"\nretention = { max_age = "7d" }\n' + MIC0 + 'chunk_duration = "7s"\n',
    CAM0,
]
POOL = 6  # the most threads that asyncio.to_thread keeps on two cores; they come when first needed
INVALID = {
    "[[[": "the configuration is not valid",
    CAM0 + MIC0 + 'chunk_durations = "1s"\n': "recorder[1].chunk_durations",
    CAM0 + SUNNY: "location",
    CAM0 + window(start="06:00", stop="07:00", timezone="Mars/Olympus") + MIC0: "schedule",
    CAM0 + MIC0 + "[homeassistant]\ndiscovery = true\n": "homeassistant.discovery",
}


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    threads: int
    files: int
    rss_kib: int

    @classmethod
    def of(cls, daemon: DaemonProcess) -> Footprint:
        return cls(
            threads=daemon.status("Threads"),
            files=len(list(Path(f"/proc/{daemon.pid}/fd").iterdir())),
            rss_kib=daemon.status("VmRSS") // 1024,
        )


def put(daemon: DaemonProcess, port: int, recorders: str) -> None:
    """Write the configuration as an editor does: the daemon never sees half of it."""
    new = daemon.config.with_suffix(".new")
    new.write_text(configuration(daemon.folder, port=port, recorders=recorders))
    new.replace(daemon.config)


def reload_by_signal(daemon: DaemonProcess) -> None:
    """SIGHUP, and wait as systemd does: until READY=1 follows RELOADING=1."""
    asked, done = daemon.notified.count("RELOADING=1"), daemon.notified.count("READY=1")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_notified("RELOADING=1", count=asked + 1)
    daemon.wait_notified("READY=1", count=done + 1)


@pytest.mark.slow
@pytest.mark.timeout(300 + 2 * RELOADS)
@pytest.mark.alone  # a busy machine drops frames, and is right to
@pytest.mark.promise("reload-under-a-recording")
def test_no_frame_is_lost_and_nothing_leaks_over_many_reloads(
    daemon_for: DaemonFor, broker: Broker, console: Console
) -> None:
    begun = time.monotonic()
    footprints: list[tuple[int, Footprint]] = []
    invalid = list(INVALID.items())
    with daemon_for(VALID[0], environment={"MALLOC_ARENA_MAX": "1"}) as daemon:  # as the service has it
        console.wait_state("recording")
        for i in range(RELOADS):
            wrong, reason = invalid[i // 2 % len(invalid)] if i % 2 else ("", "")
            put(daemon, broker.port, wrong or VALID[i // 2 % len(VALID)])
            if i % 3 == 0:
                reload_by_signal(daemon)
            else:
                reply = console.command("daemon/reload")
                assert reply["status"] == ("error" if wrong else "ok"), reply
                assert not wrong or reason in reply["error"]["message"]
            # The first is what the last is compared with; those between are for the growth of a long run.
            if i % (RELOADS // 10) == 0 and i >= RELOADS // 5 and (IS_LONG or not footprints):
                footprints.append((i, settled(daemon, broker, console)))
        before = footprints[0][1]
        after = settled(daemon, broker, console, most_threads=before.threads + POOL)
        footprints.append((RELOADS, after))
        elapsed = time.monotonic() - begun
        daemon.wait_for_chunks(1)
        daemon.stop()
    lines = [line for line in daemon.manifest() if "file" in line]
    assert len({line["file"].rsplit("-", 1)[0].rsplit("/", 1)[1] for line in lines}) == 1, "cam0 was interrupted"
    numbers = numbers_of(daemon.chunks())
    assert_consecutive(numbers)
    assert sum(line["tracks"]["video"]["dropped"] for line in daemon.chunk_lines()) == 0
    assert not daemon.parts()
    growth = median_slope([(number, found.rss_kib) for number, found in footprints])
    print(f"{RELOADS} reloads in {elapsed:.0f} s: {len(numbers)} frames, none lost; before {before}, after {after};")
    print(f"memory {growth:+.1f} KiB a reload: {[found.rss_kib for _, found in footprints]}")
    assert after.threads <= before.threads + POOL
    assert after.files <= before.files + 2
    assert after.rss_kib <= before.rss_kib + 60_000
    assert not IS_LONG or growth < 10, "some 10 MB in a thousand reloads are a leak"
    assert "Traceback" not in daemon.log.read_text()


def settled(daemon: DaemonProcess, broker: Broker, console: Console, *, most_threads: int | None = None) -> Footprint:
    """What the daemon holds with the first configuration in force, recording, once threads of before have left.

    That is when their number stays the same for a second, or is at most `most_threads`.
    """
    put(daemon, broker.port, VALID[0])
    reload_by_signal(daemon)
    for name in ("cam0", "mic0"):
        until(
            lambda name=name: console.command(f"recorder/{name}/get")["data"]["state"] == "recording",
            f"{name} does not record",
        )
    deadline = time.monotonic() + 40
    last: list[int] = []
    while True:
        found = Footprint.of(daemon)
        last = [*last[-5:], found.threads]
        is_steady = len(last) == 6 and len(set(last)) == 1
        if time.monotonic() > deadline or (is_steady if most_threads is None else found.threads <= most_threads):
            return found
        time.sleep(0.2)


def median_slope(points: list[tuple[int, int]]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs; single high points do not move it."""
    pairs = itertools.combinations(points, 2)
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs if b[0] != a[0])


@pytest.mark.effect("event-recorder: cause")
def test_what_was_decided_by_hand_survives_a_reload(daemon_for: DaemonFor, broker: Broker, console: Console) -> None:
    with daemon_for(BY_HAND) as daemon:
        console.wait("availability")
        first = console.command("recorder/cam0/start", {"duration_s": 600})["data"]["recording_id"]
        until = console.command("recorder/cam0/get")["data"]["until"]
        put(daemon, broker.port, BY_HAND + 'max_duration = "6h"\n')  # a limit concerns no recording under way
        assert console.command("daemon/reload")["changed"] is True
        assert console.command("recorder/cam0/get")["data"]["recording_id"] == first
        put(daemon, broker.port, BY_HAND + "video_bits_per_second = 300_000\n")  # this needs another encoder
        since = len(console.messages)
        assert console.command("daemon/reload")["changed"] is True
        stopped = console.wait_event("stopped", since=since)
        assert stopped["cause"] == "reload"
        state = console.wait(
            "state/recorder/cam0", lambda s: s["state"] == "recording" and s["recording_id"] not in (None, first)
        )
        state = console.wait("state/recorder/cam0", lambda s: s["recording_id"] == state["recording_id"] and s["until"])
        assert state["until"][:16] == until[:16] or abs(seconds(state["until"]) - seconds(until)) < 2
        assert console.command("daemon/reload")["changed"] is False


@pytest.mark.effect("event-error: message")
@pytest.mark.promise("reload-in-whole")
@pytest.mark.promise("reload-keeps-what-it-has")
def test_what_needs_a_restart_is_named_and_nothing_else_is_taken(
    daemon_for: DaemonFor, broker: Broker, console: Console
) -> None:
    with daemon_for(CAM0) as daemon:
        before = console.wait("state/daemon")["config_hash"]
        text = configuration(
            daemon.folder,
            port=broker.port,
            recorders=CAM0 + MIC0,
            storage='sync_interval = "5s"\nmax_total = "1GiB"',
            more=VIRTUAL.replace("Test Microphone", "Another"),
            groups=["north"],
        )
        daemon.config.write_text(text)
        error = console.command("daemon/reload")["error"]
        assert error["code"] == "bad_args"
        for path in ("devices.virtual", "mqtt.groups"):
            assert path in error["message"]
        assert "max_total" not in error["message"]
        assert "sync_interval" not in error["message"]
        assert console.wait("event/error", lambda e: e["code"] == "bad_args")["message"] == error["message"]
        assert console.command("daemon/ping")["data"]["config_hash"] == before
        assert console.command("recorder/mic0/get")["error"]["code"] == "unknown_recorder"
        since = len(console.messages)
        reload_by_signal(daemon)
        console.wait("event/error", lambda e: "mqtt.groups" in e["message"], since=since)
        usec = [line for line in daemon.notified if line.startswith("MONOTONIC_USEC=")]
        assert abs(int(usec[-1].partition("=")[2]) / 1e6 - time.monotonic()) < 60


@pytest.mark.promise("limits-hold")
@pytest.mark.effect("config: recorder.retention.max_total", "manifest-line: at", "manifest-line: ended")
def test_a_limit_of_the_storage_holds_from_the_reload_on(
    daemon_for: DaemonFor, broker: Broker, console: Console
) -> None:
    quick = MIC0.replace("audio/flac", "audio/wav") + 'chunk_duration = "1s"\n'  # 192 kB each
    with daemon_for(quick) as daemon:
        first = daemon.wait_for_chunks(3, recorder="mic0")[0]
        put(daemon, broker.port, quick + 'retention = { max_total = "1MiB" }\n')
        assert console.command("daemon/reload")["changed"] is True
        until(lambda: not first.exists(), lambda: daemon.chunks("mic0"))
        gone = next(line for line in daemon.manifest("mic0") if "deleted" in line)
    assert (gone["deleted"], gone["reason"]) == (1, "recorder_max_total")
    ended = next(line["ended"] for line in daemon.chunk_lines("mic0") if line["seq"] == 1)
    assert 0 < (datetime.fromisoformat(gone["at"]) - datetime.fromisoformat(ended)).total_seconds() < 120


def seconds(text: str) -> float:
    """Of an hour, from the text of a time."""
    _, minute, second = text.rstrip("Z").partition("T")[2].split(":")
    return 60 * int(minute) + float(second)
