"""One recorded track on its way into the worker: its encoding, or black and silence while its gate is closed."""

from __future__ import annotations

from collections.abc import Callable

from msrecd.clock import SYSTEM_CLOCK, Clock
from msrecd.codecs import hub
from msrecd.codecs.blank import Adapter, BlankSource, blank_for
from msrecd.flow.encoded import EncodedFeed, EncodingRequest, StreamParameters
from msrecd.flow.source import Gate, Source
from msrecd.flow.units import Kind, Packet


class _Lane:
    """A sink that marks what passes with the lane it came by. In the producer's thread.

    What the worker's queue refuses is counted; after a lost picture nothing follows until the next key frame, for the
    rest of its group could not be decoded.
    """

    def __init__(self, track: int, blank: bool, deliver: Callable[[Arrival], bool], nudge: Callable[[], None]) -> None:
        self._track, self._blank, self._deliver, self._nudge = track, blank, deliver, nudge
        self._broken = False
        self.refused = 0

    def put(self, unit: Packet) -> None:
        if (self._broken and not unit.is_keyframe) or not self._deliver(Arrival(self._track, self._blank, unit)):
            self._broken = True
            self.refused += 1
        else:
            self._broken = False

    def end(self, error: BaseException | None) -> None:
        if not self._blank:
            self._deliver(Arrival(self._track, False, None, error))
            self._nudge()


class Arrival:
    """A packet, or the end of a track (packet None)."""

    __slots__ = ("blank", "error", "packet", "track")

    def __init__(self, track: int, blank: bool, packet: Packet | None, error: BaseException | None = None) -> None:
        self.track, self.blank, self.packet, self.error = track, blank, packet, error


class TrackInput:
    """Owned by the worker; all methods in its thread but `__init__` and `gate_changed` (the loop's)."""

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
        self.ended = False
        self.error: BaseException | None = None
        self._live: hub.Lease | None = None
        self._blank: hub.Lease | None = None
        self._blank_source: BlankSource | None = None
        self._lane: _Lane | None = None
        self._blank_lane: _Lane | None = None
        self._use_blank = False
        self._switch_ns = 0
        self._waiting = False  # for the first key frame of the lane that comes next
        self._blank_is_over = False
        self._unbroken = {False: True, True: False}  # by lane (black or not): its next picture may refer to the last
        self._blank_adapter: Adapter | None = None
        self._live_adapter: Adapter | None = None

    def connect(self, deliver: Callable[[Arrival], bool], nudge: Callable[[], None]) -> None:
        """Begin to receive.

        Raises:
            NotSupportedError: the source cannot give what is wanted.
        """
        self._deliver, self._nudge = deliver, nudge
        self._live = hub.acquire(self.source, self.request, clock=self._clock)
        self._live.output.when_parameters(lambda _: nudge())
        self._lane = _Lane(self.track, False, deliver, nudge)
        self._live.output.feed.add(self._lane)

    @property
    def output(self) -> EncodedFeed:
        assert self._live is not None, "not connected"
        return self._live.output

    @property
    def is_blank(self) -> bool:
        """Whether black or silence is what counts now."""
        return self._use_blank

    @property
    def refused(self) -> int:
        """Packets that the worker's queue had no room for."""
        return self._lane.refused if self._lane is not None else 0

    @property
    def parameters(self) -> StreamParameters | None:
        return None if self._live is None else self._live.output.parameters

    def coming_ns(self) -> int | None:
        """Capture time of the oldest unit that is on its way through the encoder that counts now; None without one."""
        lease = self._blank if self._use_blank and self._blank is not None else self._live
        return None if lease is None else lease.output.coming_ns()

    def hurry(self, until_ns: int) -> None:
        """Somebody waits for what was captured up to this time."""
        if self._live is not None:
            self._live.output.hurry(until_ns)

    def request_key_frame(self, at_ns: int = 0) -> None:
        lease = self._blank if self._use_blank and self._blank is not None else self._live
        if lease is not None:
            lease.output.request_key_frame(at_ns)

    def set_gate(self, is_open: bool, at_ns: int) -> None:
        """The gate moved at this time: from now on the other lane, beginning with its next key frame."""
        if is_open != self._use_blank:
            return  # nothing changes
        self._use_blank, self._switch_ns, self._waiting = not is_open, at_ns, True
        self._blank_is_over = False
        if is_open:
            self.output.request_key_frame(at_ns)
            return
        parameters = self.parameters
        if self._blank is not None:  # the black of the last time still runs
            self._blank.output.request_key_frame(at_ns)
            return
        if parameters is None:
            return
        self._blank_source, request = blank_for(
            parameters, self.request, self.source.format, since_ns=max(at_ns, self._created_ns), clock=self._clock
        )
        self._blank = hub.acquire(self._blank_source, request, clock=self._clock)
        self._blank_lane = _Lane(self.track, True, self._deliver, self._nudge)
        self._blank.output.feed.add(self._blank_lane)

    def accept(self, arrival: Arrival, last_dts_ns: int | None) -> Packet | None:
        """The packet if it is of the lane that counts now, fitted to the stream; None otherwise."""
        packet, lane = arrival.packet, arrival.blank
        if packet is None:
            return None
        # Whatever the gate does: what refers to a picture that did not pass, or stands behind one of the other lane,
        # could not be decoded.
        if not (packet.is_keyframe or self._unbroken[lane]) or not self._passes(lane, packet, last_dts_ns):
            self._unbroken[lane] = False
            return None
        self._unbroken[lane], self._unbroken[not lane] = True, False
        return self._fit(lane, packet)

    def _passes(self, blank: bool, packet: Packet, last_dts_ns: int | None) -> bool:
        """Whether it is its lane's turn."""
        if blank != self._use_blank:
            # What was captured before the gate moved still belongs to the recording.
            end_ns = packet.pts_ns + (packet.duration_ns if self.kind == "audio" else 1)
            return (self._waiting and end_ns <= self._switch_ns) or self._holds_over(blank)
        if self._waiting:
            if not packet.is_keyframe or packet.pts_ns < self._switch_ns:
                return False
            if last_dts_ns is not None and packet.dts_ns <= last_dts_ns:
                self._blank_is_over = True  # black ran ahead of a late source: it stops here, the next key frame fits
                return False
            self._waiting = False
            if not self._use_blank:
                self._close_blank()
        return True

    def _holds_over(self, blank: bool) -> bool:
        """Black goes on until the first key frame of the picture that comes back."""
        return blank and self._waiting and not self._use_blank and not self._blank_is_over

    def _fit(self, blank: bool, packet: Packet) -> Packet:
        if self.kind == "audio":
            return packet
        stream = self.parameters
        if stream is None:
            return packet
        if blank:
            own = self._blank.output.parameters if self._blank is not None else None
            if own is None:
                return packet
            if self._blank_adapter is None:
                self._blank_adapter = Adapter(own, stream)
                if own.extradata != stream.extradata:  # the stream's own sets have to come again with each key frame
                    self._live_adapter = Adapter(stream, stream, always=True)
            return self._blank_adapter.adapt(packet)
        return packet if self._live_adapter is None else self._live_adapter.adapt(packet)

    def _close_blank(self) -> None:
        if self._blank is not None and self._blank_lane is not None:
            self._blank.output.feed.remove(self._blank_lane)
            self._blank.close()
        self._blank = None
        self._blank_lane = None
        self._blank_source = None

    def disconnect(self) -> None:
        """Give the encodings back."""
        self._close_blank()
        if self._live is not None and self._lane is not None:
            self._live.output.feed.remove(self._lane)
            self._live.close()
