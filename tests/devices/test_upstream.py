"""What reading picamera2, libcamera, the kernel and systemd brought up, and what holds each: none may be lost again.

A row: what a Raspberry Pi does; what msrecd does about it, or why it does nothing; the tests; how they fail without it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    number: str
    habit: str
    answer: str
    tests: tuple[str, ...]
    without: str


PICAMERA, BOARDS, PURE = "devices/test_picamera.py", "devices/test_boards.py", "devices/test_picamera_pure.py"

ROWS = (
    # Does not start, or stops working.
    Row(
        number="A1",
        habit="CmaFree is low after minutes of recording, for the page cache lies in CMA; yet it can be allocated",
        answer="only CmaTotal decides; an allocation that fails is explained; a finished chunk's pages are given back",
        tests=(
            f"{BOARDS}::test_memory_that_holds_the_page_cache_is_no_reason_to_refuse",
            f"{PICAMERA}::test_memory_that_is_refused_is_explained",
            "storage/test_page_cache.py::test_a_finished_chunk_gives_its_pages_back",
        ),
        without="NotReadableError no_memory at 200 kB free; all pages of the chunk are still cached",
    ),
    Row(
        number="A2",
        habit="DeviceAllow= by name is resolved once, at the start: drivers that load later are forbidden for good",
        answer="majors by number, and modprobe@snd, @videodev, @mc before the service; EPERM has a message of its own",
        tests=(
            "devices/test_unit.py::test_devices_whose_driver_comes_later_are_allowed",
            "devices/test_unit.py::test_drivers_are_loaded_before_the_service",
        ),
        without="the unit has char-alsa, or no Wants=; hw-tests/vm: no microphone after the module is loaded",
    ),
    Row(
        number="A3",
        habit="picamera2 decides what board this is when it is imported, VC4 while no image processor's node is there",
        answer="compared with the device tree; pispbe is waited for; a wrong import is undone, and tried at each look",
        tests=(
            "devices/test_board.py::test_the_image_processor_of_a_pi_5_is_waited_for",
            "devices/test_board.py::test_picamera2_that_takes_the_board_for_another_is_forgotten",
            "devices/test_board.py::test_the_import_is_tried_again",
            "devices/test_board.py::test_an_image_processor_that_comes_minutes_later_needs_no_restart",
        ),
        without="no WrongPlatform; picamera2 stays, with the other board's file; no backend until a restart",
    ),
    Row(
        number="A4",
        habit="Lite images have no picamera2",
        answer="the install line, Recommends:, and a warning on a board that is a Pi",
        tests=(
            "devices/test_board.py::test_a_pi_without_picamera2_is_told_what_to_install",
            "cli/test_doctor.py::test_what_is_wrong_and_what_to_do",
            "house/test_debian.py::test_what_a_first_recording_needs_comes_along",
        ),
        without="an empty list of cameras without a word",
    ),
    Row(
        number="A5",
        habit="Picamera2() opens a pipe, and keeps one end when it fails: 1024 descriptors in a night",
        answer="both ends and the entry in the camera manager are freed",
        tests=(f"{PICAMERA}::test_a_camera_that_refuses_costs_no_file_descriptor",),
        without="20 refusals leave 40 descriptors, with the real picamera2 as with the fake",
    ),
    Row(
        number="A6",
        habit="`sensor_modes` allocates four raw buffers a mode: 70 MiB for an IMX477, too much for a Zero 2 W",
        answer="the camera is looked into with an allocator that allocates nothing",
        tests=(f"{PICAMERA}::test_looking_into_a_camera_allocates_nothing",),
        without="ENOMEM while looking, and modes that were guessed",
    ),
    Row(
        number="A7",
        habit="the overlay root of raspi-config keeps recordings in memory",
        answer="`upperdir` is looked up among the mounts, and warned of",
        tests=("storage/test_media.py::test_an_overlay_on_memory_is_memory",),
        without="no finding",
    ),
    # Wrong or worse recording.
    Row(
        number="B8",
        habit="ranges of controls before configure() are of no sensor: 66 ms, gain 16, a crop of 65535x65535",
        answer="controls are made after configure(), and sent before start()",
        tests=(f"{PICAMERA}::test_controls_are_made_of_the_ranges_after_configure",),
        without="ExposureTime 66666 instead of 500000, gain 16 instead of 20, the whole frame instead of a quarter",
    ),
    Row(
        number="B9",
        habit="picamera2 sets ScalerCrops when there are two streams, which libcamera prefers to ScalerCrop",
        answer="both are set",
        tests=(f"{PICAMERA}::test_a_second_stream_keeps_the_zoom",),
        without="ScalerCrops is the whole frame",
    ),
    Row(
        number="B10",
        habit="an exposure longer than a frame is cut without a word; a fixed rate is dark at dusk",
        answer="a fixed exposure lowers the rate, or is refused with the numbers; min/max become FrameDurationLimits",
        tests=(
            f"{PICAMERA}::test_an_exposure_longer_than_a_frame_lowers_the_rate",
            f"{PICAMERA}::test_an_exposure_that_the_running_camera_cannot_have_is_refused_with_the_numbers",
            f"{PICAMERA}::test_constraints_of_the_frame_rate",
        ),
        without="FrameDurationLimits (33333, 33333) whatever was asked for",
    ),
    Row(
        number="B11",
        habit="a frame every three seconds looks like a dead camera",
        answer="limits of frame lengths, in the watch and in the recorder's wait for the first packet",
        tests=(f"{PICAMERA}::test_a_slow_camera_is_not_taken_for_a_dead_one", "media/test_slow_machine.py::*"),
        without="muted after 2 s, restarted after 5",
    ),
    Row(
        number="B12",
        habit="without AfMode the lens of a Camera Module 3 stands at one metre",
        answer="continuous autofocus where there is a lens, unless something else is asked for",
        tests=(f"{PICAMERA}::test_focus", f"{PICAMERA}::test_a_camera_without_a_lens_motor_has_no_focus"),
        without="no AfMode is sent",
    ),
    Row(
        number="B13",
        habit="mixers of HATs begin without a route; I2S microphones offer two channels and are quiet",
        answer="docs/microphones.md; mono of two channels; a warning and an event after a minute of digital silence",
        tests=(
            "devices/test_alsa.py::test_mono_of_a_card_that_has_two_channels_only",
            "devices/test_alsa_source.py::test_digital_silence_for_a_minute_is_warned_of_once",
            "recorder/test_controller_trouble.py::test_a_microphone_that_gives_digital_silence_is_heard",
        ),
        without="OverconstrainedError channel_count; nothing is reported",
    ),
    Row(
        number="B14",
        habit="the position of a camera in the list changes while it is looked into",
        answer="looked into by its id",
        tests=(f"{PICAMERA}::test_a_camera_is_looked_into_by_its_id",),
        without="the USB camera has a zoom",
    ),
    Row(
        number="B15",
        habit="picamera2 deletes LIBCAMERA_RPI_TUNING_FILE; libcamera reads tuning files once, when its manager starts",
        answer="a folder by sensor models (LIBCAMERA_IPA_CONFIG_PATH) before the manager starts again",
        tests=(
            f"{PICAMERA}::test_a_tuning_file_is_there_before_libcamera_starts",
            f"{PICAMERA}::test_tuning_files_that_cannot_be_had",
        ),
        without="the manager of the stand-in has read its own file",
    ),
    # Degraded or small.
    Row(
        number="C1",
        habit="pre_callback runs for a whole batch before the first encode: a forced key frame comes a frame early",
        answer="decided in encode() of each frame; asked for again if none came",
        tests=(
            f"{PICAMERA}::test_a_key_frame_is_the_frame_it_was_asked_for_also_in_a_batch",
            f"{PICAMERA}::test_a_key_frame_that_did_not_come_is_asked_for_again",
        ),
        without="the frame before the cut is the key frame",
    ),
    Row(
        number="C2",
        habit="six buffers for video; raw buffers and the codec's come on top",
        answer="BUFFERS = 6; they are in the sum",
        tests=(f"{PICAMERA}::test_hardware_encoder", f"{PURE}::test_memory"),
        without="buffer_count is 4; the sum is smaller than what is allocated",
    ),
    Row(
        number="C3",
        habit="/dev/video11 appears after the daemon",
        answer="waited for, some seconds, once, on boards that have it",
        tests=(f"{PICAMERA}::test_an_encoder_that_appears_late_is_waited_for",),
        without="the feed cannot force key frames: it is libx264's",
    ),
    Row(
        number="C4",
        habit="cold imports and recovery on a Zero 2 W take longer than systemd waits",
        answer="120 s, and a request for more every 5 s, for a quarter of an hour at most",
        tests=("daemon/test_start_timeout.py::test_a_slow_start_asks_for_time_and_one_that_hangs_ends_some_day",),
        without="nothing is sent before READY=1",
    ),
    Row(
        number="C5",
        habit="the encoder takes 8704 macroblocks, not only 1920 pixels a line",
        answer="1920x1440 is encoded in software",
        tests=(f"{PICAMERA}::test_a_frame_with_more_blocks_than_level_4_2_is_not_for_the_hardware",),
        without="fits_hardware_encoder is True",
    ),
    Row(
        number="C6",
        habit="the driver clamps bit rates to 25 Mbit/s in silence",
        answer="clamped here, with a warning",
        tests=(f"{PICAMERA}::test_a_bit_rate_that_the_driver_would_clamp_in_silence",),
        without="80 Mbit/s are asked for",
    ),
    Row(
        number="C7",
        habit="MJPEG buffers are mostly empty",
        answer="as much is copied as the metadata say",
        tests=(f"{PICAMERA}::test_jpegs_of_a_camera_are_copied_as_far_as_they_go",),
        without="what is behind the JPEG is in the packet",
    ),
    Row(
        number="C8",
        habit="small sizes pick a sensor mode that is a crop; 640x480 at 10 on an IMX477 opened 4056x3040",
        answer="the whole field of view up to 4 megapixels; 640x480 is a size of its own that the ISP makes",
        tests=(f"{PICAMERA}::test_what_a_recorder_asks_for_opens_a_mode_that_shows_all",),
        without="the mode is 640x480 of 1280x960 (IMX219), 4056x3040 (IMX477)",
    ),
    Row(
        number="C9",
        habit="with too little CMA the error was OverconstrainedError, nothing about memory",
        answer="looking into the camera allocates nothing, so that opening it is what fails: no_memory",
        tests=(
            f"{BOARDS}::test_contiguous_memory_counts_where_buffers_are_of_it",
            f"{PICAMERA}::test_contiguous_memory_is_checked_first",
        ),
        without="no no_memory in the message",
    ),
)


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_what_holds_it_is_there(row: Row) -> None:
    assert row.tests
    assert row.without
    for place in row.tests:
        file, _, name = place.partition("::")
        assert name == "*" or name in names_in(file), place


def test_no_row_is_missing() -> None:
    numbers = [row.number for row in ROWS]
    assert numbers == [f"A{n}" for n in range(1, 8)] + [f"B{n}" for n in range(8, 16)] + [f"C{n}" for n in range(1, 10)]
