"""Event and EventTarget on asyncio (https://dom.spec.whatwg.org/#events).

Listeners run on the asyncio loop. What the library itself fires goes through `queue_task`, so that no listener ever
runs inside the call that caused the event, and events keep their order.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msrecd.dom.exceptions import AbortError, InvalidStateError

Listener = Callable[[Any], Any]

_running: set[asyncio.Future[Any]] = set()


def queue_task(task: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Run `task` in a later turn of the loop, after everything that was queued before it."""
    (loop or asyncio.get_running_loop()).call_soon(task)


class Event:
    """One occurrence; `target` is set while and after it is dispatched, `is_trusted` when the library fired it."""

    NONE, CAPTURING_PHASE, AT_TARGET, BUBBLING_PHASE = range(4)

    def __init__(self, type: str, init: Mapping[str, object] | None = None) -> None:
        """
        Args:
            type: of the event.
            init: `{"bubbles": bool, "cancelable": bool, "composed": bool}`; all may be absent.

        Raises:
            TypeError: `type` is no str, or `init` no mapping.
        """
        if not isinstance(type, str):
            raise TypeError(f"event type must be a str, not {_type_name(type)}")
        members = {} if init is None else init_members(_type_name(self), init, {})
        self._type = type
        self._bubbles = bool(members.get("bubbles", False))
        self._cancelable = bool(members.get("cancelable", False))
        self._composed = bool(members.get("composed", False))
        self._time_stamp = time.monotonic() * 1000.0
        self._target: EventTarget | None = None
        self._current_target: EventTarget | None = None
        self._trusted = False
        self._canceled = False
        self._stop_propagation = False
        self._stop_immediately = False
        self._in_passive_listener = False

    @property
    def type(self) -> str:
        return self._type

    @property
    def target(self) -> EventTarget | None:
        return self._target

    @property
    def current_target(self) -> EventTarget | None:
        """The object whose listeners are being called; None at any other time."""
        return self._current_target

    @property
    def is_trusted(self) -> bool:
        return self._trusted

    @property
    def time_stamp(self) -> float:
        """When the event was made: milliseconds of CLOCK_MONOTONIC."""
        return self._time_stamp

    @property
    def bubbles(self) -> bool:
        """As given; there is no tree here in which anything could bubble."""
        return self._bubbles

    @property
    def cancelable(self) -> bool:
        return self._cancelable

    @property
    def composed(self) -> bool:
        return self._composed

    @property
    def default_prevented(self) -> bool:
        return self._canceled

    @property
    def event_phase(self) -> int:
        """AT_TARGET while listeners are called, NONE at any other time: an event has one target."""
        return Event.NONE if self._current_target is None else Event.AT_TARGET

    def composed_path(self) -> list[EventTarget]:
        """The target while listeners are called, nothing at any other time."""
        return [] if self._current_target is None else [self._current_target]

    def prevent_default(self) -> None:
        """Cancel the event, if it is cancelable; those of the library are not. A passive listener cannot."""
        self._canceled = self._canceled or (self._cancelable and not self._in_passive_listener)

    def stop_propagation(self) -> None:
        """Called before the event is dispatched, or by a listener that captures: the others do not hear of it."""
        self._stop_propagation = True

    def stop_immediate_propagation(self) -> None:
        """Let no listener that comes after this one hear of the event."""
        self._stop_propagation = self._stop_immediately = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._type}>"


class ErrorEvent(Event):
    """An event of type "error" whose `error` is the exception itself."""

    def __init__(self, type: str, init: Mapping[str, object] | None = None, **keywords: object) -> None:
        """
        Args:
            type: of the event.
            init: `{"error": exception, "message": str}`, or the same as keywords; both may be absent.

        Raises:
            TypeError: `error` is no exception, or `message` no str.
        """
        super().__init__(type, init)
        members = init_members("ErrorEvent", init, keywords)
        error, message = members.get("error"), members.get("message", "")
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(f"error must be an exception, not {_type_name(error)}")
        if not isinstance(message, str):
            raise TypeError(f"message must be a str, not {_type_name(message)}")
        self._error = error
        self._message = message

    @property
    def error(self) -> BaseException | None:
        return self._error

    @property
    def message(self) -> str:
        return self._message


