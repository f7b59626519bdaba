"""Opened devices: one source for all tracks of a device, opened and closed in worker threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msrecd.devices.base import Backend, DeviceDescription
from msrecd.dom.exceptions import AbortError, DOMException, NotReadableError, OverconstrainedError
from msrecd.flow.source import Source
from msrecd.flow.units import Kind
from msrecd.media.constraints import ConstraintSets, choose
from msrecd.media.sources import SharedSource, close_in_worker
from msrecd.media.space import MODE_OF, capabilities, device_space, opening_settings, with_modes
from msrecd.media.track import MediaStreamTrack

log = logging.getLogger(__name__)
T = TypeVar("T")
Key = tuple[Kind, str]


async def in_worker(
    what: str, deadline_s: float, call: Callable[[], T], late: Callable[[T], object] | None = None
) -> T:
    """Call something that blocks in a worker thread.

    Args:
        what: what is done, for the error message.
        deadline_s: how long the caller waits.
        call: runs in the thread; cannot be stopped.
        late: takes a result that came when nobody waited for it any more.

    Raises:
        TimeoutError: there was no result in time.
    """
    future = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        async with asyncio.timeout(deadline_s):
            return await asyncio.shield(future)
    except (TimeoutError, asyncio.CancelledError) as exc:
        if future.done() and not isinstance(exc, asyncio.CancelledError):
            raise  # the call's own

        def abandoned(done: asyncio.Future[T]) -> None:
            if done.cancelled():
                return
            if (error := done.exception()) is not None:
                log.info("%s failed after its caller had given up: %s", what, error)
            elif late is not None:
                late(done.result())

        future.add_done_callback(abandoned)
        if isinstance(exc, TimeoutError):
            raise TimeoutError(f"{what} took longer than {deadline_s:g} s") from exc
        raise


class OpenDevices:
    """The sources that are open, by device. Belongs to the loop's thread."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._open: dict[Key, SharedSource] = {}
        self._closing: dict[Key, asyncio.Future[None]] = {}
        self._locks: dict[Key, asyncio.Lock] = {}

    def is_open(self, device: DeviceDescription) -> bool:
        return _key(device) in self._open

    async def track(
        self,
        backend: Backend,
        device: DeviceDescription,
        settings: Mapping[str, Any],
        sets: ConstraintSets,
        constraints: Mapping[str, Any],
    ) -> MediaStreamTrack:
        """A new track of a device, which is opened unless it is.

        Args:
            backend: of the device.
            device: as described.
            settings: selected for a device that is not open yet.
            sets: to select again by, within what the opened device delivers.
            constraints: for the track to remember.

        Raises:
            OverconstrainedError: it is open in a way that does not satisfy `sets`.
            NotFoundError, NotAllowedError, NotReadableError, AbortError: it cannot be opened.
        """
        key = _key(device)
        async with self._locks.setdefault(key, asyncio.Lock()):
            await self._closed(key, device)
            shared = self._open.get(key)
            fresh = shared is None or shared.ended
            if shared is None or shared.ended:
                source = await self._open_source(backend, device, settings, sets)
                shared = SharedSource(source, lambda: self._release(key, source), device.controls)
                self._open[key] = shared
                shared.listen()

            def space() -> Any:
                return device_space(device, shared.source.format)

            choice = choose(space(), sets)
            if isinstance(choice, str):
                if fresh:
                    self._release(key, shared.source)
                raise OverconstrainedError(
                    choice,
                    f"{device.label} is open and delivers {shared.source.format}, which does not satisfy {choice}",
                )
            rest = shared.take_controls(choice, sets.mentioned, already_sent=fresh)
            return MediaStreamTrack._share(
                shared, settings=rest, capabilities=capabilities(device), constraints=constraints, space=space
            )

    def stop_all(self) -> None:
        """Close every device; all tracks end, without events."""
        for shared in list(self._open.values()):
            shared.stop_all()

    async def all_closed(self) -> None:
        """Wait until what was released is closed."""
        while self._closing:
            await asyncio.wait(list(self._closing.values()))

    async def _open_source(
        self, backend: Backend, device: DeviceDescription, settings: Mapping[str, Any], sets: ConstraintSets
    ) -> Source:
        agreed = with_modes(settings, device.controls, sets.mentioned)
        wanted = sets.mentioned | {MODE_OF[name] for name in sets.mentioned & MODE_OF.keys()}
        asked = {
            name: value
            for name, value in opening_settings(device, agreed).items()
            if name not in device.controls or name in wanted  # the rest is the automatic's affair
        }
        slowest = _slowest_rate(sets)
        if slowest is not None and asked.get("frame_rate", 0) > slowest:
            asked["slowest_frame_rate"] = slowest
        try:
            return await in_worker(
                f"opening {device.label}", self._deadline_s, lambda: backend.open(device, asked), close_in_worker
            )
        except TimeoutError as exc:
            raise NotReadableError(f"{device.label} does not answer: {exc}") from exc
        except DOMException:
            raise
        except Exception as exc:
            log.exception("opening %s failed unexpectedly", device.label)
            raise AbortError(f"{device.label} cannot be opened: {exc}") from exc

    async def _closed(self, key: Key, device: DeviceDescription) -> None:
        closing = self._closing.get(key)
        if closing is None:
            return
        done, _ = await asyncio.wait([closing], timeout=self._deadline_s)
        if not done:
            raise NotReadableError(f"{device.label} is still being closed after {self._deadline_s:g} s")

    def _release(self, key: Key, source: Source) -> None:
        shared = self._open.get(key)
        if shared is not None and shared.source is source:
            del self._open[key]
        future = close_in_worker(source)
        if future is not None:
            self._closing[key] = future
            future.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: Key, done: asyncio.Future[None]) -> None:
        if self._closing.get(key) is done:
            del self._closing[key]


def _slowest_rate(sets: ConstraintSets) -> float | None:
    """The `min` of frame_rate: a camera may slow down to it where the light wants longer exposures."""
    rate = sets.basic.get("frame_rate")
    return rate.min if rate is not None and not rate.exact else None


def _key(device: DeviceDescription) -> Key:
    return device.kind, device.device_id
