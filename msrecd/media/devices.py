"""MediaDevices: the list of devices and get_user_media (https://w3c.github.io/mediacapture-main/#mediadevices)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from msrecd.devices.base import Backend, DeviceDescription
from msrecd.dom.events import EventTarget, Listener, event_handler
from msrecd.dom.exceptions import (
    InvalidStateError,
    NotAllowedError,
    NotFoundError,
    NotReadableError,
    OverconstrainedError,
)
from msrecd.flow.units import Kind
from msrecd.media.constraints import (
    ConstraintSets,
    Selection,
    convert,
    failed_constraint,
    known_members,
    select_settings,
    warn_of_unknown_constraints,
)
from msrecd.media.events import DeviceChangeEvent
from msrecd.media.infos import InputDeviceInfo, MediaDeviceInfo
from msrecd.media.inits import MediaStreamConstraints
from msrecd.media.opening import OpenDevices, in_worker
from msrecd.media.space import device_space
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack
from msrecd.vocabulary.constraints import PROPERTIES, SELECTING

log = logging.getLogger(__name__)

DEADLINE_S = 10.0
_KINDS: tuple[Kind, ...] = ("audio", "video")
_WORDS = {"audio": "microphone", "video": "camera"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A device and who can open it."""

    backend: Backend
    device: DeviceDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What one call of get_user_media wants of one kind."""

    kind: Kind
    constraints: Mapping[str, Any]
    sets: ConstraintSets


class MediaDevices(EventTarget):
    """The devices of this machine. Belongs to the loop's thread; what blocks is done in worker threads.

    Events: devicechange (DeviceChangeEvent), when the list of devices has changed.
    There is no privacy gate: who runs this program may see all devices (decision C9).
    """

    ondevicechange = event_handler("devicechange")

    def __init__(self, backends: Sequence[Backend] | None = None, *, deadline_s: float = DEADLINE_S) -> None:
        """
        Args:
            backends: where devices come from, those of the defaults first; None: libcamera and ALSA.
            deadline_s: how long a device may take to answer.

        Raises:
            TypeError: `backends` is not a list of backends.
        """
        super().__init__()
        if backends is not None and (isinstance(backends, str) or not isinstance(backends, Sequence)):
            raise TypeError(f"backends must be a list of backends, not {type(backends).__name__}")
        self._backends: list[Backend] | None = None if backends is None else list(backends)
        self._deadline_s = deadline_s
        self._devices = OpenDevices(deadline_s)
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Lock | None = None
        self._known: dict[tuple[Kind, str], DeviceDescription] | None = None  # present at the last look
        self._missing: dict[tuple[Kind, str], DeviceDescription] = {}
        self._look: asyncio.Task[None] | None = None
        self._look_again = False
        self._watch()

    async def enumerate_devices(self) -> list[MediaDeviceInfo]:
        """Microphones, then cameras, the default of each first; new objects every time.

        Raises:
            InvalidStateError: closed.
        """
        return [self._info(found.device) for found in await self._describe()]

    async def known_devices(self) -> list[InputDeviceInfo]:
        """As enumerate_devices, and behind them what was here before and has gone (`state` "missing"); an extension."""
        present = [self._info(found.device) for found in await self._describe()]
        return present + [InputDeviceInfo(device, "missing") for device in self._missing.values()]

    def get_supported_constraints(self) -> dict[str, bool]:
        """The names that constraints may have, those of Image Capture included, each True."""
        return dict.fromkeys((*PROPERTIES["video"], *PROPERTIES["audio"]), True)

    async def get_user_media(self, constraints: MediaStreamConstraints | None = None) -> MediaStream:
        """Open devices: one stream with one track of each kind that is asked for, or an error and nothing is open.

        https://w3c.github.io/mediacapture-main/#dom-mediadevices-getusermedia

        Args:
            constraints: `{"audio": …, "video": …}`, each True, False or MediaTrackConstraints.

        Raises:
            TypeError: neither kind is asked for, or a constraint has a wrong type.
            InvalidStateError: closed.
            NotFoundError: there is no device of that kind.
            OverconstrainedError: no device satisfies the required constraints.
            NotAllowedError, NotReadableError, AbortError: no device that satisfies them could be opened.
        """
        requests = _requests(constraints, stacklevel=4)
        found = await self._describe()
        tracks: list[MediaStreamTrack] = []
        try:
            candidates = [(request, self._candidates(request, found)) for request in requests]
            for request, devices in candidates:
                tracks.append(await self._first_that_opens(request, devices))
            if self._closed:
                raise InvalidStateError("MediaDevices was closed in the meantime")
        except BaseException:
            for track in tracks:
                track.stop()
            raise
        return MediaStream(tracks)

    def close(self) -> asyncio.Future[None]:
        """Close all devices and watch no more; tracks end without an event.

        Await the result to know that all is closed. Any later call raises InvalidStateError. May be called again, and
        outside of a loop (then it is done on return).
        """
        if not self._closed:
            self._closed = True
            self._devices.stop_all()
            for backend in self._backends or ():
                try:
                    backend.close()
                except Exception as exc:
                    log.error("closing backend %s failed: %s", backend.name, exc)
            if self._look is not None:
                self._look.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            done: asyncio.Future[None] = _Done()  # type: ignore[assignment]
            return done
        return loop.create_task(self._devices.all_closed(), name="close MediaDevices")

    async def __aenter__(self) -> MediaDevices:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def add_event_listener(self, type: str, fn: Listener | None, once: bool | Mapping[str, object] = False) -> None:
        super().add_event_listener(type, fn, once)
        if type == "devicechange":
            self._watch()

    def _info(self, device: DeviceDescription) -> InputDeviceInfo:
        return InputDeviceInfo(device, "busy" if self._devices.is_open(device) else None)

    async def _describe(self) -> list[_Found]:
        """All devices present in the order of enumerate_devices; a backend that fails has none.

        Raises:
            InvalidStateError: closed.
        """
        self._check_open()
        backends = await self._all_backends()
        lists = await asyncio.gather(*(self._describe_one(backend) for backend in backends))
        self._check_open()
        found: dict[tuple[Kind, str], _Found] = {}
        for backend, devices in zip(backends, lists, strict=True):
            for device in devices:
                found.setdefault((device.kind, device.device_id), _Found(backend=backend, device=device))
        ordered = sorted(found.values(), key=lambda one: _KINDS.index(one.device.kind))
        self._remember({(one.device.kind, one.device.device_id): one.device for one in ordered})
        return ordered

    async def _describe_one(self, backend: Backend) -> list[DeviceDescription]:
        try:
            return await in_worker(f"looking for devices of {backend.name}", self._deadline_s, backend.describe)
        except Exception as exc:  # one broken family of devices must not hide the others
            log.error("no devices of %s: %s", backend.name, str(exc) or type(exc).__name__)
            return []

    async def _all_backends(self) -> list[Backend]:
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._backends is None:
                from msrecd.codecs.parameters import camera_parameters
                from msrecd.devices import default_backends

                def make() -> list[Backend]:  # loads vendor libraries, which takes time
                    return default_backends(camera_parameters=camera_parameters)

                made = await in_worker("loading the device backends", self._deadline_s, make)
                self._backends = list(made)
        self._watch()
        return self._backends

    def _remember(self, present: dict[tuple[Kind, str], DeviceDescription]) -> None:
        for key, device in (self._known or {}).items():
            if key not in present:
                self._missing[key] = device
        for key in present:
            self._missing.pop(key, None)
        if self._known is None or not self._look_pending():
            self._known = present

    def _look_pending(self) -> bool:
        """Whether a change is about to be reported: it is compared with the list before it."""
        return self._look is not None and not self._look.done()

    def _watch(self) -> None:
        if self._loop is not None or self._backends is None or self._closed:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the first call on a loop comes back here
        self._loop = loop

        def changed() -> None:
            try:
                loop.call_soon_threadsafe(self._changed)
            except RuntimeError:
                return  # the loop is closed, nobody listens

        for backend in self._backends:
            try:
                backend.watch(changed)
            except Exception as exc:
                log.error("device changes of %s will not be noticed: %s", backend.name, exc)

    def _changed(self) -> None:
        if self._closed:
            return
        if self._look_pending():
            self._look_again = True
        else:
            self._look = asyncio.get_running_loop().create_task(self._report_change(), name="devicechange")

    async def _report_change(self) -> None:
        while True:
            self._look_again = False
            before = self._known
            try:
                found = await self._describe()
            except InvalidStateError:
                return
            after = {(one.device.kind, one.device.device_id): one.device for one in found}
            self._known = after
            if before is None or list(before) != list(after):
                infos = [self._info(one.device) for one in found]
                inserted = (
                    [] if before is None else [i for i, key in zip(infos, after, strict=True) if key not in before]
                )
                self._fire(DeviceChangeEvent("devicechange", devices=infos, user_inserted_devices=inserted))
            if not self._look_again:
                return

    def _candidates(self, request: _Request, found: Sequence[_Found]) -> list[tuple[_Found, Selection]]:
        """The devices that satisfy the request, the best first.

        Raises:
            NotFoundError, OverconstrainedError: there are none.
        """
        devices = [one for one in found if one.device.kind == request.kind]
        if not devices:
            raise NotFoundError(f"there is no {_WORDS[request.kind]}; is it plugged in?")
        spaces = [device_space(one.device) for one in devices]
        selected = [(one, select_settings(space, request.sets)) for one, space in zip(devices, spaces, strict=True)]
        fitting = [(one, selection) for one, selection in selected if selection is not None]
        if not fitting:
            failed = failed_constraint(spaces, request.sets)
            names = ", ".join(one.device.label for one in devices)
            raise OverconstrainedError(failed, f"no {_WORDS[request.kind]} satisfies {failed} (there is: {names})")
        return sorted(fitting, key=lambda entry: entry[1].distance)

    async def _first_that_opens(
        self, request: _Request, candidates: Sequence[tuple[_Found, Selection]]
    ) -> MediaStreamTrack:
        errors: list[Exception] = []
        for found, selection in candidates:
            try:
                return await self._devices.track(
                    found.backend, found.device, selection.settings, request.sets, request.constraints
                )
            except (NotReadableError, NotAllowedError, NotFoundError, OverconstrainedError) as exc:
                errors.append(exc)
                if len(candidates) > 1:
                    log.warning(
                        "%s cannot be used; trying the next %s: %s", found.device.label, _WORDS[request.kind], exc
                    )
        raise errors[0]

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidStateError("this MediaDevices is closed")


class _Done:
    """An awaitable that is done, for callers outside of a loop."""

    def __await__(self) -> Any:
        yield from ()


def _requests(constraints: object, *, stacklevel: int) -> list[_Request]:
    if constraints is None:
        constraints = {}
    if not isinstance(constraints, Mapping):
        raise TypeError(f"constraints must be a mapping, not {type(constraints).__name__}")
    requests = []
    for kind in _KINDS:
        wanted = constraints.get(kind)
        if wanted is None or wanted is False:
            continue
        if wanted is True:
            wanted = {}
        elif not isinstance(wanted, Mapping):
            raise TypeError(f"{kind} must be true, false or constraints, not {wanted!r}")
        warn_of_unknown_constraints(wanted, stacklevel=stacklevel)
        try:
            sets = convert(wanted, kind)
        except TypeError as exc:
            raise TypeError(f"{kind}.{exc}") from None
        for name, constraint in sets.basic.items():
            if constraint.is_required and name not in SELECTING:
                raise TypeError(
                    f"{kind}.{name} cannot be required to choose a device: give a bare value,"
                    " or require it with apply_constraints"
                )
        requests.append(_Request(kind=kind, constraints=known_members(wanted), sets=sets))
    if not requests:
        raise TypeError("neither audio nor video is asked for")
    return requests
