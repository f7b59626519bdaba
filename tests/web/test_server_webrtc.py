"""WHEP: an SDP offer over HTTP, frames over WebRTC, and the end (https://datatracker.ietf.org/doc/draft-ietf-wish-whep/)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import chromium
import judge
import pytest
from browserviewer import SEEN, WHEP
from config_text import camera, configuration
from daemon import DaemonProcess
from pageclient import Answer, PageClient, web_table
from ports import free_port
from waiting import until

import msrecd
from msrecd.local.client import LocalDaemon

pytest.importorskip("aiortc")
SDP = {"Content-Type": "application/sdp"}


def viewers(daemon: DaemonProcess) -> int:
    with LocalDaemon(daemon.runtime / "control.sock") as local:
        return int(local.send("daemon/health", b"", 30.0)["data"]["web"]["viewers"])


async def watch(client: PageClient) -> Answer:
    """Receive some frames as a browser does; the answer to the offer."""
    peer = msrecd.RTCPeerConnection()
    peer.add_transceiver("video", {"direction": "recvonly"})
    arrived: asyncio.Future[msrecd.MediaStreamTrack] = asyncio.get_running_loop().create_future()
    peer.add_event_listener("track", lambda event: arrived.set_result(event.track))
    await peer.set_local_description(await peer.create_offer())
    offer = peer.local_description
    assert offer is not None
    answer = await asyncio.to_thread(client.request, "POST", "/api/recorders/cam0/whep", offer.sdp.encode(), SDP)
    assert answer.status == 201, answer.body
    assert answer.headers["content-type"] == "application/sdp"
    await peer.set_remote_description({"type": "answer", "sdp": answer.body.decode()})
    reader = msrecd.MediaStreamTrackReader(await arrived)
    frames = 0
    async for _ in reader:
        frames += 1
        if frames >= 5:
            break
    gone = await asyncio.to_thread(client.request, "DELETE", answer.headers["location"])
    assert gone.status == 204
    peer.close()
    return answer


@pytest.mark.promise("api-whep")
def test_whep(tmp_path: Path) -> None:
    port = free_port()
    text = web_table(port, tmp_path, with_passwords=False) + camera(mime_type="video/mp4;codecs=avc1")
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=text)) as daemon:
        client = PageClient(port)

        def is_up() -> bool:
            try:
                return client.get("/").status == 200
            except OSError:
                return False

        until(is_up, "no page")

        async def go() -> Answer:
            async with asyncio.timeout(60):
                return await watch(client)

        answer = asyncio.run(go())
        until(lambda: viewers(daemon) == 0, "the session is kept")
        assert client.request("DELETE", answer.headers["location"]).status == 404
        assert client.request("POST", "/api/recorders/cam0/whep", b"no SDP", SDP).status == 400
        assert client.request("POST", "/api/recorders/cam0/whep", b"v=0", {"Content-Type": "text/plain"}).status == 415
        assert client.request("POST", "/api/recorders/nothing/whep", b"v=0", SDP).status == 404
        foreign = SDP | {"Origin": "http://evil.example"}
        assert client.request("POST", "/api/recorders/cam0/whep", b"v=0", foreign).status == 403
        until(lambda: viewers(daemon) == 0, "a refused offer is counted as a viewer")
        assert "Traceback" not in daemon.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.promise("api-whep")
@pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing()))
def test_two_browsers_watch_what_is_recorded(tmp_path: Path) -> None:
    """Their canvases show the very frames of the file; it has all of them, though one viewer leaves."""
    port = free_port()
    recorder = camera(mime_type="video/mp4;codecs=avc1", autostart=True)
    text = web_table(port, tmp_path, with_passwords=False) + recorder
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=text)) as daemon:
        daemon.wait_for_chunks(1)
        with chromium.browser(tmp_path) as browser:
            browser.open(f"http://127.0.0.1:{port}/api/recorders")  # of its origin; the page itself would watch too
            sessions = [browser.run(WHEP, "/api/recorders/cam0/whep", name, ["video"]) for name in ("one", "two")]

            def saw(name: str, frames: int) -> dict[str, Any] | None:
                seen: dict[str, Any] = browser.run(SEEN, name)
                return seen if len(seen["numbers"]) >= frames else None

            seen = [until(lambda name=name: saw(name, 60), f"{name} sees nothing") for name in ("one", "two")]
            assert viewers(daemon) == 2
            assert browser.run("return (await fetch(args[0], {method: 'DELETE'})).status", sessions[1]) == 204
            until(lambda: viewers(daemon) == 1, "the session is kept")
            seen_before = len(seen[0]["numbers"])
            seen.append(until(lambda: saw("one", seen_before + 30), "the one that stays sees nothing more"))
            browser.run("window.one.pc.close()")
            until(lambda: viewers(daemon) == 0, "a peer that is gone is watching still")
        assert daemon.stop() == 0
        recorded = judge.numbers_of(daemon.chunks())
        dropped = sum(line["tracks"]["video"]["dropped"] for line in daemon.chunk_lines())
    print(f"{len(recorded)} frames recorded, {dropped} dropped; seen {[len(one['numbers']) for one in seen]}")
    if not dropped:  # a busy machine drops frames, and says so
        judge.assert_consecutive(recorded)
    for one in seen:
        assert one["size"] == [320, 240]
        assert one["numbers"] == sorted(one["numbers"])
        assert set(one["numbers"]) <= set(recorded)  # pixels of the very frames
