"""The page about what was: gaps, triggers, time-lapse, errors of before it was opened. In a real Chromium."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pagebrowser
import pytest
from alsasim import compile_plugin, write_config
from config_text import camera, configuration, microphone, recorder, trigger
from daemon import DaemonProcess
from pagebrowser import OpenPage
from pageclient import PageClient, wait_for_page, web_table
from ports import free_port
from waiting import until

from msrecd.vocabulary.times import parse_utc

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(pagebrowser.missing() is not None, reason=str(pagebrowser.missing())),
]

STOPPED_S = 3
DEVICES = """
[devices]
alsa = ["mic_plug"]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[320, 240, 10]] },
  { kind = "microphone", label = "Test Microphone", signal = "beep" },
]
"""
PICTURE = {"width": 320, "height": 240, "frame_rate": 10}
BEEP = {"kind": "sound", "band": [900, 1100], "threshold_db": 15.0, "hold": "300ms"}


class Past:
    """A device on which things went wrong, and that is idle now."""

    def __init__(self, daemon: DaemonProcess, base: str, client: PageClient) -> None:
        self.daemon, self.base, self.client = daemon, base, client

    def recorded(self, name: str) -> Any:
        return self.client.get(f"/api/recordings?recorder={name}").json["recordings"]


def stop(daemon: DaemonProcess, client: PageClient, name: str) -> None:
    assert client.post(f"/api/recorders/{name}/stop").json["status"] == "ok"
    until(lambda: any(line["final"] for line in daemon.chunk_lines(name)), daemon.log.read_text, timeout=120)


def written(daemon: DaemonProcess, name: str) -> int:
    return sum(part.stat().st_size for part in daemon.parts() if name in part.name)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    folder = tmp_path_factory.mktemp("past")
    sim = write_config(compile_plugin(tmp_path_factory.mktemp("plugin")), tmp_path_factory.mktemp("alsa"))
    port = free_port()
    beep = {"label": "Test Microphone"}
    recorders = camera(audio=False, video=PICTURE, chunk_duration="3s", autostart=True)
    recorders += camera("lapse", video=PICTURE, chunk_duration="3s", time_lapse={"interval": "1s", "frame_rate": 5})
    recorders += recorder(
        "plugged", audio={"device_id": {"label": "mic_plug"}}, mime_type="audio/mp4", timeslice="500ms"
    )
    recorders += microphone("heard", audio={"device_id": beep}, chunk_duration="3s") + trigger(
        **BEEP | {"max_per_hour": 1}
    )
    text = configuration(folder, port=None, recorders=recorders, more=web_table(port, folder) + DEVICES)
    with DaemonProcess(folder, text, environment=sim.env) as daemon:
        wait_for_page(daemon, port)
        client = PageClient(port)
        assert client.log_in().status == 204
        for name in ("plugged", "lapse"):
            assert client.post(f"/api/recorders/{name}/start").json["status"] == "ok", daemon.log.read_text()
        until(lambda: written(daemon, "plugged") > 2000, daemon.log.read_text)
        sim.unplug()
        until(lambda: client.get("/api/recorders").json["plugged"]["state"] == "error", daemon.log.read_text)
        sim.plug()
        until(lambda: client.get("/api/recorders").json["plugged"]["state"] == "recording", daemon.log.read_text)
        daemon.wait_for_chunks(1)
        os.kill(daemon.pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)  # it is the length of the gap that is made here
        os.kill(daemon.pid, signal.SIGCONT)
        daemon.wait_for_chunks(4)
        daemon.wait_for_chunks(2, recorder="lapse")
        daemon.wait_for_chunks(1, recorder="heard")
        for name in ("plugged", "lapse", "cam0"):
            stop(daemon, client, name)
        Path(daemon.recordings / daemon.chunk_lines()[2]["file"]).unlink()
        yield Past(daemon, f"http://127.0.0.1:{port}", client)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with pagebrowser.chromium() as opened:
        yield opened


@pytest.fixture
def opened(past: Past, browser: Any) -> Iterator[OpenPage]:
    page = OpenPage(browser, past.base, 1280, 800, "light")
    page.log_in()
    yield page
    page.close()
    assert page.complaints == []


def test_an_hls_player_gets_all_that_is_there(past: Past) -> None:
    (recording,) = past.recorded("cam0")
    address = f"{past.base}/api/recordings/{recording['recording_id']}/index.m3u8"
    command = ["ffprobe", "-v", "error", "-count_packets", "-select_streams", "v:0", "-of", "csv=p=0"]
    command += ["-show_entries", "stream=nb_read_packets", "-headers", f"Cookie: {past.client.cookie}\r\n", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    there = {chunk["seq"] for chunk in recording["chunks"]}
    lines = [line for line in past.daemon.chunk_lines() if line["seq"] in there]
    assert len(lines) == len(past.daemon.chunk_lines()) - 1
    assert int(done.stdout.split()[0]) == sum(line["tracks"]["video"]["frames"] for line in lines)


@pytest.mark.promise("page-gaps")
def test_playback_goes_over_what_is_missing_and_says_why(past: Past, opened: OpenPage) -> None:
    (recording,) = past.recorded("cam0")
    chunks = recording["chunks"]
    reasons = {gap["reason"] for gap in recording["gaps"]}
    assert reasons >= {"no_frames", "missing_file"}, recording["gaps"]
    longest = max(gap["duration_s"] for gap in recording["gaps"] if gap["reason"] == "no_frames")
    assert longest >= STOPPED_S - 1
    opened.show("back/cam0")
    opened.until("() => document.querySelector('main video').readyState >= 2")
    bar = opened.page.get_by_role("slider", name="Time bar")
    bar.press("Home")
    opened.until("() => document.querySelector('main video').currentTime < 0.3 && window.readFrame('main video') >= 0")
    first = opened.frame_of("main video")
    opened.page.get_by_role("button", name="Play", exact=True).click()
    opened.until("() => document.querySelector('main video').ended")
    last = opened.frame_of("main video")
    frames = sum(line["tracks"]["video"]["frames"] for line in past.daemon.chunk_lines())
    assert last - first >= frames - 5, "it ends with the last frame"
    text = opened.page.inner_text("main .gaps")
    assert "the camera gave no frames" in text
    assert "the file is missing" in text
    # The file that was taken away: a tap there says why nothing is shown, and goes to what follows.
    gap = next(gap for gap in recording["gaps"] if gap["reason"] == "missing_file")
    after = next(chunk for chunk in chunks if chunk["started"] > gap["started"])
    middle = parse_utc(gap["started"]) / 1e6 + gap["duration_s"] * 500
    opened.tap_bar(middle)
    opened.page.get_by_text("the file is missing. The player is at").wait_for()
    at = datetime.fromisoformat(after["started"]).strftime("%H:%M:%S")
    opened.page.get_by_text(f"The player is at {at}, where the recording continues.").wait_for()
    opened.picture("gaps")
    number = opened.until("() => { const n = window.readFrame('main video'); return n >= 0 && [n]; }")[0]
    assert first < number < last


@pytest.mark.promise("page-missing-in-range")
def test_a_range_says_what_is_missing_of_it(opened: OpenPage) -> None:
    opened.show("back/plugged")
    bar = opened.page.get_by_role("slider", name="Time bar")
    opened.until("() => document.querySelector('main code')?.textContent.length === 64")
    for key, press in (("Home", "Mark begin"), ("End", "Mark end")):
        bar.press(key)
        opened.page.get_by_role("button", name=press).click()
    opened.page.get_by_text("Missing in it:").wait_for()
    assert "the device was away" in opened.page.inner_text("main .view")


@pytest.mark.promise("page-triggers")
def test_triggers_of_the_past_stand_on_the_bar(past: Past, opened: OpenPage) -> None:
    recording = past.recorded("heard")[-1]
    (found, *_) = recording["triggers"]
    assert found["kind"] == "sound"
    assert found["score"] > 12
    opened.show("back/heard")
    opened.page.wait_for_selector("main .triggers button")
    assert "sound, " in opened.page.inner_text("main .triggers")
    # The mark is drawn above the moment at which the trigger had found something; the play head is moved away from it.
    opened.page.get_by_role("slider", name="Time bar").press("End")
    opened.until("() => document.querySelector('main video').currentTime > 0.2")
    colours = opened.bar_pixels(parse_utc(found["started"]) / 1e6, 1)
    assert (180, 0, 158) in colours
    opened.page.locator("main .triggers button").first.click()
    opened.until("() => document.querySelector('main video').readyState >= 2")


@pytest.mark.promise("page-lapse")
def test_a_time_lapse_stands_on_the_bar_by_its_times_of_capture(past: Past, opened: OpenPage) -> None:
    (recording,) = past.recorded("lapse")
    begun, ended = (datetime.fromisoformat(recording[name]).timestamp() for name in ("started", "ended"))
    played = sum(chunk["duration_s"] for chunk in recording["chunks"])
    assert ended - begun > 4 * played
    opened.show("back/lapse")
    opened.until("() => document.querySelector('main video').readyState >= 2")
    opened.picture("lapse")
    assert "a time-lapse that is played in" in opened.page.inner_text("main .view")
    bar = opened.page.get_by_role("slider", name="Time bar")
    bar.press("Home")
    opened.until("begun => Math.abs(document.querySelector('main .timebar').ariaValueNow - begun) <= 1", begun)
    first = opened.until("() => { const n = window.readFrame('main video'); return n >= 0 && [n]; }")[0]
    opened.page.get_by_role("button", name="Play", exact=True).click()
    opened.until("() => document.querySelector('main video').ended")
    opened.until("ended => Math.abs(document.querySelector('main .timebar').ariaValueNow - ended) <= 2", ended)
    assert opened.frame_of("main video") - first >= 10 * (ended - begun - STOPPED_S - 2.5)


@pytest.mark.promise("page-errors")
def test_errors_from_before_the_page_was_opened_are_there(past: Past, opened: OpenPage) -> None:
    assert past.client.get("/api/recorders").json["plugged"]["error"] is None
    opened.show("health")
    opened.page.wait_for_selector("main .errors li")
    opened.picture("errors")
    assert "plugged" in opened.page.inner_text("main .errors")
    assert past.client.get("/api/errors").json[0].keys() == {"ts", "recorder", "code", "message", "count"}