def init_members(event: str, init: object, keywords: Mapping[str, object]) -> dict[str, object]:
    """An event's dictionary and its keywords as one mapping; None stands for an absent member, as undefined does.

    Raises:
        TypeError: `init` is neither None nor a mapping.
    """
    if init is not None and not isinstance(init, Mapping):
        raise TypeError(f"the second argument of {event} must be a mapping, not {_type_name(init)}")
    return {name: value for name, value in {**(init or {}), **keywords}.items() if value is not None}


@dataclass(slots=True, eq=False)
class _Registration:
    """One listener as it was added. `removed` also tells a dispatch that is under way."""

    fn: Listener
    capture: bool
    once: bool
    passive: bool
    removed: bool = False


class EventTarget:
    """Keeps listeners by event type; `on<type>` attributes are declared with `event_handler`."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[_Registration]] = {}
        self._handlers: dict[str, Listener | None] = {}
        self._forwards: dict[str, Listener] = {}  # the listeners that call the handlers

    def add_event_listener(self, type: str, fn: Listener | None, once: bool | Mapping[str, object] = False) -> None:
        """Call `fn(event)` for each event of `type`; adding the same function twice has no effect.

        Args:
            type: of the events.
            fn: what to call; a coroutine function runs as a task.
            once: only for the first event; or the specification's options, `{"once": bool, "capture": bool,
                "passive": bool, "signal": AbortSignal}`. Listeners that capture are called before the others. A signal
                that is aborted removes the listener.

        Raises:
            TypeError: `type` is no str, `fn` neither callable nor None, or `signal` no AbortSignal.
        """
        if not isinstance(type, str):
            raise TypeError(f"event type must be a str, not {_type_name(type)}")
        options: Mapping[str, object] = once if isinstance(once, Mapping) else {"once": once}
        signal = options.get("signal")
        if "signal" in options and not isinstance(signal, AbortSignal):
            raise TypeError(f"signal must be an AbortSignal, not {_type_name(signal)}")
        if fn is not None and not callable(fn):
            raise TypeError(f"event listener must be callable, not {_type_name(fn)}")
        if fn is None or (isinstance(signal, AbortSignal) and signal.aborted):
            return
        capture = bool(options.get("capture", False))
        listeners = self._listeners.setdefault(type, [])
        if any(known.fn == fn and known.capture == capture for known in listeners):
            return
        listeners.append(_Registration(fn, capture, bool(options.get("once")), bool(options.get("passive"))))
        if isinstance(signal, AbortSignal):
            signal.add_event_listener("abort", lambda _: self.remove_event_listener(type, fn, capture))

    def remove_event_listener(
        self, type: str, fn: Listener | None, options: bool | Mapping[str, object] = False
    ) -> None:
        """Forget `fn`; unknown functions are ignored.

        Args:
            type: of the events.
            fn: what was added.
            options: whether it was added to capture: a bool, or `{"capture": bool}`.
        """
        capture = bool(options.get("capture", False) if isinstance(options, Mapping) else options)
        listeners = self._listeners.get(type, [])
        for known in [one for one in listeners if one.fn == fn and one.capture == capture]:
            known.removed = True
            listeners.remove(known)

    def dispatch_event(self, event: Event) -> bool:
        """Call the listeners now, in the order in which they were added; False when one of them has cancelled it.

        An exception in one listener is reported to the loop's exception handler; the others still run.

        Raises:
            TypeError: `event` is not an Event.
            InvalidStateError: it is being dispatched already.
        """
        if not isinstance(event, Event):
            raise TypeError(f"event must be an Event, not {_type_name(event)}")
        if event._current_target is not None:
            raise InvalidStateError(f"{event!r} is being dispatched already")
        event._trusted = False
        return self._dispatch(event)

    def _fire(self, event: Event) -> None:
        """Dispatch an event of the library's own."""
        event._trusted = True
        self._dispatch(event)

    def _dispatch(self, event: Event) -> bool:
        event._target = event._current_target = self
        try:
            if not event._stop_propagation:
                self._call_listeners(event)
        finally:
            event._current_target = None
            event._stop_propagation = event._stop_immediately = False
        return not event._canceled

    def _call_listeners(self, event: Event) -> None:
        """Those that are there now, those that capture first; none that is removed meanwhile."""
        for listener in sorted(self._listeners.get(event.type, ()), key=lambda one: not one.capture):
            if event._stop_propagation and not listener.capture:
                return  # a capturing listener has stopped it on its way to the others
            if listener.removed:
                continue
            if listener.once:
                self.remove_event_listener(event.type, listener.fn, listener.capture)
            event._in_passive_listener = listener.passive
            already = event._stop_propagation
            _call(listener.fn, event)
            event._in_passive_listener = False
            if event._stop_immediately:
                return
            if not listener.capture:
                event._stop_propagation = already  # there is nobody behind its target whom it could keep from hearing

    def _set_handler(self, type: str, fn: Listener | None) -> None:
        if fn is not None and not callable(fn):
            raise TypeError(f"on{type} must be callable or None, not {_type_name(fn)}")
        before = self._handlers.get(type)
        self._handlers[type] = fn
        if fn is None and before is not None:
            self.remove_event_listener(type, self._forwards.pop(type))
        elif fn is not None and before is None:  # its place in the order is where it was set, also when it is replaced

            def forward(event: Event) -> Any:
                handler = self._handlers[type]
                return handler(event) if handler is not None else None

            self._forwards[type] = forward
            self.add_event_listener(type, forward)


class event_handler:  # noqa: N801 - used like a keyword in class bodies
    """Descriptor for an `on<type>` attribute of an EventTarget; None when nothing is set."""

    def __init__(self, type: str) -> None:
        self._type = type

    def __get__(self, instance: EventTarget | None, owner: type[EventTarget]) -> Any:
        return self if instance is None else instance._handlers.get(self._type)

    def __set__(self, instance: EventTarget, fn: Listener | None) -> None:
        instance._set_handler(self._type, fn)


class AbortSignal(EventTarget):
    """Says whether something was called off (https://dom.spec.whatwg.org/#abortsignal); made by AbortController."""

    onabort = event_handler("abort")

    def __init__(self) -> None:
        super().__init__()
        self._aborted = False
        self._reason: object = None

    @property
    def aborted(self) -> bool:
        return self._aborted

    @property
    def reason(self) -> object:
        """What `abort` was given, an AbortError by default; None before."""
        return self._reason

    def throw_if_aborted(self) -> None:
        """Raises: the reason, or an AbortError that names it where it is no exception."""
        if self._aborted:
            raise self._reason if isinstance(self._reason, BaseException) else AbortError(str(self._reason))


class AbortController:
    """Calls something off by its signal."""

    def __init__(self) -> None:
        self._signal = AbortSignal()

    @property
    def signal(self) -> AbortSignal:
        return self._signal

    def abort(self, reason: object = None) -> None:
        """Abort the signal; only the first call counts. Its listeners are called at once, as specified."""
        if not self._signal._aborted:
            self._signal._aborted = True
            self._signal._reason = AbortError("this operation was aborted") if reason is None else reason
            self._signal._fire(Event("abort"))


def _call(fn: Listener, event: Event) -> None:
    try:
        result = fn(event)
        if result is not None and inspect.isawaitable(result):  # an `async def` listener runs as a task of its own
            future = asyncio.ensure_future(result)
            _running.add(future)
            future.add_done_callback(_finished)
    except Exception as exc:
        _report(event, exc)


def _finished(future: asyncio.Future[Any]) -> None:
    _running.discard(future)
    if not future.cancelled() and (exc := future.exception()) is not None:
        future.get_loop().call_exception_handler({"message": "exception in an async event listener", "exception": exc})


def _report(event: Event, exc: Exception) -> None:
    context = {"message": f"exception in a listener of {event!r}", "exception": exc}
    try:
        asyncio.get_running_loop().call_exception_handler(context)
    except RuntimeError:  # dispatched by hand outside of a loop: nobody else can hear of it
        raise exc from None


def _type_name(value: object) -> str:
    return type(value).__name__
