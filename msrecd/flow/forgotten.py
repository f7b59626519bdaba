"""What is to happen when the garbage collector has taken an object that nobody ended.

The collector runs in any thread, at almost any line, also where that thread holds a lock: an action that waits for
the same lock would wait for itself, for ever. So the collector only leaves a note, and one thread does the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
Action = Callable[[], object]

_begin_lock = threading.Lock()
# Its put() is allowed where the collector runs. It holds one note at most for each object that was to be watched.
_notes: SimpleQueue[Action] = SimpleQueue()
_thread: threading.Thread | None = None


class WhenForgotten(Generic[T]):
    """Calls an action once: when `owner` has been collected, or at `now()`. Not when the interpreter ends."""

    def __init__(self, owner: T, action: Action, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """
        Args:
            action: must not refer to the owner.
            loop: where it is called; without one, or when it is closed by then, in a thread of this module's.
        """
        _begin()
        self._action = action
        self._final = weakref.finalize(owner, _leave_note, action, loop)
        self._final.atexit = False

    @property
    def pending(self) -> bool:
        """Whether the owner is there and the action still to come."""
        return self._final.alive

    def owner(self) -> T | None:
        """None when nothing is to happen any more."""
        entry = self._final.peek()
        return entry[0] if entry is not None else None

    def cancel(self) -> bool:
        """Whether there was something to cancel."""
        return self._final.detach() is not None

    def now(self) -> None:
        """Call the action here, unless it was called or cancelled before."""
        if self.cancel():
            self._action()


def call_on(loop: asyncio.AbstractEventLoop | None, action: Action) -> None:
    """On the loop, soon; where there is none or it is closed, here and now."""
    if loop is not None:
        try:
            loop.call_soon_threadsafe(action)
            return
        except RuntimeError:  # closed
            pass
    action()


def _leave_note(action: Action, loop: asyncio.AbstractEventLoop | None) -> None:
    _notes.put(lambda: call_on(loop, action))


def _begin() -> None:
    global _thread
    if _thread is None:
        with _begin_lock:
            if _thread is None:
                _thread = threading.Thread(target=_work, args=(_notes,), name="forgotten", daemon=True)
                _thread.start()


def _work(notes: SimpleQueue[Action]) -> None:
    while True:
        action = notes.get()
        try:
            action()
        except Exception:
            log.exception("what follows a forgotten object failed")
        del action  # else it keeps what it refers to until the next note


def _after_fork() -> None:
    """The child has no such thread, and the queue's lock may be held by it."""
    global _thread, _notes, _begin_lock
    _thread, _notes, _begin_lock = None, SimpleQueue(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
