"""AV1 at the settings of the product: what changes in a picture changes in the file."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from judge import number_of

from msrecd import libav
from msrecd.codecs.video import OPTIONS
from msrecd.devices.virtual.testframe import TestFrame
from msrecd.flow.units import VideoFormat

FORMAT = VideoFormat(width=160, height=96, pixel_format="yuv420p")
FRAME_NS = 33_333_333


@pytest.mark.skipif(libav.encoder_for("av1") != "libsvtav1", reason="another encoder")
@pytest.mark.parametrize("flash_at", [0, 3, 9, 24, 27])
def test_every_picture_shows_its_number(flash_at: int) -> None:
    """SVT-AV1 2.3 took these pictures for a screen's: some cells kept what they were, depending on the flash."""
    painter = TestFrame(FORMAT.width, FORMAT.height)
    encoder = libav.VideoEncoder(
        codec="av1",
        width=FORMAT.width,
        height=FORMAT.height,
        frame_rate=30,
        bit_rate=2_500_000,
        options=OPTIONS["av1"],
    )
    decoder = libav.VideoDecoder(encoder.header)
    try:
        packets = []
        for number in range(60):
            data = painter.paint(number, flash=(number - flash_at) % 30 < 3)
            packets += encoder.encode(libav.picture(FORMAT, data), number * FRAME_NS, key_frame=number == 0)
        packets += encoder.flush()
        frames = [frame for packet in packets for frame in decoder.decode(packet.data, packet.pts)] + decoder.flush()
    finally:
        encoder.close()
        decoder.close()
    assert [number_of(frame.to_ndarray(format="gray")) for _, frame in frames] == list(range(60))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="SVT-AV1 leaves others alone")
def test_root_has_no_thread_before_all_else() -> None:
    """SVT-AV1 makes itself and its caller real-time threads of the highest priority when root opens it."""

    def policies() -> set[int]:
        encoder = libav.VideoEncoder(codec="av1", width=160, height=96, frame_rate=30, bit_rate=500_000)
        try:
            return {os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()}
        finally:
            encoder.close()

    with ThreadPoolExecutor(1) as caller:  # not this thread: it would keep what it got
        assert caller.submit(policies).result(30) == {os.SCHED_OTHER}
