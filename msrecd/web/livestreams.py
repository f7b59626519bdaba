"""LiveStreams: what the page's viewers look at, by recorder. On the daemon's loop.

A recorder whose inputs are open is looked at through clones of its tracks; the inputs of an idle one are opened for the
first viewer and closed a moment after the last one has gone. Nothing is written, and no recorder notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from msrecd import DOMException, MediaDevices, MediaStream, StreamView
from msrecd.control.bus import Bus, Item, State
from msrecd.control.recorders import Recorders
from msrecd.errors import CommandError
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import problem_of

log = logging.getLogger(__name__)

LINGER_S = 4.0  # a page that asks for one JPEG after the other does not open and close the camera each time
LOOK_S = 0.5
_STREAM_OPTIONS = (
    *("mime_type", "video_bits_per_second", "audio_bits_per_second", "audio_bitrate_mode"),
    "video_key_frame_interval_duration",
)

SendLevel = Callable[[Mapping[str, object]], None]


class Look:
    """One recorder, looked at by one or more. `own`: its inputs, opened for the viewers; `borrowed`: the recorder's."""

    def __init__(
        self,
        name: str,
        stream: MediaStream,
        view: StreamView,
        *,
        own: RecorderInput | None,
        borrowed: RecorderInput | None,
    ) -> None:
        self.name, self.stream, self.view, self.own, self.borrowed = name, stream, view, own, borrowed
        self.holders = 0
        self.timer: asyncio.TimerHandle | None = None

    def is_outdated(self, unit: RecorderController | None) -> bool:
        """Whether another look would show more: the recorder has connected to its camera itself (many serve few
        connections), or what was borrowed of it has ended with its recording."""
        if unit is None or not self.stream.active:
            return True
        if self.own is not None:
            return unit.settings.url is not None and unit.input is not None
        return unit.shared_input is not self.borrowed and any(
            t.ready_state == "ended" for t in self.stream.get_tracks()
        )

    def close(self) -> None:
        """Its streams end."""
        if self.timer is not None:
            self.timer.cancel()
        for track in self.stream.get_tracks():
            track.stop()
        if self.own is not None:
            self.own.close()


