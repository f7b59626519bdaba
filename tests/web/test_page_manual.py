"""What docs/page.md says of the page and no other test sees, in a real Chromium against a real daemon."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pagebrowser
import pytest
from config_text import camera, configuration, microphone
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

DEVICES = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[640, 360, 10]] },
  { kind = "microphone", label = "Test Microphone", signal = "beep" },
]
"""
PICTURE = {"width": 640, "height": 360, "frame_rate": 10}
ZONE = "America/St_Johns"  # half an hour beside the hour: no other zone is taken for it
# What a microphone does that is too loud: the virtual one beeps at -6 dB only, in the first tenth of each second.
TOO_LOUD = """
    window.EventSource = class extends EventSource {
        addEventListener(type, tell) {
            super.addEventListener(type, type !== "level" ? tell : event => {
                const level = JSON.parse(event.data);
                level.clipped = level.peak.map(peak => peak > -7);
                tell(new MessageEvent(type, {data: JSON.stringify(level)}));
            });
        }
    };
"""
OLD_BROWSER = "delete window.MediaSource; delete window.ManagedMediaSource;"


class Device:
    """cam0 and loud have recorded; fresh has not; lost has no microphone; planned waits for its schedule."""

    def __init__(self, daemon: DaemonProcess, base: str, client: PageClient) -> None:
        self.daemon, self.base, self.client = daemon, base, client

    @contextmanager
    def page(self, browser: Any, *, script: str = "", zone: str = "UTC") -> Iterator[OpenPage]:
        """Logged in; the page must not have complained at the end."""
        opened = OpenPage(browser, self.base, 1280, 800, "light", zone=zone)
        if script:
            opened.context.add_init_script(script)
        opened.log_in()
        yield opened
        opened.close()
        assert opened.complaints == []

    def record(self, name: str, chunks: int) -> None:
        """A recording with at least so many chunks."""
        assert self.client.post(f"/api/recorders/{name}/start").json["status"] == "ok", self.daemon.log.read_text()
        self.daemon.wait_for_chunks(chunks, recorder=name, timeout=120)
        assert self.client.post(f"/api/recorders/{name}/stop").json["status"] == "ok"
        until(lambda: any(line["final"] for line in self.daemon.chunk_lines(name)), self.daemon.log.read_text)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("manual")
    port = free_port()
    at = (datetime.now(UTC).astimezone() + timedelta(hours=2)).strftime("%H:%M")  # as the daemon counts: local time
    recorders = camera(audio=False, video=PICTURE, chunk_duration="2s")
    recorders += microphone("loud", chunk_duration="60s")
    recorders += camera("fresh", audio=False, video=PICTURE, chunk_duration="2s")
    recorders += microphone("lost", audio={"device_id": {"label": "Nowhere"}}, autostart=True)
    recorders += camera("planned", audio=False, video=PICTURE)
    recorders += f'[[recorder.schedule]]\nstart = "{at}"\nduration = "1m"\nunsynchronized = "run"\n'
    text = configuration(folder, port=None, recorders=recorders, more=web_table(port, folder) + DEVICES)
    with DaemonProcess(folder, text) as daemon:
        wait_for_page(daemon, port)
        client = PageClient(port)
        assert client.log_in().status == 204
        made = Device(daemon, f"http://127.0.0.1:{port}", client)
        made.record("cam0", 3)
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with pagebrowser.chromium() as opened:
        yield opened


# --- Aim -------------------------------------------------------------------------------------------------------------

_CORNERS = """() => {
    const canvas = document.querySelector("canvas.over"), {width, height} = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    let [left, right, top, bottom] = [width, 0, height, 0];
    for (let i = 0; i < data.length; i += 4) {
        if (data[i] < 240 || data[i + 1] < 200 || data[i + 2] > 30 || data[i + 3] < 200) continue;
        const [x, y] = [i / 4 % width, Math.floor(i / 4 / width)];
        [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
    }
    return right > left && [(left + right) / 2 / width, (top + bottom) / 2 / height];
}"""


