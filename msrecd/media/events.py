"""The events of the object model that carry something."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msrecd.dom.blob import Blob
from msrecd.dom.events import Event, init_members

if TYPE_CHECKING:
    from msrecd.media.infos import MediaDeviceInfo
    from msrecd.media.track import MediaStreamTrack
    from msrecd.muxing.facts import ChunkInfo, Gap


class MediaStreamTrackEvent(Event):
    """A track has come to a stream or has left it: `addtrack`, `removetrack`.

    https://w3c.github.io/mediacapture-main/#mediastreamtrackevent
    """

    def __init__(self, type: str, init: Mapping[str, object] | None = None, **keywords: object) -> None:
        """
        Args:
            type: of the event.
            init: `{"track": …}`, or the same as keywords.

        Raises:
            TypeError: there is no MediaStreamTrack in `init`.
        """
        from msrecd.media.track import MediaStreamTrack  # track -> events is the ordinary direction

        super().__init__(type, init)
        track = init_members("MediaStreamTrackEvent", init, keywords).get("track")
        if not isinstance(track, MediaStreamTrack):
            raise TypeError("MediaStreamTrackEvent needs its member track, a MediaStreamTrack")
        self._track = track

    @property
    def track(self) -> MediaStreamTrack:
        return self._track


class DeviceChangeEvent(Event):
    """The list of devices has changed: `devicechange`.

    https://w3c.github.io/mediacapture-main/#devicechangeevent
    """

    def __init__(self, type: str, init: Mapping[str, object] | None = None, **keywords: object) -> None:
        """
        Args:
            type: of the event.
            init: `{"devices": […], "user_inserted_devices": […]}`, or the same as keywords; both may be absent.

        Raises:
            TypeError: a member is not a sequence of MediaDeviceInfo.
        """
        super().__init__(type, init)
        members = init_members("DeviceChangeEvent", init, keywords)
        self._devices = _infos(members, "devices")
        self._inserted = _infos(members, "user_inserted_devices")

    @property
    def devices(self) -> tuple[MediaDeviceInfo, ...]:
        """All devices, as `enumerate_devices` gives them."""
        return self._devices

    @property
    def user_inserted_devices(self) -> tuple[MediaDeviceInfo, ...]:
        """Those of `devices` that were not there before."""
        return self._inserted


def _infos(members: Mapping[str, object], name: str) -> tuple[MediaDeviceInfo, ...]:
    from msrecd.media.infos import MediaDeviceInfo

    value = members.get(name, ())
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a sequence of MediaDeviceInfo, not {type(value).__name__}")
    if not all(isinstance(info, MediaDeviceInfo) for info in value):
        raise TypeError(f"{name} must hold nothing but MediaDeviceInfo")
    return tuple(value)


class BlobEvent(Event):
    """Some recorded media: `dataavailable` (https://w3c.github.io/mediacapture-record/#blobevent-section).

    Extensions: `chunk` (1, 2, …), `chunk_end`, `chunk_info` (facts about the finished chunk, on its last blob),
    `chunk_started_ns` (CLOCK_MONOTONIC), and `wait_until`.
    """

    def __init__(self, type: str, init: Mapping[str, object] | None = None, **keywords: object) -> None:
        """
        Args:
            type: of the event.
            init: `{"data": Blob, "timecode": ms, …}`, or the same as keywords; only `data` is required.

        Raises:
            TypeError: `data` is missing or no Blob, or another member has a wrong type.
        """
        super().__init__(type, init)
        members = init_members("BlobEvent", init, keywords)
        data = members.get("data")
        if not isinstance(data, Blob):
            raise TypeError("BlobEvent needs its member data, a Blob")
        timecode = members.get("timecode", 0.0)
        if isinstance(timecode, bool) or not isinstance(timecode, (int, float)) or not math.isfinite(timecode):
            raise TypeError(f"timecode must be a number of milliseconds, not {timecode!r}")
        chunk, started_ns = members.get("chunk"), members.get("chunk_started_ns")
        if not isinstance(chunk, int | None):
            raise TypeError(f"chunk must be an int, not {chunk!r}")
        if not isinstance(started_ns, int | None):
            raise TypeError(f"chunk_started_ns must be an int, not {started_ns!r}")
        self._data = data
        self._timecode = float(timecode)
        self._chunk = chunk
        self._chunk_end = bool(members.get("chunk_end", False))
        self._chunk_info: ChunkInfo | None = members.get("chunk_info")  # type: ignore[assignment]
        self._chunk_started_ns = started_ns
        self._extend: Callable[[Awaitable[object]], None] | None = None

    @property
    def data(self) -> Blob:
        return self._data

    @property
    def timecode(self) -> float:
        """Milliseconds from the first piece of the first blob of the recording to the first piece of this one."""
        return self._timecode

    @property
    def chunk(self) -> int | None:
        """Number of the chunk that this blob is a piece of, from 1; None on an event made by hand."""
        return self._chunk

    @property
    def chunk_end(self) -> bool:
        """Whether this is the last blob of its chunk."""
        return self._chunk_end

    @property
    def chunk_info(self) -> ChunkInfo | None:
        """What is known of a finished chunk; on its last blob only."""
        return self._chunk_info

    @property
    def chunk_started_ns(self) -> int | None:
        """When the chunk began, on CLOCK_MONOTONIC."""
        return self._chunk_started_ns

    def wait_until(self, awaitable: Awaitable[object]) -> None:
        """Tell the recorder that the data is in use until `awaitable` is done, so that what is unwritten has a bound.

        Without a recorder (an event made by hand) a coroutine still runs; nobody waits for it.
        """
        if self._extend is not None:
            self._extend(awaitable)
        elif asyncio.iscoroutine(awaitable):
            task = asyncio.ensure_future(awaitable)
            _unwatched.add(task)
            task.add_done_callback(_unwatched.discard)


_unwatched: set[asyncio.Future[object]] = set()


class GapEvent(Event):
    """Media that should have been recorded is known to be lost: `gap`, an extension."""

    def __init__(self, type: str, *, gap: Gap, at_ns: int) -> None:
        super().__init__(type)
        self._gap = gap
        self._at_ns = at_ns

    @property
    def gap(self) -> Gap:
        """Where in the chunk, how long, and why."""
        return self._gap

    @property
    def at_ns(self) -> int:
        """When it began, on CLOCK_MONOTONIC."""
        return self._at_ns
