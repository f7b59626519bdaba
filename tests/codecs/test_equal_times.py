"""Frames whose times do not rise: each is encoded, or counted."""

from __future__ import annotations

from itertools import pairwise

import pytest

from msrecd.clock import MS, NS
from msrecd.codecs.video import VideoEncoding
from msrecd.flow.encoded import EncodingRequest, LossReader
from msrecd.flow.feed import Feed
from msrecd.flow.units import Packet, VideoFormat, VideoFrame


class _Packets(list[Packet]):
    def put(self, unit: Packet) -> None:
        self.append(unit)

    def end(self, error: BaseException | None) -> None:
        pass


@pytest.mark.promise("nothing-left-out-for-its-time")
def test_a_frame_with_the_time_of_another_is_encoded_and_one_of_long_ago_counted() -> None:
    source: Feed[VideoFrame] = Feed()
    request = EncodingRequest(kind="video", codec="h264", width=64, height=64)
    encoding = VideoEncoding(source, request, name="times", repeats=False)
    packets = _Packets()
    encoding.output.feed.add(packets)
    encoding.start()
    for at_ns in (10 * NS, *(10 * NS + ms * MS for ms in (40, 40, 80, 60, 120)), 5 * NS):
        format = VideoFormat(width=64, height=64, frame_rate=25)
        source.put(VideoFrame(pts_ns=at_ns, format=format, data=bytes(64 * 64 * 3 // 2)))
    source.end(None)
    assert encoding.join(30)
    times = [packet.pts_ns for packet in packets]
    assert (len(times), times[0]) == (6, 10 * NS)
    assert all(a < b for a, b in pairwise(times))
    assert [(loss.at_ns, loss.frames) for loss in LossReader(encoding.output.facts.losses).take()] == [(5 * NS, 1)]
