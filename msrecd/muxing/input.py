"""One recorded track on its way into the worker. What is done while its gate is closed depends on its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.codecs import hub
from msrecd.flow.encoded import EncodedFeed, EncodingRequest, StreamParameters
from msrecd.flow.source import Gate, Source
from msrecd.flow.units import Kind, Packet

_MAX_REFUSED = 4096  # capture times that wait to be counted


class Lane:
    """A sink that marks what passes with the lane it came by. In the producer's thread.

    What the worker's queue refuses is counted; after a lost frame nothing follows until the next key frame, for the
    rest of its group could not be decoded.
    """

    def __init__(
        self,
        track: int,
        blank: bool,
        deliver: Callable[[Arrival], bool],
        nudge: Callable[[], None],
        flush: Callable[[], None] = lambda: None,
        deliver_all: Callable[[Sequence[Arrival]], int] | None = None,
    ) -> None:
        self._track, self._blank, self._deliver, self._nudge = track, blank, deliver, nudge
        self._deliver_all = deliver_all
        self.flush = flush
        self._broken = False
        self.refused: deque[int] = deque(maxlen=_MAX_REFUSED)  # capture times

    def put(self, unit: Packet) -> None:
        if (self._broken and not unit.is_keyframe) or not self._deliver(Arrival(self._track, self._blank, unit)):
            self._broken = True
            self.refused.append(unit.pts_ns)
        else:
            self._broken = False

    def put_all(self, units: Sequence[Packet]) -> None:
        if self._deliver_all is None or self._broken:
            for unit in units:
                self.put(unit)
            return
        taken = self._deliver_all([Arrival(self._track, self._blank, unit) for unit in units])
        for unit in units[taken:]:
            self.put(unit)  # refused and counted, until there is room for a key frame

    def end(self, error: BaseException | None) -> None:
        if not self._blank:
            self._deliver(Arrival(self._track, False, None, error))
            self._nudge()


class Arrival:
    """A packet, or the end of a track (packet None); `blank`: it is black that stands in for the source."""

    __slots__ = ("blank", "error", "packet", "track")

    def __init__(self, track: int, blank: bool, packet: Packet | None, error: BaseException | None = None) -> None:
        self.track, self.blank, self.packet, self.error = track, blank, packet, error


class TrackInput(ABC):
    """Owned by the worker; all methods in its thread but `__init__`."""

    def __init__(
        self, track: int, source: Source, gate: Gate, request: EncodingRequest, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._clock = clock
        self.track = track
        self.kind: Kind = source.kind
        self.source = source
        self.gate = gate
        self.began_open = gate.is_open
        self._created_ns = clock.monotonic_ns()
        self.request = request
        self.takes_past = False  # also what was captured before the recording was asked to begin
        self.is_whole = False  # it is of a file, from its begin on
        self.ended = False
        self.error: BaseException | None = None
        self._live: hub.Lease | None = None
        self._lane: Lane | None = None
        self._connected = source.announce()

    def connect(
        self,
        deliver: Callable[[Arrival], bool],
        nudge: Callable[[], None],
        flush: Callable[[], None] = lambda: None,
        deliver_all: Callable[[Sequence[Arrival]], int] | None = None,
    ) -> None:
        """Begin to receive.

        Args:
            deliver: takes what arrives.
            nudge: there is news of another kind.
            flush: what has arrived is all for now.
            deliver_all: takes many, and says how many it had room for.

        Raises:
            NotSupportedError: the source cannot give what is wanted.
        """
        self._deliver, self._nudge = deliver, nudge
        try:
            self.takes_past = self.source.has_past and not self.source.stats.delivered
            self.is_whole = self.source.is_file and not self.source.stats.delivered
            self._live = self._acquire()
            self._live.output.when_parameters(lambda _: nudge())
            self._lane = Lane(self.track, False, deliver, nudge, flush, deliver_all)
            self._live.output.feed.add(self._lane)
        finally:
            self._connected()

    def _acquire(self) -> hub.Lease:
        """The share in an encoding; a viewer's is another."""
        return hub.acquire(self.source, self.request, clock=self._clock)

    @property
    def output(self) -> EncodedFeed:
        assert self._live is not None, "not connected"
        return self._live.output

    @property
    @abstractmethod
    def is_blank(self) -> bool:
        """Whether black or silence is what counts now."""

    @property
    def frame_interval_ns(self) -> int:
        """Nominal distance of frames; 0 for sound, and where there is none."""
        if self.request.time_lapse is not None:
            return self.request.time_lapse.interval_ns
        rate = self.request.frame_rate or getattr(self.source.format, "frame_rate", None)
        return round(NS / rate) if self.kind == "video" and rate else 0

    def take_refused(self) -> list[int]:
        """Capture times of the packets that the worker's queue had no room for, since the last call."""
        refused = self._lane.refused if self._lane is not None else deque[int]()
        return [refused.popleft() for _ in range(len(refused))]

    @property
    def parameters(self) -> StreamParameters | None:
        return None if self._live is None else self._live.output.parameters

    def coming_ns(self) -> int | None:
        """Capture time of the oldest unit that is on its way through the encoder that counts now; None without one."""
        return None if self._live is None else self._live.output.coming_ns()

    def hurry(self, until_ns: int) -> None:
        """A consumer waits for what was captured up to this time."""
        if self._live is not None:
            self._live.output.hurry(until_ns)

    def request_key_frame(self, at_ns: int = 0) -> None:
        if self._live is not None:
            self._live.request_key_frame(at_ns)

    @abstractmethod
    def set_gate(self, is_open: bool, at_ns: int) -> None:
        """The gate moved at this time."""

    @abstractmethod
    def accept(self, arrival: Arrival) -> Sequence[Packet]:
        """What is recorded of a packet that arrived."""

    def fill(self, now_ns: int) -> Sequence[Packet]:
        """What is recorded although nothing arrives."""
        return ()

    def let_go(self) -> None:
        """Nothing follows what has been given: an encoding that no other consumer has gives what it holds, and ends."""
        if self._live is not None:
            self._live.close()

    def disconnect(self) -> None:
        """Give the encodings back."""
        self._connected()
        if self._live is not None and self._lane is not None:
            self._live.output.feed.remove(self._lane)
            self._live.close()
