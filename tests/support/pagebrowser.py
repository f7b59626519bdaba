"""A headless Chromium of Debian's that opens the page, with what it complains about and whom it asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pageclient import OPERATOR

READ_FRAME = """window.readFrame = selector => {
    const video = document.querySelector(selector);
    const [width, height] = [video.videoWidth || video.naturalWidth, video.videoHeight || video.naturalHeight];
    if (!width) return -1;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0);
    const [cell, tall] = [Math.floor(width / 32), Math.floor(height / 16)];
    const row = context.getImageData(0, tall >> 1, width, 1).data;
    let number = 0;
    for (let i = 0; i < 32; i += 1) number = number * 2 + (row[4 * (i * cell + (cell >> 1))] > 127 ? 1 : 0);
    return number;
};"""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
)
DEADLINE_MS = 60_000


def missing() -> str | None:
    """Why the page cannot be opened here, None when it can."""
    if shutil.which("chromium") is None:
        return "not installed: chromium (Debian: chromium)"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "not installed: playwright (pip install playwright axe-playwright-python)"
    return None


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; its processes are gone afterwards."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class OpenPage:
    """A window of its own with a session of its own; `complaints` are errors of the console, of scripts, and requests
    to other origins."""

    def __init__(self, browser: Any, base: str, width: int, height: int, scheme: str, *, zone: str = "UTC") -> None:
        self.base = base
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, timezone_id=zone, accept_downloads=True
        )
        self.context.set_default_timeout(DEADLINE_MS)
        self.context.add_init_script(READ_FRAME)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.base, "blob:", "data:")):
            self.complaints.append(f"asks another origin: {request.url}")

    def log_in(self, password: str = OPERATOR) -> None:
        self.page.goto(self.base)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_selector("main .view")
        self.complaints.clear()  # the first question, whether there is a session, is answered by 401

    def _bar_x(self, at_ms: float) -> float:
        """Where a moment stands on the time bar, in pixels from its left edge."""
        data = self.page.evaluate("({...document.querySelector('main .timebar').dataset})")
        width = self.page.evaluate("document.querySelector('main .timebar').clientWidth")
        begin, end = float(data["from"]), float(data["to"])
        return float((at_ms - begin) / (end - begin) * width)

    def tap_bar(self, at_ms: float) -> None:
        """Tap the time bar at a moment (ms since 1970)."""
        self.page.locator("main .timebar").click(position={"x": self._bar_x(at_ms), "y": 30})

    def bar_pixels(self, at_ms: float, y: int) -> set[tuple[int, ...]]:
        """The colours of the time bar around a moment, at `y` pixels from its top edge."""
        found = self.page.evaluate(
            """([x, y]) => {
                const canvas = document.querySelector("main .timebar canvas");
                const data = canvas.getContext("2d").getImageData(Math.max(0, x - 4), y, 9, 1).data;
                return Array.from({length: 9}, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
            }""",
            [round(self._bar_x(at_ms)), y],
        )
        return {tuple(pixel) for pixel in found}

    def show(self, view: str) -> Any:
        """Open a view; the page of Playwright."""
        self.page.goto(f"{self.base}/#{view}")
        self.page.wait_for_selector(f"main .view.{view.partition('/')[0]}")
        return self.page

    def until(self, expression: str, argument: object = None, timeout_ms: int = DEADLINE_MS) -> Any:
        """Wait until a function of the page gives something true, and give it."""
        return self.page.wait_for_function(expression, arg=argument, timeout=timeout_ms).json_value()

    def frame_of(self, selector: str) -> int:
        """The number in the picture of a <video> or <img> of a virtual camera."""
        number: int = self.page.evaluate("selector => window.readFrame(selector)", selector)
        return number

    def picture(self, name: str) -> None:
        """Keep a picture of the view, in the folder MSRECD_PAGE_PICTURES; docs/page.md shows some of them."""
        if folder := os.environ.get("MSRECD_PAGE_PICTURES"):
            self.page.screenshot(path=f"{folder}/{name}.png")

    def close(self) -> None:
        self.context.close()
