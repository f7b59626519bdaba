"""How old the live picture is, in a real Chromium: measured alone on the machine, with nothing recorded before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pagebrowser
import pytest
from config_text import camera, configuration
from daemon import DaemonProcess
from pagebrowser import OpenPage
from pageclient import wait_for_page, web_table
from ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(pagebrowser.missing() is not None, reason=str(pagebrowser.missing())),
]

DEVICES = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[640, 360, 15]] },
  { kind = "microphone", label = "Test Microphone", signal = "tone" },
]
"""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenPage]:
    """Logged in; the page must not have complained at the end."""
    port = free_port()
    recorders = camera(audio=True, video={"width": 640, "height": 360, "frame_rate": 15})
    text = configuration(tmp_path, port=None, recorders=recorders, more=web_table(port, tmp_path) + DEVICES)
    with DaemonProcess(tmp_path, text) as daemon, pagebrowser.chromium() as browser:
        wait_for_page(daemon, port)
        page = OpenPage(browser, f"http://127.0.0.1:{port}", 1280, 800, "light")
        page.log_in()
        yield page
        page.close()
        assert page.complaints == []


@pytest.mark.promise("page-latency")
def test_the_picture_is_half_a_second_old_at_most(opened: OpenPage) -> None:
    """The lower half of the picture is white in the first tenth of each second of the monotonic clock, which this
    process shares with the camera: the picture turns white so much later as it is old."""
    opened.show("aim/cam0")
    opened.until("() => document.querySelector('main video').readyState >= 2")
    opened.page.evaluate(
        """() => {
            const video = document.querySelector("main video"), canvas = document.createElement("canvas");
            const context = canvas.getContext("2d", {willReadFrequently: true});
            [canvas.width, canvas.height] = [16, 9];
            window.flashes = [];
            let was = true;
            const look = () => {
                context.drawImage(video, 0, 0, 16, 9);
                const is = context.getImageData(8, 7, 1, 1).data[1] > 128;
                if (is && !was) window.flashes.push(performance.now());
                was = is;
                video.requestVideoFrameCallback(look);
            };
            video.requestVideoFrameCallback(look);
        }"""
    )
    opened.until("() => window.flashes.length >= 5")
    # The browser's clock against this process's: the shortest of some round trips tells it best.
    trips = []
    for _ in range(20):
        begun = time.monotonic()
        at = opened.page.evaluate("performance.now()") / 1000
        ended = time.monotonic()
        trips.append((ended - begun, (begun + ended) / 2 - at))
    offset = min(trips)[1]
    age, deadline = 1.0, time.monotonic() + 60
    while age >= 0.5 and time.monotonic() < deadline:  # the element catches up with what came while it started
        opened.page.evaluate("window.flashes.length = 0")
        opened.until("() => window.flashes.length >= 5")
        age = median((flash / 1000 + offset) % 1 for flash in opened.page.evaluate("window.flashes"))
    print(f"latency of the live picture: {age * 1000:.0f} ms")
    assert age < 0.5
