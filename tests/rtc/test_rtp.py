"""RTP without a network: payloads, order and loss of packets, a peer's clock. Pure."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import pytest

from msrecd.clock import MS, NS
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.rtc.jitter import Reassembly
from msrecd.rtc.packetize import MAX_PAYLOAD, access_unit, h264_payloads, is_key_frame, vp8_payloads, vp8_size
from msrecd.rtc.packetline import Extension, PacketLine, bursts
from msrecd.rtc.peertimes import PeerClock, PeerTimes, wall_of
from msrecd.vocabulary.nal import join, nal_units

SPS, PPS = b"\x67\x42\xc0\x1e\xd9", b"\x68\xce\x3c\x80"
IDR, SLICE = b"\x65" + bytes(range(1, 250)) * 20, b"\x41" + bytes(range(1, 100))


def parameters(extradata: bytes) -> StreamParameters:
    return StreamParameters(kind="video", codec="h264", header=b"", codec_string="avc1", extradata=extradata)


def packet(data: bytes, *, is_keyframe: bool) -> Packet:
    return Packet(pts_ns=0, dts_ns=0, duration_ns=0, is_keyframe=is_keyframe, data=data)


def depacketized(payloads: list[bytes]) -> list[bytes]:
    """The NAL units of payloads by RFC 6184, sections 5.6 to 5.8."""
    units: list[bytes] = []
    for payload in payloads:
        type_ = payload[0] & 0x1F
        if type_ == 24:
            at = 1
            while at < len(payload):
                size = int.from_bytes(payload[at : at + 2], "big")
                units.append(payload[at + 2 : at + 2 + size])
                at += 2 + size
        elif type_ == 28:
            if payload[1] & 0x80:
                units.append(bytes([payload[0] & 0xE0 | payload[1] & 0x1F]))
            units[-1] += payload[2:]
        else:
            units.append(payload)
    return units


@pytest.mark.parametrize("sizes", [[1], [4, 5, 3000], [MAX_PAYLOAD], [MAX_PAYLOAD + 1], [600, 590, 700, 20_000, 3]])
def test_h264_comes_out_as_it_went_in(sizes: list[int]) -> None:
    units = [bytes([0x65]) + random.Random(size).randbytes(size - 1) for size in sizes]
    payloads = h264_payloads(units)
    assert max(map(len, payloads)) <= MAX_PAYLOAD
    assert depacketized(payloads) == units


def test_parameter_sets_stand_before_key_frames() -> None:
    """From Annex B or avcC extradata; once, not where the stream has its own, never before other frames."""
    annex_b = join([SPS, PPS], 0)
    avcc = b"\x01\x42\xc0\x1e\xff\xe1" + len(SPS).to_bytes(2, "big") + SPS + b"\x01" + len(PPS).to_bytes(2, "big") + PPS
    assert access_unit(packet(join([IDR], 0), is_keyframe=True), parameters(annex_b)) == [SPS, PPS, IDR]
    assert access_unit(packet(join([IDR], 4), is_keyframe=True), parameters(avcc)) == [SPS, PPS, IDR]
    own = join([b"\x09\xf0", SPS, PPS, IDR], 0)
    assert access_unit(packet(own, is_keyframe=True), parameters(annex_b)) == [SPS, PPS, IDR]
    assert access_unit(packet(join([SLICE], 0), is_keyframe=False), parameters(annex_b)) == [SLICE]


def test_vp8_payloads() -> None:
    frame = bytes([0x10, 0, 0, 0x9D, 0x01, 0x2A, 0x40, 0x01, 0xF0, 0x00]) + bytes(3000)
    payloads = vp8_payloads(frame, 5)
    assert [one[0] for one in payloads] == [0x90, 0x80, 0x80]
    assert b"".join(one[4:] for one in payloads) == frame
    assert is_key_frame("vp8", frame)
    assert vp8_size(frame) == (320, 240)
    assert not is_key_frame("vp8", b"\x11")


@dataclass
class Rtp:
    sequence_number: int
    timestamp: int
    marker: int
    _data: bytes


def video(frames: int, packets: int, first: int = 65_530) -> list[Rtp]:
    """Frames of so many packets each; the first and every tenth is a key frame. Numbers and times wrap."""
    made = []
    for frame in range(frames):
        for part in range(packets):
            head = b"\0\0\0\1" + (b"\x65" if frame % 10 == 0 else b"\x41") if part == 0 else b""
            number = (first + frame * packets + part) & 0xFFFF
            time = (0xFFFF_F000 + frame * 3000) & 0xFFFF_FFFF
            made.append(Rtp(number, time, int(part == packets - 1), head + bytes([frame + 1, part + 1])))
    return made


def given(frames: Reassembly, packets: list[Rtp], step_ns: int = MS) -> list[int]:
    """The numbers of the frames that come out."""
    out = []
    for index, one in enumerate(packets):
        out += [nal_units(frame.data)[0][1] - 1 for frame in frames.add(one, index * step_ns)]
    return out


def test_frames_in_order_and_shuffled() -> None:
    assert given(Reassembly("video", "h264"), video(30, 3)) == list(range(30))
    late = video(30, 3)
    for index in range(1, 80, 7):
        late[index], late[index + 3] = late[index + 3], late[index]
    assert given(Reassembly("video", "h264"), late) == list(range(30))
    twice = [one for one in video(10, 2) for _ in range(2)]
    assert given(Reassembly("video", "h264"), twice) == list(range(10))


def test_what_refers_to_a_lost_frame_is_not_given() -> None:
    """A packet of frame 4 is lost: a key frame is asked for, and nothing comes before it."""
    frames = Reassembly("video", "h264")
    lost = [one for one in video(30, 3) if one._data[-2:] != bytes([5, 2])]
    out = given(frames, lost, step_ns=20 * MS)
    assert out == [0, 1, 2, 3, *range(10, 30)]
    assert frames.needs_key_frame
    assert frames.lost_packets == 1
    assert frames.dropped_frames >= 5


def test_nothing_before_the_first_key_frame() -> None:
    frames = Reassembly("video", "h264")
    assert given(frames, video(20, 2)[6:]) == list(range(10, 20))
    assert frames.needs_key_frame


def test_sound_goes_on_behind_a_loss() -> None:
    frames = Reassembly("audio", "opus")
    sound = [Rtp(number, number * 960, 0, bytes([number])) for number in range(40)]
    out = []
    for index, one in enumerate([*sound[:10], *sound[12:]]):
        out += [(frame.data[0], frame.lost_before) for frame in frames.add(one, index * 20 * MS)]
    assert [number for number, _ in out] == [*range(10), *range(12, 40)]
    assert dict(out)[12] == 2


def test_a_sender_that_begins_anew_is_followed() -> None:
    frames = Reassembly("video", "h264")
    assert given(frames, video(10, 2, first=5000)) == list(range(10))
    assert given(frames, video(5, 2, first=100)) == list(range(5))


def test_a_peers_clock_stands_still_in_jitter() -> None:
    """Once it has settled, late packets do not move it; a clock that drifts is followed."""
    clock, jitter = PeerClock(), random.Random(5)
    offsets = []
    for number in range(3000):
        time = number * 20 * MS
        offsets.append(clock.add(time + 7 * NS + jitter.randrange(30 * MS), time))
    assert max(offsets[200:]) - min(offsets[200:]) < 5 * MS
    for number in range(3000, 33_000):  # ten minutes, 100 ppm slow
        time = number * 20 * MS
        offset = clock.add(time + 7 * NS + (number - 3000) * 2000 + jitter.randrange(5 * MS), time)
    assert abs(offset - (7 * NS + 30_000 * 2000)) < 25 * MS


def test_a_first_packet_that_was_late_moves_nothing() -> None:
    """A recording begins with it: sound that passes through is as long as it is, and would part from the frames."""
    clock, jitter = PeerClock(), random.Random(5)
    offsets = []
    for number in range(30_000):  # ten minutes, of which three on a busy machine
        time = number * 20 * MS
        late = 27 * MS if not number else jitter.randrange(3 * MS)
        late += jitter.randrange(28 * MS, 35 * MS) if 500 < number < 9500 else 0
        offsets.append(clock.add(time + 7 * NS + late, time, may_step=False))
    assert max(offsets) - min(offsets) < MS
    for number in range(30_000, 60_000):  # ten minutes, 100 ppm fast
        time = number * 20 * MS
        offset = clock.add(time + 7 * NS - (number - 30_000) * 2000 + jitter.randrange(3 * MS), time, may_step=False)
    assert abs(offset - (offsets[-1] - 30_000 * 2000)) < 45 * MS


def test_times_that_are_not_in_use_are_found_again() -> None:
    """What is recorded next is not as late as the first packet of the recording before."""
    clock = PeerClock()
    clock.add(7 * NS + 90 * MS, 0, may_step=False)
    for number in range(1, 100):
        clock.add(number * 20 * MS + 7 * NS, number * 20 * MS, may_step=False)
    assert clock.offset_ns == 7 * NS + 90 * MS
    assert clock.add(3 * NS + 7 * NS, 3 * NS) == 7 * NS


def test_frames_stand_still_while_they_are_used_and_the_sound_is_not() -> None:
    """Sound tells where frames lie, also where only they are recorded."""
    times, wall = PeerTimes({0: "video", 1: "audio"}), 1_700_000_000 * NS
    placed = []
    for number in range(500):
        at = number * 20 * MS
        times.place(1, at, wall + at, at + (27 * MS if number < 5 else 0), in_use=False)
        placed.append(times.place(0, at, wall + at, at + MS, in_use=True) - at)
    assert max(placed[2:]) - min(placed[2:]) == 0


def test_frames_keep_the_distance_that_reports_give() -> None:
    """Sound comes 45 ms later than the frames of the same moment: reports put them together."""
    times = PeerTimes({0: "video", 1: "audio"})
    wall = 1_700_000_000 * NS
    last = {}
    for number in range(200):
        at = number * 20 * MS
        last[1] = times.place(1, at + 5 * NS, wall + at, at + 45 * MS) - at
        last[0] = times.place(0, at + 900 * NS, wall + at if number > 20 else None, at + MS) - at
    assert abs(last[0] - last[1]) < MS


def test_a_report_of_zeros_says_nothing() -> None:
    """aiortc's first one: with it the stream would lie in 1900."""
    from msrecd.rtc.receiving import Incoming, ReceivedSource

    incoming = Incoming(ReceivedSource("audio", lambda: None), PeerTimes({0: "audio"}), 0, {111: "opus"})
    incoming.report(wall_of(0), 0)
    assert incoming._report is None
    incoming.report(5 * NS, 48_000)
    incoming.report(wall_of(0), 0)
    assert incoming._report == (5 * NS, 48_000)


