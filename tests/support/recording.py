"""Streams of virtual devices, and a log of what a MediaRecorder says, for tests that record."""

from __future__ import annotations

import asyncio
import inspect
import io
import tempfile
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import av
import judge
import numpy as np

from msrecd.clock import SYSTEM_CLOCK, Clock
from msrecd.devices.virtual import VirtualCamera, VirtualDevice, VirtualMicrophone
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source
from msrecd.flow.units import AudioBlock, Kind, VideoFormat, VideoFrame
from msrecd.media.recorder import MediaRecorder
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack

DEADLINE_S = 40.0  # it ends a test that would hang; what is judged is counted
RECORDER_EVENTS = ("start", "stop", "dataavailable", "pause", "resume", "error", "gap")


def open_track(device: VirtualDevice, clock: Clock = SYSTEM_CLOCK) -> MediaStreamTrack:
    """A track over a freshly opened virtual device; the device closes with its last clone."""
    source = device.open({}, clock)
    format = source.format
    if isinstance(format, VideoFormat):
        settings: dict[str, Any] = {"width": format.width, "height": format.height, "frame_rate": format.frame_rate}
    else:
        settings = {"sample_rate": format.sample_rate, "channel_count": format.channels, "sample_size": 16}
    track = MediaStreamTrack._create(source, settings=settings, capabilities={}, on_last_ended=source.close)
    track._shared.listen()
    return track


def rgb_frame(picture: Any, pts_ns: int | None = None) -> VideoFrame:
    """A frame, captured now unless it is said when, of a (height, width, 3) array of uint8."""
    height, width, _ = picture.shape
    return VideoFrame(
        pts_ns=SYSTEM_CLOCK.monotonic_ns() if pts_ns is None else pts_ns,
        format=VideoFormat(width=width, height=height, pixel_format="rgb24"),
        data=picture.tobytes(),
    )


class PaintedSource(Source):
    """Pictures only when somebody paints, as from a canvas: a source without a frame rate that does not flow."""

    kind: Kind = "video"

    def __init__(self, size: tuple[int, int] = (160, 96)) -> None:
        super().__init__(label="painted")
        self._format = VideoFormat(width=size[0], height=size[1], pixel_format="rgb24")
        self._feed: Feed[VideoFrame] = Feed()

    @property
    def format(self) -> VideoFormat:
        return self._format

    def raw(self) -> Feed[VideoFrame]:
        return self._feed

    def close(self) -> None:
        self._feed.end()

    def paint(self, rgb: tuple[int, int, int], size: tuple[int, int] | None = None) -> None:
        width, height = size or (self._format.width, self._format.height)
        self.show(np.full((height, width, 3), rgb, np.uint8))

    def show(self, picture: Any) -> None:
        frame = rgb_frame(picture)
        self._format = frame.format
        self._feed.put(frame)

    def track(self, **more: Any) -> MediaStreamTrack:
        """A track of the size that the source has now, unless `more` settings say otherwise."""
        settings = {"width": self._format.width, "height": self._format.height} | more
        return MediaStreamTrack._create(self, settings=settings, capabilities={}, on_last_ended=self.close)


class Scene:
    """A camera, a microphone and a stream of both or one of them; use inside of a running loop."""

    def __init__(
        self,
        kinds: str = "av",
        *,
        size: tuple[int, int] = (160, 96),
        frame_rate: float = 30,
        signal: str = "beep",
        sample_rate: int = 48_000,
        channels: int = 2,
        ppm: float = 0.0,
    ) -> None:
        self.camera = VirtualCamera("camera", modes=[(*size, frame_rate)])
        self.microphone = VirtualMicrophone(
            "microphone", sample_rate=sample_rate, channels=channels, signal=signal, ppm=ppm
        )
        tracks = []
        if "v" in kinds:
            tracks.append(open_track(self.camera))
        if "a" in kinds:
            tracks.append(open_track(self.microphone))
        self.stream = MediaStream(tracks)

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        for track in self.stream.get_tracks():
            track.stop()


