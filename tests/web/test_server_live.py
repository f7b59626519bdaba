"""Live video, sound, levels and photos, as a browser is given them, beside recordings that do not notice."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import struct
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import jsonschema
import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from judge import assert_consecutive, number_of, numbers_of
from pageclient import PageClient, web_table
from ports import free_port
from waiting import until

from msrecd.local.client import LocalDaemon
from msrecd.media.view import BUSY_S

ROOT = Path(__file__).resolve().parents[2]


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Whole boxes, as they come: first the header, then fragments."""
    header = b""
    while True:
        size, kind = struct.unpack(">I4s", _exactly(response, 8))
        box = struct.pack(">I4s", size, kind) + _exactly(response, size - 8)
        header += box
        if kind in (b"moov", b"mdat"):
            yield header
            header = b""


def _exactly(response: http.client.HTTPResponse, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = response.read(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def look(client: PageClient, recorder: str = "cam0", *, fragments: int = 60) -> tuple[str, bytes]:
    """The type of a live stream, and its header with so many fragments.

    A machine that is busy with other tests may drop its viewers: they come again, as the page does.
    """
    for _ in range(5):
        with client.stream(f"/api/recorders/{recorder}/live.mp4") as response:
            if response.status == 200:
                boxes = pieces(response)
                with contextlib.suppress(EOFError, http.client.IncompleteRead):
                    return response.headers["Content-Type"], b"".join([next(boxes) for _ in range(fragments + 1)])
            else:
                assert response.status == 503, response.read()
        time.sleep(BUSY_S)
    raise AssertionError("the machine has no time for viewers")


def numbers_in(data: bytes) -> list[int]:
    """The numbers of the frames."""
    with av.open(io.BytesIO(data)) as container:
        return [number_of(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def times_in(data: bytes, kind: str) -> list[float]:
    with av.open(io.BytesIO(data)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.pts is not None]


def watching(client: PageClient) -> int:
    line = next(
        line for line in client.get("/metrics").body.decode().splitlines() if line.startswith("msrecd_web_viewers ")
    )
    return int(line.split()[1])


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, PageClient]]:
    folder = tmp_path_factory.mktemp("live")
    port = free_port()
    recorders = (
        web_table(port, folder, with_passwords=False, more="metrics = true")
        + camera(audio=True, video_key_frame_interval_duration="1s")
        + camera("webm0", mime_type="video/webm;codecs=vp8")
        + microphone()
        + microphone("pcm0", mime_type="audio/wav")
    )
    with DaemonProcess(folder, configuration(folder, port=None, recorders=recorders)) as daemon:
        client = PageClient(port)

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return client.get("/").status == 200
            return False

        until(answers, "no page")
        yield daemon, client


@pytest.mark.promise("api-live")
def test_an_idle_recorder_can_be_looked_at(live: tuple[DaemonProcess, PageClient]) -> None:
    daemon, client = live
    kind, data = look(client)
    assert kind.startswith('video/mp4; codecs="avc1.')
    assert "mp4a.40.2" in kind
    numbers = numbers_in(data)
    assert len(numbers) > 20
    assert_consecutive(numbers)
    video, audio = times_in(data, "video"), times_in(data, "audio")
    assert video == sorted(video)
    assert abs(audio[0] - video[0]) < 0.1
    assert all(0.015 < later - earlier < 0.03 for earlier, later in pairwise(audio)), "sound joins"
    state = client.get("/api/recorders").json["cam0"]
    assert (state["state"], state["recording_id"]) == ("inactive", None)
    assert not daemon.chunks()
    until(lambda: watching(client) == 0, "a viewer that has gone is still counted")


@pytest.mark.alone
@pytest.mark.promise("page-one-encoding")
def test_viewers_and_a_recording_share_one_encoding(live: tuple[DaemonProcess, PageClient]) -> None:
    daemon, client = live
    with client.stream("/api/recorders/cam0/live.mp4") as first:
        boxes = pieces(first)
        header = next(boxes)
        assert client.post("/api/recorders/cam0/start", {}).status == 200
        with client.stream("/api/recorders/cam0/live.mp4") as second:
            others = pieces(second)
            assert next(others) == header, "one muxing for both"
            mine = [next(boxes) for _ in range(80)]
            theirs = [next(others) for _ in range(40)]
        assert set(mine) & set(theirs), "the very same fragments"
        daemon.wait_for_chunks(2)
        assert client.post("/api/recorders/cam0/stop", {}).status == 200
        assert next(boxes), "the viewer stays when the recording ends"
    lines = daemon.chunk_lines()
    assert not [line for line in lines if line["gaps"] or line["tracks"]["video"]["dropped"]]
    assert_consecutive(numbers_of(daemon.chunks()))
    frames = numbers_in(header + b"".join(mine))
    assert_consecutive(frames)
    assert set(frames) & set(numbers_of(daemon.chunks()))


def test_what_browsers_do_not_play_is_encoded_for_them(live: tuple[DaemonProcess, PageClient]) -> None:
    _, client = live
    kind, data = look(client, "webm0", fragments=20)
    assert kind.startswith('video/mp4; codecs="avc1.')
    assert_consecutive(numbers_in(data))
    kind, data = look(client, "pcm0", fragments=20)
    assert kind == 'audio/mp4; codecs="mp4a.40.2"'
    times = times_in(data, "audio")
    assert all(0.015 < later - earlier < 0.03 for earlier, later in pairwise(times))


def test_flac_is_shown_as_it_is(live: tuple[DaemonProcess, PageClient]) -> None:
    kind, data = look(live[1], "mic0", fragments=20)
    assert kind == 'audio/mp4; codecs="flac"'
    with av.open(io.BytesIO(data)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 20_000


@pytest.mark.promise("api-live")
def test_a_photo(live: tuple[DaemonProcess, PageClient]) -> None:
    _, client = live
    answer = client.get("/api/recorders/cam0/live.jpg?width=160")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    with av.open(io.BytesIO(answer.body), format="image2pipe", options={"framerate": "1"}) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (160, 120)
    for query, status in (("?width=0", 400), ("?width=99999", 400), ("?width=x", 400)):
        assert client.get(f"/api/recorders/cam0/live.jpg{query}").status == status
    refused = client.get("/api/recorders/mic0/live.jpg")
    assert (refused.status, refused.code) == (400, "bad_args")
    refused = client.get("/api/recorders/nothing/live.mp4")
    assert (refused.status, refused.code) == (404, "unknown_recorder")


def test_head_opens_and_leaves_nothing(live: tuple[DaemonProcess, PageClient]) -> None:
    _, client = live
    answer = client.request("HEAD", "/api/recorders/cam0/live.mp4")
    assert (answer.status, answer.body) == (200, b"")
    until(lambda: watching(client) == 0, "HEAD left a viewer behind")


@pytest.mark.promise("api-levels")
def test_levels_come_of_what_is_listened_to(live: tuple[DaemonProcess, PageClient]) -> None:
    _, client = live
    loudest = {"rms": -80.0, "peak": -80.0}
    with client.stream("/api/events?level=mic0,pcm0") as response:
        kinds = set()
        names = set()
        for kind, value in client.events(response, 30.0):
            kinds.add(kind)
            if kind == "level":
                names.add(value["recorder"])
                assert len(value["rms"]) == len(value["peak"]) == len(value["clipped"]) == 2
                assert all(-80.0 <= rms <= peak + 0.1 for rms, peak in zip(value["rms"], value["peak"], strict=True))
                loudest = {key: max(loudest[key], *value[key]) for key in loudest}
            if {"mic0", "pcm0"} <= names and loudest["peak"] > -7 and {"state", "health"} <= kinds:
                break
    assert loudest["peak"] == pytest.approx(-6.0, abs=0.1), "a beep of -6 dBFS"
    assert {"mic0", "pcm0"} <= names
    assert client.get("/api/events?level=nothing").status == 404


def test_a_recorder_is_metered_while_it_records(live: tuple[DaemonProcess, PageClient]) -> None:
    _, client = live
    assert client.post("/api/recorders/mic0/start", {}).status == 200
    try:
        with client.stream("/api/events") as response:
            assert any(kind == "level" and value["recorder"] == "mic0" for kind, value in client.events(response, 30.0))
    finally:
        assert client.post("/api/recorders/mic0/stop", {}).status == 200


def test_events_say_what_happens(live: tuple[DaemonProcess, PageClient]) -> None:
    _, client = live
    with client.stream("/api/events") as response:
        events = client.events(response, 30.0)
        first = {value.get("path") for _, value in zip(range(7), (value for _, value in events), strict=False)}
        assert {"daemon", "recorder/cam0", "recorder/mic0"} <= first | {None}
        assert client.post("/api/recorders/mic0/start", {}).status == 200
        seen: list[Any] = []
        for kind, value in events:
            if kind in ("state", "event") and value.get("recorder") == "mic0":
                seen.append((kind, value.get("state") or value.get("event_type")))
            if ("event", "started") in seen and ("state", "recording") in seen:
                break
        assert {("event", "started"), ("state", "recording")} <= set(seen)
    assert client.post("/api/recorders/mic0/stop", {}).status == 200


@pytest.mark.effect("state-health: web")
def test_the_state_says_how_the_page_is_used(live: tuple[DaemonProcess, PageClient]) -> None:
    daemon, client = live
    schema = json.loads((ROOT / "docs/schemas/state-health.json").read_text())
    with client.stream("/api/recorders/cam0/live.mp4") as response:
        assert next(pieces(response))
        with LocalDaemon(daemon.runtime / "control.sock") as local:
            health = local.send("daemon/health", b"", 30.0)["data"]
    jsonschema.validate(health, schema)
    assert health["web"]["listening"] is True
    assert health["web"]["viewers"] == 1
    assert health["web"]["connections"] >= 1


def test_no_more_than_eight_watch(live: tuple[DaemonProcess, PageClient]) -> None:
    _, client = live
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            answer = stack.enter_context(client.stream("/api/recorders/cam0/live.mp4"))
            if answer.status == 503 and answer.headers["Retry-After"] == "5":
                pytest.skip("the machine has no time for viewers")
            assert answer.status == 200
        refused = client.get("/api/recorders/cam0/live.mp4")
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
    until(lambda: watching(client) == 0, "viewers that have gone are still counted")


@pytest.mark.alone
def test_a_frame_is_there_within_half_a_second(live: tuple[DaemonProcess, PageClient]) -> None:
    """The virtual camera paints the lower half white in the first tenth of each second of CLOCK_MONOTONIC."""
    _, client = live
    late = []
    with client.stream("/api/recorders/cam0/live.mp4") as response:
        boxes = pieces(response)
        data, arrived = next(boxes), []
        for _ in range(150):
            data += next(boxes)
            arrived.append(time.clock_gettime(time.CLOCK_MONOTONIC))
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    was_white = True
    moments = iter(_of_video(data, arrived))
    for frame in frames:
        at = next(moments)
        is_white = float(frame[-20:].mean()) > 128
        if is_white and not was_white:
            late.append(at % 1.0)
        was_white = is_white
    assert len(late) >= 2, late
    assert sorted(late)[len(late) // 2] < 0.5, late


def _of_video(data: bytes, arrived: list[float]) -> Iterator[float]:
    """When each fragment with video came: its first track fragment is that of track 1."""
    at = 0
    moments = iter(arrived)
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"moof":
            moment = next(moments)
            (track,) = struct.unpack_from(">I", data, at + 8 + 16 + 8 + 12)
            if track == 1:
                yield moment
        at += size