def test_packets_are_numbered_and_kept_for_a_while() -> None:
    aiortc_rtp = pytest.importorskip("aiortc.rtp")
    ids = aiortc_rtp.HeaderExtensionsMap()
    ids.configure(
        type(
            "Agreed",
            (),
            {
                "headerExtensions": [
                    type("Id", (), {"id": 1, "uri": "urn:ietf:params:rtp-hdrext:sdes:mid"}),
                    type("Id", (), {"id": 3, "uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"}),
                ]
            },
        )
    )
    profile, data = ids.set(aiortc_rtp.HeaderExtensions(mid="7", abs_send_time=0xA5A5A5))
    whole = profile.to_bytes(2, "big") + (len(data) // 4).to_bytes(2, "big") + data
    line = PacketLine(96, 0xDEADBEEF, 0xFFFF, Extension(whole, whole.index(b"\xa5\xa5\xa5")))
    sent = [*line.packets([b"one", b"two"], 5, False, 0x10203), *line.packets([b"three"], 5, True, 0x10204)]
    parsed = [aiortc_rtp.RtpPacket.parse(one, ids) for one in sent]
    assert [(one.sequence_number, one.marker, one.payload) for one in parsed] == [
        (0xFFFF, 0, b"one"),
        (0, 0, b"two"),
        (1, 1, b"three"),
    ]
    assert {(one.payload_type, one.ssrc, one.timestamp, one.extensions.mid) for one in parsed} == {
        (96, 0xDEADBEEF, 5, "7")
    }
    assert [one.extensions.abs_send_time for one in parsed] == [0x10203, 0x10203, 0x10204]
    kept = line.sent(0)
    assert kept is not None
    assert (kept.payload, kept.timestamp, kept.marker) == (b"two", 5, 0)
    list(line.packets([b"x"] * 600, 6, True, 0))
    assert line.sent(0) is None


@pytest.mark.parametrize(("packets", "parts"), [(1, [1]), (32, [32]), (33, [32, 1]), (400, [32] * 12 + [16])])
def test_a_long_frame_does_not_leave_at_once(packets: int, parts: list[int]) -> None:
    bursts_, pause_s = bursts([b""] * packets)
    assert [len(part) for part in bursts_] == parts
    assert pause_s * (len(parts) - 1) <= 0.0401


def test_reports_do_not_step_with_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board sets its clock once it has a network: between the reports of two tracks, sound and frames would part."""
    pytest.importorskip("aiortc")
    from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket

    from msrecd.rtc.aio import aiosender

    sending = object.__new__(aiosender.Sending)
    sent: list[Any] = []

    async def send(packets: list[Any]) -> None:
        sent.extend(packets)

    sending.sender = type("Sender", (), {})()
    sending.outgoing = type("Sent", (), {"rtp_time_of": lambda self, at_ns: 0})()
    sending._origin, sending._send_rtcp = 0, send
    for step_s in (0, 3600):
        now_ns = time.time_ns() + step_s * NS
        monkeypatch.setattr("msrecd.rtc.aio.aiosender.time.time_ns", lambda now_ns=now_ns: now_ns)
        info = RtcpSenderInfo(ntp_timestamp=0, rtp_timestamp=0, packet_count=1, octet_count=1)
        asyncio.run(sending._report([RtcpSrPacket(ssrc=1, sender_info=info)]))
    first, second = (wall_of(one.sender_info.ntp_timestamp) for one in sent)
    assert 0 <= second - first < NS
