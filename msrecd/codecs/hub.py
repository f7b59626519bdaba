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
        self.viewers = 0  # of the holders


class Lease:
    """A share in an encoding: `output` until `close`.

    A viewer's share (`share`) changes nothing for a recorder that has one too: its requests for key frames are ignored
    then.
    """

    def __init__(self, source: Source, request: EncodingRequest, shared: _Shared, *, is_viewer: bool) -> None:
        self._source = source
        self._request = request
        self._shared = shared
        self._is_viewer = is_viewer
        self._open = True

    @property
    def output(self) -> EncodedFeed:
        return self._shared.output

    @property
    def request(self) -> EncodingRequest:
        """What is encoded; of a viewer's share perhaps not what it asked for."""
        return self._request

    @property
    def is_recorded(self) -> bool:
        """Whether somebody has a share who is no viewer."""
        return self._shared.holders > self._shared.viewers

    def request_key_frame(self, at_ns: int = 0) -> bool:
        """As EncodedFeed's; False where it is ignored, because a viewer asks and a recorder uses the encoding."""
        if self._is_viewer and self.is_recorded:
            return False
        self.output.request_key_frame(at_ns)
        return True

    def close(self) -> None:
        """Give the share back; the last one ends the encoder. Idempotent, from any thread."""
        with _lock:
            if not self._open:
                return
            self._open = False
            self._shared.holders -= 1
            self._shared.viewers -= self._is_viewer
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
        return _acquire(source, request, clock, is_viewer=False)


def share(source: Source, request: EncodingRequest, *, clock: Clock = SYSTEM_CLOCK) -> Lease:
    """A viewer's share: in an encoding of this codec that runs already, whatever was asked of it; else as `acquire`.

    Of several the one with the lowest bit rate is taken; a time-lapse is none that anybody could look at.

    Raises:
        NotSupportedError: as `acquire`.
    """
    with _lock:
        running = [
            known
            for known, shared in _running.get(source, {}).items()
            if known.codec == request.codec and not known.time_lapse and not shared.output.feed.ended
        ]
        chosen = request if request in running else min(running, key=lambda known: known.bit_rate, default=request)
        return _acquire(source, chosen, clock, is_viewer=True)


def _acquire(source: Source, request: EncodingRequest, clock: Clock, *, is_viewer: bool) -> Lease:
    known = _running.setdefault(source, {})
    shared = known.get(request)
    if shared is not None and shared.output.feed.ended:
        del known[request]
        shared = None
    if shared is None:
        shared = _begin(source, request, clock)
        known[request] = shared
    shared.holders += 1
    shared.viewers += is_viewer
    return Lease(source, request, shared, is_viewer=is_viewer)


def fullness() -> float:
    """How full the fullest queue before an encoder of this process is; see `Encoding.fullness`. Any thread."""
    with _lock:
        running = [shared.encoding for known in _running.values() for shared in known.values()]
    return max((encoding.fullness for encoding in running if encoding is not None), default=0.0)


def _begin(source: Source, request: EncodingRequest, clock: Clock) -> _Shared:
    can_itself = request.time_lapse is None and (request.overlay is None or source.draws_overlays)
    own = source.encoded(request) if can_itself else None
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
