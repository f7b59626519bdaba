"""One daemon with a page, passwords and no broker, for all tests of a module that leave it as they find it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from pageclient import VIEWER, PageClient, free_port, web_table
from waiting import until


@pytest.fixture(scope="module")
def page_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, int]]:
    folder = tmp_path_factory.mktemp("page")
    port = free_port()
    text = configuration(folder, port=None, recorders=web_table(port, folder) + camera(audio=True) + microphone())
    with DaemonProcess(folder, text) as daemon:
        wait_for_page(daemon, port)
        yield daemon, port


@pytest.fixture(scope="module")
def operator(page_daemon: tuple[DaemonProcess, int]) -> PageClient:
    client = PageClient(page_daemon[1])
    assert client.log_in().status == 204
    return client


@pytest.fixture(scope="module")
def viewer(page_daemon: tuple[DaemonProcess, int]) -> PageClient:
    client = PageClient(page_daemon[1])
    assert client.log_in(VIEWER).status == 204
    return client


def wait_for_page(daemon: DaemonProcess, port: int, timeout: float = 60.0) -> None:
    """READY comes first: the daemon does not wait for its page."""

    def answers() -> bool:
        try:
            return PageClient(port).get("/").status == 200
        except OSError:
            return False

    until(answers, lambda: f"no page at port {port}:\n{Path(daemon.log).read_text()}", timeout=timeout)
