"""VideoInput: a track of frames, with black while its gate is closed."""

from __future__ import annotations

from collections.abc import Sequence

from msrecd.clock import SYSTEM_CLOCK, Clock
from msrecd.codecs import hub
from msrecd.codecs.blank import Adapter, blank_for
from msrecd.flow.encoded import EncodingRequest
from msrecd.flow.source import Gate, Source
from msrecd.flow.units import Packet
from msrecd.muxing.input import Arrival, Lane, TrackInput


class VideoInput(TrackInput):
    """Two lanes, the source's encoding and one of black; each takes over from the other with a key frame."""

    def __init__(
        self, track: int, source: Source, gate: Gate, request: EncodingRequest, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(track, source, gate, request, clock=clock)
        self._blank: hub.Lease | None = None
        self._blank_lane: Lane | None = None
        self._use_blank = False
        self._switch_ns = 0
        self._waiting = False  # for the first key frame of the lane that comes next
        self._blank_is_over = False
        self._unbroken = {False: True, True: False}  # by lane (black or not): its next frame may refer to the last
        self._last_dts_ns: int | None = None
        self._blank_adapter: Adapter | None = None
        self._live_adapter: Adapter | None = None

    @property
    def is_blank(self) -> bool:
        return self._use_blank

    def coming_ns(self) -> int | None:
        if self._use_blank and self._blank is not None:
            return self._blank.output.coming_ns()
        return super().coming_ns()

    def request_key_frame(self, at_ns: int = 0) -> None:
        if self._use_blank and self._blank is not None:
            self._blank.output.request_key_frame(at_ns)
        else:
            super().request_key_frame(at_ns)

    def set_gate(self, is_open: bool, at_ns: int) -> None:
        """From now on the other lane, beginning with its next key frame."""
        if is_open != self._use_blank:
            return  # nothing changes
        self._use_blank, self._switch_ns, self._waiting = not is_open, at_ns, True
        self._blank_is_over = False
        if is_open:
            super().request_key_frame(at_ns)
            return
        parameters = self.parameters
        if self._blank is not None:  # the black of the last time still runs
            self._blank.output.request_key_frame(at_ns)
            return
        if parameters is None:
            return
        source, request = blank_for(parameters, self.request, since_ns=max(at_ns, self._created_ns), clock=self._clock)
        self._blank = hub.acquire(source, request, clock=self._clock)
        self._blank_lane = Lane(self.track, True, self._deliver, self._nudge)
        self._blank.output.feed.add(self._blank_lane)

    def accept(self, arrival: Arrival) -> Sequence[Packet]:
        """The packet if it is of the lane that counts now, fitted to the stream."""
        packet, lane = arrival.packet, arrival.blank
        if packet is None:
            return ()
        is_steady = not (lane or self._waiting or self._use_blank) and self._live_adapter is None  # nearly always
        if is_steady and (packet.is_keyframe or self._unbroken[False]):
            self._unbroken[False] = True
            self._last_dts_ns = packet.dts_ns
            return (packet,)
        # Whatever the gate does: what refers to a frame that did not pass, or stands behind one of the other lane,
        # could not be decoded.
        if not (packet.is_keyframe or self._unbroken[lane]) or not self._passes(lane, packet):
            self._unbroken[lane] = False
            return ()
        self._unbroken[lane], self._unbroken[not lane] = True, False
        self._last_dts_ns = packet.dts_ns
        return (self._fit(lane, packet),)

    def _passes(self, blank: bool, packet: Packet) -> bool:
        """Whether it is its lane's turn."""
        if blank != self._use_blank:
            # What was captured before the gate moved still belongs to the recording.
            return (self._waiting and packet.pts_ns < self._switch_ns) or self._holds_over(blank)
        if self._waiting:
            if not packet.is_keyframe or packet.pts_ns < self._switch_ns:
                return False
            if self._last_dts_ns is not None and packet.dts_ns <= self._last_dts_ns:
                self._blank_is_over = True  # black ran ahead of a late source: it stops here, the next key frame fits
                return False
            self._waiting = False
            if not self._use_blank:
                self._close_blank()
        return True

    def _holds_over(self, blank: bool) -> bool:
        """Black goes on until the first key frame of the frame that comes back."""
        return blank and self._waiting and not self._use_blank and not self._blank_is_over

    def _fit(self, blank: bool, packet: Packet) -> Packet:
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

    def disconnect(self) -> None:
        self._close_blank()
        super().disconnect()