class LiveStreams:
    """Belongs to the daemon's loop."""

    def __init__(self, bus: Bus, recorders: Recorders, devices: MediaDevices, send_level: SendLevel) -> None:
        """`send_level` takes a level; any thread, at once."""
        self._bus = bus
        self._recorders = recorders
        self._devices = devices
        self._send_level = send_level
        self._looks: dict[str, Look] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._photos: dict[tuple[str, int | None], asyncio.Task[bytes]] = {}
        self._meters: dict[str, tuple[MediaStream, asyncio.Task[None]]] = {}
        self._levels: asyncio.Task[None] | None = None
        self._listeners = 0
        bus.subscribe(self._on_bus)

    @property
    def viewers(self) -> int:
        """Of live streams, all recorders together."""
        return sum(look.view.viewers for look in self._looks.values())

    async def acquire(self, name: str) -> Look:
        """Look at a recorder, until `release`.

        Raises:
            CommandError: unknown_recorder; device_missing, device_busy, bad_args: it cannot be opened.
        """
        async with self._locks.setdefault(name if name in self._recorders.units else "", asyncio.Lock()):
            look = self._looks.get(name)
            if look is not None and look.is_outdated(self._recorders.units.get(name)):
                self._forget(look)
                look = None
            if look is None:
                look = self._looks[name] = await self._open(name)
            look.holders += 1
            if look.timer is not None:
                look.timer.cancel()
                look.timer = None
            return look

    def release(self, look: Look) -> None:
        """The last one closes it, a moment later."""
        look.holders -= 1
        if look.holders <= 0 and self._looks.get(look.name) is look:
            look.timer = asyncio.get_running_loop().call_later(LINGER_S, self._forget, look)

    async def jpeg(self, name: str, width: int | None) -> bytes:
        """The next frame of a recorder; who asks meanwhile gets the same one.

        Raises:
            CommandError: also device_busy: no frame came.
        """
        task = self._photos.get((name, width))
        if task is None:
            task = asyncio.get_running_loop().create_task(self._photo(name, width), name="live jpeg")
            self._photos[name, width] = task
            task.add_done_callback(lambda _: self._photos.pop((name, width), None))
        return await asyncio.shield(task)

    async def figures(self, name: str) -> Mapping[str, object]:
        """What a recorder's camera says of its newest frame, while it is looked at; else nothing.

        Raises:
            CommandError: unknown_recorder.
        """
        look = self._looks.get(name)
        if look is None and name not in self._recorders.units:
            raise CommandError("unknown_recorder", "this device has no recorder of that name")
        return {} if look is None else look.view.figures()

    async def _photo(self, name: str, width: int | None) -> bytes:
        look = await self.acquire(name)
        try:
            return await look.view.jpeg(width)
        except DOMException as exc:
            if not look.stream.get_video_tracks():
                raise CommandError("bad_args", f"{name} has no video") from exc
            raise CommandError("device_busy", f"no frame: {exc.message}") from exc
        finally:
            self.release(look)

    async def _open(self, name: str) -> Look:
        unit = self._recorders.units.get(name)
        if unit is None:
            raise CommandError("unknown_recorder", "this device has no recorder of that name")
        own: RecorderInput | None = None
        input = unit.shared_input
        try:
            if input is None or not input.tracks:
                input = own = await RecorderInput.open(unit.settings, self._devices)
                await own.play()
            stream = MediaStream([track.clone() for track in input.tracks])
            options = {key: value for key, value in unit.settings.options.items() if key in _STREAM_OPTIONS}
            borrowed = input if own is None else None
            return Look(name, stream, StreamView(stream, options), own=own, borrowed=borrowed)
        except DOMException as exc:
            if own is not None:
                own.close()
            raise problem_of(exc, is_input=unit.settings.url is not None).error() from exc
        except BaseException:
            if own is not None:
                own.close()
            raise

    def _forget(self, look: Look) -> None:
        if self._looks.get(look.name) is look:
            del self._looks[look.name]
        look.close()

    def close(self) -> None:
        """End all streams."""
        self._bus.unsubscribe(self._on_bus)
        for look in list(self._looks.values()):
            self._forget(look)
        if self._levels is not None:
            self._levels.cancel()
        for _, meter in self._meters.values():
            meter.cancel()

    def _on_bus(self, item: Item) -> None:
        """Viewers whose look is outdated come again."""
        if not isinstance(item, State) or not item.path.startswith("recorder/"):
            return
        look = self._looks.get(item.path.removeprefix("recorder/"))
        if look is not None and look.is_outdated(self._recorders.units.get(look.name)):
            self._forget(look)

    # --- levels ------------------------------------------------------------------------------------------------------

    def listen(self, count: int) -> None:
        """So many more (or fewer) want levels."""
        self._listeners += count
        if self._listeners > 0 and self._levels is None:
            self._levels = asyncio.get_running_loop().create_task(self._measure(), name="levels")

    async def _measure(self) -> None:
        """Have a meter at each open microphone, while one listens."""
        try:
            while self._listeners > 0:
                self._set_meters({name: stream for name, stream in self._sounding() if stream.get_audio_tracks()})
                await asyncio.sleep(LOOK_S)
        finally:
            self._set_meters({})
            self._levels = None

    def _sounding(self) -> list[tuple[str, MediaStream]]:
        """Of the recorders whose devices are open. A network stream would have to be decoded: that is done only for a
        page that looks at it."""
        found: list[tuple[str, MediaStream]] = []
        for name, unit in self._recorders.units.items():
            look = self._looks.get(name)
            if look is not None:
                found.append((name, look.stream))
            elif unit.settings.url is None and (stream := _open_stream(unit)) is not None:
                found.append((name, stream))
        return found

    def _set_meters(self, wanted: Mapping[str, MediaStream]) -> None:
        for name, (stream, task) in list(self._meters.items()):
            if wanted.get(name) is not stream or task.done():
                task.cancel()
                del self._meters[name]
        for name, stream in wanted.items():
            if name not in self._meters and any(track.ready_state == "live" for track in stream.get_audio_tracks()):
                work = self._meter(name, StreamView(stream))
                self._meters[name] = stream, asyncio.get_running_loop().create_task(work, name=f"{name} level")

    async def _meter(self, name: str, view: StreamView) -> None:
        with contextlib.suppress(DOMException):  # its track has ended: it is looked for again
            async for level in view.levels():
                self._send_level(
                    {
                        "recorder": name,
                        "rms": list(level.rms),
                        "peak": list(level.peak),
                        "clipped": list(level.clipped),
                    }
                )


def _open_stream(unit: RecorderController) -> MediaStream | None:
    return None if unit.shared_input is None else unit.shared_input.stream
