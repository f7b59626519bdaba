"""Encoding: the thread that makes packets of raw units, whatever the kind. Once for all who ask for the same."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from msrecd import libav
from msrecd.flow.encoded import EncodedFeed, EncodingError, Loss, StreamParameters
from msrecd.flow.feed import Feed
from msrecd.flow.queue import UnitQueue
from msrecd.flow.source import SourceThread
from msrecd.flow.units import AudioBlock, VideoFrame

log = logging.getLogger(__name__)

Unit = TypeVar("Unit", VideoFrame, AudioBlock)


class Encoding(ABC, Generic[Unit]):
    """Encodes one raw feed for one request; `start` and `close` are the hub's, `output` is everybody's.

    A subclass opens its encoder, is given units as they come and delivers packets through `output`; all of it happens
    in the encoding's own thread. The units that come while the encoder is being opened wait in the queue.
    """

    def __init__(
        self,
        source: Feed[Unit],
        queue: UnitQueue[Unit],
        *,
        name: str,
        wait_s: float,
        key_frame_at: Callable[[int], None] | None = None,
    ) -> None:
        """
        Args:
            wait_s: after so long without a unit `_idle` is called.
            key_frame_at: see EncodedFeed.
        """
        self._source: Feed[Unit] = source
        self._queue: UnitQueue[Unit] = queue
        self._wait_s = wait_s
        self._has_begun = False
        self.output = EncodedFeed(key_frame_at=key_frame_at, coming_ns=self._coming_ns, hurry=self._hurry)
        self._thread = SourceThread(f"encode-{name}", self._run, self._failed)

    # The sink of the raw feed: in the source's thread.

    def put(self, unit: Unit) -> None:
        """Queue a unit; one for which there is no room is lost. What sound lacks then shows in its time stamps."""
        if not self._queue.offer(unit) and self._has_begun and isinstance(unit, VideoFrame):
            self.output.facts.losses.add(Loss(unit.pts_ns, frames=1))

    def end(self, error: BaseException | None) -> None:
        self._queue.end(error)

    def start(self) -> None:
        """Begin; what the source gives while the encoder is being opened is encoded as well."""
        if not self._source.has_demand:
            self._source.add(self)  # not in the thread, which may begin late: the next unit may come at once
        self._thread.start()

    def close(self) -> None:
        """Stop taking units; what is under way is encoded and delivered by the encoding's own thread."""
        self._source.remove(self)
        self._thread.stopping.set()
        self._queue.nudge()

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def fullness(self) -> float:
        """How full the queue before the encoder is: at 1 units are lost."""
        return self._queue.fullness

    def _coming_ns(self) -> int | None:
        oldest = self._queue.oldest
        return None if oldest is None else oldest.pts_ns

    def _hurry(self, until_ns: int) -> None:
        """Somebody waits for what was captured up to this time; any thread."""

    # --- the thread --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _open(self) -> StreamParameters:
        """Open the encoder.

        Raises:
            LibavError: the build has none, or it refuses.
        """

    @abstractmethod
    def _take(self, units: list[Unit]) -> None:
        """Encode these."""

    def _idle(self) -> None:
        """No unit came for `wait_s`."""

    @abstractmethod
    def _finish(self) -> None:
        """Nothing follows: deliver what the encoder still holds."""

    @abstractmethod
    def _close(self) -> None:
        """Free the encoder."""

    def _run(self, stopping: threading.Event) -> None:
        try:
            self._source.add(self)
            parameters = self._open()
            try:
                self.output.set_parameters(parameters)
                self._begin()
                self._encode_until(stopping)
                self._finish()
            finally:
                self._close()
        finally:
            self._source.remove(self)  # `close` may have come before the thread had added it
        self.output.feed.end(self._queue.error)

    def _begin(self) -> None:
        """Where opening took so long that units were refused, begin behind the hole."""
        refused = 0
        while self._queue.refused != refused:
            refused = self._queue.refused
            self._queue.take(0)
        self._has_begun = True

    def _encode_until(self, stopping: threading.Event) -> None:
        while True:
            is_stopping = stopping.is_set()
            units = self._queue.take(0 if is_stopping else self._wait_s)
            if units:
                self._take(units)
            elif is_stopping or self._queue.ended:
                return
            if is_stopping and not self.output.feed.has_sinks:
                return
            if not units:
                self._idle()

    def _failed(self, exc: Exception) -> None:
        if not isinstance(exc, libav.LibavError):
            log.error("%s stopped", self._thread.name, exc_info=exc)
        error = EncodingError(str(exc) or type(exc).__name__)
        error.__cause__ = exc
        self.output.feed.end(error)