class _Meter:
    """A sink that counts media instead of time: frames at their rate, samples at theirs."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.has_ended = False

    def put(self, unit: VideoFrame | AudioBlock) -> None:
        if isinstance(unit, VideoFrame):
            self.seconds += 1 / (unit.format.frame_rate or 30)
        else:
            self.seconds += unit.samples / unit.format.sample_rate

    def end(self, _: BaseException | None) -> None:
        self.has_ended = True

    @contextmanager
    def on(self, track: MediaStreamTrack) -> Iterator[_Meter]:
        feed = track._source.raw()
        feed.add(self)
        try:
            yield self
        finally:
            feed.remove(self)


async def delivered(stream: MediaStream, seconds: float) -> None:
    """Wait until the device of each live track has delivered so much more media, counted in frames and samples.

    What is recorded holds it then, also on a machine that is late. For a device that ends, it is what it gave.
    """
    with ExitStack() as stack:
        live = [track for track in stream.get_tracks() if track.ready_state == "live"]
        assert live, "nothing will come"
        meters = [stack.enter_context(_Meter().on(track)) for track in live]
        async with asyncio.timeout(seconds + DEADLINE_S):
            while any(meter.seconds < seconds and not meter.has_ended for meter in meters):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


_logs: ContextVar[weakref.WeakSet[Log]] = ContextVar("logs")  # those of the test that runs here


class Log:
    """What a recorder fired, in order, with what it looked like at that moment."""

    def __init__(self, recorder: MediaRecorder) -> None:
        self.recorder = recorder
        self.events: list[Any] = []
        self.states: list[tuple[str, str, str]] = []  # (event type, state, mime_type) inside the handler, without gaps
        self._changed = asyncio.Event()
        for type_ in RECORDER_EVENTS:
            recorder.add_event_listener(type_, self._take)
        if (logs := _logs.get(None)) is not None:
            logs.add(self)

    def _take(self, event: Any) -> None:
        self.events.append(event)
        if event.type != "gap":
            self.states.append((event.type, str(self.recorder.state), self.recorder.mime_type))
        self._changed.set()

    @property
    def types(self) -> list[str]:
        """The events of the specification. A gap is a fact about the machine: a busy one may lose something."""
        return [event.type for event in self.events if event.type != "gap"]

    def count(self, type_: str) -> int:
        return sum(event.type == type_ for event in self.events)

    async def until(self, type_: str, count: int = 1, deadline_s: float = DEADLINE_S) -> Any:
        """The `count`th event of a type; fails with the log so far when it does not come."""

        async def wait() -> Any:
            while self.count(type_) < count:
                self._changed.clear()
                await self._changed.wait()
            return [event for event in self.events if event.type == type_][count - 1]

        try:
            return await asyncio.wait_for(wait(), deadline_s)
        except TimeoutError:
            raise AssertionError(f"no {type_} number {count} in {deadline_s:g} s, only {self.types}") from None

    async def until_true(self, what: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Wait until a condition holds; it is looked at after every event and every 20 ms."""
        end = asyncio.get_running_loop().time() + deadline_s
        while not what():
            assert asyncio.get_running_loop().time() < end, f"did not come true; events {self.types}"
            await asyncio.sleep(0.02)

    async def until_media(self, seconds: float) -> None:
        """Wait for a blob of what was captured so much later than now; the recorder has been given a timeslice."""
        wanted_ns = SYSTEM_CLOCK.monotonic_ns() + seconds * 1e9
        await self.until_true(lambda: any(created_ns >= wanted_ns for created_ns in self._created_ns()))

    def _created_ns(self) -> list[float]:
        first = next((blob.chunk_started_ns for blob in self.blobs if blob.chunk_started_ns is not None), 0)
        return [first + blob.timecode * 1e6 for blob in self.blobs if blob.data.size]

    async def settled(self) -> None:
        """Wait until nothing more can come: the recorder's thread has ended, and the loop has run what it left."""
        name = f"record-{self.recorder.stream.id[:8]}"
        await self.until_true(lambda: all(thread.name != name for thread in threading.enumerate()))
        for _ in range(5):
            await asyncio.sleep(0)

    def error(self) -> Any:
        """The exception of the only `error` event."""
        (event,) = [event for event in self.events if event.type == "error"]
        return event.error

    @property
    def blobs(self) -> list[Any]:
        return [event for event in self.events if event.type == "dataavailable"]

    def data(self, chunk: int | None = None) -> bytes:
        """All blobs joined; of one chunk where its number is given."""
        return b"".join(bytes(event.data) for event in self.blobs if chunk is None or event.chunk == chunk)

    @property
    def chunks(self) -> list[bytes]:
        return [self.data(number) for number in sorted({event.chunk for event in self.blobs})]

    @property
    def infos(self) -> list[Any]:
        return [event.chunk_info for event in self.blobs if event.chunk_info is not None]


