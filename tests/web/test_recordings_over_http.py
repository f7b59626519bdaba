"""What is recorded, over HTTP: lists, playlists, chunks with ranges, thumbnails, manifests and joined files."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from pageclient import web_table
from ports import free_port
from waiting import until

DEVICES = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] },
  { kind = "microphone", label = "Test Microphone", signal = "beep" },
]
"""
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Site:
    """A daemon that has recorded something and records no more, and its page's address."""

    def __init__(self, daemon: DaemonProcess, base: str) -> None:
        self.daemon, self.base = daemon, base

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name, body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.base + path, headers=named, method=method)
        try:
            with _OPENER.open(request, timeout=60) as response:
                return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, {k.lower(): v for k, v in exc.headers.items()}, exc.read()

    def json(self, path: str) -> Any:
        status, _, body = self.get(path)
        assert status == 200, body
        return json.loads(body)


def is_over(daemon: DaemonProcess, recorder: str) -> bool:
    """Whether its recording has ended and stands in its manifest."""
    return any(line["final"] for line in daemon.chunk_lines(recorder))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port = free_port()
    usual = {"autostart": True, "chunk_duration": "2s", "max_duration": "5s"}
    recorders = camera(audio=True, **usual) + microphone(**usual)
    recorders += microphone("pcm0", mime_type="audio/wav", **usual)  # a megabyte
    text = configuration(
        folder, port=None, recorders=recorders, more=web_table(port, folder, with_passwords=False) + DEVICES
    )
    with DaemonProcess(folder, text) as daemon:
        for recorder in ("cam0", "mic0", "pcm0"):
            until(partial(is_over, daemon, recorder), daemon.log.read_text, timeout=90)
        yield Site(daemon, f"http://127.0.0.1:{port}")


def recording(site: Site, recorder: str = "cam0") -> dict[str, Any]:
    found = site.json(f"/api/recordings?recorder={recorder}")["recordings"]
    assert len(found) == 1
    return found[0]  # type: ignore[no-any-return]


def counted_frames(source: str) -> int:
    """Frames that ffmpeg, the independent judge, finds: packets, for its decoder drops some at a discontinuity."""
    command = ["ffprobe", "-v", "error", "-count_packets", "-select_streams", "v:0"]
    command += ["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", source]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return int(result.stdout.split()[0].strip(","))


@pytest.mark.promise("api-recordings")
def test_the_list_says_what_the_manifests_say(site: Site) -> None:
    lines = site.daemon.chunk_lines()
    found = recording(site)
    assert [(c["seq"], c["bytes"], c["duration_s"], c["mime_type"]) for c in found["chunks"]] == [
        (line["seq"], line["bytes"], line["duration_s"], line["mime_type"]) for line in lines
    ]
    assert sorted((gap["duration_s"], gap["reason"]) for gap in found["gaps"]) == sorted(
        (gap["duration_s"], gap["reason"]) for line in lines for gap in line["gaps"]
    )  # a busy machine loses frames, and says so
    assert site.json("/api/recordings?recorder=cam0&to=2001-01-01T00:00:00Z")["recordings"] == []
    days = site.json("/api/days?recorder=cam0")["recordings"]
    assert [one["recording_id"] for one in days] == [found["recording_id"]]


@pytest.mark.promise("api-chunk")
def test_a_chunk_is_sent_whole_in_parts_and_not_again(site: Site) -> None:
    line, found = site.daemon.chunk_lines()[0], recording(site)
    path = f"/api/recordings/{found['recording_id']}/1"
    status, headers, body = site.get(path)
    assert (status, headers["content-type"], headers["etag"]) == (200, "video/mp4", f'"{line["sha256"]}"')
    assert hashlib.sha256(body).hexdigest() == line["sha256"]
    assert site.get(f"{path}.mp4")[2] == body
    status, headers, part = site.get(path, Range="bytes=100-299")
    assert (status, part, headers["content-range"]) == (206, body[100:300], f"bytes 100-299/{len(body)}")
    assert site.get(path, Range="bytes=-50")[2] == body[-50:]
    assert site.get(path, Range=f"bytes={len(body)}-")[0] == 416
    assert site.get(path, If_None_Match=headers["etag"])[0] == 304
    assert site.get(path, Range="bytes=0-9", If_Range='"another"')[0] == 200
    status, headers, nothing = site.get(path, "HEAD")
    assert (status, headers["content-length"], nothing) == (200, str(len(body)), b"")


@pytest.mark.promise("api-playlists")
def test_playlists_hold_every_frame(site: Site) -> None:
    found = recording(site)
    frames = sum(line["tracks"]["video"]["frames"] for line in site.daemon.chunk_lines())
    assert counted_frames(f"{site.base}/api/recordings/{found['recording_id']}/index.m3u8") == frames
    between = f"from={found['started']}&to={found['ended']}"
    assert counted_frames(f"{site.base}/api/timeline/cam0.m3u8?{between}") == frames


@pytest.mark.promise("api-chunk-playlist")
def test_a_chunk_has_a_playlist_of_segments_that_follow_each_other(site: Site) -> None:
    found = recording(site)
    line = site.daemon.chunk_lines()[0]
    status, headers, body = site.get(f"/api/recordings/{found['recording_id']}/1.m3u8")
    text = body.decode()
    assert (status, headers["content-type"]) == (200, "application/vnd.apple.mpegurl")
    ranges = [tuple(map(int, row[17:].split("@"))) for row in text.splitlines() if row.startswith("#EXT-X-BYTERANGE")]
    first = int(text.partition('BYTERANGE="')[2].partition("@")[0])
    for length, offset in ranges:
        assert offset == first
        first += length
    assert line["bytes"] - 400 <= first <= line["bytes"]  # behind the last fragment stands only the table of contents
    durations = [float(row[8:-1]) for row in text.splitlines() if row.startswith("#EXTINF")]
    assert sum(durations) == pytest.approx(line["duration_s"], abs=1e-3)


