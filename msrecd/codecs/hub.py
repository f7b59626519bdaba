"""One encoder for all who ask the same of the same source."""

from __future__ import annotations

import itertools
import threading
from typing import Any
from weakref import WeakKeyDictionary

from msrecd.clock import SYSTEM_CLOCK, Clock
from msrecd.codecs.audio import AudioEncoding
from msrecd.codecs.encoding import Encoding
from msrecd.codecs.video import VideoEncoding
from msrecd.flow.encoded import EncodedFeed, EncodingRequest
from msrecd.flow.source import Source
from msrecd.flow.units import AudioFormat

_lock = threading.Lock()
_running: WeakKeyDictionary[Source, dict[EncodingRequest, _Shared]] = WeakKeyDictionary()
_numbers = itertools.count(1)


class _Shared:
    """An encoding and how many hold it."""

    def __init__(self, output: EncodedFeed, encoding: Encoding[Any] | None) -> None:
        self.output = output
        self.encoding = encoding
        self.holders = 0


class Lease:
    """A share in an encoding: `output` until `close`."""

    def __init__(self, source: Source, request: EncodingRequest, shared: _Shared) -> None:
        self._source = source
        self._request = request
        self._shared = shared
        self._open = True

    @property
    def output(self) -> EncodedFeed:
        return self._shared.output

    def close(self) -> None:
        """Give the share back; the last one ends the encoder. Idempotent, from any thread."""
        with _lock:
            if not self._open:
                return
            self._open = False
            self._shared.holders -= 1
            if self._shared.holders:
                return
            known = _running.get(self._source, {})
            if known.get(self._request) is self._shared:
                del known[self._request]
        if self._shared.encoding is not None:
            self._shared.encoding.close()


def acquire(source: Source, request: EncodingRequest, *, clock: Clock = SYSTEM_CLOCK) -> Lease:
    """A share in the encoding of `source` for `request`: the source's own where it can, else one through libav.

    Raises:
        NotSupportedError: the source has encoded units only, and not these.
    """
    with _lock:
        known = _running.setdefault(source, {})
        shared = known.get(request)
        if shared is not None and shared.output.feed.ended:
            del known[request]
            shared = None
        if shared is None:
            shared = _begin(source, request, clock)
            known[request] = shared
        shared.holders += 1
        return Lease(source, request, shared)


def fullness() -> float:
    """How full the fullest queue before an encoder of this process is; see `Encoding.fullness`. Any thread."""
    with _lock:
        running = [shared.encoding for known in _running.values() for shared in known.values()]
    return max((encoding.fullness for encoding in running if encoding is not None), default=0.0)


def _begin(source: Source, request: EncodingRequest, clock: Clock) -> _Shared:
    own = source.encoded(request)
    if own is not None:
        return _Shared(own, None)
    name = f"{request.codec}-{next(_numbers)}"
    encoding: Encoding[Any]
    format = source.format
    if isinstance(format, AudioFormat):
        encoding = AudioEncoding(source.raw(), format, request, name=name)
    else:
        encoding = VideoEncoding(
            source.raw(),
            request,
            name=name,
            presentation=format.presentation,
            repeats=source.holds_last_frame,
            clock=clock,
        )
    encoding.start()
    return _Shared(encoding.output, encoding)
