"""RecorderController with inputs that open and give nothing, and with a storage that is swapped or full."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from heard import Heard

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import Corrections
from msrecd.daemon.archive import DaemonArchive
from msrecd.devices.virtual import VirtualBackend, VirtualCamera
from msrecd.errors import CommandError, StorageError
from msrecd.media.devices import MediaDevices
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.settings import RecorderSettings
from msrecd.recorder.snapshot import Photographer
from msrecd.recorder.states import State
from msrecd.storage.catalog import open_catalog


class Quiet(SimpleHTTPRequestHandler):
    """Python's own file server, which knows no ranges."""

    def log_message(self, format: str, *args: Any) -> None:
        return None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Its URL, and the folder that it serves."""
    folder = tmp_path / "www"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()


class Watching(Heard):
    """It also keeps each state that is published."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []
        self.ids: dict[str, str | None] = {}  # recording_id at the last event of a type

    def happened(self, recorder: RecorderController, event_type: str, facts: Mapping[str, Any]) -> None:
        super().happened(recorder, event_type, facts)
        self.ids[event_type] = recorder.files.recording_id

    def state_changed(self, recorder: RecorderController) -> None:
        self.states.append(recorder.status.state)


def controller(url: str, archive: DaemonArchive, devices: MediaDevices, heard: Heard) -> RecorderController:
    settings = RecorderSettings(name="cam0", constraints=None, url=url, options={"mime_type": ""}, timeslice_ms=200)
    return RecorderController(settings, devices=devices, archive=archive, listener=heard)


def encode(path: Path, *options: str) -> None:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=160x96:rate=25:duration=20", "-c:v",
         "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", *options, str(path)], check=True, timeout=120,
    )  # fmt: skip


def test_an_input_that_cannot_be_read_is_one_error_and_tried_until_it_can(
    archive: DaemonArchive, server: tuple[str, Path]
) -> None:
    """A film whose index is at its end, from a server without ranges: its header can be read, its frames cannot."""
    url, folder = server
    encode(folder / "clip.mp4")
    encode(folder / "good.mp4", "-movflags", "+faststart")
    heard = Watching()
    tries_ns: list[int] = []

    async def main() -> None:
        async with MediaDevices(backends=[VirtualBackend([])]) as devices:
            unit = controller(f"{url}/clip.mp4", archive, devices, heard)
            begin = unit._begin

            async def counted(*arguments: Any) -> None:
                tries_ns.append(SYSTEM_CLOCK.monotonic_ns())
                await begin(*arguments)

            unit._begin = counted  # type: ignore[method-assign]
            await unit.start("autostart", persistent=True)
            await heard.until(lambda: len(tries_ns) == 4)
            await heard.until(lambda: unit.state is State.WAITING)
            assert [kind for kind, _ in heard.events if kind != "started"] == ["error"]
            assert heard.states[-1] == "error"
            assert heard.states.count("error") == 1, "it stays in error between the tries"
            (folder / "good.mp4").rename(folder / "clip.mp4")
            unit.devices_changed()  # no waiting for the next try
            await heard.until(lambda: unit.status.state == "recording")
            assert unit.files.has_media
            assert not heard.of("gap"), "nothing is missing of a recording that had not begun"
            await unit.close()

    asyncio.run(main())
    assert len(heard.of("started")) == 1
    assert len(heard.of("error")) == 1
    assert heard.of("chunk")[0]["lost_s"] == 0
    waited_s = [(after - before) / NS for before, after in pairwise(tries_ns[:4])]
    assert min(waited_s) >= 0.9


def test_an_input_that_is_not_there_leaves_no_failure_behind_at_the_end(
    archive: DaemonArchive, server: tuple[str, Path]
) -> None:
    """Whoever opened it was cancelled meanwhile; asyncio would say so after the last line of the log."""
    url, _ = server
    left: list[str] = []

    def is_opening() -> bool:
        return any(thread.name == "open input" for thread in threading.enumerate())

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context["message"]))
        async with MediaDevices(backends=[VirtualBackend([])]) as devices:
            heard = Watching()
            unit = controller(f"{url}/nothing.mp4", archive, devices, heard)
            await unit.start("autostart", persistent=True)
            await heard.until(is_opening)
            await unit.close()
            await heard.until(lambda: not is_opening())
            await asyncio.sleep(0)
            gc.collect()

    asyncio.run(main())
    gc.collect()
    assert left == []