@pytest.mark.promise("api-thumbnail")
def test_thumbnails_are_jpegs_and_sound_has_none(site: Site, tmp_path: Path) -> None:
    status, headers, body = site.get(f"/api/recordings/{recording(site)['recording_id']}/2.jpg")
    assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    picture = tmp_path / "thumbnail.jpg"
    picture.write_bytes(body)
    assert counted_frames(str(picture)) == 1
    assert site.get(f"/api/recordings/{recording(site, 'mic0')['recording_id']}/1.jpg")[0] == 404


@pytest.mark.promise("api-manifest")
def test_the_manifest_comes_as_it_lies_there(site: Site) -> None:
    found = recording(site)
    status, headers, body = site.get(f"/api/recordings/{found['recording_id']}/manifest")
    (path,) = (site.daemon.recordings / "cam0").rglob("*.jsonl")
    assert (status, body) == (200, path.read_bytes())
    assert f'filename="{path.name}"' in headers["content-disposition"]


@pytest.mark.promise("api-export")
@pytest.mark.promise("page-export-length")
@pytest.mark.parametrize(("recorder", "suffix"), [("cam0", ".mp4"), ("mic0", ".mka")])
def test_a_range_is_sent_as_one_file(site: Site, tmp_path: Path, recorder: str, suffix: str) -> None:
    found = recording(site, recorder)
    query = f"recorder={recorder}&from={found['started']}&to={found['ended']}"
    status, headers, body = site.get(f"/api/export?{query}")
    assert status == 200
    assert headers["content-disposition"].endswith(f'{suffix}"')
    joined = tmp_path / f"joined{suffix}"
    joined.write_bytes(body)
    duration = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(joined)]
    said = subprocess.run(duration, capture_output=True, text=True, timeout=60, check=True).stdout
    assert float(said) == pytest.approx(sum(line["duration_s"] for line in site.daemon.chunk_lines(recorder)), abs=0.2)
    if recorder == "cam0":
        frames = sum(line["tracks"]["video"]["frames"] for line in site.daemon.chunk_lines())
        assert frames - 2 <= counted_frames(str(joined)) <= frames  # `to` is rounded to milliseconds
    else:
        probe = ["ffprobe", "-v", "error", "-show_entries", "packet=pts_time", "-of", "csv=p=0", str(joined)]
        times = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=True).stdout.split()
        seconds = float(times[-1].strip(","))
        assert seconds == pytest.approx(sum(line["duration_s"] for line in site.daemon.chunk_lines("mic0")), abs=0.2)


@pytest.mark.promise("page-one-export")
def test_one_export_at_a_time(site: Site) -> None:
    """The first one's reader takes nothing for now."""
    found = recording(site, "pcm0")
    path = f"/api/export?recorder=pcm0&from={found['started']}&to={found['ended']}"
    port = int(site.base.rpartition(":")[2])
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(60)
        slow.connect(("127.0.0.1", port))
        slow.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert b" 200 " in slow.recv(100)
        status, headers, body = site.get(path)
        assert (status, json.loads(body)["error"]["code"]) == (503, "busy")
        assert headers["retry-after"]
    until(lambda: site.get(path)[0] == 200, "the first one's place is not free again")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/recordings/{id}/9999", 404),
        ("/api/recordings/{id}/0", 404),
        ("/api/recordings/{id}/1.flac", 404),
        ("/api/recordings/{id}/..%2f..%2fmsrecd.toml", 400),
        ("/api/recordings/..%2f..%2fstate/manifest", 400),
        ("/api/recordings/20260101T000000Z-cam0-0000/manifest", 404),
        ("/api/recordings?recorder=..", 404),
        ("/api/recordings?from=yesterday", 400),
        ("/api/timeline/cam0?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z", 404),
        ("/api/timeline/cam0.m3u8", 400),
        ("/api/export?recorder=cam0&from=2030-01-02T00:00:00Z&to=2030-01-01T00:00:00Z", 400),
        ("/api/export?recorder=cam0&from=2001-01-01T00:00:00Z&to=2001-01-02T00:00:00Z", 404),
        ("/api/export?from=2001-01-01T00:00:00Z&to=2001-01-02T00:00:00Z", 400),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(site: Site, path: str, status: int) -> None:
    got, _, body = site.get(path.replace("{id}", recording(site)["recording_id"]))
    assert got == status, body
    message = json.loads(body)["error"]["message"]
    assert message
    assert str(site.daemon.folder) not in message


@pytest.mark.promise("page-no-links")
def test_a_file_that_is_not_the_recorded_one_is_not_sent(site: Site) -> None:
    """A card may hold anything: a link to a secret, or a file that was cut."""
    found = recording(site)
    chunk, last = site.daemon.chunks()[-1], found["chunks"][-1]["seq"]
    aside = chunk.with_name("aside")
    chunk.rename(aside)
    try:
        chunk.symlink_to(site.daemon.config)
        status, _, body = site.get(f"/api/recordings/{found['recording_id']}/{last}")
        assert status in (404, 503)
        assert b"config_version" not in body
        chunk.unlink()
        chunk.write_bytes(aside.read_bytes()[:-1])
        assert site.get(f"/api/recordings/{found['recording_id']}/{last}")[0] == 404
    finally:
        chunk.unlink()
        aside.rename(chunk)
