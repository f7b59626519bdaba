"""AV1 at the settings of the product: what changes in a frame changes in the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
FRAMES = 60
DEADLINE_S = 60  # of a second's work: SVT-AV1 was once seen stuck in native code, which no signal handler ends


def numbers_shown(flash_at: int) -> list[int]:
    """Encode and decode frames that show their numbers; what the decoded ones show."""
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
        for number in range(FRAMES):
            data = painter.paint(number, flash=(number - flash_at) % 30 < 3)
            packets += encoder.encode(libav.picture(FORMAT, data), number * FRAME_NS, key_frame=number == 0)
        packets += encoder.flush()
        frames = [frame for packet in packets for frame in decoder.decode(packet.data, packet.pts)] + decoder.flush()
    finally:
        encoder.close()
        decoder.close()
    return [number_of(frame.to_ndarray(format="gray")) for _, frame in frames]


@pytest.mark.skipif(libav.encoder_for("av1") != "libsvtav1", reason="another encoder")
@pytest.mark.parametrize("flash_at", [0, 3, 9, 24, 27])
def test_every_frame_shows_its_number(flash_at: int) -> None:
    """SVT-AV1 2.3 took these frames for a screen's: some cells kept what they were, depending on the flash."""
    done = subprocess.run(  # in a process of its own, which can be killed
        [sys.executable, "-X", "faulthandler", __file__, str(flash_at)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(range(FRAMES))


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


if __name__ == "__main__":
    print(json.dumps(numbers_shown(int(sys.argv[1]))))
