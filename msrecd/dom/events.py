"""Event and EventTarget on asyncio (https://dom.spec.whatwg.org/#events).

Listeners run on the asyncio loop. What the library itself fires goes through `queue_task`, so that no listener ever
runs inside the call that caused the event, and events keep their order.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

Listener = Callable[[Any], Any]

_running: set[asyncio.Future[Any]] = set()


def queue_task(task: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Run `task` in a later turn of the loop, after everything that was queued before it."""
    (loop or asyncio.get_running_loop()).call_soon(task)


class Event:
    """One occurrence; `target` is set while and after it is dispatched, `is_trusted` when the library fired it."""

    def __init__(self, type: str) -> None:
        if not isinstance(type, str):
            raise TypeError(f"event type must be a str, not {_type_name(type)}")
        self._type = type
        self._target: EventTarget | None = None
        self._trusted = False

    @property
    def type(self) -> str:
        return self._type

    @property
    def target(self) -> EventTarget | None:
        return self._target

    @property
    def is_trusted(self) -> bool:
        return self._trusted

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._type}>"


class ErrorEvent(Event):
    """An event of type "error" whose `error` is the exception itself."""

    def __init__(self, type: str, *, error: BaseException | None = None, message: str = "") -> None:
        super().__init__(type)
        self._error = error
        self._message = message

    @property
    def error(self) -> BaseException | None:
        return self._error

    @property
    def message(self) -> str:
        return self._message


class EventTarget:
    """Keeps listeners by event type; `on<type>` attributes are declared with `event_handler`."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[tuple[Listener, bool]]] = {}
        self._handlers: dict[str, Listener | None] = {}

    def add_event_listener(self, type: str, fn: Listener | None, once: bool = False) -> None:
        """Call `fn(event)` for each event of `type`; adding the same function twice has no effect.

        Raises:
            TypeError: `fn` is neither callable nor None.
        """
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
        """Call the listeners now, in the order in which they were added; always True (nothing here can be cancelled).

        An exception in one listener is reported to the loop's exception handler; the others still run.

        Raises:
            TypeError: `event` is not an Event.
        """
        if not isinstance(event, Event):
            raise TypeError(f"event must be an Event, not {_type_name(event)}")
        event._target = self
        for fn, once in list(self._listeners.get(event.type, ())):
            if all(known != fn for known, _ in self._listeners.get(event.type, ())):
                continue  # removed by an earlier listener of this very event
            if once:
                self.remove_event_listener(event.type, fn)
            _call(fn, event)
        return True

    def _fire(self, event: Event) -> None:
        """Dispatch an event of the library's own."""
        event._trusted = True
        self.dispatch_event(event)

    def _set_handler(self, type: str, fn: Listener | None) -> None:
        if fn is not None and not callable(fn):
            raise TypeError(f"on{type} must be callable or None, not {_type_name(fn)}")
        known = type in self._handlers
        self._handlers[type] = fn
        if not known:  # the first assignment fixes the handler's place in the order

            def forward(event: Event) -> Any:
                handler = self._handlers[type]
                return handler(event) if handler is not None else None

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
