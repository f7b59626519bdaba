"""RTP over RTSP's connection, taken apart: whole frames whatever the pieces, and nothing but RtpError from noise."""

from __future__ import annotations

import random
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

import pytest

from msrecd.clock import NS
from msrecd.inputs import rtp
from msrecd.inputs.rtp import RtpError, Track, Unpacker
from msrecd.inputs.rtsp import Login, Requests, Unsuited, _stream_of, read_answer, read_rtp_info
from msrecd.inputs.rtspinput import _rate_of
from msrecd.libav.values import Demuxed

VIDEO = Track(stream=0, codec="h264", channel=0, reports=1, payload_type=96, clock_rate=90_000)
HEVC = Track(stream=0, codec="hevc", channel=0, reports=1, payload_type=96, clock_rate=90_000)
AAC = Track(
    stream=1, codec="aac", channel=2, reports=3, payload_type=97, clock_rate=48_000, unit_ns=1024 * NS // 48_000
)
MULAW = Track(stream=1, codec="pcm_mulaw", channel=2, reports=3, payload_type=0, clock_rate=8_000)
SPS, PPS, IDR, SLICE = b"\x67sps", b"\x68pps", b"\x65\x88" + b"i" * 90, b"\x41\x9a" + b"p" * 50
SECOND_SLICE = b"\x41\x1a" + b"q" * 40  # first_mb_in_slice is not 0


class Sender:
    """Packets of one stream."""

    def __init__(self, channel: int = 0, kind: int = 96) -> None:
        self.channel, self.kind, self.number = channel, kind, 65_530

    def __call__(
        self, payload: bytes, stamp: int, is_last: bool = True, *, head: bytes = b"", flags: int = 0x80
    ) -> bytes:
        kind = self.kind | (0x80 if is_last else 0)
        packet = struct.pack(">BBHII", flags, kind, self.number & 0xFFFF, stamp & 0xFFFFFFFF, 7) + head + payload
        self.number += 1
        return struct.pack(">cBH", b"$", self.channel, len(packet)) + packet

    def fragments(self, unit: bytes, stamp: int, size: int = 30, *, hevc: bool = False) -> Iterator[bytes]:
        skip = 2 if hevc else 1
        body = unit[skip:]
        for at in range(0, len(body), size):
            marks = (0x80 if at == 0 else 0) | (0x40 if at + size >= len(body) else 0)
            if hevc:
                head = bytes((unit[0] & 0x81 | 49 << 1, unit[1], marks | unit[0] >> 1 & 63))
            else:
                head = bytes((unit[0] & 0xE0 | 28, marks | unit[0] & 31))
            yield self(head + body[at : at + size], stamp, at + size >= len(body))


