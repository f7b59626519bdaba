"""PendingBlobs: what a recorder gives before its recording has an id and files. Lives on the loop.

The MediaRecorder hears that each of them is in use (BlobEvent.wait_until), as it does of those that are being written:
its own bound on unwritten media holds; beyond it, media is dropped there, counted and reported as a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from msrecd import BlobEvent

Write = Callable[[int, BlobEvent, bool], asyncio.Future[None]]


class PendingBlobs:
    """Kept in their order until they are passed on or dropped."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, BlobEvent, bool, asyncio.Future[None]]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, attempt: int, event: BlobEvent, may_be_last: bool) -> asyncio.Future[None]:
        """The future is done when the blob is written, or dropped."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kept.append((attempt, event, may_be_last, future))
        return future

    def pass_on(self, write: Write) -> None:
        """Hand all of them to `write`."""
        kept, self._kept = self._kept, []
        for attempt, event, may_be_last, future in kept:
            write(attempt, event, may_be_last).add_done_callback(partial(_done, future))

    def drop(self) -> None:
        """They are of no use any more."""
        kept, self._kept = self._kept, []
        for *_, future in kept:
            _done(future)


def _done(future: asyncio.Future[None], _: object = None) -> None:
    if not future.done():
        future.set_result(None)
