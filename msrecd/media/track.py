"""MediaStreamTrack: one handle of a source (https://w3c.github.io/mediacapture-main/#mediastreamtrack)."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from msrecd.dom.events import Event, EventTarget, Listener, event_handler, queue_task
from msrecd.dom.exceptions import OverconstrainedError
from msrecd.flow.source import Gate, Source
from msrecd.flow.units import Kind
from msrecd.media.constraints import (
    ConstraintSets,
    Space,
    choose,
    convert,
    fixed_space,
    known_members,
    warn_of_unknown_constraints,
)
from msrecd.media.inits import MediaTrackConstraints
from msrecd.media.sources import SharedSource

_KEPT_AFTER_END = ("device_id", "facing_mode", "group_id")
_CONSTRUCTION = object()


class SourceRestartEvent(Event):
    """The device of a track gave nothing for `silent_s` seconds and is started anew: `restart`, an extension."""

    def __init__(self, type: str, *, silent_s: float) -> None:
        super().__init__(type)
        self._silent_s = silent_s

    @property
    def silent_s(self) -> float:
        return self._silent_s


class ReadyState(StrEnum):
    """https://w3c.github.io/mediacapture-main/#dom-mediastreamtrackstate"""

    LIVE = "live"
    ENDED = "ended"


class MediaStreamTrack(EventTarget):
    """Audio or video of one source. Belongs to the loop's thread.

    Events: mute, unmute, ended. `ended` is fired when the source ends, not after `stop()`. An extension: restart
    (SourceRestartEvent), when the device gave nothing for so long that it is started anew; silence, when a microphone
    has given nothing but zeros for a minute, and sound, when that is over.
    """

    onmute = event_handler("mute")
    onunmute = event_handler("unmute")
    onended = event_handler("ended")

    def __init__(
        self,
        _token: object = None,
        shared: SharedSource | None = None,
        settings: Mapping[str, Any] | None = None,
        capabilities: Mapping[str, Any] | None = None,
        space: Callable[[], Space] | None = None,
    ) -> None:
        """Tracks come from get_user_media, capture_stream or clone.

        Raises:
            TypeError: always, when called from outside.
        """
        if _token is not _CONSTRUCTION or shared is None:
            raise TypeError("a MediaStreamTrack cannot be made by hand; get_user_media and capture_stream give some")
        super().__init__()
        self._id = str(uuid.uuid4())
        self._shared = shared
        self._enabled = True
        self._ready_state = ReadyState.ENDED if shared.ended else ReadyState.LIVE
        self._muted = shared.source.muted
        self._settings: dict[str, Any] = dict(settings or {})
        self._capabilities: dict[str, Any] = dict(capabilities or {})
        self._constraints: dict[str, Any] = {}
        self._space = space
        self._applying: asyncio.Lock | None = None
        self._observers: tuple[Callable[[MediaStreamTrack], None], ...] = ()
        self._gate = Gate()
        self._update_gate()
        if self._ready_state is ReadyState.LIVE:
            shared.attach(self)

    @classmethod
    def _create(
        cls,
        source: Source,
        *,
        settings: Mapping[str, Any],
        capabilities: Mapping[str, Any],
        on_last_ended: Callable[[], None],
    ) -> MediaStreamTrack:
        """A track over a source that somebody else owns; the owner tells its end by `_end_by_implementation`.

        Args:
            source: opened.
            settings: what is delivered.
            capabilities: what could be.
            on_last_ended: called on the loop when this track and all its clones have ended.
        """
        return cls(_CONSTRUCTION, SharedSource(source, on_last_ended), settings, capabilities)

    @classmethod
    def _share(
        cls,
        shared: SharedSource,
        *,
        settings: Mapping[str, Any],
        capabilities: Mapping[str, Any],
        constraints: Mapping[str, Any],
        space: Callable[[], Space],
    ) -> MediaStreamTrack:
        """One more track over a source that several use; `space` says what can be chosen of it."""
        track = cls(_CONSTRUCTION, shared, settings, capabilities, space)
        track._constraints = copy.deepcopy(dict(constraints))
        return track

    @property
    def _source(self) -> Source:
        return self._shared.source

    @property
    def kind(self) -> Kind:
        return self._shared.source.kind

    @property
    def id(self) -> str:
        """Unique, 36 characters; a clone has its own."""
        return self._id

    @property
    def label(self) -> str:
        """Name of the device for people, "" when unknown."""
        return self._shared.source.label

    @property
    def enabled(self) -> bool:
        """Whether the track lets its source through; otherwise it gives black or silence. Of this track only."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = bool(enabled)
        self._update_gate()

    @property
    def muted(self) -> bool:
        """Whether the source has nothing to give at present; set by the source only."""
        return self._muted

    @property
    def ready_state(self) -> ReadyState:
        return self._ready_state

    def clone(self) -> MediaStreamTrack:
        """Another track of the same source, with an id of its own; its states and `enabled` are copied (C14)."""
        twin = self._twin()
        twin._constraints = copy.deepcopy(self._constraints)
        twin._enabled = self._enabled
        twin._muted = self._muted
        twin._update_gate()
        if self._ready_state is ReadyState.ENDED and twin._ready_state is ReadyState.LIVE:
            twin._ready_state = ReadyState.ENDED
            self._shared.detach(twin)
        return twin

    def _twin(self) -> MediaStreamTrack:
        return type(self)(_CONSTRUCTION, self._shared, self._settings, self._capabilities, self._space)

    def stop(self) -> None:
        """End this track now; no event is fired. The device closes when the last of its tracks has ended."""
        self._end()

    def get_capabilities(self) -> dict[str, Any]:
        """What the source can do: ranges as `{"min", "max"}`, choices as lists, ids as strings."""
        return copy.deepcopy(self._capabilities)

    def get_constraints(self) -> dict[str, Any]:
        """The constraints applied last with success."""
        return copy.deepcopy(self._constraints)

    def get_settings(self) -> dict[str, Any]:
        """What the track delivers; of an ended track only what tells the device."""
        settings = self._shared.settings(self._settings)
        if self._ready_state is ReadyState.ENDED:
            return {name: settings[name] for name in _KEPT_AFTER_END if name in settings}
        return copy.deepcopy(settings)

    async def apply_constraints(self, constraints: MediaTrackConstraints | None = None) -> None:
        """Choose new settings; calls take effect in their order, and entirely or not at all.

        https://w3c.github.io/mediacapture-main/#dom-mediastreamtrack-applyconstraints

        Args:
            constraints: MediaTrackConstraints; none or {} clears what was applied before.

        Raises:
            TypeError: a member has a wrong type.
            OverconstrainedError: the source cannot do it; nothing has changed.
        """
        given = {} if constraints is None else constraints
        sets = convert(given, self.kind)
        warn_of_unknown_constraints(given, stacklevel=3)
        kept = known_members(given)
        if self._applying is None:
            self._applying = asyncio.Lock()
        async with self._applying:
            if self._ready_state is ReadyState.LIVE:
                self._apply(sets, kept)

    def _apply(self, sets: ConstraintSets, constraints: dict[str, Any]) -> None:
        space = fixed_space(self.get_settings()) if self._space is None else self._space()
        choice = choose(space, sets)
        if isinstance(choice, str):
            what = choice or "these constraints together"
            raise OverconstrainedError(choice, f"{self.label or 'the source'} cannot satisfy {what}")
        self._settings = self._shared.take_controls(choice, sets.mentioned)
        self._constraints = constraints

    def add_event_listener(self, type: str, fn: Listener | None, once: bool | Mapping[str, object] = False) -> None:
        super().add_event_listener(type, fn, once)
        if fn is not None and self._ready_state is ReadyState.LIVE:
            self._shared.keep(self)

    def _observe(self, callback: Callable[[MediaStreamTrack], None]) -> None:
        """Call `callback(track)` on the loop at the moment the track ends, before any listener hears of it."""
        self._observers = (*self._observers, callback)

    def _unobserve(self, callback: Callable[[MediaStreamTrack], None]) -> None:
        self._observers = tuple(known for known in self._observers if known != callback)

    def _end(self) -> bool:
        if self._ready_state is ReadyState.ENDED:
            return False
        self._ready_state = ReadyState.ENDED
        for callback in self._observers:
            callback(self)
        self._shared.detach(self)
        return True

    def _end_by_implementation(self) -> None:
        """The source has ended: called on the loop; `ended` fires in a later turn."""
        if self._end() and (loop := self._shared.loop) is not None:
            queue_task(lambda: self._fire(Event("ended")), loop)

    def _mute_by_implementation(self, muted: bool) -> None:
        """The source has nothing to give, or has again: called on the loop; the event fires in a later turn."""
        if muted == self._muted:
            return
        self._muted = muted
        self._update_gate()
        if (loop := self._shared.loop) is not None:
            queue_task(lambda: self._fire(Event("mute" if muted else "unmute")), loop)

    def _restart_by_implementation(self, silent_s: float) -> None:
        """The source starts its device anew: called on the loop; the event fires in a later turn."""
        if (loop := self._shared.loop) is not None:
            queue_task(lambda: self._fire(SourceRestartEvent("restart", silent_s=silent_s)), loop)

    def _silence_by_implementation(self, is_silent: bool) -> None:
        """The source has given digital silence for long, or gives sound again: called on the loop."""
        if (loop := self._shared.loop) is not None:
            queue_task(lambda: self._fire(Event("silence" if is_silent else "sound")), loop)

    def _update_gate(self) -> None:
        self._gate.set(self._enabled and not self._muted, is_lost=self._enabled and self._muted)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind} {self.label!r} {self._ready_state}>"
