"""Pictures that stand for seconds and hours: a camera that stalls, a canvas that nobody paints."""

from __future__ import annotations

import io
from itertools import pairwise

import av
import numpy as np
import pytest

from msrecd import libav
from msrecd.clock import NS
from msrecd.codecs import parameters
from msrecd.codecs.table import select
from msrecd.flow.units import Packet
from msrecd.muxing.container import ChunkContainer

DURATIONS_S = (0.1, 2.2, 3600.0, 0.5, 2.4)  # PyAV 14 takes no duration of more than 2.147 s in ns


@pytest.mark.parametrize("mime_type", ["video/mp4", "video/x-matroska;codecs=h264"])
@pytest.mark.promise("frames-keep-their-times")
def test_a_picture_may_stand_for_any_time(mime_type: str) -> None:
    encoder = libav.VideoEncoder(codec="h264", width=64, height=48, frame_rate=10, bit_rate=0)
    picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
    encoded = [one for number in range(len(DURATIONS_S)) for one in encoder.encode(picture, number * NS)]
    encoded += encoder.flush()
    stream = parameters.of_video_encoder(encoder, 10)
    encoder.close()
    selection = select(mime_type, frozenset({"video"}), {})
    container = ChunkContainer(selection.container, [stream], fragment_ns=NS // 2)
    at_ns = 0
    for unit, duration_s in zip(encoded, DURATIONS_S, strict=True):
        duration_ns = round(duration_s * NS)
        packet = Packet(
            pts_ns=at_ns, dts_ns=at_ns, duration_ns=duration_ns, is_keyframe=unit.is_keyframe, data=unit.data
        )
        container.write(0, packet, pts_ns=at_ns, dts_ns=at_ns, duration_ns=duration_ns)
        at_ns += duration_ns
    container.close()
    with av.open(io.BytesIO(b"".join(container.take()))) as file:
        packets = [one for one in file.demux(video=0) if one.size]
        if file.duration is not None:  # a stream in Matroska does not know it
            assert file.duration / av.time_base == pytest.approx(sum(DURATIONS_S), abs=0.002)
    times = [float(one.pts * one.time_base) for one in packets]
    assert [after - before for before, after in pairwise(times)] == pytest.approx(DURATIONS_S[:-1], abs=0.002)
