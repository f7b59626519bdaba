"""Loops and threads: what a plain asyncio program may do, and what it is told when it may not."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable

import pytest
from recording import Log, Scene, pictures, run

import msrecd


def in_thread(call: Callable[[], object]) -> BaseException | None:
    """Call it in a thread without a loop; what it raised."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            call()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    return raised[0] if raised else None


def painted() -> tuple[msrecd.Canvas, msrecd.MediaRecorder]:
    canvas = msrecd.Canvas(32, 16)
    canvas.fill((200, 10, 10))
    return canvas, msrecd.MediaRecorder(canvas.capture_stream())


def test_start_without_a_loop_changes_nothing() -> None:
    """Made outside of a loop, refused there, and used on one loop after the other."""
    canvas, recorder = painted()
    before = recorder.video_bits_per_second
    with pytest.raises(RuntimeError, match=r"call_soon_threadsafe\(recorder.start\)"):
        recorder.start()
    assert (recorder.state, recorder.video_bits_per_second) == ("inactive", before)

    async def main() -> None:
        log = Log(recorder)
        recorder.start(20)
        await log.until("start")
        shades = itertools.cycle((10, 60))
        while sum(1 for blob in log.blobs if blob.data.size) < 2:  # more than a header
            canvas.fill((200, 10, next(shades)))
            await asyncio.sleep(0.02)
        recorder.stop()
        await log.until("stop")
        assert (log.types[0], set(log.types[1:-1]), log.types[-1]) == ("start", {"dataavailable"}, "stop")
        assert pictures(log.data())[0][8, 16, 0] > 150

    for _ in range(2):
        run(main())


@pytest.mark.parametrize("call", ["pause", "resume", "request_data", "split", "stop"])
@pytest.mark.promise("calls-from-other-threads")
def test_calls_from_another_thread_are_refused(call: str) -> None:
    async def main() -> None:
        _, recorder = painted()
        log = Log(recorder)
        recorder.start()
        await log.until("start")
        error = in_thread(getattr(recorder, call))
        assert isinstance(error, RuntimeError)
        assert f"call_soon_threadsafe(recorder.{call})" in str(error)
        assert recorder.state == "recording"
        asyncio.get_running_loop().call_soon_threadsafe(recorder.stop)  # as the message says
        await log.until("stop")
        assert log.types == ["start", "dataavailable", "stop"]
        assert in_thread(recorder.stop) is None  # nothing to do

    run(main())


def test_a_recorder_of_tracks_of_another_loop_is_refused() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorder = msrecd.MediaRecorder(scene.stream)

            async def elsewhere() -> None:
                recorder.start()

            error = in_thread(lambda: asyncio.run(elsewhere()))
            assert isinstance(error, RuntimeError)
            assert "another asyncio loop" in str(error)
            assert recorder.state == "inactive"

    run(main())


def test_loops_in_several_threads_record_at_the_same_time() -> None:
    async def main() -> int:
        with Scene("av") as scene:
            recorder = msrecd.MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start(100)
            await log.until("dataavailable", 3)
            recorder.stop()
            await log.until("stop")
            assert log.count("error") == 0
            return len(pictures(log.data()))

    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(run(main()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(counts) == 3
    assert min(counts) >= 5


def test_the_program_of_the_contract() -> None:
    """Section 2, word for word but for the devices, with `async with`."""

    class Sink:
        data = b""

        def write(self, data: bytes) -> None:
            self.data += data

    async def main() -> None:
        from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone

        sink = Sink()
        backend = VirtualBackend([VirtualCamera("Camera", modes=[(320, 180, 30)]), VirtualMicrophone("Microphone")])
        async with msrecd.MediaDevices(backends=[backend]) as devices:
            assert [set(info.to_json()) for info in await devices.enumerate_devices()] == [
                {"device_id", "group_id", "kind", "label"}
            ] * 2
            wanted = {"video": {"width": {"ideal": 1280}, "frame_rate": 30}, "audio": True}
            stream = await devices.get_user_media(wanted)
            recorder = msrecd.MediaRecorder(stream, {"mime_type": "video/mp4", "video_bits_per_second": 4_000_000})
            recorder.ondataavailable = lambda event: sink.write(bytes(event.data))
            log = Log(recorder)
            recorder.start(1000)
            await log.until("dataavailable", 2)
            recorder.stop()
            await log.until("stop")
            assert len(pictures(sink.data)) >= 30
        assert not stream.active

    run(main())
