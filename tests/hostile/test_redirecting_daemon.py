"""An HTTP server that sends the daemon elsewhere: `redirects` says whether it goes."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from config_text import configuration, recorder
from daemon import DaemonProcess

from tests.fuzz.seeds import made
from tests.hostile.servers import Hostile, http, redirect
from tests.hostile.test_situations import ask, states_of


@pytest.mark.effect("config: recorder.source.redirects")
@pytest.mark.promise("no-other-host")
def test_another_host_is_asked_only_where_that_is_allowed(tmp_path: Path) -> None:
    seeds = made(tmp_path, ["h264-aac.ts"])
    if not seeds:
        pytest.skip("there is no ffmpeg here")
    with Hostile(http(seeds["h264-aac.ts"], "Content-Type: video/mp2t"), "http") as end:
        other = end.url.replace("127.0.0.1", "localhost")
        with Hostile(redirect(other), "http") as begin:
            recorders = "".join(
                recorder(name, source={"url": begin.url, "timeout": "3s", **options}, mime_type="video/x-matroska")
                for name, options in (("stays", {}), ("goes", {"redirects": "any"}))
            )
            with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=recorders)) as daemon:
                assert "another host (localhost)" in str(ask(daemon, "recorder/stays/start")) + str(
                    states_of(daemon)["recorder/stays"]["error"]
                )
                assert end.connections == 0
                ask(daemon, "recorder/goes/start")
                for _ in itertools.takewhile(lambda _: not end.connections, range(300)):
                    time.sleep(0.1)
                assert end.connections
