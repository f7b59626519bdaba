"""PendingBlobs: what a recorder gives before its recording has an id and files. Lives on the loop.

The recorder is told that each of them is under way (BlobEvent.wait_until), as it is of those that are being written:
its own bound on unwritten media holds, and what goes beyond it is dropped there, counted and told as a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from msrecd.media.events import BlobEvent
from msrecd.recorder.attempt import Attempt


class PendingBlobs:
    """Kept in their order until they are passed on or dropped."""

    def __init__(self) -> None:
        self._kept: list[tuple[Attempt, BlobEvent, asyncio.Future[None]]] = []

    def keep(self, run: Attempt, event: BlobEvent) -> asyncio.Future[None]:
        """The future is done when the blob is written, or dropped."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kept.append((run, event, future))
        return future

    def pass_on(self, write: Callable[[Attempt, BlobEvent], asyncio.Future[None]]) -> None:
        """Hand all of them to `write`."""
        kept, self._kept = self._kept, []
        for run, event, future in kept:
            write(run, event).add_done_callback(partial(_done, future))

    def drop(self) -> None:
        """Nobody wants them any more."""
        kept, self._kept = self._kept, []
        for _, _, future in kept:
            _done(future)


def _done(future: asyncio.Future[None], _: object = None) -> None:
    if not future.done():
        future.set_result(None)
