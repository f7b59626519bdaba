"""Exports: the chunks of a range as one file, joined while it is sent.

A thread joins; what it wrote waits in a queue of few pieces until the connection has taken it. A reader that takes
nothing for a minute ends the export, and so does one that goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import AbstractContextManager

from msrecd.muxing.join import Joiner
from msrecd.muxing.seams import Piece
from msrecd.vocabulary.formats import CONTAINER_OF_SUFFIX, Container

QUEUE_PIECES = 4  # of at most a megabyte and one fragment
STALL_S = 60.0
_NICE = 10  # a recording comes first
Lease = Callable[[Piece], AbstractContextManager[None]]


class ExportEnded(OSError):
    """The reader went away, or takes nothing."""


def container_of(suffixes: Sequence[str]) -> tuple[Container, str]:
    """The container of a joined file and its suffix, from those of its chunks: theirs, if it can express a gap."""
    first = suffixes[0]
    if CONTAINER_OF_SUFFIX[first].is_single_track:
        first = ".mka"
    return CONTAINER_OF_SUFFIX[first], first


class Exports:
    """Lives on one loop; one export at a time. `refused`: requests that came while another one ran."""

    def __init__(self) -> None:
        self._job: _Job | None = None
        self.refused = 0

    @property
    def is_busy(self) -> bool:
        return self._job is not None and not self._job.is_over

    async def begin(
        self, pieces: Sequence[Piece], container: Container, lease: Lease, from_ns: int, to_ns: int
    ) -> AsyncIterator[bytes]:
        """The bytes of the joined file, in order; the first ones exist when this returns.

        Raises:
            JoinError: here, or from the iterator: the chunks cannot be joined.
            OSError: they cannot be read.
        """
        job = self._job = _Job(pieces, container, lease, from_ns, to_ns)
        try:
            async with asyncio.timeout(STALL_S):
                await job.begin()
        except BaseException:
            await job.aclose()
            raise
        return job


class _Job(AsyncIterator[bytes]):
    """One joining thread and its queue."""

    def __init__(self, pieces: Sequence[Piece], container: Container, lease: Lease, from_ns: int, to_ns: int) -> None:
        self._pieces = pieces
        self._container = container
        self._lease = lease
        self._range = from_ns, to_ns
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(QUEUE_PIECES)
        self._cancelled = threading.Event()
        self._first: bytes | None = None

    @property
    def is_over(self) -> bool:
        """Whether the thread has ended, or will at its next write."""
        return self._cancelled.is_set()

    async def begin(self) -> None:
        """Start the thread, and wait for its first bytes.

        Raises: what the joining raised.
        """
        threading.Thread(target=self._run, name="export", daemon=True).start()
        self._first = await self._next()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        item, self._first = self._first, None
        if item is None:
            item = await self._next()
        if item is None:
            await self.aclose()
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Let the thread end; it notices at its next write."""
        self._cancelled.set()
        while not self._queue.empty():
            self._queue.get_nowait()

    async def _next(self) -> bytes | None:
        """The next bytes, None behind the last.

        Raises: what the joining raised.
        """
        if self._cancelled.is_set():
            return None
        item = await self._queue.get()
        if isinstance(item, BaseException):
            self._cancelled.set()
            raise item
        return item

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        last: BaseException | None = None
        try:
            with contextlib.ExitStack() as leases:
                for piece in self._pieces:
                    leases.enter_context(self._lease(piece))
                Joiner(self._pieces, self._container, self._put, from_ns=self._range[0], to_ns=self._range[1]).run()
        except Exception as exc:  # the request raises it
            last = exc
        with contextlib.suppress(ExportEnded):
            self._put(last)

    def _put(self, item: bytes | BaseException | None) -> None:
        if self._cancelled.is_set():
            raise ExportEnded("the reader went away")
        try:
            future = asyncio.run_coroutine_threadsafe(self._queue.put(item), self._loop)
        except RuntimeError as exc:  # the loop has ended
            raise ExportEnded("the server ended") from exc
        try:
            future.result(STALL_S)
        except (TimeoutError, FutureCancelled) as exc:
            future.cancel()
            self._cancelled.set()
            raise ExportEnded("the reader takes nothing") from exc
        if self._cancelled.is_set():
            raise ExportEnded("the reader went away")
