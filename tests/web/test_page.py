"""The page in a real Chromium, against a real daemon with virtual devices, as a person uses it."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pagebrowser
import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from pagebrowser import OpenPage
from pageclient import OPERATOR, VIEWER, PageClient, web_table
from ports import free_port
from waiting import until

from msrecd.local.client import LocalDaemon

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(pagebrowser.missing() is not None, reason=str(pagebrowser.missing())),
]

RATE = 15
SIZES = {"phone": (360, 640, "dark"), "desk": (1280, 800, "light")}
DEVICES = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[640, 360, 15]] },
  { kind = "microphone", label = "Test Microphone", signal = "tone" },
]
"""


class Device:
    """A daemon that recorded some ten seconds with cam0 and mic0, each in three chunks, and is idle now."""

    def __init__(self, daemon: DaemonProcess, base: str) -> None:
        self.daemon, self.base = daemon, base


def is_over(daemon: DaemonProcess, recorder: str) -> bool:
    """Whether its first recording has ended and stands in its manifest."""
    return any(line["final"] for line in daemon.chunk_lines(recorder))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("page")
    port = free_port()
    picture = {"width": 640, "height": 360, "frame_rate": RATE}
    recorders = camera(audio=True, video=picture, autostart=True, chunk_duration="4s")
    recorders += microphone(autostart=True, chunk_duration="4s")
    text = configuration(folder, port=None, recorders=recorders, more=web_table(port, folder) + DEVICES)
    with DaemonProcess(folder, text) as daemon:
        for recorder in ("cam0", "mic0"):
            daemon.wait_for_chunks(2, recorder=recorder, timeout=120)
        client = PageClient(port)
        assert client.log_in().status == 204
        for recorder in ("cam0", "mic0"):
            assert client.post(f"/api/recorders/{recorder}/stop").json["status"] == "ok"
            until(partial(is_over, daemon, recorder), daemon.log.read_text, timeout=120)
        yield Device(daemon, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with pagebrowser.chromium() as opened:
        yield opened


@pytest.fixture
def opened(device: Device, browser: Any, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """Logged in, on a desk's screen unless a parameter says otherwise; the page must not have complained at the end."""
    page = OpenPage(browser, device.base, *SIZES[getattr(request, "param", "desk")])
    page.log_in()
    yield page
    page.close()
    assert page.complaints == []


def viewers(daemon: DaemonProcess) -> int:
    with LocalDaemon(daemon.runtime / "control.sock") as local:
        return int(local.send("daemon/health", b"", 30.0)["data"]["web"]["viewers"])


def text_of(opened: OpenPage, selector: str) -> str:
    return opened.page.inner_text(selector)


@pytest.mark.parametrize("opened", SIZES, indirect=True)
def test_every_view_is_readable_and_reachable(opened: OpenPage, request: pytest.FixtureRequest) -> None:
    """Of each view: its figures come, nothing is wider than the screen, axe finds nothing serious in light and dark."""
    from axe_playwright_python.sync_playwright import Axe

    size = request.node.callspec.params["opened"]
    own = SIZES[size][2]
    opposite = "light" if own == "dark" else "dark"
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
        for scheme in (opposite, own):  # what is drawn in the other colours is judged for contrast alone
            opened.page.emulate_media(color_scheme=scheme)
            options = None if scheme == own else {"runOnly": ["color-contrast"]}
            found = Axe().run(opened.page, options=options).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [f"{one['id']}: {one['nodes'][0]['html']}" for one in serious] == [], (view, scheme)
        opened.picture(f"{view.replace('/', '-')}-{size}")


def test_a_wrong_password_is_refused_and_a_viewer_only_looks(device: Device, browser: Any) -> None:
    page = OpenPage(browser, device.base, *SIZES["phone"])
    try:
        page.page.goto(device.base)
        page.page.get_by_label("Password").fill("wrong")
        page.page.get_by_role("button", name="Log in").click()
        page.page.get_by_text("The password is wrong.").wait_for()
        page.log_in(VIEWER)
        page.show("record")
        page.page.wait_for_selector("main .recorder")
        assert page.page.locator("main .recorder button").count() == 0
        page.page.get_by_role("button", name="Log out").click()
        page.page.get_by_label("Password").wait_for()
    finally:
        page.close()


@pytest.mark.promise("page-playback")
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
    numbers, times = [number for number, _ in seen], [time for _, time in seen]
    # A busy browser leaves frames out, and may paint the one before again; it never jumps back.
    assert all(after >= before - 2 for before, after in pairwise(numbers))
    assert times == sorted(times)
    assert numbers[-1] - first >= frames - 3
    assert times[-1] == pytest.approx(sum(line["duration_s"] for line in lines), abs=0.3)
    bar.press("Home")
    opened.until("first => window.readFrame('main video') === first", first)
    box = bar.bounding_box()
    assert box is not None
    before = bar.get_attribute("aria-valuenow")
    opened.page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 20)
    opened.until("before => document.querySelector('main .timebar').getAttribute('aria-valuenow') !== before", before)
    opened.until("() => !document.querySelector('main video').seeking")


@pytest.mark.promise("page-waveform")
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


@pytest.mark.promise("page-proof", "page-export", "page-protect-range")
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
    count = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0"]
    count += ["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", str(clip)]
    counted = subprocess.run(count, capture_output=True, text=True, timeout=60, check=True)
    frames = sum(one["tracks"]["video"]["frames"] for one in device.daemon.chunk_lines())
    assert frames - 3 <= int(counted.stdout) <= frames
    opened.page.get_by_role("button", name="Protect the range").click()
    opened.page.get_by_text(f"Protected: {len(device.daemon.chunk_lines())} files.").wait_for()


@pytest.mark.promise("page-live", "page-zoom", "page-single-frames")
def test_the_live_picture_moves_by_stream_and_by_single_frames(opened: OpenPage) -> None:
    """cam0 is idle: its camera opens for the one who looks."""
    opened.show("aim/cam0")
    opened.until("() => document.querySelector('main video').readyState >= 2")
    for selector in ("main video", "main img"):
        first = opened.until("selector => { const n = window.readFrame(selector); return n >= 0 && [n]; }", selector)[0]
        opened.until("([selector, n]) => window.readFrame(selector) > n + 5", [selector, first])
        if selector == "main video":
            opened.until("() => /^\\d/.test(document.querySelector('.focus output').textContent)")
            figure = float(text_of(opened, "main .focus output"))
            assert figure > 5  # the edges of the test picture's bars
            opened.page.get_by_role("button", name="Zoom 1:1").click()
            width = opened.page.evaluate("document.querySelector('main video').getBoundingClientRect().width")
            assert width == 640
            opened.page.get_by_role("button", name="Zoom 1:1").click()
            opened.page.get_by_text(
                re.compile(r"The camera's own figure: 5\d\d, best \d+ \(in focus\) at 2 m")
            ).wait_for()
            opened.page.get_by_label("How the picture comes").select_option("jpeg")
            opened.page.wait_for_selector("main img", state="visible")


@pytest.mark.promise("page-webrtc")
def test_the_live_picture_comes_over_webrtc(device: Device, opened: OpenPage) -> None:
    pytest.importorskip("aiortc")
    opened.show("aim/cam0")
    opened.page.get_by_label("How the picture comes").select_option("webrtc")
    opened.page.get_by_text("Live over WebRTC").wait_for()
    first = opened.until("() => { const n = window.readFrame('main video'); return n >= 0 && [n]; }")[0]
    opened.until(
        "n => document.querySelector('main video').srcObject && window.readFrame('main video') > n + 10", first
    )
    assert viewers(device.daemon) == 1
    opened.show("record")
    until(lambda: viewers(device.daemon) == 0, "its session is kept")


@pytest.mark.promise("page-levels")
def test_levels_show_the_tone_and_the_sound_plays(opened: OpenPage) -> None:
    """The tone of the virtual microphone peaks at -6 dBFS, and its mean is 3.01 dB below that."""
    opened.show("listen")
    meter = "main .level .meter"
    opened.until(
        "meter => { const now = document.querySelector(meter)?.getAttribute('aria-valuenow'); "
        "return now && Math.abs(now - -9) <= 1; }",
        meter,
    )
    assert "peak -6.0 dB" in str(opened.page.locator(meter).first.get_attribute("aria-valuetext"))
    assert "Good level" in text_of(opened, "main .level")
    assert opened.page.locator("main .level button.lamp.on").count() == 0
    opened.page.locator("main .level").first.get_by_role("button", name="Listen").click()
    opened.until("() => document.querySelector('main video').currentTime > 0.5")
    assert not opened.page.evaluate("document.querySelector('main video').muted")
    opened.page.get_by_role("button", name="Stop listening").click()


@pytest.mark.promise("page-record")
def test_a_recorder_is_commanded_and_says_what_it_does(device: Device, opened: OpenPage) -> None:
    page = opened.show("record")
    card = page.locator("main .recorder", has=page.get_by_role("heading", name="mic0"))
    card.get_by_label("For how long").select_option("600")
    card.get_by_role("button", name="Start").click()
    card.get_by_text(re.compile(r"^Recording since .* until .*\.$")).wait_for()
    card.get_by_text("Started from this page.").wait_for()
    opened.picture("record")
    for press, then in (
        ("Pause", r"^Paused since"),
        ("Resume", r"^Recording since"),
        ("New file", r"The next file begins"),
        ("Protect last 5 min", r"^Protected: "),
        ("Stop", r"^Not recording\.$"),
    ):
        card.get_by_role("button", name=press, exact=True).click()
        card.get_by_text(re.compile(then)).first.wait_for()
    stopped = [line for line in device.daemon.chunk_lines("mic0") if line["final"]]
    assert len(stopped) == 2  # the one at the beginning, and this one
    camera_card = page.locator("main .recorder", has=page.get_by_role("heading", name="cam0"))
    camera_card.get_by_role("button", name="Snapshot").click()
    camera_card.get_by_role("img", name="Snapshot of cam0").wait_for()


@pytest.mark.promise("page-clock")
def test_a_browser_with_a_wrong_clock_shows_the_times_of_the_device(device: Device, opened: OpenPage) -> None:
    """Its clock says 2001, as that of a phone whose battery was empty."""
    opened.page.add_init_script("Date.now = () => Date.UTC(2001, 0, 1) + performance.now()")
    opened.page.reload()
    opened.show("back/cam0")
    opened.until("() => document.querySelector('main code')?.textContent.length === 64")
    begun = device.daemon.chunk_lines()[0]["started"]
    assert begun[:4] in text_of(opened, "main .day")
    opened.show("health")
    opened.page.get_by_text(re.compile(r"\d+ days behind the device")).wait_for()
    opened.show("record")
    opened.page.get_by_role("button", name="Start").first.click()
    opened.page.get_by_text(re.compile(r"^Recording since .* \(\d+ seconds?\), until it is stopped\.$")).wait_for()
    opened.page.get_by_role("button", name="Stop").first.click()
    opened.page.get_by_text("Recording stopped.").wait_for()


@pytest.mark.promise("page-keyboard")
@pytest.mark.alone  # its keys go where the focus is at that moment
def test_a_keyboard_is_enough(device: Device, browser: Any) -> None:
    page = OpenPage(browser, device.base, *SIZES["desk"])

    def tab_to(text: str) -> None:
        """Tab until what is focused says this; its outline can be seen."""
        for _ in range(60):
            page.page.keyboard.press("Tab")
            focused = page.page.evaluate(
                """() => {
                    const at = document.activeElement;
                    return [at.ariaLabel || at.textContent, getComputedStyle(at).outlineStyle];
                }"""
            )
            if focused[0] == text:
                assert focused[1] != "none"
                return
        raise AssertionError(f"the keyboard does not reach {text}")

    try:
        page.page.goto(device.base)
        page.until("() => document.activeElement.type === 'password'")
        page.page.keyboard.type(OPERATOR)
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("main .view")
        tab_to("Record")
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("main .recorder")
        tab_to("Start")
        page.page.keyboard.press("Enter")
        page.page.get_by_text(re.compile(r"^Recording since")).wait_for()
        # Long enough that its begin and what was played of it are different seconds of the time bar.
        page.until("since => Date.now() - since > 3000", page.page.evaluate("Date.now()"))
        page.page.keyboard.press("Shift+Tab")
        tab_to("Stop")
        page.page.keyboard.press("Space")
        page.page.get_by_text("Recording stopped.").wait_for()
        page.page.keyboard.press("Control+Home")
        page.page.evaluate("document.activeElement.blur()")
        tab_to("Look back")
        page.page.keyboard.press("Enter")
        page.until("() => document.querySelector('main video')?.readyState >= 2")
        tab_to("Play")
        page.page.keyboard.press("Space")
        page.until("() => document.querySelector('main video').currentTime > 1.6")
        tab_to("Time bar")
        before = page.page.locator("main .timebar").get_attribute("aria-valuenow")
        page.page.keyboard.press("Home")
        page.until("now => document.querySelector('main .timebar').ariaValueNow !== now", before)
        tab_to("Mark begin")
        page.page.keyboard.press("Enter")
        page.page.get_by_text(re.compile(r"^Mark begin: ")).wait_for()
        assert page.page.evaluate("document.activeElement.textContent") == "Mark begin", "the focus is lost"
        page.page.keyboard.press("Shift+Tab")
        page.page.keyboard.press("Shift+Tab")
        assert page.page.evaluate("document.activeElement.textContent") == "Download this file"
        with page.page.expect_download():
            page.page.keyboard.press("Enter")
    finally:
        page.close()