def run(coroutine: Awaitable[Any], deadline_s: float = 100.0) -> Any:
    """Run a test's coroutine with a deadline; exceptions that reached nobody fail the test."""

    async def guarded() -> Any:
        unhandled: list[Mapping[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        logs = weakref.WeakSet[Log]()
        _logs.set(logs)
        try:
            result = await asyncio.wait_for(coroutine, deadline_s)
        except BaseException as exc:
            for event in (event for log in logs for event in log.events if event.type == "error"):
                exc.add_note(f"a recorder had said: {event.error}")
            raise
        assert not unhandled, unhandled
        return result

    return asyncio.run(guarded())


@contextmanager
def as_file(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=".media") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


def judged(data: bytes) -> judge.Judged:
    """What virtual devices put into this file."""
    with as_file(data) as path:
        return judge.read_chunk(path)


def streams_of(data: bytes) -> dict[str, str]:
    """Codec by kind."""
    with av.open(io.BytesIO(data)) as container:
        return {stream.type: stream.codec_context.codec.canonical_name for stream in container.streams}


def pictures(data: bytes) -> list[Any]:
    """All pictures of a file as (height, width, 3) arrays."""
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def picture_times(data: bytes) -> list[float]:
    with av.open(io.BytesIO(data)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def key_frame_indexes(data: bytes) -> list[int]:
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [index for index, packet in enumerate(packets) if packet.is_keyframe]


async def record(
    stream: MediaStream,
    options: Mapping[str, object] | None,
    seconds: float,
    *,
    timeslice: float | None = None,
) -> Log:
    """Record what devices deliver in so long, from the `start` event on, and wait for `stop`."""
    recorder = MediaRecorder(stream, options)
    log = Log(recorder)
    recorder.start(timeslice)
    await log.until("start")
    await delivered(stream, seconds)
    recorder.stop()
    await log.until("stop")
    return log


_AT_ONCE = 4  # more encoders at the same time than two slow cores bear would judge the machine


def each_of(name: str, values: Sequence[Any]) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Make a test of a coroutine function that runs at the same time for each value of its argument `name`.

    Each on a loop and in a thread of its own: while one of them decodes its file, the others go on recording.
    """

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        def run_all(**arguments: Any) -> None:
            with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="each_of") as threads:
                runs = [threads.submit(lambda value=value: run(test(**arguments, **{name: value}))) for value in values]
            failed = [(value, exc) for value, done in zip(values, runs, strict=True) if (exc := done.exception())]
            for value, exc in failed:
                exc.add_note(f"with {name}={value!r}; it failed with {len(failed)} of {len(values)}")
                raise exc

        signature = inspect.signature(test)
        run_all.__name__, run_all.__doc__, run_all.__module__ = test.__name__, test.__doc__, test.__module__
        run_all.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[parameter for parameter in signature.parameters.values() if parameter.name != name]
        )
        return run_all

    return decorate


def solid_yuv420p(width: int, height: int, color: tuple[int, int, int]) -> bytes:
    """The data of a frame of one colour, (Y, U, V); odd sizes have rounded-up chroma."""
    luma, blue, red = (bytes((component,)) for component in color)
    chroma_size = -(-width // 2) * -(-height // 2)
    return luma * (width * height) + blue * chroma_size + red * chroma_size
