"""One daemon with a page, passwords and no broker, for all tests of a module that leave it as they find it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from pageclient import VIEWER, PageClient, wait_for_page, web_table
from ports import free_port


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
