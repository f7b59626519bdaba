"""The page in a real Chromium, against a real daemon with virtual devices, as a person uses it."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pagebrowser
import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from pagebrowser import OpenPage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(pagebrowser.missing() is not None, reason=str(pagebrowser.missing())),
]

PASSWORD, VIEWER = "page-test-operator", "page-test-viewer"
RATE = 15
SIZES = {"phone": (360, 640, "dark"), "desk": (1280, 800, "light")}
MORE = """
[web]
listen = "127.0.0.1:{port}"
password_file = "{folder}/operator"
viewer_password_file = "{folder}/viewer"
[devices]
virtual = [
  {{ kind = "camera", label = "Test Camera", modes = [[640, 360, 15]] }},
  {{ kind = "microphone", label = "Test Microphone", signal = "tone" }},
]
"""
# Where the pictures of the views go; docs/page.md shows some of them.
PICTURES = os.environ.get("MSRECD_PAGE_PICTURES")


class Device:
    """A daemon that recorded for ten seconds: cam0 in three chunks, mic0 in two."""

    def __init__(self, daemon: DaemonProcess, base: str) -> None:
        self.daemon, self.base = daemon, base


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("page")
    for name, password in (("operator", PASSWORD), ("viewer", VIEWER)):
        command = [sys.executable, "-m", "msrecd", "web-password"]
        made = subprocess.run(command, input=password + "\n", capture_output=True, text=True, timeout=60, check=True)
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(made.stdout)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    picture = {"width": 640, "height": 360, "frame_rate": RATE}
    recorders = camera(audio=True, video=picture, autostart=True, chunk_duration="4s", max_duration="10s")
    recorders += microphone(autostart=True, chunk_duration="5s", max_duration="9s")
    text = configuration(folder, port=None, recorders=recorders, more=MORE.format(port=port, folder=folder))
    with DaemonProcess(folder, text) as daemon:
        daemon.wait_for_chunks(3, timeout=120)
        daemon.wait_for_chunks(2, recorder="mic0", timeout=120)
        yield Device(daemon, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with pagebrowser.chromium() as opened:
        yield opened


def log_in(opened: OpenPage, password: str = PASSWORD) -> None:
    opened.page.goto(opened.base)
    opened.page.get_by_label("Password").fill(password)
    opened.page.get_by_role("button", name="Log in").click()
    opened.page.wait_for_selector("main .view")
    opened.complaints.clear()  # the first question, whether there is a session, is answered by 401


@pytest.fixture
def opened(device: Device, browser: Any, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """Logged in, on a desk's screen unless a parameter says otherwise; the page must not have complained at the end."""
    page = OpenPage(browser, device.base, *SIZES[getattr(request, "param", "desk")])
    log_in(page)
    yield page
    page.close()
    assert page.complaints == []


def text_of(opened: OpenPage, selector: str) -> str:
    return opened.page.inner_text(selector)


def picture(opened: OpenPage, name: str) -> None:
    if PICTURES:
        opened.page.screenshot(path=f"{PICTURES}/{name}.png")


@pytest.mark.parametrize("opened", SIZES, indirect=True)
def test_every_view_is_readable_and_reachable(opened: OpenPage, request: pytest.FixtureRequest) -> None:
    """Of each view: its figures come, nothing is wider than the screen, axe finds nothing serious."""
    from axe_playwright_python.sync_playwright import Axe

    size = request.node.callspec.params["opened"]
    signs = {
        "record": "main .recorder .what:not(:empty)",
        "back/cam0": "main .timebar[aria-valuetext]",
        "back/mic0": "main .sound canvas",
        "health": "main dl dd",
        "listen": "main .card",
        "aim/cam0": "main .stage",
    }
    for view, sign in signs.items():
        opened.show(view)
        opened.page.wait_for_selector(sign)
        if view.startswith("back"):
            opened.until("() => document.querySelector('main code')?.textContent.length === 64")
        assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), view
        found = Axe().run(opened.page).response["violations"]
        serious = [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], view
        picture(opened, f"{view.replace('/', '-')}-{size}")


def test_a_wrong_password_is_refused_and_a_viewer_only_looks(device: Device, browser: Any) -> None:
    page = OpenPage(browser, device.base, *SIZES["phone"])
    try:
        page.page.goto(device.base)
        page.page.get_by_label("Password").fill("wrong")
        page.page.get_by_role("button", name="Log in").click()
        page.page.get_by_text("The password is wrong.").wait_for()
        log_in(page, VIEWER)
        page.show("record")
        page.page.wait_for_selector("main .recorder")
        assert page.page.locator("main .recorder button").count() == 0
        page.page.get_by_role("button", name="Log out").click()
        page.page.get_by_label("Password").wait_for()
    finally:
        page.close()


