"""The page while the device changes below it: another configuration, a restart, the end of a session. In Chromium."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pagebrowser
import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from pagebrowser import OpenPage
from pageclient import OPERATOR, PageClient, wait_for_page, web_table
from ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(pagebrowser.missing() is not None, reason=str(pagebrowser.missing())),
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, OpenPage]]:
    folder = tmp_path_factory.mktemp("life")
    port = free_port()
    text = configuration(folder, port=None, recorders=web_table(port, folder) + camera() + microphone())
    with DaemonProcess(folder, text) as daemon, pagebrowser.chromium() as browser:
        wait_for_page(daemon, port)
        page = OpenPage(browser, f"http://127.0.0.1:{port}", 360, 640, "light")
        page.log_in()
        yield daemon, page
        page.close()


def configure(daemon: DaemonProcess, text: str) -> None:
    daemon.config.write_text(text)
    os.kill(daemon.pid, signal.SIGHUP)


def log_in_again(page: Any) -> None:
    page.get_by_label("Password").fill(OPERATOR)
    page.get_by_role("button", name="Log in").click()


def test_a_recorder_that_goes_is_left_and_one_that_comes_is_there(opened: tuple[DaemonProcess, OpenPage]) -> None:
    daemon, page = opened
    before = daemon.config.read_text()
    page.show("aim/cam0")
    page.until("() => document.querySelector('main video').readyState >= 2")
    configure(daemon, before.replace(camera(), ""))
    page.page.get_by_text("mic0 has no camera.").wait_for()
    configure(daemon, before)
    page.until("() => document.querySelectorAll('main .stage, #recorder option').length >= 2")
    page.show("aim/cam0")
    page.until("() => document.querySelector('main video').readyState >= 2")
    assert [line for line in page.complaints if "404" not in line] == []
    page.complaints.clear()


def test_a_session_that_ends_asks_for_the_password_and_comes_back_to_the_view(
    opened: tuple[DaemonProcess, OpenPage],
) -> None:
    _, page = opened
    page.show("listen")
    client = PageClient(int(page.base.rpartition(":")[2]))
    (cookie,) = page.context.cookies()
    client.cookie = f"{cookie['name']}={cookie['value']}"
    assert client.post("/api/logout").status == 204
    page.page.get_by_label("Password").wait_for()
    log_in_again(page.page)
    page.page.wait_for_selector("main .view.listen .level")
    for torn in ("%", "back/%E0%A4%A", "constructor/x", "listen/<b>"):
        page.page.goto(f"{page.base}/?{len(torn)}#{torn}")
        page.page.wait_for_selector("main .view")
    assert [line for line in page.complaints if line.startswith("error: ") and "Failed to load" not in line] == []


@pytest.mark.promise("page-restart")
def test_a_restart_is_waited_for(opened: tuple[DaemonProcess, OpenPage]) -> None:
    """Sessions are in memory: after a restart the password is asked for, and the same view is there again."""
    daemon, page = opened
    page.show("aim/cam0")
    page.until("() => document.querySelector('main video').readyState >= 2")
    daemon.stop()
    page.page.get_by_text("No connection to the device").wait_for()
    page.page.get_by_text("The picture stopped").wait_for()
    daemon.start()
    page.page.get_by_label("Password").wait_for()
    log_in_again(page.page)
    page.page.wait_for_selector("main .view.aim")
    page.until("() => document.querySelector('main video').readyState >= 2")
    assert Path(daemon.log).read_text().count("Traceback") == 0
