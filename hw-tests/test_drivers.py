"""What drivers, other programs and mounts do to the shipped service. Needs root; `--service` says that it may.

Skipped where the command of --plug knows no `drivers` or no `camera hold`, as scripts around a hub do.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Received
from conftest import CameraMode, need
from installed import InstalledService, kept, systemctl
from test_service import configuration, devices, judge_chunk

__all__ = ["devices"]  # the fixture
Plug = Callable[[str, str], None]
ATTEMPTS = 30  # a night at one a quarter of an hour would be as many; the daemon's own are a minute apart


def asked(plug: Plug, device: str, what: str) -> None:
    try:
        plug(device, what)
    except subprocess.CalledProcessError:
        pytest.skip(f"the command of --plug knows no {device} {what}")


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> str | None:
    folder = request.config.getoption("--keep")
    return None if folder is None else str(folder)


def use(pid: int) -> dict[str, int]:
    """Descriptors, threads, and MiB of memory of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
        "rss_mib": int(status["VmRSS"].split()[0]) // 1024,
    }


@pytest.mark.timeout(300)
def test_drivers_that_are_loaded_after_the_service(
    devices: tuple[str, str],
    camera_mode: CameraMode,
    mime_type: str,
    plug: Plug,
    keep: str | None,
) -> None:
    """DeviceAllow= is resolved when the unit starts: a driver that comes later must be allowed all the same."""
    asked(plug, "drivers", "out")
    try:
        with (
            InstalledService(configuration(devices, camera_mode, mime_type)) as service,
            kept(service, keep, "late-drivers") as figures,
        ):
            service.observer.wait_for(lambda m: m.topic.endswith("/state/devices") and bool(m.payload), 60)
            plug("drivers", "in")
            service.observer.wait_for(
                lambda m: m.topic.endswith("/state/devices") and {d["device_id"] for d in m.json} >= set(devices), 60
            )
            service.command("cam0", "start")
            figures["recordings"] = [service.wait_state("cam0", "recording", 60).json["recording_id"]]
            service.wait_events("cam0", "chunk", 1, 90)
            service.command("cam0", "stop")
            service.wait_events("cam0", "stopped", 1, 60)
    finally:
        plug("drivers", "in")


@pytest.fixture
def late_isp(plug: Plug) -> Iterator[Callable[[], None]]:
    """A Pi 5 without its image processor, and without the encoder that it does not have; call it to load the driver."""
    asked(plug, "board", "pi5")
    try:
        plug("encoder", "out")
        try:
            yield lambda: plug("board", "isp")
        finally:
            plug("encoder", "in")
    finally:
        plug("board", "none")


@pytest.mark.timeout(300)
def test_a_pi_5_whose_image_processor_comes_after_the_service(
    devices: tuple[str, str],
    camera_mode: CameraMode,
    mime_type: str,
    late_isp: Callable[[], None],
    keep: str | None,
) -> None:
    """picamera2 that is imported before takes the board for an older one, and would do so until the process ends."""
    camera_id = devices[0]

    def tells_devices(message: Received) -> bool:
        return message.topic.endswith("/state/devices") and bool(message.payload)

    def lists_the_camera(message: Received) -> bool:
        return tells_devices(message) and camera_id in {one["device_id"] for one in message.json}

    began = time.monotonic()
    with (
        InstalledService(configuration(devices, camera_mode, mime_type, autostart=True)) as service,
        kept(service, keep, "late-isp") as figures,
    ):
        figures["ready_s"] = round(time.monotonic() - began, 1)
        pid = service.main_pid
        service.wait_missing("cam0", 90, after=began)
        wait_for_line(service, "takes this Raspberry Pi 5 Model B Rev 1.0 for a VC4")
        *_, before = [message for message in service.observer.messages if tells_devices(message)]
        assert not lists_the_camera(before)
        loaded = time.monotonic()
        late_isp()
        listed = service.observer.wait_for(lambda m: m.at > loaded and lists_the_camera(m), 60)
        figures["listed_s"] = round(listed.at - loaded, 2)
        told = service.wait_whole("cam0", 60, after=loaded)
        figures["recorded_s"] = round(told.at - loaded, 2)
        figures["recordings"] = [told.json["recording_id"]]
        service.wait_events("cam0", "chunk", 2, 90, after=told.at)
        service.command("cam0", "stop")
        service.wait_events("cam0", "stopped", 1, 60)
        (camera,) = [one for one in listed.json if one["device_id"] == camera_id]
        figures["encoder"] = camera["detail"].get("encoder")
        assert service.main_pid == pid, "it was restarted"
        chunks = [judge_chunk(path, is_whole=False) for path in service.chunks(told.json["recording_id"])]
        figures["frames"] = [chunk["frames"] for chunk in chunks]
        assert figures["encoder"] == "software"
        assert chunks[-1]["frames"]
        service.verify()


