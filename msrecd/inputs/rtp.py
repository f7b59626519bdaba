"""RTP that comes over an RTSP connection, taken apart: bytes of the connection in, packets of streams out. Pure.

libav reads each packet of RTP with some six system calls and a copy for each; a camera of 8 Mbit/s sends 700 a second.
What is read here comes in pieces of a third of a second. Nothing in it is trusted; everything has a bound, and Python
keeps its memory. The rules: RFC 2326 (10.12), RFC 3550 (5.1, 6.4.1), RFC 6184 (H.264), RFC 7798 (HEVC), RFC 3640 (AAC),
RFC 3551 (G.711), RFC 7587 (Opus).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msrecd.clock import NS
from msrecd.inputs.interleaved import beginnings, begun_at_end, message_head
from msrecd.libav.values import Demuxed

CODECS = ("h264", "hevc", "aac", "opus", "pcm_mulaw", "pcm_alaw")
MAX_FRAME = 8 << 20  # bytes
_MAX_LOST = 1 << 20  # bytes that tell where a packet begins
_MAX_TEXT = 64 << 10  # of a message of RTSP between the packets
_MAX_JUNK = 64 << 10  # bytes that are neither; ...
_JUNK_PART = 16  # ... for each of them so many that are right are owed
_MAX_UNITS = 4096  # NAL units of a frame
_MOST_AT_ONCE = 256 << 10  # bytes of fragments between two looks at how large the frame is
_MOST_SIZES = 32  # units of a frame
_LOOKED_AT = 100  # frames, before it is believed that no units hide in what came as one
_MAX_PARTS = 2 * _MAX_UNITS + MAX_FRAME // 1000
_STRANGE = 8  # units in a row that are none of their coding: one or two may be damaged, or a maker's own
_MOST_MISSING = 3000  # packets in a second; a larger step is a sender that begins anew (MAX_DROPOUT of RFC 3550, A.1)
_HEAD = struct.Struct(
    ">BBHBBHII"
)  # of RTSP's interleaving and of RTP: $, channel, size, flags, kind, number, time, who
_MIDDLE = struct.Struct(">HHHHI4x")  # the same, as far as the packets of a frame are alike
_SIZE = struct.Struct(">H")
_INTERLEAVED, _RTP, _DOLLAR = 4, 12, 0x24
_REPORT, _BYE = 200, 203
_NTP_S = 2_208_988_800  # from 1900 to 1970
_WRAP, _HALF = 1 << 32, 1 << 31
_UNIT = [b"\0\0\0\1" + bytes((head,)) for head in range(256)]
_START = b"\0\0\0\1"


class RtpError(Exception):
    """What comes is out of bounds."""


class RecodedError(RtpError):
    """A stream is not of the coding that was described any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A stream of RTP, as it was set up.

    channel: of the connection; that of its reports is `reports`. unit_ns: what a packet of sound lasts where several
    come in one packet of RTP. zero_stamp: the time of RTP at which, says the camera, all its streams begin.
    """

    stream: int
    codec: str
    channel: int
    reports: int
    payload_type: int
    clock_rate: int
    unit_ns: int = 0
    zero_stamp: int | None = None


class _Stream:
    """Takes the packets of RTP of one stream. Its times are those of RTP, from `zero_stamp` on, or its first packet."""

    def __init__(self, track: Track) -> None:
        self.stream, self.clock_rate = track.stream, track.clock_rate
        self._stamp = self.first_stamp = track.zero_stamp
        self._time = 0
        self._report: tuple[int, int] | None = None  # (wall clock, time of RTP)
        self.has_ended = False

    def take(
        self, data: bytes, begin: int, stop: int, is_last: bool, number: int, stamp: int, out: list[Demuxed]
    ) -> None:
        raise NotImplementedError

    is_open = False  # what follows may be taken by `take_middle`

    def take_middle(self, data: bytes, at: int, end: int) -> tuple[int, int]:
        """Take packets that continue the last one and nothing else: (behind them, how many)."""
        return at, 0

    def flush(self, out: list[Demuxed]) -> None:
        """Nothing more has come for now."""

    def skip(self, number: int) -> None:
        """A packet of RTP has this number and nothing for this stream."""

    @property
    def held_bytes(self) -> int:
        """Of what is not whole yet."""
        return 0

    def follow(self, first_stamp: int, pts_ns: int) -> None:
        """Its times go on as if it had been read since `first_stamp`, the time zero, up to `pts_ns`."""
        self.first_stamp = first_stamp
        self._time = round(pts_ns * self.clock_rate / NS)
        self._stamp = (first_stamp + self._time) % _WRAP

    def report(self, data: bytes, begin: int, stop: int) -> None:
        """RTCP: sender reports and farewells."""
        while begin + 4 <= stop:
            kind, words = data[begin + 1], _SIZE.unpack_from(data, begin + 2)[0]
            if kind == _REPORT and begin + 20 <= stop:
                seconds, part, stamp = struct.unpack_from(">III", data, begin + 8)
                if seconds:
                    self._report = ((seconds - _NTP_S) * NS + (part * NS >> 32), stamp)
            elif kind == _BYE:
                self.has_ended = True
            begin += 4 + 4 * words

    def _times(self, stamp: int) -> tuple[int, int | None]:
        """(time, the sender's wall clock) at a time of RTP."""
        if self._stamp is not None:
            self._time += (stamp - self._stamp + _HALF) % _WRAP - _HALF
        else:
            self.first_stamp = stamp
        self._stamp = stamp
        sender_ns = None
        if self._report is not None:
            wall_ns, then = self._report
            sender_ns = wall_ns + ((stamp - then + _HALF) % _WRAP - _HALF) * NS // self.clock_rate
        return self._time * NS // self.clock_rate, sender_ns


class _Frames(_Stream):
    """Frames of H.264: all units of one time, as a byte stream (Annex B).

    A frame is over with the first unit of the next one, or when nothing follows its last packet for now.
    """

    _HEAD_BYTES = 2  # of a fragment; the last one says whether it is a middle one, and of what kind of unit

    def __init__(self, track: Track) -> None:
        super().__init__(track)
        self._alike = _DOLLAR << 8 | track.channel, 0x8000 | track.payload_type  # what all its packets have
        self._middle = b""  # head of the fragments in the middle of the unit that is open
        self._parts: list[bytes] = []
        self._bytes = 0
        self._units: list[int] = []  # of this frame: where they begin
        self._looked_at = 0
        self._hides_units = False  # start codes are in what is sent as one unit
        self._frame_stamp = 0
        self._has_slice = self._is_key = self._is_damaged = False
        self.is_open = False  # a unit in fragments, whose last one has not come
        self._next_number = -1
        self._follows_missing = False  # packets before it, of other frames, did not come
        self._is_whole = False  # its last packet has come
        self._gave_whole_at: int | None = None
        self._marks_slices = False  # the mark of the last packet is set on each slice: it says nothing
        self._codec = track.codec
        self._strange = 0  # units in a row that no camera sends in this coding

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def take(
        self, data: bytes, begin: int, stop: int, is_last: bool, number: int, stamp: int, out: list[Demuxed]
    ) -> None:
        if number != self._next_number:
            self._miss(number, stamp, out)
        self._next_number = number + 1 & 0xFFFF
        if stamp != self._frame_stamp:
            if self._has_slice:
                self._give(out)
            self._frame_stamp = stamp
        head = data[begin]
        kind = head & 31
        if kind == 28:
            marks = data[begin + 1] if begin + 1 < stop else 0
            if marks & 0x80:
                self._unit(head & 0xE0 | marks & 31, data, begin + 2, stop, out)
                self._middle = bytes((head, marks & 31))
                self.is_open = True
            elif self.is_open:
                self._parts.append(data[begin + 2 : stop])
                self._bytes += max(0, stop - begin - 2)
            else:
                self._is_damaged = True
            if marks & 0x40:
                self.is_open = False
        elif kind == 24:
            at = begin + 1
            while at + 2 < stop:
                end = at + 2 + _SIZE.unpack_from(data, at)[0]
                self._unit(data[at + 2], data, at + 3, min(end, stop), out)
                at = end
        elif 0 < kind < 24:
            self._unit(head, data, begin + 1, stop, out)
        else:
            self._is_strange()
        self._is_whole = is_last
        self._check_size()

    def take_middle(self, data: bytes, at: int, end: int) -> tuple[int, int]:
        """Most of what comes: fragments of one unit, without a call for each."""
        (first, second), head, number, stamp = self._alike, self._middle, self._next_number, self._frame_stamp
        begin, heads, before = at, 16 + self._HEAD_BYTES, len(self._parts)
        unpack, append = _MIDDLE.unpack_from, self._parts.append
        end = min(end, at + _MOST_AT_ONCE)
        while at + heads < end:
            one, size, two, its_number, its_stamp = unpack(data, at)
            after = at + 4 + size
            if (
                its_number != number
                or its_stamp != stamp
                or one != first
                or two != second
                or data[at + 16 : at + heads] != head
                or not at + heads < after <= end
            ):
                break
            append(data[at + heads : after])
            number = number + 1 & 0xFFFF
            at = after
        count = len(self._parts) - before
        if count:
            self._next_number, self._is_whole = number, False
            self._bytes += at - begin - heads * count
            self._check_size()
        return at, count

    def _check_size(self) -> None:
        """
        Raises:
            RtpError: it is larger than a camera's.
        """
        if self._bytes > MAX_FRAME or len(self._parts) > _MAX_PARTS:
            raise RtpError("a frame that is too large")

    def skip(self, number: int) -> None:
        if number == self._next_number:
            self._next_number = number + 1 & 0xFFFF

    def _miss(self, number: int, stamp: int, out: list[Demuxed]) -> None:
        """Packets before this one did not come: some senders leave out what a slow connection does not take.

        What refers to them cannot be decoded, though all of it may have come; only a key frame can.
        """
        if self._next_number < 0 or (missing := (number - self._next_number) & 0xFFFF) >= 0x8000:
            return  # the first one, or one that came twice
        if missing > _MOST_MISSING and (stamp - self._frame_stamp) % _WRAP < self.clock_rate:
            return  # so many cannot have been left out of less than a second: the numbers begin anew
        if stamp == self._frame_stamp or (self._has_slice and not self._is_whole):
            self.is_open, self._is_damaged = False, True
        if stamp != self._frame_stamp:
            if self._has_slice:
                self._give(out)
            self._frame_stamp, self._follows_missing = stamp, True

    def _unit(self, head: int, data: bytes, begin: int, stop: int, out: list[Demuxed]) -> None:
        """A unit begins, or is there."""
        if self.is_open:  # the one before has no end
            self.is_open, self._is_damaged = False, True
        kind = head & 31
        if 1 <= kind <= 5:
            if 1 < kind < 5:  # partitions of slices, which only the Extended profile has
                self._is_damaged = True
                self._is_strange()
            else:
                self._strange = 0
            is_first = begin < stop and data[begin] >= 0x80  # first_mb_in_slice is 0
            self._slice(is_first, out)
            self._is_key = self._is_key or kind == 5
        elif kind == 6 and not self._is_key and _recovers(data, begin, stop):
            self._before_slice(out)
            self._is_key = True
        else:
            self._before_slice(out)
        self._units.append(self._bytes)
        self._parts += (_UNIT[head], data[begin:stop])
        self._bytes += 5 + max(0, stop - begin)

    def _is_strange(self) -> None:
        """
        Raises:
            RecodedError: the sender has gone over to another coding, under the same payload type.
        """
        self._strange += 1
        if self._strange >= _STRANGE:
            raise RecodedError(f"its frames are no {self._codec} any more")

    def _slice(self, is_first: bool, out: list[Demuxed]) -> None:
        if self._has_slice and is_first:
            self._give(out)
        elif not self._has_slice and not is_first and self._gave_whole_at == self._frame_stamp:
            self._marks_slices = True
        self._has_slice = True

    def _before_slice(self, out: list[Demuxed]) -> None:
        """A unit that is no slice begins a frame when the last one has all of its own."""
        if self._has_slice and self._is_whole and not self._marks_slices:
            self._give(out)

    def flush(self, out: list[Demuxed]) -> None:
        if self._has_slice and self._is_whole and not self._marks_slices:
            self._gave_whole_at = self._frame_stamp
            self._give(out)

    def _give(self, out: list[Demuxed]) -> None:
        pts_ns, sender_ns = self._times(self._frame_stamp)
        is_damaged = self._is_damaged or self.is_open or (self._follows_missing and not self._is_key)
        data = b"".join(self._parts)
        units = () if self._hides_units or len(self._units) > _MOST_SIZES else self._sizes_of_units(data)
        out.append(Demuxed(self.stream, data, pts_ns, None, 0, self._is_key, sender_ns, is_damaged, units=units))
        self._parts, self._bytes, self._units = [], 0, []
        self._has_slice = self._is_key = self._is_damaged = self.is_open = self._follows_missing = False

    def _sizes_of_units(self, data: bytes) -> tuple[int, ...]:
        """Bytes of each unit of the frame; none where what came as one unit is several: some senders cut a byte stream
        as if it were one.
        """
        begins = self._units
        if self._looked_at < _LOOKED_AT:
            self._looked_at += 1
            self._hides_units = data.count(_START[1:]) != len(begins)
        if self._hides_units or self._bytes != len(data):
            return ()
        if len(begins) == 1:
            return (len(data) - 4,)
        return tuple([end - at - 4 for at, end in zip(begins, [*begins[1:], len(data)], strict=True)])


class _HevcFrames(_Frames):
    _HEAD_BYTES = 3

    def take(
        self, data: bytes, begin: int, stop: int, is_last: bool, number: int, stamp: int, out: list[Demuxed]
    ) -> None:
        if number != self._next_number:
            self._miss(number, stamp, out)
        self._next_number = number + 1 & 0xFFFF
        if stop - begin < 3:
            return
        if data[begin + 1] & 0xF8:  # not of the base layer: cameras have no other
            self._is_strange()
            return
        if stamp != self._frame_stamp:
            if self._has_slice:
                self._give(out)
            self._frame_stamp = stamp
        # As H.264's, written out: one more call for each packet.
        kind = data[begin] >> 1 & 63
        if kind == 49:
            marks = data[begin + 2]
            if marks & 0x80:
                head = bytes((data[begin] & 0x81 | (marks & 63) << 1, data[begin + 1]))
                self._hevc_unit(head, data, begin + 3, stop, out)
                self._middle = bytes((data[begin], data[begin + 1], marks & 63))
                self.is_open = True
            elif self.is_open:
                self._parts.append(data[begin + 3 : stop])
                self._bytes += stop - begin - 3
            else:
                self._is_damaged = True
            if marks & 0x40:
                self.is_open = False
        elif kind == 48:
            at = begin + 2
            while at + 4 < stop:
                end = at + 2 + _SIZE.unpack_from(data, at)[0]
                self._hevc_unit(data[at + 2 : at + 4], data, at + 4, min(end, stop), out)
                at = end
        elif kind < 48:
            self._hevc_unit(data[begin : begin + 2], data, begin + 2, stop, out)
        else:
            self._is_strange()
        self._is_whole = is_last
        self._check_size()

    def _hevc_unit(self, head: bytes, data: bytes, begin: int, stop: int, out: list[Demuxed]) -> None:
        if self.is_open:
            self.is_open, self._is_damaged = False, True
        kind = head[0] >> 1 & 63
        if kind < 32:
            self._strange = 0
            self._slice(begin < stop and data[begin] >= 0x80, out)  # first_slice_segment_in_pic_flag
            self._is_key = self._is_key or 16 <= kind <= 23
        else:
            self._before_slice(out)
        self._units.append(self._bytes)
        self._parts += (_START, head, data[begin:stop])
        self._bytes += 6 + max(0, stop - begin)


class _Sound(_Stream):
    """G.711 and Opus: a packet of RTP is one of the stream."""

    def __init__(self, track: Track) -> None:
        super().__init__(track)
        self._byte_ns = NS // track.clock_rate if track.codec.startswith("pcm") else 0

    def take(
        self, data: bytes, begin: int, stop: int, is_last: bool, number: int, stamp: int, out: list[Demuxed]
    ) -> None:
        if begin < stop:
            pts_ns, sender_ns = self._times(stamp)
            lasts_ns = (stop - begin) * self._byte_ns
            out.append(Demuxed(self.stream, data[begin:stop], pts_ns, None, lasts_ns, True, sender_ns))


class _Aac(_Stream):
    """AAC-hbr: access units of 13 bits of size, many in a packet or one in several."""

    def __init__(self, track: Track) -> None:
        super().__init__(track)
        self._unit_ns = track.unit_ns
        self._parts: list[bytes] = []
        self._missing = 0  # bytes of a unit in fragments

    def take(
        self, data: bytes, begin: int, stop: int, is_last: bool, number: int, stamp: int, out: list[Demuxed]
    ) -> None:
        if begin + 2 > stop:
            return
        heads = (_SIZE.unpack_from(data, begin)[0] + 7 >> 3) & ~1
        at, first = begin + 2 + heads, begin + 2
        if not heads or at > stop:
            return
        size = _SIZE.unpack_from(data, first)[0] >> 3
        if heads == 2 and (size > stop - at or self._parts):
            self._fragment(data[at:stop], size, is_last, stamp, out)
            return
        self._parts = []
        pts_ns, sender_ns = self._times(stamp)
        for head in range(first, first + heads, 2):
            size = _SIZE.unpack_from(data, head)[0] >> 3
            if not size or at + size > stop:
                return
            out.append(Demuxed(self.stream, data[at : at + size], pts_ns, None, 0, True, sender_ns))
            at += size
            pts_ns += self._unit_ns
            sender_ns = None if sender_ns is None else sender_ns + self._unit_ns

    def _fragment(self, part: bytes, size: int, is_last: bool, stamp: int, out: list[Demuxed]) -> None:
        if not self._parts:
            self._missing = size
        self._parts.append(part)
        self._missing -= len(part)
        if is_last or self._missing <= 0:
            if not self._missing:
                pts_ns, sender_ns = self._times(stamp)
                out.append(Demuxed(self.stream, b"".join(self._parts), pts_ns, None, 0, True, sender_ns))
            self._parts = []


def _recovers(data: bytes, begin: int, stop: int) -> bool:
    """Whether supplemental information says that decoding can begin here (recovery point), as libav takes it."""
    while begin + 2 < stop:
        kind = size = 0
        while begin < stop and data[begin] == 255:
            kind, begin = kind + 255, begin + 1
        if begin >= stop:
            return False
        kind, begin = kind + data[begin], begin + 1
        while begin < stop and data[begin] == 255:
            size, begin = size + 255, begin + 1
        if begin >= stop:
            return False
        if kind == 6:
            return True
        begin += 1 + size + data[begin]
    return False


_STREAMS: dict[str, type[_Stream]] = {
    "h264": _Frames, "hevc": _HevcFrames, "aac": _Aac, "opus": _Sound, "pcm_mulaw": _Sound, "pcm_alaw": _Sound,
}  # fmt: skip


class Unpacker:
    """The bytes of an RTSP connection, as packets of its streams. Belongs to one thread."""

    def __init__(self, tracks: Sequence[Track], follows: Mapping[int, tuple[int, int]] | None = None) -> None:
        """
        Args:
            follows: the connection has been read by another process, which is gone, and goes on anywhere in a packet;
                for the streams that had given something, their first time of RTP and the time of their last packet.
        """
        self._streams = {track.channel: _STREAMS[track.codec](track) for track in tracks}
        self._kinds = {track.channel: track.payload_type for track in tracks}
        self._reports = {track.reports: self._streams[track.channel] for track in tracks}
        self._frames = {track.channel for track in tracks if track.codec in ("h264", "hevc")}
        self._is_lost = follows is not None
        for stream in self._streams.values():
            if follows is not None and stream.stream in follows:
                stream.follow(*follows[stream.stream])
        self._rest = b""
        self._searched = 0  # no packet begins before that
        self._junk = 0  # bytes
        self._is_behind_junk = False  # what begins the rest only seems to be a packet
        self.packets = 0  # of RTP and of anything else so far
        self.messages: list[bytes] = []  # of RTSP that came between, without their bodies

    @property
    def has_ended(self) -> bool:
        """The sender has said that all streams are over."""
        return all(stream.has_ended for stream in self._streams.values())

    def feed(self, data: bytes) -> list[Demuxed]:
        """
        Raises:
            RtpError: it is out of bounds.
        """
        if self._rest:
            data = self._rest + data
        if self._is_lost:
            begin = self._beginning(data)
            if begin is None:
                self._rest = data
                if len(data) > _MAX_LOST:
                    raise RtpError("what comes is no RTP any more")
                return []
            data, self._is_lost = data[begin:], False
        out: list[Demuxed] = []
        at, end = 0, len(data)
        junk = self._junk
        if self._is_behind_junk:
            at = self._behind_junk(data, 0, 0)
        streams, kinds, unpack = self._streams, self._kinds, _HEAD.unpack_from
        packets = 0
        while at + 16 <= end:
            magic, channel, size, flags, kind, number, stamp, _ = unpack(data, at)
            if magic != _DOLLAR:
                packets += 1
                after = self._message(data, at)
                if after is None:
                    break
                at = after
                continue
            after = at + 4 + size
            if after > end:
                break
            packets += 1
            stream = streams.get(channel)
            if stream is not None and kind & 0x7F == kinds[channel] and size > _RTP:
                if flags == 0x80:
                    stream.take(data, at + 16, after, kind > 0x7F, number, stamp, out)
                    if stream.is_open:
                        after, more = stream.take_middle(data, after, end)
                        packets += more
                elif (bounds := _payload(data, at + 4, after)) is not None:
                    stream.take(data, *bounds, kind > 0x7F, number, stamp, out)
                else:
                    stream.skip(number)
            elif stream is not None and size >= _RTP:
                stream.skip(number)
            elif channel in self._reports and size >= 8:
                self._reports[channel].report(data, at + 4, after)
            at = after
        self._rest = data[at:]
        self.packets += packets
        if self._junk:
            self._junk = max(0, self._junk - max(0, at - (self._junk - junk)) // _JUNK_PART)
        return out

    @property
    def first_stamps(self) -> dict[int, int]:
        """The time of RTP that is zero, by stream."""
        return {one.stream: one.first_stamp for one in self._streams.values() if one.first_stamp is not None}

    @property
    def held_bytes(self) -> int:
        """Of what is not whole yet."""
        return len(self._rest) + sum(one.held_bytes for one in self._streams.values())

    def _beginning(self, data: bytes) -> int | None:
        """Where to begin with what goes on anywhere: with a whole packet, and a whole frame where there are frames.

        None: more has to come.
        """
        at, first = self._searched - 1, None
        self._searched = len(data)
        while (at := data.find(b"$", at + 1)) >= 0:
            is_packet = self._is_packet(data, at)
            if is_packet is not False:
                self._searched = min(self._searched, at)
            if not is_packet:
                continue
            while at + 16 <= len(data) and self._is_packet(data, at):
                _, channel, size, _, _, _, stamp, _ = _HEAD.unpack_from(data, at)
                if not self._frames or (channel in self._frames and stamp != (first := first or (stamp,))[0]):
                    return at
                at += 4 + size
        return None

    def _is_packet(self, data: bytes, at: int) -> bool | None:
        """Whether a packet of these streams seems to begin here, and another one behind it; None: more has to come."""
        for _ in range(2):
            if at + 16 > len(data):
                return None
            magic, channel, size, flags, kind, _, _, _ = _HEAD.unpack_from(data, at)
            known = kind & 0x7F == self._kinds[channel] if channel in self._kinds else channel in self._reports
            if magic != _DOLLAR or not known or flags >> 6 != 2 or size < 8:
                return False
            at += 4 + size
        return True

    def _behind_junk(self, data: bytes, at: int, search: int) -> int:
        """The next place at or behind `search` where a packet or a message seems to begin; what lies before is passed
        over.

        What is missing because of it shows in the numbers and times of the packets.

        Raises:
            RtpError: there is too much of it.
        """
        after = next((begin for begin in beginnings(data, search) if self._may_begin(data, begin)), None)
        if after is None:
            after = max(search, begun_at_end(data))
        self._is_behind_junk = after + _INTERLEAVED + _RTP > len(data)
        self._junk += after - at
        if self._junk > _MAX_JUNK:
            raise RtpError("what comes is no RTP any more")
        return after

    def _may_begin(self, data: bytes, at: int) -> bool:
        """Whether a message or a packet of these streams seems to begin here, as far as it has come."""
        if data[at] != _DOLLAR or at + _INTERLEAVED + _RTP > len(data):
            return True
        _, channel, size, flags, kind, _, _, _ = _HEAD.unpack_from(data, at)
        if flags >> 6 != 2 or size < 8:
            return False
        if channel in self._kinds:
            return bool(kind & 0x7F == self._kinds[channel])
        return channel in self._reports and bool(kind >> 3 == _REPORT >> 3)  # 200 to 207

    def flush(self) -> list[Demuxed]:
        """What is whole although nothing has followed yet."""
        out: list[Demuxed] = []
        for stream in self._streams.values():
            stream.flush(out)
        return out

    def _message(self, data: bytes, at: int) -> int | None:
        """Behind a message of RTSP, or behind what is none; None: its end has not come."""
        head = message_head(data, at, _MAX_TEXT)
        if head is None:
            return None
        if not head:
            return self._behind_junk(data, at, at + 1)
        end = at + len(head)
        size = 0
        for line in data[at:end].split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                size = int(value.strip()[:9])
        if size > _MAX_TEXT:
            raise RtpError("a message that is too long")
        after = end + 4 + size
        if after > len(data):
            return None
        if len(self.messages) < 16:
            self.messages.append(data[at:end])
        return after


def _payload(data: bytes, begin: int, stop: int) -> tuple[int, int] | None:
    """Where the payload of a packet with other fields than usual lies (RFC 3550, 5.1); None: it is none."""
    flags = data[begin]
    if flags >> 6 != 2:
        return None
    at = begin + _RTP + 4 * (flags & 15)
    if flags & 0x10:
        if at + 4 > stop:
            return None
        at += 4 + 4 * _SIZE.unpack_from(data, at + 2)[0]
    if flags & 0x20:
        stop -= data[stop - 1]
    return (at, stop) if at < stop else None
