"""AudioInput: a sound track, with silence while its gate is closed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msrecd import libav
from msrecd.clock import MS, SYSTEM_CLOCK, Clock
from msrecd.codecs.silence import encoded_silence
from msrecd.flow.encoded import EncodingRequest
from msrecd.flow.source import Gate, Source
from msrecd.flow.units import AudioFormat, Packet
from msrecd.muxing.input import Arrival, TrackInput
from msrecd.muxing.soundgate import SoundGate

log = logging.getLogger(__name__)

SILENT_SOURCE_NS = 500 * MS  # what a source gives has come by then; encoders work on a quarter of a second at a time


class AudioInput(TrackInput):
    """The packets of its encoding; where the gate is closed silence takes their place, or that of what did not come."""

    def __init__(
        self, track: int, source: Source, gate: Gate, request: EncodingRequest, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(track, source, gate, request, clock=clock)
        self._sound: SoundGate | None = None  # made when the gate closes for the first time
        self._end_ns: int | None = None
        self._is_mute = False  # silence cannot be encoded: what is not to be heard is left out

    @property
    def is_blank(self) -> bool:
        return self._is_mute or (self._sound is not None and self._sound.is_closed)

    def set_gate(self, is_open: bool, at_ns: int) -> None:
        if self._sound is None:
            self._is_mute = not is_open
            if is_open or self.parameters is None:
                return
            self._sound = self._gate_of_silence()
        if self._sound is not None:
            self._is_mute = False
            self._sound.move(is_open, at_ns)

    def _gate_of_silence(self) -> SoundGate | None:
        assert self.parameters is not None
        format = self.source.format
        try:
            silence = encoded_silence(
                self.request, self.parameters, format if isinstance(format, AudioFormat) else None
            )
        except libav.LibavError as exc:
            log.warning("%s: silence cannot be encoded; the gap stays empty: %s", self.source.label, exc)
            return None
        return SoundGate(silence, end_ns=self._end_ns, since_ns=self._created_ns)

    def accept(self, arrival: Arrival) -> Sequence[Packet]:
        packet = arrival.packet
        if packet is None or self._is_mute:
            return ()
        if self._sound is not None:
            return self._sound.through(packet)
        self._end_ns = packet.pts_ns + packet.duration_ns
        return (packet,)

    def fill(self, now_ns: int) -> Sequence[Packet]:
        if self._sound is None:
            return ()
        until_ns, coming_ns = now_ns - SILENT_SOURCE_NS, self.coming_ns()  # a slow encoder gets its time
        return self._sound.fill(until_ns if coming_ns is None else min(until_ns, coming_ns))