def wait_for_line(service: InstalledService, line: str) -> None:
    """Until the journal has it."""
    deadline = time.monotonic() + 60
    while line not in (said := service.journal()):
        assert time.monotonic() < deadline, said[-2000:]
        time.sleep(0.5)


@pytest.mark.timeout(600)
def test_a_camera_that_another_program_holds_costs_nothing(
    devices: tuple[str, str],
    camera_mode: CameraMode,
    mime_type: str,
    plug: Plug,
    keep: str | None,
) -> None:
    """A night of refusals, one after the other; then the program ends, and it records."""
    with (
        InstalledService(configuration(devices, camera_mode, mime_type)) as service,
        kept(service, keep, "held-camera") as figures,
    ):
        service.observer.wait_for(lambda m: m.topic.endswith("/state/devices") and len(m.json) > 1, 60)
        asked(plug, "camera", "hold")
        try:

            def refused() -> dict[str, Any]:
                with pytest.raises(AssertionError, match="device_busy") as got:
                    service.command("cam0", "start")
                return {"message": str(got.value)}

            for _ in range(3):  # what is loaded once
                figures["refusal"] = refused()
            before = figures["before"] = use(service.main_pid)
            for _ in range(ATTEMPTS):
                refused()
            time.sleep(3)
            after = figures["after"] = use(service.main_pid)
        finally:
            plug("camera", "release")
        service.command("cam0", "start")
        service.wait_state("cam0", "recording", 60)
        service.command("cam0", "stop")
    assert after["descriptors"] <= before["descriptors"] + 2, figures
    assert after["threads"] <= before["threads"] + 1, figures
    assert after["rss_mib"] <= before["rss_mib"] + 4, figures


@pytest.fixture
def overlay(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder as the overlay root of raspi-config has them: what is written there goes to memory."""
    need(request, "--service")  # root
    memory, root = tmp_path / "memory", tmp_path / "root"
    for folder in (memory, root):
        folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", memory], check=True)
    try:
        for name in ("lower", "upper", "work"):
            (memory / name).mkdir()
        options = ",".join(f"{name}dir={memory / name}" for name in ("lower", "upper", "work"))
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
        try:
            yield root
        finally:
            subprocess.run(["umount", root], check=True)
    finally:
        subprocess.run(["umount", memory], check=True)


@pytest.mark.timeout(120)
def test_an_overlay_root_is_told(overlay: Path, tmp_path: Path) -> None:
    config = tmp_path / "msrecd.toml"
    text = f'config_version = 1\n[storage]\npath = "{overlay}/recordings"\nstate_path = "{tmp_path}/state"\n'
    config.write_text(text + '[[recorder]]\nname = "cam0"\nvideo = true\n')
    (overlay / "recordings").mkdir()
    done = subprocess.run(
        ["msrecd", "doctor", "--config", str(config)], capture_output=True, text=True, timeout=90, check=False
    )
    (line,) = [line for line in done.stdout.splitlines() if "storage" in line and "memory" in line]
    assert line.startswith("warn"), done.stdout


def test_systemd_says_what_the_unit_may_use(request: pytest.FixtureRequest) -> None:
    """By number: a name that is not in /proc/devices yet would allow nothing."""
    need(request, "--service")
    allowed = systemctl("show", "msrecd", "--property=DeviceAllow")
    assert "char-81" in allowed
    assert "char-116" in allowed
