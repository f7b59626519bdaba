"""Event and EventTarget on asyncio (https://dom.spec.whatwg.org/#events).

Listeners run on the asyncio loop. What the library itself fires goes through `queue_task`, so that no listener ever
runs inside the call that caused the event, and events keep their order.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

from msrecd.dom.exceptions import InvalidStateError

Listener = Callable[[Any], Any]

_running: set[asyncio.Future[Any]] = set()


def queue_task(task: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Run `task` in a later turn of the loop, after everything that was queued before it."""
    (loop or asyncio.get_running_loop()).call_soon(task)


class Event:
    """One occurrence; `target` is set while and after it is dispatched, `is_trusted` when the library fired it."""

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
        members = init_members(_type_name(self), init, {})
        self._type = type
        self._bubbles = bool(members.get("bubbles", False))
        self._cancelable = bool(members.get("cancelable", False))
        self._composed = bool(members.get("composed", False))
        self._time_stamp = time.monotonic() * 1000.0
        self._target: EventTarget | None = None
        self._current_target: EventTarget | None = None
        self._trusted = False
        self._canceled = False
        self._stopped = False

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

    def prevent_default(self) -> None:
        """Cancel the event, if it is cancelable; those of the library are not."""
        self._canceled = self._canceled or self._cancelable

    def stop_propagation(self) -> None:
        """Nothing to do: an event has one target."""

    def stop_immediate_propagation(self) -> None:
        """Let no listener that comes after this one hear of the event."""
        self._stopped = True

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


class EventTarget:
    """Keeps listeners by event type; `on<type>` attributes are declared with `event_handler`."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[tuple[Listener, bool]]] = {}
        self._handlers: dict[str, Listener | None] = {}
        self._forwards: dict[str, Listener] = {}  # the listeners that call the handlers

    def add_event_listener(self, type: str, fn: Listener | None, once: bool | Mapping[str, object] = False) -> None:
        """Call `fn(event)` for each event of `type`; adding the same function twice has no effect.

        Args:
            type: of the events.
            fn: what to call; a coroutine function runs as a task.
            once: only for the first event; or the specification's options, `{"once": bool}`.

        Raises:
            TypeError: `type` is no str, or `fn` neither callable nor None.
        """
        if not isinstance(type, str):
            raise TypeError(f"event type must be a str, not {_type_name(type)}")
        if isinstance(once, Mapping):
            once = bool(once.get("once", False))
        if fn is None:
            return
        if not callable(fn):
            raise TypeError(f"event listener must be callable, not {_type_name(fn)}")
        listeners = self._listeners.setdefault(type, [])
        if all(known != fn for known, _ in listeners):
            listeners.append((fn, once))

    def remove_event_listener(self, type: str, fn: Listener | None) -> None:
        """Forget `fn`; unknown functions are ignored."""
        listeners = self._listeners.get(type)
        if listeners:
            self._listeners[type] = [entry for entry in listeners if entry[0] != fn]

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
            for fn, once in list(self._listeners.get(event.type, ())):
                if all(known != fn for known, _ in self._listeners.get(event.type, ())):
                    continue  # removed by an earlier listener of this very event
                if once:
                    self.remove_event_listener(event.type, fn)
                _call(fn, event)
                if event._stopped:
                    break
        finally:
            event._current_target, event._stopped = None, False
        return not event._canceled

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


def _call(fn: Listener, event: Event) -> None:
    try:
        result = fn(event)
        if inspect.isawaitable(result):  # an `async def` listener runs as a task of its own
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