def test_a_recording_plays_through_all_chunks_and_can_be_sought(device: Device, opened: OpenPage) -> None:
    lines = device.daemon.chunk_lines()
    frames = sum(line["tracks"]["video"]["frames"] for line in lines)
    opened.show("back/cam0")
    opened.until("() => document.querySelector('main video').readyState >= 2")
    opened.page.evaluate(
        """() => {
            const video = document.querySelector("main video"), seen = window.seen = [];
            const note = (_, {mediaTime}) => {
                seen.push([window.readFrame("main video"), mediaTime]);
                video.requestVideoFrameCallback(note);
            };
            video.requestVideoFrameCallback(note);
        }"""
    )
    bar = opened.page.get_by_role("slider", name="Time bar")
    bar.press("Home")
    opened.until("() => document.querySelector('main video').currentTime < 0.2 && window.seen.length")
    first = opened.page.evaluate("window.seen.at(-1)[0]")
    opened.page.evaluate("window.seen.length = 0")
    opened.page.get_by_role("button", name="Play", exact=True).click()
    opened.until("() => document.querySelector('main video').ended")
    seen = opened.page.evaluate("window.seen")
    numbers = [number for number, _ in seen]
    assert numbers == sorted(numbers)
    assert numbers[-1] - first >= frames - 3
    # Each frame at its time: a busy machine leaves some out, but shows none at another one's place.
    assert all(abs(number - first - time * RATE) < 1.6 for number, time in seen)
    bar.press("ArrowLeft")  # 10 seconds: back to the first chunk
    opened.until("first => window.readFrame('main video') < first + 15", first)
    box = bar.bounding_box()
    assert box is not None
    before = bar.get_attribute("aria-valuenow")
    opened.page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 20)
    opened.until("before => document.querySelector('main .timebar').getAttribute('aria-valuenow') !== before", before)
    opened.until("() => !document.querySelector('main video').seeking")


def test_sound_plays_on_over_files_and_has_a_picture(opened: OpenPage) -> None:
    opened.show("back/mic0")
    opened.page.wait_for_selector("main .sound canvas")
    opened.page.get_by_role("slider", name="Time bar").press("Home")
    opened.until("() => document.querySelector('main video').readyState >= 1")
    first = opened.page.evaluate("document.querySelector('main video').src")
    opened.page.get_by_label("Speed").select_option("4")
    opened.page.get_by_role("button", name="Play", exact=True).click()
    opened.until("first => document.querySelector('main video').src !== first", first)
    opened.page.wait_for_selector("main .sound canvas")
    # The tone of 440 Hz: the brightest row of the spectrogram, of 512 up to 24 kHz.
    row = opened.until(
        """() => {
            const canvas = document.querySelectorAll("main .sound canvas")[1];
            if (!canvas?.width) return false;
            const data = canvas.getContext("2d").getImageData(canvas.width >> 1, 0, 1, canvas.height).data;
            let best = 0;
            const light = y => data[4 * y] + data[4 * y + 1] + data[4 * y + 2];
            for (let y = 0; y < canvas.height; y += 1) if (light(y) > light(best)) best = y;
            return data[4 * best] > 200 && canvas.height - 1 - best;
        }"""
    )
    assert 8 <= row <= 11


def test_a_file_and_a_range_are_taken_home_and_proven(device: Device, opened: OpenPage, tmp_path: Path) -> None:
    line = device.daemon.chunk_lines()[0]
    opened.show("back/cam0")
    bar = opened.page.get_by_role("slider", name="Time bar")
    opened.until("() => document.querySelector('main code')?.textContent.length === 64")
    bar.press("Home")
    opened.until("hash => document.querySelector('main code')?.textContent === hash", line["sha256"])
    with opened.page.expect_download() as download:
        opened.page.get_by_role("link", name="Download this file").click()
    file = tmp_path / "chunk.mp4"
    download.value.save_as(file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == line["sha256"]
    opened.page.get_by_role("button", name="Mark begin").click()
    bar.press("End")
    opened.page.get_by_role("button", name="Mark end").click()
    with opened.page.expect_download() as download:
        opened.page.get_by_role("link", name="Download the range as one file").click()
    clip = tmp_path / "clip.mp4"
    download.value.save_as(clip)
    assert re.fullmatch(r"cam0_\d{8}T\d{6}Z_\d{8}T\d{6}Z\.mp4", download.value.suggested_filename)
    count = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames"]
    counted = subprocess.run([*count, "-of", "csv=p=0", clip], capture_output=True, text=True, timeout=60, check=True)
    frames = sum(one["tracks"]["video"]["frames"] for one in device.daemon.chunk_lines())
    assert frames - 3 <= int(counted.stdout) <= frames
    opened.page.get_by_role("button", name="Protect the range").click()
    opened.page.get_by_text("Protected: 3 files.").wait_for()