@pytest.mark.promise("page-focus", "page-brightness", "page-camera-figures")
def test_focus_is_judged_where_one_taps_and_a_new_peak_forgets_the_best(device: Device, browser: Any) -> None:
    with device.page(browser) as opened:
        # The virtual camera has no exposure to speak of.
        exposed = {"exposure_time": 125, "iso": 200.0}
        opened.page.route("**/cam0/camera", lambda route: route.fulfill(json=route.fetch().json() | exposed))
        page = opened.show("aim/cam0")
        opened.until("() => document.querySelector('main video').readyState >= 2")
        page.get_by_text(re.compile(r"\d+ % black")).wait_for()  # the cells of the number that are 0
        page.get_by_text("Exposure 12.5 ms, ISO 200").wait_for()
        page.get_by_text(re.compile(r"^The camera's own figure: 5\d\d, best \d+ \(in focus\) at 2 m$")).wait_for()
        assert opened.until(_CORNERS) == pytest.approx([0.5, 0.5], abs=0.05)
        box = page.locator("main .frame").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.3)
        opened.until(f"() => {{ const at = ({_CORNERS})(); return at && at[0] > 0.6 && at[1] < 0.4; }}")
        # The light of each second's first tenth changes what is sharp there: a best that is not the present one.
        figures = """() => [".focus output", ".focus .dim"].map(one =>
            Number(document.querySelector(one).textContent.replace("best", "")))"""
        opened.until(f"() => {{ const [now, best] = ({figures})(); return best > now + 1; }}")
        now, best = page.evaluate(figures)
        assert now > 0
        # Pressed again and again: what comes next may be the best once more.
        opened.until(
            f"""best => {{
                if (({figures})()[1] < best) return true;
                window.looks = (window.looks ?? 0) + 1;
                if (window.looks % 25 === 1)
                    [...document.querySelectorAll("button")].find(one => one.textContent === "New peak").click();
                return false;
            }}""",
            best,
        )
        opened.page.unroute_all(behavior="ignoreErrors")  # one may be under way


@pytest.mark.promise("page-automatic")
@pytest.mark.parametrize(
    ("script", "shown"),
    [
        (OLD_BROWSER, "Live over WebRTC"),
        (OLD_BROWSER + "delete window.RTCPeerConnection;", "Single frames, one after the other"),
    ],
)
def test_a_browser_that_cannot_play_the_stream_gets_the_next_way(
    device: Device, browser: Any, script: str, shown: str
) -> None:
    if "WebRTC" in shown:
        pytest.importorskip("aiortc")
    with device.page(browser, script=script) as opened:
        page = opened.show("aim/cam0")
        assert page.get_by_label("How the picture comes").input_value() == "auto"
        page.get_by_text(shown).wait_for()
        selector = "main video" if "WebRTC" in shown else "main img"
        first = opened.until("selector => { const n = window.readFrame(selector); return n >= 0 && [n]; }", selector)[0]
        opened.until("([selector, n]) => window.readFrame(selector) > n", [selector, first])


# --- Listen ----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("page-clip")
def test_clipping_is_shown_until_it_is_seen(device: Device, browser: Any) -> None:
    """What is too loud lasts a tenth of each second: the lamp stays lit between two."""
    with device.page(browser, script=TOO_LOUD) as opened:
        page = opened.show("listen")
        card = page.locator("main .level", has=page.get_by_role("heading", name="loud"))
        lamp = card.locator("button.lamp.on").first
        lamp.wait_for()
        page.evaluate(
            """() => {
                const lamp = [...document.querySelectorAll("main .level")]
                    .find(one => one.querySelector("h2").textContent === "loud").querySelector("button.lamp");
                window.lamps = [];
                const end = performance.now() + 3000;
                const look = () => {
                    window.lamps.push(lamp.classList.contains("on"));
                    if (performance.now() < end) requestAnimationFrame(look); else window.looked = true;
                };
                look();
            }"""
        )
        opened.until("() => window.looked")
        assert all(page.evaluate("window.lamps"))
        off = opened.until(
            """() => {
                const lamp = [...document.querySelectorAll("main .level")]
                    .find(one => one.querySelector("h2").textContent === "loud").querySelector("button.lamp.on");
                if (!lamp) return false;
                lamp.click();
                const frame = () => new Promise(done => requestAnimationFrame(done));
                return frame().then(frame).then(() => !lamp.classList.contains("on"));
            }"""
        )
        assert off, "a press puts it out, until the next beep"


