"""RawPictures: pictures of a camera as a feed, copied out of its buffers while somebody wants them.

A request that waits is a buffer which the camera lacks, so at most one does; the next one is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Protocol

from msrecd.flow.feed import Feed
from msrecd.flow.source import SourceStats, SourceThread
from msrecd.flow.units import VideoFrame

log = logging.getLogger(__name__)


class Request(Protocol):
    """picamera2's CompletedRequest; each `acquire` needs its `release`, or the camera runs out of buffers."""

    def acquire(self) -> None: ...
    def release(self) -> None: ...
    def make_buffer(self, name: str) -> Any: ...
    def get_metadata(self) -> Mapping[str, Any]: ...


class RequestReader(Protocol):
    """Makes pictures out of requests. Belongs to one thread."""

    def read(self, request: Request) -> VideoFrame:
        """A copy of the picture.

        Raises:
            ValueError, KeyError, RuntimeError: this request has none that can be read.
        """

    def close(self) -> None: ...


class _Slot:
    """Room for one request, between picamera2's thread and ours."""

    def __init__(self) -> None:
        self._request: Request | None = None
        self._news = threading.Condition()
        self._ended = False

    def offer(self, request: Request) -> bool:
        """Keep the request; False when there is one already, or nobody takes them any more."""
        with self._news:
            if self._ended or self._request is not None:
                return False
            request.acquire()
            self._request = request
            self._news.notify()
            return True

    def take(self) -> Request | None:
        """The next request, which the caller releases; None at the end."""
        with self._news:
            self._news.wait_for(lambda: self._ended or self._request is not None)
            request, self._request = self._request, None
            return request

    def end(self) -> None:
        with self._news:
            self._ended = True
            self._news.notify()


class RawPictures:
    """The feed of pictures; `offer` belongs to picamera2's thread, everything else may be called from any."""

    def __init__(self, label: str, stats: SourceStats, open_reader: Callable[[], RequestReader]) -> None:
        self.feed: Feed[VideoFrame] = Feed(self._wanted)
        self._label = label
        self._stats = stats
        self._open_reader = open_reader
        self._slot: _Slot | None = None

    def offer(self, request: Request) -> None:
        """Take the picture, if somebody wants it and there is room. Never blocks."""
        slot = self._slot
        if slot is not None and not slot.offer(request):
            self._stats.dropped += 1

    def end(self, error: BaseException | None) -> None:
        """No more pictures."""
        self.feed.end(error)
        self._stop()

    def _wanted(self, is_wanted: bool) -> None:
        if is_wanted and not self.feed.ended:
            slot = self._slot = _Slot()
            SourceThread(f"pictures {self._label}", lambda _: self._read(slot), self._failed).start()
        else:
            self._stop()

    def _stop(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.end()

    def _read(self, slot: _Slot) -> None:
        with closing(self._open_reader()) as reader:
            self._read_with(reader, slot)

    def _read_with(self, reader: RequestReader, slot: _Slot) -> None:
        while (request := slot.take()) is not None:
            try:
                frame = reader.read(request)
            except (ValueError, KeyError, RuntimeError) as exc:
                self._stats.dropped += 1
                log.debug("camera %s: a picture could not be read: %s", self._label, exc)
                continue
            finally:
                request.release()
            self._stats.delivered += 1
            self.feed.put(frame)

    def _failed(self, exc: Exception) -> None:
        log.error("camera %s: its pictures cannot be read: %s", self._label, exc)
        self.feed.end(exc)
