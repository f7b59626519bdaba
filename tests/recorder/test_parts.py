"""The daemon's small parts: back-off, problems, mapping, health, device changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrecd.config.model import Config, Mqtt
from msrecd.config.recorder_model import Recorder, Source
from msrecd.control.device_list import changes
from msrecd.daemon import health
from msrecd.daemon.from_config import mqtt_settings, recorder_settings
from msrecd.dom.exceptions import NotFoundError, NotReadableError, NotSupportedError, OverconstrainedError
from msrecd.errors import CommandError, StorageError
from msrecd.recorder.problems import Problem, problem_of
from msrecd.vocabulary.backoff import BackOff


def test_back_off_doubles_up_to_its_limit_and_starts_again() -> None:
    back_off = BackOff(1.0, 5.0)
    assert [back_off.next_s() for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    back_off.reset()
    assert back_off.next_s() == 1.0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("no camera"), "device_missing"),
        (OverconstrainedError("device_id"), "device_missing"),
        (NotReadableError("busy"), "device_busy"),
        (NotSupportedError("no such codec"), "bad_args"),
        (StorageError("full", "no_space"), "no_space"),
        (StorageError("broken", "io_error"), "no_space"),
        (StorageError("read-only", "read_only"), "no_space"),
        (CommandError("wrong_state", "no"), "wrong_state"),
        (TimeoutError(), "device_busy"),
        (RuntimeError("?"), "internal"),
    ],
)
def test_every_error_has_a_code_of_the_contract(error: Exception, code: str) -> None:
    problem = problem_of(error)
    assert problem.code == code
    assert problem.message


def test_a_problem_keeps_its_beginning_while_it_lasts() -> None:
    first = Problem("device_missing", "gone").begun()
    again = Problem("device_missing", "still gone").begun(first)
    other = Problem("device_busy", "taken").begun(first)
    assert again.since_ns == first.since_ns
    assert other.since_ns is not None
    assert first.since_ns is not None
    assert other.since_ns >= first.since_ns


def test_a_recorder_of_the_configuration_in_the_words_of_the_recorder() -> None:
    settings = recorder_settings(
        Recorder(
            name="cam0",
            video={"width": {"ideal": 1280}},
            audio=True,
            mime_type="video/mp4",
            video_bits_per_second=4_000_000,
            timeslice_s=0.5,
            chunk_duration_s=10.0,
            pre_roll_s=3.0,
        )
    )
    assert settings.constraints == {"video": {"width": {"ideal": 1280}}, "audio": True}
    assert settings.options["chunk_duration"] == 10_000
    assert settings.options["video_bits_per_second"] == 4_000_000
    assert settings.options["pre_roll"] == 3000
    assert settings.timeslice_ms == 500
    assert settings.kinds == ("video", "audio")


def test_a_source_decides_over_the_default_type() -> None:
    settings = recorder_settings(Recorder(name="cam0", source=Source(url="rtsp://camera.lan/main", loop=False)))
    assert (settings.url, settings.constraints, settings.kinds) == ("rtsp://camera.lan/main", None, ())
    assert settings.options["mime_type"] == ""


def test_without_a_broker_there_are_no_settings() -> None:
    assert mqtt_settings(Config()) is None
    settings = mqtt_settings(Config(mqtt=Mqtt(host="broker.lan")))
    assert settings is not None
    assert settings.tls
    assert settings.effective_port == 8883


@pytest.mark.effect(
    "state-health: cpu_temp_c",
    "state-health: throttled",
    "state-health: raw",
    "state-health: now",
    "state-health: since_boot",
    "state-health: cma_free_bytes",
)
def test_health_reads_what_a_pi_tells(tmp_path: Path) -> None:
    sys, proc = tmp_path / "sys", tmp_path / "proc"
    zone = sys / "class/thermal/thermal_zone0"
    volt = sys / "class/hwmon/hwmon1"
    firmware = sys / "devices/platform/soc/soc:firmware"
    for folder in (zone, volt, firmware, proc / "self"):
        folder.mkdir(parents=True)
    (zone / "temp").write_text("48312\n")
    (volt / "name").write_text("rpi_volt\n")
    (volt / "in0_lcrit_alarm").write_text("1\n")
    (firmware / "get_throttled").write_text("50005\n")
    (proc / "meminfo").write_text("MemAvailable:  1024 kB\nCmaFree:  64 kB\n")
    (proc / "self/status").write_text("VmRSS:\t 2048 kB\n")
    (proc / "uptime").write_text("12.50 20.00\n")
    assert health.cpu_temperature_c(sys) == 48.3
    assert health.under_voltage(sys)
    assert health.throttled(sys) == {
        "raw": "0x50005",
        "now": ["under_voltage", "throttled"],
        "since_boot": ["under_voltage", "throttled"],
    }
    assert health.memory(proc) == {"mem_available_bytes": 1 << 20, "cma_free_bytes": 1 << 16, "rss_bytes": 2 << 20}
    assert health.uptime_s(proc) == 12.5


def test_health_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert health.cpu_temperature_c(tmp_path) is None
    assert not health.under_voltage(tmp_path)
    assert health.throttled(tmp_path) == {"raw": None, "now": [], "since_boot": []}


def test_what_was_plugged_in_and_out() -> None:
    camera = {"device_id": "a", "state": "free"}
    microphone = {"device_id": "b", "state": "free"}
    gone = {"device_id": "a", "state": "missing"}
    assert changes([camera], [gone, microphone]) == [("removed", camera), ("added", microphone)]
    assert changes([camera], [dict(camera, state="busy")]) == []