# --- Record ----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("page-remedy", "page-next", "page-supply")
def test_a_card_says_what_is_wrong_with_a_remedy_and_when_the_schedule_begins(device: Device, browser: Any) -> None:
    with device.page(browser) as opened:
        page = opened.show("record")
        lost = page.locator("main .recorder", has=page.get_by_role("heading", name="lost"))
        text = "no microphone is labelled 'Nowhere'"
        lost.get_by_text(text).wait_for()
        assert "Check the cable, the plug and the power of the USB hub." in lost.inner_text()
        assert "Not recording: something is wrong since" in lost.inner_text()
        planned = page.locator("main .recorder", has=page.get_by_role("heading", name="planned"))
        start = parse_utc(device.client.get("/api/daemon").json["schedule"]["planned"]["next_start"]) / 1e9
        at = datetime.fromtimestamp(start, UTC).strftime("%H:%M")
        planned.get_by_text(re.compile(rf"Next: starts (today|tomorrow), {at}")).wait_for()
        # Of its power supply this machine says nothing, and so does the page.
        assert device.client.get("/api/health").json["throttled"]["raw"] is None
        opened.show("health")
        machine = page.locator("main .card", has=page.get_by_role("heading", name="Machine"))
        machine.get_by_text("no complaint").wait_for()
        assert "fine" not in machine.inner_text()


@pytest.mark.promise("page-store")
def test_what_is_sent_to_a_store_and_what_it_waits_for(device: Device, browser: Any) -> None:
    """As a daemon with [offload] says it; this one has none, and no card of it."""
    offload = {"state": "metered", "backlog_files": 3, "backlog_bytes": 4_000_000, "error": None}

    def sending(route: Any) -> None:
        route.fulfill(json=route.fetch().json() | {"offload": offload})

    with device.page(browser) as opened:
        page = opened.show("health")
        page.get_by_role("heading", name="Storage").wait_for()
        store = page.locator("main .card", has=page.get_by_role("heading", name="Store", exact=True))
        assert store.count() == 0
        nothing = {"content_type": "text/event-stream", "body": ": what comes later says nothing of a store\n\n"}
        page.route("**/api/events**", lambda route: route.fulfill(**nothing))
        page.route("**/api/health", sending)
        page.reload()
        store.get_by_text("waits: the network connection is metered").wait_for()
        store.get_by_text("3 files, 4").wait_for()
        offload |= {"state": "failing", "error": "off-load: no such bucket"}
        page.reload()
        store.get_by_text("does not work; it is tried again").wait_for()
        store.get_by_text("off-load: no such bucket").wait_for()


# --- Look back -------------------------------------------------------------------------------------------------------


@pytest.mark.promise("page-first-file")
def test_the_first_file_of_a_day_appears_by_itself(device: Device, browser: Any) -> None:
    with device.page(browser) as opened:
        page = opened.show("back/fresh")
        page.get_by_text("Nothing is recorded yet.").wait_for()
        device.record("fresh", 1)
        opened.until("() => document.querySelector('main video').readyState >= 2")
        opened.until("() => document.querySelector('main code')?.textContent.length === 64")
        assert not page.get_by_text("Nothing is recorded yet.").is_visible()


