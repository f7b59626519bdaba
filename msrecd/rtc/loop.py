"""The loop of WebRTC: one thread with an event loop of its own, there while a connection is.

Hundreds of packets a second, each with its encryption, must not delay commands, events and the watchdog of the loop
that uses the connections.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from msrecd.flow.shutdown import end_with_process
from msrecd.tasks import Tasks

log = logging.getLogger(__name__)

T = TypeVar("T")

_LINGER_S = 2.0  # after the last connection: what follows it needs no new thread
_END_S = 5.0
KEY_FRAME_EVERY_S = 0.5  # at most so often a key frame is asked for, however many ask


class RtcLoop:
    """One thread and its loop. `acquire` and `release` it from any thread; it ends a little after its last user."""

    _lock = threading.Lock()
    _current: RtcLoop | None = None

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.tasks = Tasks(log)
        self._users = 0
        self._is_stopping = False
        self._ending: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="webrtc", daemon=True)
        own = weakref.ref(self)  # what the registry of threads keeps must not keep the thread
        end_with_process(self._thread, lambda _: None if (one := own()) is None else one._stop())

    @classmethod
    def acquire(cls) -> RtcLoop:
        with cls._lock:
            current = cls._current
            if current is None:
                current = cls._current = RtcLoop()
                current._thread.start()
            current._users += 1
            return current

    def release(self) -> None:
        """Give it back; exactly once for each `acquire`."""
        with RtcLoop._lock:
            self._users -= 1
        self.post(self._end_later)

    def post(self, task: Callable[[], object]) -> None:
        """Run `task` in the thread, in the order of the calls; nothing happens when the thread has ended."""
        try:
            self._loop.call_soon_threadsafe(task)
        except RuntimeError:
            return

    def call(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine in the thread; its result on the loop that calls, behind what was posted to it before."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=_END_S))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def _end_later(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = self._loop.call_later(_LINGER_S, self._end_if_unused)

    def _end_if_unused(self) -> None:
        with RtcLoop._lock:
            if self._users:
                return
            if RtcLoop._current is self:
                RtcLoop._current = None
        self._stop()

    def _stop(self) -> None:
        """The process ends; said once, for the loop may be at its end already."""
        if not self._is_stopping:
            self._is_stopping = True
            self.post(self._loop.stop)


class Spaced:
    """Calls `act` when it is asked to, at most every KEY_FRAME_EVERY_S; what comes too early is done later, once.

    In the thread of WebRTC.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._due = 0.0  # by the loop's clock
        self._waits = False

    def ask(self) -> None:
        if self._waits:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            self._waits = True
            loop.call_at(self._due, self._late)
        else:
            self._due = loop.time() + KEY_FRAME_EVERY_S
            self._act()

    def _late(self) -> None:
        self._waits = False
        self.ask()
