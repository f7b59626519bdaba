"""What picamera2, libcamera, the kernel and systemd do that nobody expects, and what msrecd does about each.

A row: the habit; the answer; what happened without it; and `breaks`: how to take the answer out of the code, and
which tests fail then. An audit of the upstream sources brought them up; A: nothing is recorded, B: a wrong recording,
C: small. `make upstream` takes each out and looks whether its tests fail (tests/devices/test_upstream.py). As a program
this prints the table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """An answer taken out: text -> other text in a file of the checkout; `fails`: tests below tests/ that notice."""

    file: str
    edits: dict[str, str]
    fails: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    number: str
    habit: str
    answer: str
    breaks: tuple[Break, ...]
    without: str


def take_out(file: str, edits: dict[str, str], *fails: str) -> Break:
    return Break(file=file, edits=edits, fails=fails)


CAMERA, PI = "msrecd/devices/camera/", "msrecd/devices/picamera/"
PICAMERA, BOARDS, PURE = "devices/test_picamera.py", "devices/test_boards.py", "devices/test_picamera_pure.py"
BOARD, UNIT = "devices/test_board.py", "devices/test_unit.py"
KEY_FRAMES_OF_A_BATCH = """for each in self._encodings._running:
            each.frame_comes(lambda: self._pts_ns(request))
        self._raw.offer(request"""

ROWS = (
    # Does not start, or stops working.
    Row(
        number="A1",
        habit="CmaFree is low after minutes of recording, for the page cache lies in CMA; yet it can be allocated",
        answer="only CmaTotal decides; an allocation that fails is explained; a finished chunk's pages are given back",
        breaks=(
            take_out(
                f"{CAMERA}modes.py",
                {"memory.total >= needed else": "memory.free >= needed else"},
                f"{BOARDS}::test_memory_that_holds_the_page_cache_is_no_reason_to_refuse",
            ),
            take_out(
                f"{PI}backend.py",
                {'if "Cannot allocate memory" in text:': "if not text:"},
                f"{PICAMERA}::test_memory_that_is_refused_is_explained",
            ),
            take_out(
                "msrecd/storage/chunkfile.py",
                {"os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)": "pass"},
                "storage/test_page_cache.py::test_a_finished_chunk_gives_its_pages_back",
            ),
        ),
        without="NotReadableError no_memory at 200 kB free; all pages of the chunk are still cached",
    ),
    Row(
        number="A2",
        habit="DeviceAllow= by name is resolved once, at the start: drivers that load later are forbidden for good",
        answer="majors by number, and modprobe@snd, @videodev, @mc before the service; EPERM has a message of its own",
        breaks=(
            take_out(
                "systemd/msrecd.service",
                {"DeviceAllow=char-116 rw": "DeviceAllow=char-alsa rw"},
                f"{UNIT}::test_devices_whose_driver_comes_later_are_allowed",
            ),
            take_out(
                "systemd/msrecd.service",
                {"Wants=modprobe@snd.service modprobe@videodev.service modprobe@mc.service\n": ""},
                f"{UNIT}::test_drivers_are_loaded_before_the_service",
            ),
        ),
        without="the unit has char-alsa, or no Wants=; hw-tests/vm: no microphone after the module is loaded",
    ),
    Row(
        number="A3",
        habit="picamera2 decides what board this is when it is imported, VC4 while no image processor's node is there",
        answer="compared with the device tree; pispbe is waited for; a wrong import is undone, and tried at each look",
        breaks=(
            take_out(
                f"{PI}guard.py",
                {'if board.platform == "pisp" and not has_pisp():': 'if board.platform == "none":'},
                f"{BOARD}::test_the_image_processor_of_a_pi_5_is_waited_for",
            ),
            take_out(
                f"{PI}guard.py",
                {"if not board.platform or found.lower() == board.platform:": "if found:"},
                f"{BOARD}::test_picamera2_that_takes_the_board_for_another_is_forgotten",
            ),
            take_out(
                "msrecd/devices/__init__.py", {"_TRIES = 3": "_TRIES = 1"}, f"{BOARD}::test_the_import_is_tried_again"
            ),
            take_out(
                "msrecd/devices/__init__.py",
                {"if not tries_left or not has_pisp():": "if not tries_left:"},
                f"{BOARD}::test_an_image_processor_that_comes_minutes_later_needs_no_restart",
            ),
            take_out(
                "msrecd/devices/late.py",
                {"if self._backend is None and self._is_ready() and self": "if self._backend is not None and self"},
                f"{BOARD}::test_an_image_processor_that_comes_minutes_later_needs_no_restart",
            ),
        ),
        without="no WrongPlatform; picamera2 stays, with the other board's file; no backend until a restart",
    ),
    Row(
        number="A4",
        habit="Lite images have no picamera2",
        answer="the install line, Recommends:, and a warning on a board that is a Pi",
        breaks=(
            take_out(
                "msrecd/devices/__init__.py",
                {'log.warning("no cameras on this': 'log.debug("no cameras on this'},
                f"{BOARD}::test_a_pi_without_picamera2_is_told_what_to_install",
            ),
            take_out(
                "msrecd/daemon/doctor/diagnosis.py",
                {'"picamera2" not in facts.libraries': "not facts"},
                "cli/test_doctor.py::test_what_is_wrong_and_what_to_do",
            ),
            take_out(
                "debian/control",
                {"Recommends: ca-certificates, mosquitto, python3-picamera2": "Recommends: ca-certificates, mosquitto"},
                "house/test_debian.py::test_what_a_first_recording_needs_comes_along",
            ),
        ),
        without="an empty list of cameras without a word",
    ),
    Row(
        number="A5",
        habit="Picamera2() opens a pipe, and keeps one end when it fails: 1024 descriptors in a night",
        answer="both ends and the entry in the camera manager are freed",
        breaks=(
            take_out(
                f"{PI}guard.py",
                {"        _clean_up(camera, allocator_class)\n": ""},
                f"{PICAMERA}::test_a_camera_that_refuses_costs_no_file_descriptor",
            ),
            take_out(
                f"{PI}guard.py",
                {"            manager.cameras[number] = before": "            manager.cleanup(number)"},
                f"{PICAMERA}::test_a_second_opening_that_is_refused_leaves_the_first_alone",
            ),
        ),
        without="20 refusals leave 40 descriptors, with the real picamera2 as with the fake",
    ),
    Row(
        number="A6",
        habit="`sensor_modes` allocates four raw buffers a mode: 70 MiB for an IMX477, too much for a Zero 2 W",
        answer="the camera is looked into with an allocator that allocates nothing",
        breaks=(
            take_out(
                f"{PI}device.py",
                {"camera = _open(camera_id, allocator=Allocator())": "camera = _open(camera_id)"},
                f"{PICAMERA}::test_looking_into_a_camera_allocates_nothing",
            ),
        ),
        without="ENOMEM while looking, and modes that were guessed",
    ),
    Row(
        number="A7",
        habit="the overlay root of raspi-config keeps recordings in memory",
        answer="`upperdir` is looked up among the mounts, and warned of",
        breaks=(
            take_out(
                "msrecd/storage/checks.py",
                {'if mount.kind != "overlay" or upper is None:': "if mount:"},
                "storage/test_media.py::test_an_overlay_on_memory_is_memory",
            ),
        ),
        without="no finding",
    ),
    # Wrong or worse recording.
    Row(
        number="B8",
        habit="ranges of controls before configure() are of no sensor: 66 ms, gain 16, a crop of 65535x65535",
        answer="controls are made after configure(), and sent before start()",
        breaks=(
            take_out(
                f"{PI}device.py",
                {
                    "self._streams = 1\n": "self._streams, self._early = 1, dict(camera.camera_controls)\n",
                    "(settings, self._camera.camera_controls,": "(settings, self._early,",
                },
                f"{PICAMERA}::test_controls_are_made_of_the_ranges_after_configure",
            ),
        ),
        without="ExposureTime 66666 instead of 500000, gain 16 instead of 20, the whole frame instead of a quarter",
    ),
    Row(
        number="B9",
        habit="picamera2 sets ScalerCrops when there are two streams, which libcamera prefers to ScalerCrop",
        answer="both are set",
        breaks=(
            take_out(
                f"{CAMERA}controls.py",
                {'if "ScalerCrops" in camera_controls:': "if not crop:"},
                f"{PICAMERA}::test_a_second_stream_keeps_the_zoom",
            ),
        ),
        without="ScalerCrops is the whole frame",
    ),
    Row(
        number="B10",
        habit="an exposure longer than a frame is cut without a word; a fixed rate is dark at dusk",
        answer="a fixed exposure lowers the rate, or is refused with the numbers; min/max become FrameDurationLimits",
        breaks=(
            take_out(
                f"{CAMERA}modes.py",
                {"exposure + _READOUT_MARGIN_S > 1 / rate:": "exposure < 0:"},
                f"{PICAMERA}::test_an_exposure_longer_than_a_frame_lowers_the_rate",
            ),
            take_out(
                f"{CAMERA}source.py",
                {"exposure > 1 / rate:": "exposure < 0:"},
                f"{PICAMERA}::test_an_exposure_that_the_running_camera_cannot_have_is_refused_with_the_numbers",
            ),
            take_out(
                f"{CAMERA}controls.py",
                {"round(1_000_000 / slowest) if slowest else duration)": "duration)"},
                f"{PICAMERA}::test_constraints_of_the_frame_rate",
            ),
        ),
        without="FrameDurationLimits (33333, 33333) whatever was asked for",
    ),
    Row(
        number="B11",
        habit="a frame every three seconds looks like a dead camera",
        answer="limits of frame lengths, in the watch and in the recorder's wait for the first packet",
        breaks=(
            take_out(
                f"{CAMERA}watch.py",
                {"self._limits = LIMITS.for_frames_of(frame_ns)": "self._limits = LIMITS"},
                f"{PICAMERA}::test_a_slow_camera_is_not_taken_for_a_dead_one",
            ),
            take_out(
                "msrecd/muxing/worker.py",
                {"            deadline_ns += 3 * track.frame_interval_ns\n": ""},
                "media/test_slow_machine.py::test_a_source_that_gives_nothing_is_given_up",
            ),
        ),
        without="muted after 2 s, restarted after 5",
    ),
    Row(
        number="B12",
        habit="without AfMode the lens of a Camera Module 3 stands at one metre",
        answer="continuous autofocus where there is a lens, unless something else is asked for",
        breaks=(
            take_out(
                f"{CAMERA}controls.py",
                {'    return {**settings, "focus_mode": "continuous"}': "    return dict(settings)"},
                f"{PICAMERA}::test_focus",
            ),
            take_out(
                f"{CAMERA}controls.py",
                {
                    '    if "AfMode" not in camera_controls:\n        return {}\n': "",
                    '"AfMode" not in camera_controls or settings.get("focus_mode")': 'settings.get("focus_mode")',
                },
                f"{PICAMERA}::test_a_camera_without_a_lens_motor_has_no_focus",
            ),
        ),
        without="no AfMode is sent",
    ),
    Row(
        number="B13",
        habit="mixers of HATs begin without a route; I2S microphones offer two channels and are quiet",
        answer="docs/microphones.md; mono of two channels; a warning and an event after a minute of digital silence",
        breaks=(
            take_out(
                "msrecd/devices/alsa/backend.py",
                {
                    "in (1, 2) if wanted.channels == 1 else (": "in (",
                    "                channels.add(1)  #": "                pass  #",
                },
                "devices/test_alsa.py::test_mono_of_a_card_that_has_two_channels_only",
            ),
            take_out(
                "msrecd/devices/alsa/source.py",
                {"        self._watch_silence(block)\n": ""},
                "devices/test_alsa_source.py::test_digital_silence_for_a_minute_is_warned_of_once",
            ),
            take_out(
                "msrecd/recorder/input.py",
                {'add_event_listener("silence",': 'add_event_listener("none",'},
                "recorder/test_controller_trouble.py::test_a_microphone_that_gives_digital_silence_is_heard",
            ),
        ),
        without="OverconstrainedError channel_count; nothing is reported",
    ),
    Row(
        number="B14",
        habit="the position of a camera in the list changes while it is looked into",
        answer="looked into by its id",
        breaks=(
            take_out(
                f"{PI}device.py",
                {'        if info["Id"] != camera_id:\n            continue\n': ""},
                f"{PICAMERA}::test_a_camera_is_looked_into_by_its_id",
            ),
        ),
        without="the USB camera has a zoom",
    ),
    Row(
        number="B15",
        habit="picamera2 deletes LIBCAMERA_RPI_TUNING_FILE; libcamera reads tuning files once, when its manager starts",
        answer="a folder by sensor models (LIBCAMERA_IPA_CONFIG_PATH) before the manager starts again",
        breaks=(
            take_out(
                f"{PI}device.py",
                {'os.environ["LIBCAMERA_IPA_CONFIG_PATH"] = str(folder)': "str(folder)"},
                f"{PICAMERA}::test_a_tuning_file_is_there_before_libcamera_starts",
            ),
            take_out(
                f"{PI}backend.py",
                {
                    "owners.setdefault(model, name) != name": "not model",
                    "if file is None:": "if not name:",
                    "= file.resolve()": "= Path(name)",
                },
                f"{PICAMERA}::test_tuning_files_that_cannot_be_had",
            ),
        ),
        without="the manager of the stand-in has read its own file",
    ),
    # Degraded or small.
    Row(
        number="C1",
        habit="pre_callback runs for a whole batch before the first encode: a forced key frame comes a frame early",
        answer="decided in encode() of each frame; asked for again if none came",
        breaks=(
            take_out(
                f"{CAMERA}source.py",
                {"self._raw.offer(request": KEY_FRAMES_OF_A_BATCH},
                f"{PICAMERA}::test_a_key_frame_is_the_frame_it_was_asked_for_also_in_a_batch",
            ),
            take_out(
                f"{CAMERA}encodings.py",
                {"            self._asked.ask(pts_ns)\n": ""},
                f"{PICAMERA}::test_a_key_frame_that_did_not_come_is_asked_for_again",
            ),
        ),
        without="the frame before the cut is the key frame",
    ),
    Row(
        number="C2",
        habit="six buffers for video; raw buffers and the codec's come on top",
        answer="BUFFERS = 6; they are in the sum",
        breaks=(
            take_out(f"{CAMERA}modes.py", {"BUFFERS = 6 ": "BUFFERS = 4 "}, f"{PICAMERA}::test_hardware_encoder"),
            take_out(
                f"{CAMERA}modes.py",
                {
                    "    if plan.mode is not None:\n        width": "    if plan.mode == 0:\n        width",
                    "    if is_hardware_encoder:\n        is_small": "    if False:\n        is_small",
                },
                f"{PURE}::TestModes::test_what_a_camera_takes_of_the_memory",
            ),
        ),
        without="buffer_count is 4; the sum is smaller than what is allocated",
    ),
    Row(
        number="C3",
        habit="/dev/video11 appears after the daemon",
        answer="waited for, some seconds, once, on boards that have it",
        breaks=(
            take_out(
                f"{PI}backend.py",
                {"_ENCODER_WAIT_NS = 5 * NS": "_ENCODER_WAIT_NS = 0 * NS"},
                f"{PICAMERA}::test_an_encoder_that_appears_late_is_waited_for",
            ),
        ),
        without="the feed cannot force key frames: it is libx264's",
    ),
    Row(
        number="C4",
        habit="cold imports and recovery on a Zero 2 W take longer than systemd waits",
        answer="120 s, and a request for more every 5 s, for a quarter of an hour at most",
        breaks=(
            take_out(
                "msrecd/daemon/daemon.py",
                {"self._extend_timeout(_START_EXTENSIONS)": "asyncio.sleep(0)"},
                "daemon/test_start_timeout.py::test_a_start_that_is_slow_asks_for_time",
            ),
            take_out(
                "msrecd/daemon/daemon.py",
                {"is None else range(times)": "is None else range(2 * times)"},
                "daemon/test_start_timeout.py::test_a_slow_start_asks_for_time_and_one_that_hangs_ends_some_day",
            ),
        ),
        without="nothing is sent before READY=1",
    ),
    Row(
        number="C5",
        habit="the encoder takes 8704 macroblocks, not only 1920 pixels a line",
        answer="1920x1440 is encoded in software",
        breaks=(
            take_out(
                f"{CAMERA}modes.py",
                {" and blocks <= _HARDWARE_MAX_BLOCKS": ""},
                f"{PICAMERA}::test_a_frame_with_more_blocks_than_level_4_2_is_not_for_the_hardware",
            ),
        ),
        without="fits_hardware_encoder is True",
    ),
    Row(
        number="C6",
        habit="the driver clamps bit rates to 25 Mbit/s in silence",
        answer="clamped here, with a warning",
        breaks=(
            take_out(
                f"{PI}device.py",
                {"if is_hardware and bit_rate > HARDWARE_MAX_BIT_RATE:": "if bit_rate < 0:"},
                f"{PICAMERA}::test_a_bit_rate_that_the_driver_would_clamp_in_silence",
            ),
        ),
        without="80 Mbit/s are asked for",
    ),
    Row(
        number="C7",
        habit="MJPEG buffers are mostly empty",
        answer="as much is copied as the metadata say",
        breaks=(
            take_out(
                f"{PI}device.py",
                {"mapped.array[: used or None].tobytes()": "mapped.array.tobytes()"},
                f"{PICAMERA}::test_jpegs_of_a_camera_are_copied_as_far_as_they_go",
            ),
        ),
        without="what is behind the JPEG is in the packet",
    ),
    Row(
        number="C8",
        habit="small sizes pick a sensor mode that is a crop; 640x480 at 10 on an IMX477 opened 4056x3040",
        answer="the whole field of view up to 4 megapixels; 640x480 is a size of its own that the ISP makes",
        breaks=(
            take_out(
                f"{CAMERA}modes.py",
                {"is_narrow = not too_small and (": "is_narrow = too_slow and ("},
                f"{PICAMERA}::test_what_a_recorder_asks_for_opens_a_mode_that_shows_all",
            ),
            take_out(
                f"{CAMERA}modes.py",
                {"            best.setdefault(size, mode_above.frame_rate)": "            pass"},
                f"{PICAMERA}::test_what_a_recorder_asks_for_opens_a_mode_that_shows_all",
            ),
        ),
        without="the mode is 640x480 of 1280x960 (IMX219), 4056x3040 (IMX477)",
    ),
    Row(
        number="C9",
        habit="with too little CMA the error was OverconstrainedError, nothing about memory",
        answer="looking into the camera allocates nothing, so that opening it is what fails: no_memory",
        breaks=(
            take_out(
                f"{PI}backend.py",
                {"            if missing is not None:": "            if missing == 0:"},
                f"{BOARDS}::test_contiguous_memory_counts_where_buffers_are_of_it",
                f"{PICAMERA}::test_contiguous_memory_is_checked_first",
            ),
            take_out(
                f"{PI}device.py",
                {"camera = _open(camera_id, allocator=Allocator())": "camera = _open(camera_id)"},
                f"{PICAMERA}::test_too_little_memory_is_not_called_a_size_that_is_not_there",
            ),
        ),
        without="no no_memory in the message",
    ),
    Row(
        number="C10",
        habit="Raspberry Pi OS starts its kernel with cgroup_disable=memory: MemoryHigh= and MemoryMax= do nothing",
        answer="doctor says so, and what to add to cmdline.txt",
        breaks=(
            take_out(
                "msrecd/daemon/doctor/diagnosis.py",
                {"if facts.unit and not facts.is_memory_limited:": "if not facts:"},
                "cli/test_doctor.py::test_what_is_wrong_and_what_to_do",
            ),
            take_out(
                "msrecd/daemon/doctor/machine.py",
                {'return "memory" in (cgroup': 'return "y" in (cgroup'},
                "cli/test_doctor.py::test_whether_the_kernel_limits_memory",
            ),
        ),
        without="a board that stands still when memory ends, and nobody who had said that the limit is none",
    ),
)


def table() -> str:
    """Markdown."""
    lines = ["| | what upstream does | what msrecd does | without it | tests |", "|---|---|---|---|---|"]
    for row in ROWS:
        tests = "<br>".join(dict.fromkeys(test for one in row.breaks for test in one.fails))
        lines.append(f"| {row.number} | {row.habit} | {row.answer} | {row.without} | {tests} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