@pytest.mark.promise("page-bar-keys")
def test_the_keys_of_the_time_bar(device: Device, browser: Any) -> None:
    lines = device.daemon.chunk_lines()
    begun, ended = (parse_utc(line[key]) / 1e9 for line, key in ((lines[0], "started"), (lines[-1], "ended")))
    with device.page(browser) as opened:
        page = opened.show("back/cam0")
        opened.until("() => document.querySelector('main code')?.textContent.length === 64")
        bar = page.get_by_role("slider", name="Time bar")

        def at(wanted: float) -> None:
            opened.until("at => Math.abs(document.querySelector('main .timebar').ariaValueNow - at) <= 1.6", wanted)

        bar.press("Home")
        at(begun)
        bar.press("End")
        at(ended)
        bar.press("Home")
        at(begun)
        for key, sought in (("ArrowRight", begun + 10), ("PageDown", begun - 300)):
            # Where nothing is recorded the player goes to what is nearest, and says of which moment it speaks.
            bar.press(key)
            told = datetime.fromtimestamp(max(sought, begun // 86400 * 86400), UTC).strftime("%H:%M:")
            if begun <= sought < ended:
                at(sought)
            else:
                page.get_by_text(re.compile(f"At {told}")).wait_for()
            bar.press("Home")
            at(begun)

        def shown() -> float:
            data = page.evaluate("({...document.querySelector('main .timebar').dataset})")
            return float(data["to"]) - float(data["from"])

        whole = shown()
        bar.press("-")
        until(lambda: shown() > whole, "- shows more of the day")
        bar.press("+")
        until(lambda: shown() == whole, "+ shows less of it")
        page.get_by_role("button", name="Zoom out").click()
        until(lambda: shown() > whole, "so does the button")


@pytest.mark.promise("page-pictures", "page-manifests")
def test_pictures_are_thumbnails_and_a_range_has_its_manifests(device: Device, browser: Any) -> None:
    with device.page(browser) as opened:
        page = opened.show("back/cam0")
        opened.until("() => document.querySelector('main code')?.textContent.length === 64")
        page.get_by_role("button", name="Pictures", exact=True).click()
        opened.until(
            "() => { const all = [...document.querySelectorAll('main .pictures img')];"
            " return all.length >= 2 && all.every(one => one.naturalWidth === 320); }"
        )
        bar = page.get_by_role("slider", name="Time bar")
        for key, press in (("Home", "Mark begin"), ("End", "Mark end")):
            bar.press(key)
            page.get_by_role("button", name=press).click()
        (recording,) = device.daemon.recording_ids()
        with page.expect_download() as download:
            page.get_by_role("link", name=recording).click()
        (manifest,) = (device.daemon.recordings / "cam0").rglob(f"{recording}.jsonl")
        assert download.value.path().read_bytes() == manifest.read_bytes()


@pytest.mark.promise("page-wave-limit")
def test_a_file_that_is_too_large_gets_no_waveform(device: Device, browser: Any) -> None:
    device.record("loud", 1)

    def larger(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub(r'"bytes": ?\d+', '"bytes":64000001', answer.text()))

    with device.page(browser) as opened:
        opened.page.route("**/api/recordings?**", larger)
        opened.show("back/loud")
        opened.page.get_by_text("This file is too large for a waveform in the browser.").wait_for()
        opened.page.unroute("**/api/recordings?**")
        opened.show("record")
        opened.show("back/loud")
        opened.page.wait_for_selector("main .sound canvas")


@pytest.mark.promise("page-zone", "page-clock-was-not-set")
def test_times_are_of_the_browsers_zone_and_those_of_no_clock_are_said(device: Device, browser: Any) -> None:
    (first, *_) = device.daemon.chunk_lines()
    begun = datetime.fromtimestamp(parse_utc(first["started"]) / 1e9, ZoneInfo(ZONE))
    with device.page(browser, zone=ZONE) as opened:
        page = opened.show("back/cam0")
        opened.until("() => document.querySelector('main code')?.textContent.length === 64")
        page.get_by_role("slider", name="Time bar").press("Home")
        page.get_by_text(f"{begun:%H:%M:%S} – ").wait_for()
        page.get_by_text(f"Times are of {ZONE}.").wait_for()
        unsure = page.get_by_text("The clock was not set when some of this was recorded")
        assert unsure.is_visible() == (first["clock"] == "unsynchronized")
        page.route("**/api/recordings?**", lambda route: _as_of(route, "unsynchronized"))
        opened.show("record")
        opened.show("back/cam0")
        unsure.wait_for()


def _as_of(route: Any, clock: str) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, body=re.sub(r'"clock": ?"\w+"', f'"clock":"{clock}"', answer.text()))
