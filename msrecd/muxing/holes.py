"""Holes: what is missing between the packets of a recording, and before its end; entered into the ledger of losses."""

from __future__ import annotations

from collections.abc import Sequence

from msrecd.clock import MS, NS
from msrecd.flow.encoded import EncodingError
from msrecd.flow.units import Packet
from msrecd.muxing.facts import GapReason
from msrecd.muxing.input import TrackInput
from msrecd.muxing.losses import LossLedger
from msrecd.muxing.timeline import Timeline

_SOUND_HOLE_NS = 50 * MS  # between packets of sound; less is the rounding of time stamps
_CAMERA_HOLE_NS = 250 * MS  # between frames of a camera, at least; exposure and transport vary by less
_ROUGH_END_NS = 150 * MS  # tracks of one recording do not end at the same instant


class Holes:
    """Lives in the worker's thread, as the recording does that shows it each packet."""

    def __init__(self, inputs: Sequence[TrackInput], timeline: Timeline, losses: LossLedger) -> None:
        self._inputs = inputs
        self._timeline = timeline
        self._losses = losses
        self._video = next((i for i, track in enumerate(inputs) if track.kind == "video"), None)
        self._lapse = None if self._video is None else inputs[self._video].request.time_lapse
        self._joining: set[int] = set()  # tracks whose next packet may begin anywhere: nothing is missing before it
        self._refused: set[int] = set()  # tracks of which packets came too late for their place
        self._absent: dict[int, int] = {}  # tracks with a stand-in: since when
        self._past: list[tuple[int, int, int]] = []  # (track, from, to) of stand-ins that may lie in the pre-roll
        self._usual_ns = 0 if self._lapse is None else self._lapse.interval_ns  # distance of frames at present

    # --- what its source does not give ---

    def begin_stand_in(self, index: int, since_ns: int) -> None:
        """A track's source gives nothing: black or silence takes its place."""
        self._absent.setdefault(index, since_ns)

    def note_stand_in(self, index: int, since_ns: int, until_ns: int) -> None:
        """A track's source gave nothing before the recording was asked for; a pre-roll may reach back to that."""
        self._past.append((index, since_ns, until_ns))

    def end_stand_in(self, index: int, at_ns: int) -> None:
        """What is captured from `at_ns` on is the source's own again."""
        self._begin_absences()
        self._absent.pop(index, None)
        self._losses.end(index, at_ns)

    def count(self, now_ns: int) -> None:
        """Enter what was counted elsewhere since the last call."""
        self._begin_absences()
        self._losses.poll(now_ns)

    def _begin_absences(self) -> None:
        if self._past and self._timeline.started:
            for index, since_ns, until_ns in self._past:
                self._losses.lose(index, since_ns, until_ns, self._reason_of(index))
            self._past.clear()
        for index, since_ns in self._absent.items():
            if not self._losses.is_open(index):
                self._losses.begin(index, since_ns, self._reason_of(index))

    def _reason_of(self, index: int) -> GapReason:
        return "no_frames" if self._inputs[index].kind == "video" else "lost_sound"

    # --- between packets ---

    def may_begin_anywhere(self) -> None:
        """After a pause, or where packets were dropped: nothing is missing before the next packet of each track."""
        self._joining.update(range(len(self._inputs)))

    def note_refused(self, index: int) -> None:
        """A packet came too late for its place: if a hole of sound follows, the encoder made it."""
        self._refused.add(index)

    def look(self, index: int, packet: Packet, line_ns: int, duration_ns: int) -> None:
        """Enter what is missing after a frame that stands longer than it should, or before a packet of sound.

        Args:
            line_ns: where the packet lies on the recording's line.
            duration_ns: how long it is shown or heard.
        """
        if index in self._joining:
            self._joining.discard(index)
            return
        if self._inputs[index].kind == "audio":
            end_ns = self._timeline.track_end_ns(index)
            hole_ns = line_ns - end_ns
            if end_ns and hole_ns > _SOUND_HOLE_NS:
                reason: GapReason = "encoder" if index in self._refused else "lost_sound"
                self._losses.lose(index, packet.dts_ns - hole_ns, packet.dts_ns, reason)
            self._refused.discard(index)
        elif self._lapse is not None:
            end_ns = self._timeline.track_end_ns(index)
            if end_ns and line_ns - end_ns > duration_ns:  # a whole frame is missing
                self._losses.lose(index, packet.dts_ns - (line_ns - end_ns), packet.dts_ns, "no_frames")
        elif index == self._video and duration_ns > 0:
            nominal_ns = packet.duration_ns or duration_ns
            if duration_ns > self._longest_frame_ns(nominal_ns):
                self._losses.lose(index, packet.dts_ns + nominal_ns, packet.dts_ns + duration_ns, "no_frames")
            else:
                self._usual_ns += (duration_ns - self._usual_ns) // 8

    def _longest_frame_ns(self, nominal_ns: int) -> int:
        """How long a frame may stand before others are missing. A camera may be slower than it says (in the dark), but
        gets there step by step; what is played may have stills in it.
        """
        assert self._video is not None
        self._usual_ns = self._usual_ns or nominal_ns
        if self._inputs[self._video].source.device_id:
            return max(3 * max(nominal_ns, self._usual_ns), _CAMERA_HOLE_NS)
        return max(5 * nominal_ns, NS)

    # --- at the end of a chunk ---

    def look_at_end(self, zero_ns: int, end_ns: int, *, is_last: bool) -> None:
        """Enter what is missing at the end of tracks that others, or the time, have passed.

        Args:
            zero_ns, end_ns: where the chunk begins and ends on the recording's line.
            is_last: the recording ends with it.
        """
        for index, track in enumerate(self._inputs):
            own_ns = self._timeline.track_end_ns(index)
            reason: GapReason
            if track.ended:
                # A file may end its tracks one after the other; after an encoder's failure the device is well.
                if not track.source.device_id or isinstance(track.error, EncodingError):
                    continue
                reason, least_ns = "device_missing", _ROUGH_END_NS
            elif not is_last or (not own_ns and not self._timeline.end_ns):
                continue
            elif track.kind == "video" and own_ns:
                reason, least_ns = "no_frames", self._longest_frame_ns(max(self._usual_ns, NS // 100))
            elif track.kind == "audio" and track.source.device_id:
                reason, least_ns = "lost_sound", _ROUGH_END_NS
            else:
                continue
            begin_ns = max(own_ns, zero_ns)
            until_ns = end_ns if track.source.device_id else self._timeline.end_ns
            if until_ns - begin_ns > least_ns:
                self._losses.lose(
                    index, self._timeline.capture_of(begin_ns), self._timeline.capture_of(until_ns), reason
                )