@pytest.mark.promise("another-medium")
def test_another_storage_at_the_path_gives_the_state_the_id_of_its_files(
    archive: DaemonArchive, tmp_path: Path
) -> None:
    heard = Watching()

    async def main() -> None:
        settings = RecorderSettings(
            name="cam0", constraints={"video": True}, options={"mime_type": "video/mp4"}, timeslice_ms=200
        )
        camera = VirtualCamera("Front", modes=[(160, 96, 30)])
        async with MediaDevices(backends=[VirtualBackend([camera])]) as devices:
            unit = RecorderController(settings, devices=devices, archive=archive, listener=heard)
            await unit.start("test")
            await heard.until(lambda: unit.files.open_bytes > 1000)
            before = unit.files.recording_id
            (tmp_path / "recordings").rename(tmp_path / "away")
            (tmp_path / "recordings").mkdir()
            published = len(heard.states)
            await unit.split()
            await heard.until(lambda: unit.files.recording_id != before)
            await heard.until(lambda: len(heard.states) > published)
            await heard.until(lambda: unit.files.open_bytes > 1000)
            await unit.split()
            await heard.until(
                lambda: any(
                    Path(line["file"]).name.startswith(str(unit.files.recording_id)) for line in heard.of("chunk")
                )
            )
            assert unit.files.chunks == 1
            await unit.stop("test")
            assert heard.ids["stopped"] == heard.ids["chunk"] != before
            ended, last = heard.of("stopped")
            assert (ended["recording_id"], ended["cause"]) == (before, "medium")
            assert [begun["cause"] for begun in heard.of("started")] == ["test", "medium"]
            assert "recording_id" not in last

    asyncio.run(main())
    new = [line for line in heard.of("chunk") if Path(line["file"]).name.startswith(str(heard.ids["stopped"]))]
    assert [line["seq"] for line in new] == list(range(1, len(new) + 1))
    assert heard.of("stopped")[-1]["chunks"] == len(new)


def test_a_full_disk_is_one_gap_that_begins_where_the_recording_breaks_off(
    archive: DaemonArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Watching()
    is_full = False

    def require_room(recorder: str = "") -> None:
        if is_full:
            raise StorageError("no space left", "no_space")

    monkeypatch.setattr(archive.store, "require_room", require_room)
    monkeypatch.setattr(archive.store, "check_writable", require_room)

    async def main() -> None:
        nonlocal is_full
        settings = RecorderSettings(
            name="cam0", constraints={"video": True}, options={"mime_type": "video/mp4"}, timeslice_ms=200
        )
        camera = VirtualCamera("Front", modes=[(160, 96, 30)])
        async with MediaDevices(backends=[VirtualBackend([camera])]) as devices:
            unit = RecorderController(settings, devices=devices, archive=archive, listener=heard)
            await unit.start("test")
            await heard.until(lambda: unit.files.open_bytes > 1000)
            is_full = True
            await unit.split()
            await heard.until(lambda: unit.status.state == "error")
            full_ns = SYSTEM_CLOCK.monotonic_ns()
            await heard.until(lambda: SYSTEM_CLOCK.monotonic_ns() - full_ns > NS)
            is_full = False
            await heard.until(lambda: heard.of("gap"))
            await heard.until(lambda: unit.files.open_bytes > 1000)
            await unit.stop("test")

    asyncio.run(main())
    (event,) = heard.of("gap")
    catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", Corrections())
    (recording,) = catalog.recordings()
    (gap,) = recording.gaps
    first, second = recording.chunks
    assert (gap.reason, gap.started_ns) == ("no_space", first.ended_ns)
    assert gap.duration_s == pytest.approx(event["duration_s"], abs=0.5)
    assert gap.started_ns + round(gap.duration_s * NS) == pytest.approx(second.started_ns, abs=NS // 100)


def test_a_photo_of_an_input_that_has_ended_says_that_it_is_away(
    archive: DaemonArchive, server: tuple[str, Path]
) -> None:
    """What is open for photos between them, ends; then it cannot be opened either."""
    url, folder = server
    film = folder / "film.mp4"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x96:rate=25:duration=1", "-pix_fmt",
         "yuv420p", "-bf", "0", str(film)], check=True, timeout=60,
    )  # fmt: skip

    async def main() -> None:
        heard = Heard()
        settings = RecorderSettings(name="cam0", constraints=None, url=f"{url}/film.mp4", options={})
        async with MediaDevices(backends=[]) as devices, asyncio.timeout(60):
            recorder = RecorderController(settings, devices=devices, archive=archive, listener=heard)
            photographer = Photographer(recorder, devices)

            def has_ended() -> bool:
                return photographer._opened is not None and not photographer._opened.tracks

            assert (await photographer.take()).jpeg
            await heard.until(has_ended)
            assert (await photographer.take()).jpeg, "it is opened again"
            film.unlink()
            await heard.until(has_ended)
            with pytest.raises(CommandError) as refused:
                await photographer.take()
            assert refused.value.code == "device_missing"
            photographer.close()
            await recorder.close()

    asyncio.run(main())


def test_an_input_that_cannot_be_told_in_time_is_named_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and answers byte by byte, if at all."""
    monkeypatch.setattr("msrecd.recorder.input._OPEN_DEADLINE_S", 1.0)

    async def open_it(port: int) -> None:
        url = f"http://me:secret@127.0.0.1:{port}/live.ts?token=secret"
        async with MediaDevices(backends=[]) as devices:
            await RecorderInput.open(RecorderSettings(name="cam0", constraints=None, url=url, options={}), devices)

    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(CommandError) as refused:
        asyncio.run(open_it(port := server.getsockname()[1]))
    assert str(refused.value) == f"http://127.0.0.1:{port}/live.ts: it cannot be told within 1 s what it sends"
    assert refused.value.code == "device_missing"
