"""ChunkWriter: blobs into chunk files, and what happens when the storage refuses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, cast

import pytest

from msrecd.errors import StorageError
from msrecd.muxing.facts import ChunkInfo
from msrecd.recorder.writer import BlobData, ChunkWriter

S = 1_000_000_000


class FakeChunk:
    def __init__(self, recording: FakeRecording, seq: int) -> None:
        self.seq = seq
        self.content = b""
        self._recording = recording

    def write(self, parts: Sequence[bytes]) -> None:
        if self._recording.full:
            raise StorageError("no space left", "no_space")
        self.content += b"".join(parts)

    def sync(self) -> None:
        self._recording.syncs += 1

    def finish(self, facts: dict[str, Any]) -> Mapping[str, Any]:
        assert self._recording.hangs.wait(20)
        if self._recording.broken:
            raise StorageError("input/output error", "io_error")
        duration_s = 0.0 if facts["info"] is None else facts["info"].duration_s
        line = {
            "seq": self.seq,
            "bytes": len(self.content),
            "content": self.content,
            "duration_s": duration_s,
            **facts,
        }
        self._recording.lines.append(line)
        return line

    def abandon(self) -> None:
        self._recording.abandoned.append(self.seq)


class FakeRecording:
    """Stands for storage.Recording at its public interface."""

    recording_id = "20260101T000000Z-cam0-0000"

    def __init__(self) -> None:
        self.full = self.broken = False
        self.hangs = threading.Event()  # until it is set
        self.hangs.set()
        self.lines: list[dict[str, Any]] = []
        self.abandoned: list[int] = []
        self.end_lines: list[dict[str, Any]] = []
        self.syncs = self.closes = self._seq = 0

    def open_chunk(self, *, started_ns: int) -> FakeChunk:
        if self.full:
            raise StorageError("no space left", "no_space")
        self._seq += 1
        return FakeChunk(self, self._seq)

    def end_line(self, *, ended_ns: int, lost_s: float, gaps: Sequence[Mapping[str, Any]]) -> None:
        self.end_lines.append({"ended_ns": ended_ns, "lost_s": lost_s, "gaps": list(gaps)})

    def close(self) -> None:
        self.closes += 1


def blob(data: bytes, *, chunk: int = 1, end: bool = False, last: bool = False, run: int = 1) -> BlobData:
    info = None
    if end:
        info = ChunkInfo(
            chunk=chunk, started_ns=chunk * 10 * S, ended_ns=(chunk + 1) * 10 * S, duration_s=10.0, bytes=1, tracks=()
        )
    return BlobData(
        parts=[data], chunk_key=(run, chunk), started_ns=chunk * 10 * S, chunk_end=end, info=info, may_be_last=last
    )


def with_writer(
    test: Callable[[ChunkWriter, FakeRecording, list[Any], list[StorageError]], Coroutine[Any, Any, None]],
    *,
    lost: list[tuple[float, str]] | None = None,
) -> None:
    async def run() -> None:
        recording = FakeRecording()
        lines: list[Any] = []
        errors: list[StorageError] = []
        losses = [] if lost is None else lost
        writer = ChunkWriter(
            cast(Any, recording),
            make_facts=lambda **facts: facts,
            on_chunk=lines.append,
            on_lost=lambda lost_s, reason: losses.append((lost_s, reason)),
            on_error=errors.append,
        )
        await test(writer, recording, lines, errors)
        await writer.close()
        await writer.sync()  # of no use any more, and no fault
        assert recording.closes == 1

    asyncio.run(run())


def test_blobs_of_a_chunk_become_one_file_in_order() -> None:
    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        for data in (b"head", b"one"):
            await writer.put(blob(data))
        await writer.put(blob(b"two", end=True))
        await writer.put(blob(b"head2", chunk=2))
        await writer.put(blob(b"three", chunk=2, end=True, last=True))
        assert len(lines) == 1, "nothing tells yet whether it is the last"
        await writer.close()
        assert [line["content"] for line in lines] == [b"headonetwo", b"head2three"]
        assert [line["final"] for line in lines] == [False, True]
        assert (writer.stats.chunks, writer.stats.bytes, errors) == (2, 20, [])
        assert recording.syncs == 1, "what is held is on the disk"

    with_writer(test)


@pytest.mark.effect("state-health: discarded_bytes")
def test_a_full_disk_finishes_the_chunk_and_accounts_the_gap() -> None:
    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        await writer.put(blob(b"head"))
        recording.full = True
        await writer.put(blob(b"lost"))
        await writer.put(blob(b"lost too", end=True))
        await writer.put(blob(b"head2", chunk=2))  # tried again with each chunk
        await asyncio.sleep(0)
        assert [error.code for error in errors] == ["no_space", "no_space"]
        assert [line["content"] for line in lines] == [b"head"]
        recording.full = False
        await writer.put(blob(b"still lost", chunk=2, end=True))
        await writer.put(blob(b"head3", chunk=3))
        await writer.put(blob(b"three", chunk=3, end=True))
        await asyncio.sleep(0)
        assert [line["seq"] for line in lines] == [1, 2]
        assert lines[1]["content"] == b"head3three"
        assert lines[1]["gaps"] == [{"at_s": 0.0, "duration_s": 20.0, "reason": "no_space"}]
        assert lines[1]["lost_s"] == 20.0
        assert writer.stats.discarded_bytes == len(b"lost") + len(b"lost too") + len(b"head2") + len(b"still lost")

    lost: list[tuple[float, str]] = []
    with_writer(test, lost=lost)
    assert lost == [(20.0, "no_space")]


def test_what_the_disk_did_not_take_at_the_end_is_told_at_the_end() -> None:
    """No chunk follows that could account for it."""

    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        await writer.put(blob(b"head", end=True))
        recording.full = True
        await writer.put(blob(b"head2", chunk=2))
        await writer.put(blob(b"lost", chunk=2, end=True))
        await writer.put(blob(b"lost", chunk=3, end=True, last=True))

    lost: list[tuple[float, str]] = []
    with_writer(test, lost=lost)
    assert lost == [(20.0, "no_space")]


def test_who_stops_waiting_for_the_end_leaves_it_to_the_thread() -> None:
    """A disk that hangs: the deadline strikes, the file is finished all the same as soon as the disk lets it."""

    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        await writer.put(blob(b"head"))
        disk = recording.hangs = threading.Event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await writer.close()
        assert lines == []
        disk.set()
        async with asyncio.timeout(20):
            await writer.close()  # the same end, waited for again
        assert [(line["content"], line["final"]) for line in lines] == [(b"head", True)]

    with_writer(test)


def test_a_chunk_that_cannot_be_finished_is_left_to_the_next_start() -> None:
    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        await writer.put(blob(b"head"))
        recording.full = recording.broken = True
        await writer.put(blob(b"lost", end=True))
        await asyncio.sleep(0)
        assert recording.abandoned == [1]
        assert lines == []
        assert [error.code for error in errors] == ["no_space"]

    with_writer(test)


def test_a_run_that_breaks_off_is_finished_when_the_next_begins() -> None:
    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        await writer.put(blob(b"head"))
        await writer.put(blob(b"again", run=2))
        await writer.put(blob(b"end", run=2, end=True))
        await asyncio.sleep(0)
        assert [line["content"] for line in lines] == [b"head", b"againend"]

    with_writer(test)


def test_a_disk_that_is_done_after_the_end_of_the_loop_finishes_the_file(caplog: pytest.LogCaptureFixture) -> None:
    """The daemon has left meanwhile; what it was not told, the next start finds out."""
    recording = FakeRecording()

    async def run() -> ChunkWriter:
        lines: list[Any] = []
        writer = ChunkWriter(
            cast(Any, recording),
            make_facts=lambda **facts: facts,
            on_chunk=lines.append,
            on_lost=lambda *_: None,
            on_error=lines.append,
        )
        await writer.put(blob(b"head"))
        recording.hangs.clear()
        writer.put(blob(b" and", end=True))
        writer.put(blob(b"head2", chunk=2))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await writer.close()
        return writer

    writer = asyncio.run(run())
    recording.hangs.set()
    writer._executor.shutdown(wait=True)
    assert recording.closes == 1
    assert [line["content"] for line in recording.lines] == [b"head and", b"head2"]
    ours = [record for record in caplog.records if record.name != "asyncio"]  # it remarks on a slow machine
    assert ours == []
    assert writer.stats.chunks == 2


def test_the_time_between_two_attempts_is_one_gap_before_the_next_chunk() -> None:
    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        await writer.put(blob(b"one", end=True, last=True))  # from 10 s to 20 s
        writer.begin_loss(20 * S, "device_missing")
        writer.begin_loss(25 * S, "device_busy")  # part of it
        await writer.put(blob(b"two", chunk=3, run=2))  # from 30 s on
        await asyncio.sleep(0)
        assert lost == [(10.0, "device_missing")], "published as soon as it is over"
        assert [line["final"] for line in lines] == [False]
        await writer.put(blob(b"end", chunk=3, run=2, end=True, last=True))
        await writer.close()
        assert [line["gaps"] for line in lines] == [[], [{"at_s": 0.0, "duration_s": 10.0, "reason": "device_missing"}]]
        assert [(line["lost_s"], line["final"]) for line in lines] == [(0, False), (10.0, True)]
        assert recording.end_lines == []

    lost: list[tuple[float, str]] = []
    with_writer(test, lost=lost)
    assert lost == [(10.0, "device_missing")], "once"


@pytest.mark.parametrize("is_released", [False, True])
def test_an_outage_until_the_end_stands_behind_the_last_chunk(is_released: bool) -> None:
    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        await writer.put(blob(b"one", end=True, last=True))
        writer.begin_loss(20 * S, "device_missing")
        if is_released:
            writer.release()
        await writer.close(until_ns=28 * S)
        gap = {"at_s": 10.0, "duration_s": 8.0, "reason": "device_missing"}
        if is_released:  # its line was written already
            assert [(line["final"], line["gaps"]) for line in lines] == [(False, [])]
            assert recording.end_lines == [{"ended_ns": 28 * S, "lost_s": 8.0, "gaps": [gap]}]
        else:
            assert [(line["final"], line["gaps"], line["lost_s"]) for line in lines] == [(True, [gap], 8.0)]
            assert recording.end_lines == []

    lost: list[tuple[float, str]] = []
    with_writer(test, lost=lost)
    assert lost == [(8.0, "device_missing")]


def test_two_chunks_that_end_at_the_stop_have_one_final_among_them() -> None:
    """The cut before the stop may reach the listener when the recorder is inactive already."""

    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        await writer.put(blob(b"one", end=True, last=True))
        await writer.put(blob(b"two", chunk=2, end=True, last=True))
        await writer.put(blob(b"", chunk=1, end=True, last=True))  # the terminal blob, in which nothing is
        await writer.close()
        assert [line["final"] for line in lines] == [False, True]

    with_writer(test)


def test_a_disk_that_hangs_is_reported_and_so_is_its_answer() -> None:
    async def main() -> None:
        recording, heard = FakeRecording(), asyncio.Queue[bool]()
        writer = ChunkWriter(
            cast(Any, recording),
            make_facts=lambda **facts: facts,
            on_chunk=lambda _: None,
            on_lost=lambda *_: None,
            on_error=lambda _: None,
            on_hang=heard.put_nowait,
            hang_s=0.05,
        )
        disk = recording.hangs = threading.Event()
        writer.put(blob(b"one", end=True))
        async with asyncio.timeout(20):
            assert await heard.get() is True
            assert writer.queue_s >= 0.05
            disk.set()
            assert await heard.get() is False
            await writer.close()
        assert writer.queue_s == 0.0
        assert heard.empty(), "once each"

    asyncio.run(main())


def test_a_disk_that_recovers_slowly_hangs_once() -> None:
    """What waits behind the first blob has waited for nearly as long: one answer does not end the hang."""

    class OneByOne:
        def __init__(self) -> None:
            self.answers = threading.Semaphore(0)

        def wait(self, timeout: float) -> bool:
            return self.answers.acquire(timeout=timeout)

    async def main() -> None:
        recording, heard = FakeRecording(), asyncio.Queue[bool]()
        writer = ChunkWriter(
            cast(Any, recording), make_facts=lambda **facts: facts, on_chunk=lambda _: None, on_lost=lambda *_: None,
            on_error=lambda _: None, on_hang=heard.put_nowait, hang_s=1.0,
        )  # fmt: skip
        disk = OneByOne()
        recording.hangs = cast(Any, disk)
        first = writer.put(blob(b"one", end=True))
        await asyncio.sleep(0.2)  # it has waited for so much longer than the second
        second = writer.put(blob(b"two", chunk=2, end=True))
        async with asyncio.timeout(20):
            assert await heard.get() is True
            disk.answers.release()
            await first
            assert heard.empty(), "the second has waited for 0.8 s"
            disk.answers.release(2)
            await second
            assert await heard.get() is False
            await writer.close()

    asyncio.run(main())


def test_an_answer_that_is_not_awaited_comes_with_the_next_blob_and_wakes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        recording = FakeRecording()
        writer = ChunkWriter(
            cast(Any, recording), make_facts=lambda **facts: facts, on_chunk=lambda _: None, on_lost=lambda *_: None,
            on_error=lambda _: None,
        )  # fmt: skip
        woken: list[object] = []
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: (woken.append(call), wake(*call)))
        first = writer.put(blob(b"one"), is_awaited=False)
        async with asyncio.timeout(20):
            writer._executor.submit(int).result(20)  # the thread is done with the blob
            assert not first.done()
            assert not woken
            disk = recording.hangs = threading.Event()
            behind = [
                writer.put(blob(b"two", end=True), is_awaited=False),
                writer.put(blob(b"three", chunk=2), is_awaited=False),
            ]
            await first
            disk.set()
            await behind[0]  # the disk was behind: what follows may depend on it
            last = writer.put(blob(b"four", chunk=2), is_awaited=False)
            await behind[1]
            await writer.close()
            await last
        assert writer.queue_s == 0.0

    asyncio.run(main())


def test_a_disk_that_hangs_is_noticed_though_no_answer_is_awaited() -> None:
    async def main() -> None:
        recording, heard = FakeRecording(), asyncio.Queue[bool]()
        writer = ChunkWriter(
            cast(Any, recording), make_facts=lambda **facts: facts, on_chunk=lambda _: None, on_lost=lambda *_: None,
            on_error=lambda _: None, on_hang=heard.put_nowait, hang_s=0.05,
        )  # fmt: skip
        disk = recording.hangs = threading.Event()
        only = writer.put(blob(b"one", end=True), is_awaited=False)
        async with asyncio.timeout(20):
            assert await heard.get() is True
            disk.set()
            assert await heard.get() is False
            await only
            await writer.close()

    asyncio.run(main())


def test_a_mistake_of_the_program_is_reported_and_ends_nothing() -> None:
    async def test(writer: ChunkWriter, recording: FakeRecording, lines: list[Any], errors: list[StorageError]) -> None:
        def broken(**_: Any) -> FakeChunk:
            raise ValueError("not foreseen")

        opened, recording.open_chunk = recording.open_chunk, broken  # type: ignore[method-assign]
        await writer.put(blob(b"one", end=True))
        recording.open_chunk = opened  # type: ignore[method-assign]
        await writer.put(blob(b"two", chunk=2, end=True))
        await asyncio.sleep(0)
        assert [str(error) for error in errors] == ["internal error while writing: not foreseen"]
        assert [line["content"] for line in lines] == [b"two"]

    with_writer(test)