def annexb(*units: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


def given(unpacker: Unpacker, data: bytes, piece: int | None = None) -> list[Demuxed]:
    """All that comes of the data, given in pieces."""
    step = piece or len(data)
    out = [one for at in range(0, len(data), step) for one in unpacker.feed(data[at : at + step])]
    return out + unpacker.flush()


@pytest.mark.parametrize("piece", [None, 1, 7, 100])
def test_frames_are_whole_whatever_the_pieces(piece: int | None) -> None:
    """Single units, an aggregate and fragments; the number of the packets wraps on the way, the time as well."""
    send, base = Sender(), (1 << 32) - 3000
    together = b"\x78" + b"".join(struct.pack(">H", len(unit)) + unit for unit in (SPS, PPS))
    data = send(together, base, False) + b"".join(send.fragments(IDR, base))
    data += send(SLICE, base + 3000, False) + send(SECOND_SLICE, base + 3000)
    data += send(SLICE, base + 6000)
    packets = given(Unpacker([VIDEO]), data, piece)
    assert [packet.data for packet in packets] == [annexb(SPS, PPS, IDR), annexb(SLICE, SECOND_SLICE), annexb(SLICE)]
    assert [packet.is_keyframe for packet in packets] == [True, False, False]
    assert [packet.pts_ns for packet in packets] == [0, 3000 * NS // 90_000, 6000 * NS // 90_000]
    assert not any(packet.is_damaged for packet in packets)


@pytest.mark.parametrize("track", [VIDEO, HEVC])
def test_a_frame_says_where_its_units_are(track: Track) -> None:
    send, unpacker = Sender(), Unpacker([track])
    one, two = (b"\x02\x01\x88" + b"s" * 90, b"\x02\x01\x08" + b"t" * 40) if track is HEVC else (SLICE, SECOND_SLICE)
    sent = b"".join(send.fragments(one, 0, hevc=track is HEVC)) + send(two, 0) + send(one, 3000)
    frames = given(unpacker, sent)
    assert [(frame.data, frame.units) for frame in frames] == [
        (annexb(one, two), (len(one), len(two))), (annexb(one), (len(one),)),
    ]  # fmt: skip


def test_a_byte_stream_that_is_sent_as_one_unit_is_not_believed() -> None:
    send, unpacker = Sender(), Unpacker([VIDEO])
    hidden = SLICE + b"\0\0\1" + SECOND_SLICE
    frames = given(unpacker, send(hidden, 0) + send(SLICE, 3000))
    assert [(frame.data, frame.units) for frame in frames] == [(annexb(hidden), ()), (annexb(SLICE), ())]


def test_a_frame_without_a_piece_is_damaged() -> None:
    send = Sender()
    pieces = list(send.fragments(IDR, 0))
    packets = given(Unpacker([VIDEO]), b"".join(pieces[:1] + pieces[2:]) + send(SLICE, 3000))
    assert [packet.is_damaged for packet in packets] == [True, False]


def test_what_follows_a_frame_that_did_not_come_cannot_be_decoded() -> None:
    """Up to the next key frame, which needs none before it; the frame whose end did not come lacks something itself."""
    send, unpacker = Sender(), Unpacker([VIDEO])
    first = send(IDR, 0)
    send(SLICE, 3000)
    packets = given(unpacker, first + send(SLICE, 6000) + send(SLICE, 9000))
    assert [packet.is_damaged for packet in packets] == [False, True, False]
    send(SLICE, 12_000)
    packets = given(unpacker, send(IDR, 15_000) + send(SLICE, 18_000))
    assert [packet.is_damaged for packet in packets] == [False, False]
    begun = send(SLICE, 21_000, False)
    send(SECOND_SLICE, 21_000)
    packets = given(unpacker, begun + send(IDR, 24_000))
    assert [packet.is_damaged for packet in packets] == [True, False]


def test_hevc_frames_that_did_not_come_are_missed_as_well() -> None:
    send, unpacker = Sender(), Unpacker([HEVC])
    slice_ = b"\x02\x01\x80" + b"p" * 40
    first = send(slice_, 0)
    send(slice_, 3600)
    packets = given(unpacker, first + send(slice_, 7200) + send(slice_, 10_800))
    assert [packet.is_damaged for packet in packets] == [False, True, False]


def test_numbers_that_say_nothing_about_frames_damage_none() -> None:
    """A packet that comes twice, one without a payload, one of another type, one that is padding only."""
    send, unpacker = Sender(), Unpacker([VIDEO])
    first, once = send(IDR, 0), send(SLICE, 3000)
    data = first + once + once + send(b"", 3000) + send(SLICE, 6000)
    data += send(b"\x04" * 4, 6000, flags=0xA0) + send(SLICE, 9000)
    send.kind = 100
    data += send(b"other", 9000)
    send.kind = 96
    packets = given(unpacker, data + send(SLICE, 12_000))
    assert not any(packet.is_damaged for packet in packets)


def test_numbers_that_begin_anew_damage_none() -> None:
    """As of an encoder that restarts within a session: the next frame in time, any number."""
    send, unpacker = Sender(), Unpacker([VIDEO])
    data = send(IDR, 0)
    send.number = (send.number + 20_000) & 0xFFFF
    assert not any(packet.is_damaged for packet in given(unpacker, data + send(SLICE, 3000)))


def test_a_mark_on_each_slice_splits_no_frame_for_long() -> None:
    """A sender that marks every slice as its frame's last: once seen, frames end where the next one begins."""
    send, unpacker = Sender(), Unpacker([VIDEO])
    given(unpacker, send(SLICE, 0))
    given(unpacker, send(SECOND_SLICE, 0))
    packets = given(unpacker, send(SLICE, 3000)) + given(unpacker, send(SECOND_SLICE, 3000))
    packets += given(unpacker, send(SLICE, 6000))
    assert packets[-1].data == annexb(SLICE, SECOND_SLICE)


def test_a_recovery_point_is_a_key_frame() -> None:
    send = Sender()
    packets = given(Unpacker([VIDEO]), send(b"\x06\x06\x01\xc4\x80", 0, False) + send(SLICE, 0) + send(SLICE, 3000))
    assert [packet.is_keyframe for packet in packets] == [True, False]


def test_hevc() -> None:
    send = Sender()
    sets, idr, slice_ = b"\x40\x01vps", b"\x26\x01\x80" + b"i" * 80, b"\x02\x01\x80" + b"p" * 40
    together = b"\x60\x01" + struct.pack(">H", len(sets)) + sets
    data = send(together, 0, False) + b"".join(send.fragments(idr, 0, hevc=True)) + send(slice_, 3600)
    packets = given(Unpacker([HEVC]), data)
    assert [packet.data for packet in packets] == [annexb(sets, idr), annexb(slice_)]
    assert [packet.is_keyframe for packet in packets] == [True, False]


def test_aac_many_in_a_packet_and_one_in_many() -> None:
    send = Sender(2, 97)
    many = struct.pack(">HHH", 32, 3 << 3, 2 << 3) + b"abcde"
    pieces = [send(struct.pack(">HH", 16, 6 << 3) + part, 2048, part == b"def") for part in (b"abc", b"def")]
    packets = given(Unpacker([AAC]), send(many, 0) + b"".join(pieces))
    assert [packet.data for packet in packets] == [b"abc", b"de", b"abcdef"]
    assert [packet.pts_ns for packet in packets] == [0, 21_333_333, 2048 * NS // 48_000]


def test_other_fields_of_the_header_are_not_payload() -> None:
    send = Sender(2, 0)
    extended = send(b"abcd\0\0\3", 0, head=struct.pack(">IHH", 9, 1, 1) + b"extn", flags=0x80 | 0x20 | 0x10 | 1)
    (packet,) = given(Unpacker([MULAW]), extended)
    assert (packet.data, packet.duration_ns) == (b"abcd", 4 * NS // 8000)


def test_reports_tell_the_wall_clock_and_a_farewell_the_end() -> None:
    send, unpacker = Sender(), Unpacker([VIDEO])
    report = struct.pack(">BBHIIIIII", 0x80, 200, 6, 7, 2_208_988_800 + 100, 1 << 31, 90_000, 0, 0)
    given(unpacker, struct.pack(">cBH", b"$", 1, len(report)) + report)
    packets = given(unpacker, send(SLICE, 180_000))
    assert packets[0].sender_ns == 101 * NS + NS // 2
    farewell = struct.pack(">BBHI", 0x81, 203, 1, 7)
    given(unpacker, struct.pack(">cBH", b"$", 1, len(farewell)) + farewell + bytes(8))
    assert unpacker.has_ended


def test_messages_between_packets() -> None:
    send, unpacker = Sender(), Unpacker([VIDEO])
    answer = b"RTSP/1.0 200 OK\r\nCSeq: 9\r\nContent-Length: 5\r\n\r\n$$$$$"
    packets = given(unpacker, send(SLICE, 0) + answer + send(SLICE, 3000), 11)
    assert len(packets) == 2
    assert unpacker.messages == [answer.partition(b"\r\n\r\n")[0]]


def test_what_has_no_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtp, "MAX_FRAME", 10_000)
    send, unpacker = Sender(), Unpacker([VIDEO])
    with pytest.raises(RtpError, match="too large"):
        for _ in range(1000):
            unpacker.feed(send(b"\x61\x1a" + bytes(900), 0, False))
    with pytest.raises(RtpError, match="no RTP"):
        Unpacker([VIDEO]).feed(b"A" * (1 << 17))


JUNK = {
    "letters": b"A" * 200,
    "bytes": bytes(random.Random(3).choice(b"xyz\0\x80 \r\n") for _ in range(200)),
    "almost-an-answer": b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nX: ",
    "almost-a-request": b"OPTIONS ",
    "a-line-of-text": b"OPTIONS of this camera are many, and none of them is one\r\n",
    "a-line-break": b"\r\n",
}


@pytest.mark.parametrize("piece", [None, 1, 7, 100])
@pytest.mark.parametrize("junk", list(JUNK.values()), ids=list(JUNK))
@pytest.mark.promise("junk-between-packets")
def test_what_is_neither_packet_nor_message_is_passed_over_at_once(junk: bytes, piece: int | None) -> None:
    """Between packets, in the middle of a frame and before an answer: no frame is damaged, and nothing waits."""
    send, unpacker = Sender(), Unpacker([VIDEO, MULAW])
    found: list[Demuxed] = []
    for number in range(6):
        pieces = [send(SPS, 3000 * number, False), *send.fragments(IDR, 3000 * number, 30)]
        answer = b"RTSP/1.0 200 OK\r\nCSeq: %d\r\n\r\n" % number
        found += given(unpacker, junk.join(pieces) + junk + answer, piece)
    assert [packet.data for packet in found] == [annexb(SPS, IDR)] * 6
    assert not any(packet.is_damaged for packet in found)
    assert [message[-1:] for message in unpacker.messages] == [b"%d" % number for number in range(6)]


@pytest.mark.promise("junk-between-packets")
def test_frames_that_junk_took_the_place_of_are_damaged() -> None:
    send = Sender()
    pieces = list(send.fragments(IDR, 0))
    packets = given(Unpacker([VIDEO]), b"".join([pieces[0], b"A" * 200, *pieces[2:]]) + send(SLICE, 3000))
    assert [packet.is_damaged for packet in packets] == [True, False]


@pytest.mark.parametrize("part", [b"", b"$", b"OPTIONS * RTSP/1.0\r\n", b"RTSP/1.0 200 OK\r\n\0"])
@pytest.mark.promise("junk-between-packets")
def test_junk_without_end_ends_the_connection(part: bytes) -> None:
    """Also where a packet comes now and then."""
    send, unpacker, chance = Sender(), Unpacker([VIDEO]), random.Random(1)
    size = 0
    with pytest.raises(RtpError, match="no RTP"):
        while size < 1 << 20:
            data = chance.randbytes(700).replace(b"$", b"") + part * 50 + b"\0" + send(SLICE, size)
            size += len(data)
            unpacker.feed(data)
            assert unpacker.held_bytes < 1 << 17


@pytest.mark.parametrize("kind", [0, 30])
def test_a_unit_or_two_that_are_strange_change_nothing(kind: int) -> None:
    """Damaged on their way, or a maker's own."""
    send, unpacker = Sender(), Unpacker([VIDEO])
    frames = []
    for number in range(30):
        data = b"".join(send(bytes((kind,)) + b"private", 3000 * number, False) for _ in range(3))
        frames += unpacker.feed(data + send(IDR if number % 10 == 0 else SLICE, 3000 * number))
    assert len(frames + unpacker.flush()) == 30


@pytest.mark.parametrize("track", [VIDEO, HEVC, AAC, MULAW])
def test_noise_gives_packets_or_an_error_of_its_own(track: Track) -> None:
    chance = random.Random(track.codec)
    send = Sender(track.channel, track.payload_type)
    good = send(SPS, 0, False) + b"".join(send.fragments(IDR, 0)) + send(struct.pack(">HH", 16, 24) + b"abc", 9000)
    for _ in range(400):
        data = bytearray(good * 2)
        for _ in range(chance.randrange(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        unpacker = Unpacker([track])
        try:
            given(unpacker, bytes(data), chance.randrange(1, 400))
        except RtpError:
            continue
        assert len(unpacker._rest) < 1 << 17


# --- RTSP -----------------------------------------------------------------------------------------------------------


def test_signatures() -> None:
    """The example of RFC 2069 as corrected, in RFC 2617's form; a password never stands in a request."""
    requests = Requests("rtsp://Mufasa:Circle%20Of%20Life@cam:8554/dir/index.html?x=1")
    assert requests.url == "rtsp://cam:8554/dir/index.html?x=1"
    assert requests.login.learn(['Basic realm="x"', 'Digest realm="testrealm@host.com", nonce="dcd9", opaque="5c"'])
    text = requests.write("DESCRIBE", requests.url).decode()
    assert "Circle" not in text
    assert 'Digest username="Mufasa"' in text
    assert 'opaque="5c"' in text
    login = Login()
    assert login.learn(['Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b"'])
    first, second = (login.header("GET", "/dir/index.html", "Mufasa", "Circle Of Life") for _ in range(2))
    assert "nc=00000001" in first
    assert "nc=00000002" in second
    plain = Login()
    assert plain.learn(['Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'])
    assert "670fd8c2df070c60b045671b8b24ff02" in plain.header("GET", "/dir/index.html", "Mufasa", "Circle Of Life")
    with pytest.raises(Unsuited):
        Login().learn(['Basic realm="a\r\nb"'])


@pytest.mark.parametrize(
    "part",
    [
        ["m=video 0 RTP/AVP 96", "a=rtpmap:96 VP8/90000"],
        ["m=video 0 RTP/AVP 96"],
        ["m=audio 0 RTP/AVP 97", "a=rtpmap:97 MPEG4-GENERIC/48000/2", "a=fmtp:97 mode=AAC-lbr;sizelength=6"],
        ["m=audio 0 RTP/AVP 97", "a=rtpmap:97 H264/90000"],
        ["m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=fmtp:96 packetization-mode=2"],
        ["m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/99999999"],
        ["m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=control:x\x01y"],
    ],
)
def test_what_is_unusual_is_left_to_libav(part: list[str]) -> None:
    words = part[0].removeprefix("m=").split()
    with pytest.raises(Unsuited):
        _stream_of(words[0], int(words[3]), part, "rtsp://cam/", 0)


CONTROLS = ["rtsp://cam/live/trackID=1", "rtsp://cam/live/trackID=2"]


@pytest.mark.parametrize(
    ("values", "stamps"),
    [
        (["url=rtsp://cam/live/trackID=1;seq=9;rtptime=4294967295,url=rtsp://cam/live/trackID=2;seq=3;rtptime=0"],
         [4294967295, 0]),
        (["url=trackID=2;seq=1;rtptime=7, url=trackID=1;rtptime=5"], [5, 7]),  # relative; no seq; the other order
        (["url=rtsp://x:554/a,b;c/trackID=1;seq=1;rtptime=5", "url=rtsp://x/a,b;c/trackID=2/;seq=1;rtptime=7"], [5, 7]),
        (['url="rtsp://cam/live/trackID=2" ssrc=0A13C760:seq=45102;rtptime=7,'
          'url="rtsp://cam/live/trackID=1" ssrc=9A9DE123:seq=30211;rtptime=5'], [5, 7]),
        (["url=rtsp://cam/live;seq=1;rtptime=5,url=rtsp://cam/live;seq=1;rtptime=7"], [5, 7]),  # by their order
        (["url=rtsp://cam/live/trackID=1;seq=1;rtptime=5"], [None, None]),  # of one alone
        (["url=trackID=1;seq=1;rtptime=5,url=trackID=2;seq=1"], [None, None]),
        (["url=trackID=1;seq=1;rtptime=99999999999,url=trackID=2;rtptime=-1"], [None, None]),
        (["url=trackID=1;rtptime=4294967296,url=trackID=2;rtptime=7"], [None, None]),
        (["rtptime=5", "", "url=", ",,url=;,url"], [None, None]),
        ([], [None, None]),
    ],
)  # fmt: skip
def test_what_the_answer_to_play_says(values: list[str], stamps: list[int | None]) -> None:
    assert read_rtp_info(values, CONTROLS) == stamps


def test_times_are_counted_from_what_the_answer_to_play_says() -> None:
    send = Sender()
    track = replace(VIDEO, zero_stamp=(1 << 32) - 9000)
    unpacker = Unpacker([track])
    packets = given(unpacker, send(SLICE, -18000) + send(SLICE, 9000))
    assert [packet.pts_ns for packet in packets] == [-100_000_000, 200_000_000]
    follower = Unpacker([track], {0: (unpacker.first_stamps[0], 200_000_000)})
    (packet,) = given(follower, b"".join(send(SLICE, stamp) for stamp in (12_600, 16_200, 19_800)))[:1]
    assert packet.pts_ns == 280_000_000


def test_an_answer_that_is_none() -> None:
    assert read_answer(b"HTTP/1.0 200 OK") is None
    assert read_answer(b"RTSP/1.0 461 No\r\nX: 1\r\nx: 2") is not None


@pytest.mark.parametrize(("step_ns", "rate"), [(40_000_000, 25.0), (33_366_667, 30000 / 1001), (100_300_000, 10.0)])
def test_the_rate_of_frames(step_ns: int, rate: float) -> None:
    packets = [Demuxed(0, b"", n * step_ns, None, 0, False) for n in range(12)]
    assert _rate_of(packets) == pytest.approx(rate, rel=1e-6)


@pytest.mark.promise("work-of-an-rtp-packet")
def test_the_work_of_a_second_of_a_camera() -> None:
    """Counted, not timed: 0.6 Python calls and 2.6 built-in ones for each packet of RTP, of which 700 come a second."""
    send, unpacker = Sender(), Unpacker([VIDEO])
    data = b"".join(piece for n in range(30) for piece in send.fragments(b"\x41\x9a" + bytes(33_000), n * 3000, 1400))
    calls = Counter[str]()

    def count(frame: FrameType, event: str, _: object) -> None:
        calls[event] += 1

    sys.setprofile(count)
    try:
        packets = [one for at in range(0, len(data), 1 << 16) for one in unpacker.feed(data[at : at + (1 << 16)])]
    finally:
        sys.setprofile(None)
    print(
        f"{calls['call'] / unpacker.packets:.2f} Python calls, {calls['c_call'] / unpacker.packets:.2f} built-in ones"
    )
    assert len(packets) == 29
    assert calls["call"] < 0.8 * unpacker.packets
    assert calls["c_call"] < 3.3 * unpacker.packets


@pytest.mark.parametrize("track", [VIDEO, HEVC], ids=["h264", "hevc"])
def test_fragments_taken_many_at_a_time_are_those_taken_one_by_one(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With packets that are lost, doubled, cut short, of another stream or with other fields, cut anywhere."""

    def taken(data: bytes, seed: int) -> tuple[list[tuple[bytes, int | None, bool, bool]], int, int]:
        unpacker, chance, found, at = Unpacker([track, MULAW]), random.Random(seed), list[Demuxed](), 0
        while at < len(data):
            size = chance.choice((1, 30, 1000, 65536))
            found += unpacker.feed(data[at : at + size])
            at += size
        found += unpacker.flush()
        facts = [(bytes(one.data), one.pts_ns, one.is_keyframe, one.is_damaged) for one in found]
        return facts, unpacker.packets, unpacker.held_bytes

    streams = []
    for seed in range(60):
        chance, video, sound = random.Random(seed), Sender(), Sender(2, 0)
        pieces = []
        for number in range(6):
            unit = (b"\x41" if track is VIDEO else b"\x02\x01") + chance.randbytes(chance.choice((20, 3000, 9000)))
            fragments = (
                video.fragments(unit, 3000 * number, 700) if track is VIDEO else _hevc_fragments(video, unit, number)
            )
            for piece in fragments:
                kind = chance.random()
                spoiled = bytearray(piece)
                if kind < 0.01:
                    spoiled[chance.choice((4, 5, 16, 17, 18))] ^= 1 << chance.randrange(8)
                pieces += [bytes(spoiled)] * (0 if kind > 0.99 else 2 if kind > 0.98 else 1)
                if kind > 0.9:
                    pieces.append(sound(b"$" * 100, 160 * len(pieces)))
        streams.append(b"".join(pieces))
    many = [taken(data, seed) for seed, data in enumerate(streams)]
    monkeypatch.setattr(rtp._Frames, "take_middle", lambda self, data, at, end: (at, 0))
    assert many == [taken(data, seed) for seed, data in enumerate(streams)]


def _hevc_fragments(send: Sender, unit: bytes, number: int) -> list[bytes]:
    kind, body = unit[0] >> 1 & 63, unit[2:]
    parts = [body[at : at + 700] for at in range(0, len(body), 700)]
    return [
        send(
            bytes((98, 1, (0x80 if n == 0 else 0) | (0x40 if n == len(parts) - 1 else 0) | kind)) + part,
            3000 * number,
            n == len(parts) - 1,
        )
        for n, part in enumerate(parts)
    ]


@pytest.mark.parametrize("cut", [0, 1, 5, 17, 40, 90, 333])
@pytest.mark.promise("cameras-outlive-their-process")
def test_another_process_follows_from_anywhere_in_a_packet(cut: int) -> None:
    """It begins with a whole frame, and with the times that the first one would have given; the sound is full of what
    looks like the beginning of a packet."""
    video, sound = Sender(), Sender(2, 0)
    pieces = []
    for number in range(12):
        stamp = 0xFFFFF000 + 3600 * number
        pieces += [video(SPS, stamp, False), video(PPS, stamp, False), *video.fragments(IDR + bytes((number,)), stamp)]
        pieces += [sound(b"$" * 159 + bytes((number,)), 0xFFFFFF00 + 320 * number)]
        if number == 6:
            pieces += [b"RTSP/1.0 200 OK\r\nCSeq: 7\r\n\r\n"]
    data = b"".join(pieces)
    first = Unpacker([VIDEO, MULAW])
    whole = first.feed(data) + first.flush()
    half = len(data) // 3 + cut
    before = Unpacker([VIDEO, MULAW])
    given = before.feed(data[:half])
    stamps, last = before.first_stamps, {one.stream: one.pts_ns or 0 for one in given}
    second = Unpacker([VIDEO, MULAW], {stream: (stamps[stream], last[stream]) for stream in last})
    found: list[Demuxed] = []
    for at in range(half, len(data), 50):
        found += second.feed(data[at : at + 50])
    found += second.flush()
    frames = [one for one in found if one.stream == 0]
    assert not any(one.is_damaged for one in frames)
    assert len(frames) >= 12 - (len([one for one in given if one.stream == 0]) + 2)
    expected = {(one.stream, one.pts_ns): one.data for one in whole}
    for one in found:
        near = min(expected, key=lambda key: (key[0] != one.stream, abs((key[1] or 0) - (one.pts_ns or 0))))
        assert abs((near[1] or 0) - (one.pts_ns or 0)) < 200_000, "within a tick of RTP"
        assert expected[near] == one.data


def test_what_is_no_rtp_any_more_is_given_up() -> None:
    follower = Unpacker([VIDEO], {})
    with pytest.raises(RtpError, match="no RTP"):
        for _ in range(40):
            follower.feed(b"$\0" * 20_000)
