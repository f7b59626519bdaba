"""`msrecd doctor`: decisions over facts of boards, and the command itself."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import storage_media
from config_text import configuration, recorder
from daemon import DaemonProcess

from msrecd.config import Config, load
from msrecd.config.offload_table import Offload
from msrecd.daemon.doctor import services
from msrecd.daemon.doctor.diagnosis import Level, can_record, diagnose
from msrecd.daemon.doctor.machine import Facts, Wanted, gather
from msrecd.devices.board import Board
from msrecd.devices.camera.modes import ContiguousMemory
from tests.inputs.cameras import RtspCamera, clip

CAMERA = {"kind": "videoinput", "label": "imx219", "state": "free", "detail": {}}
MICROPHONE = {"kind": "audioinput", "label": "USB PnP Sound Device", "state": "free", "detail": {}}
MIB = 1 << 20
ZERO_2_W = Facts(
    board=Board(name="Raspberry Pi Zero 2 W Rev 1.0", soc="bcm2837"),
    libraries=frozenset({"picamera2", "alsaaudio"}),
    devices=(CAMERA, MICROPHONE),
    has_encoder_node=True,
    memory_total=416 * MIB,
    memory_available=250 * MIB,
    uses_contiguous_memory=True,
    contiguous_memory=ContiguousMemory(total=256 * MIB, free=200 << 10),
    storage="/var/lib/msrecd/recordings",
    storage_free=20_000 * MIB,
    is_clock_synchronized=True,
    user_groups=frozenset({"video", "audio"}),
    unit="active",
    is_unit_enabled=True,
)
PI_5 = replace(
    ZERO_2_W,
    board=Board(name="Raspberry Pi 5 Model B Rev 1.0", soc="bcm2712"),
    has_encoder_node=False,
    has_pisp=True,
    uses_contiguous_memory=False,
)


def wrong(facts: Facts) -> list[tuple[str, Level]]:
    return [(finding.area, finding.level) for finding in diagnose(facts) if finding.level is not Level.OK]


@pytest.mark.parametrize("facts", [ZERO_2_W, PI_5], ids=lambda facts: facts.board.soc)
def test_a_board_that_is_well(facts: Facts) -> None:
    """CmaFree of 200 kB is no fault: the page cache has the rest, and gives way."""
    findings = diagnose(facts)
    assert wrong(facts) == []
    assert can_record(findings)
    assert [finding.area for finding in findings][:4] == ["board", "configuration", "permissions", "camera"]


@pytest.mark.parametrize(
    ("facts", "change", "area", "level", "advice"),
    [
        (ZERO_2_W, {"throttled": {"now": ["under_voltage"]}}, "board", Level.WARNING, "power supply"),
        (ZERO_2_W, {"throttled": {"now": [], "since_boot": ["throttled"]}}, "board", Level.WARNING, "cooling"),
        (ZERO_2_W, {"config_problems": ["recorder[0].name: missing"]}, "configuration", Level.ERROR, "check-config"),
        (ZERO_2_W, {"user_groups": frozenset({"audio"})}, "permissions", Level.WARNING, "usermod -aG video"),
        (
            ZERO_2_W,
            {"devices": (MICROPHONE,), "libraries": frozenset({"alsaaudio"})},
            "camera",
            Level.ERROR,
            "apt install --no-install-recommends python3-picamera2",
        ),
        (
            ZERO_2_W,
            {"devices": (MICROPHONE,), "absent": ("libcamera",)},
            "camera",
            Level.ERROR,
            "apt install python3-libcamera; a virtual environment sees it",
        ),
        (ZERO_2_W, {"devices": (MICROPHONE,)}, "camera", Level.ERROR, "ribbon cable"),
        (PI_5, {"devices": (MICROPHONE,), "has_pisp": False}, "camera", Level.ERROR, "pisp"),
        (ZERO_2_W, {"has_encoder_node": False}, "encoder", Level.WARNING, "bcm2835-codec"),
        (ZERO_2_W, {"devices": (CAMERA,)}, "microphone", Level.ERROR, "arecord -l"),
        (ZERO_2_W, {"is_memory_limited": False}, "memory", Level.WARNING, "cgroup_enable=memory"),
        (ZERO_2_W, {"contiguous_memory": ContiguousMemory(total=64 * MIB, free=0)}, "CMA", Level.WARNING, "cma-256"),
        (ZERO_2_W, {"memory_available": 20 * MIB}, "memory", Level.WARNING, "top"),
        (ZERO_2_W, {"memory_total": 0, "memory_available": 0}, "memory", Level.WARNING, "mount -t proc"),
        (ZERO_2_W, {"storage_problem": "is a file"}, "storage", Level.ERROR, "mount the drive"),
        (ZERO_2_W, {"is_storage_writable": False}, "storage", Level.ERROR, "chown"),
        (ZERO_2_W, {"storage_free": 10 * MIB}, "storage", Level.WARNING, "max_total"),
        (ZERO_2_W, {"storage_findings": ["/ is in memory"]}, "storage", Level.WARNING, "docs/storage.md"),
        (ZERO_2_W, {"is_clock_synchronized": False}, "clock", Level.WARNING, "NTP"),
        (ZERO_2_W, {"unit": "failed"}, "unit", Level.ERROR, "journalctl"),
        (ZERO_2_W, {"unit": "inactive"}, "unit", Level.WARNING, "enable --now"),
        (ZERO_2_W, {"is_unit_enabled": False}, "unit", Level.WARNING, "systemctl enable"),
    ],
)
@pytest.mark.promise("doctor")
def test_what_is_wrong_and_what_to_do(
    facts: Facts, change: dict[str, Any], area: str, level: Level, advice: str
) -> None:
    changed = replace(facts, **change)
    assert wrong(changed) == [(area, level)]
    (finding,) = (one for one in diagnose(changed) if one.level is not Level.OK)
    assert advice in finding.remedy
    assert can_record(diagnose(changed)) is (level is not Level.ERROR)


def test_a_configuration_that_is_not_there_is_not_checked_but_written() -> None:
    problems = ("/etc/msrecd/msrecd.toml: there is no such file", 'recorder cam0: "vidoe" is no key')
    absent, wrong_key = (
        finding.remedy
        for finding in diagnose(replace(ZERO_2_W, config_problems=problems))
        if finding.area == "configuration"
    )
    assert "write one" in absent
    assert "check-config" in wrong_key


def test_what_no_recorder_wants_is_no_reason_to_fail() -> None:
    sound_only = replace(ZERO_2_W, devices=(MICROPHONE,), wants=frozenset({"audio"}))
    findings = diagnose(sound_only)
    assert wrong(sound_only) == []
    (camera,) = (finding for finding in findings if finding.area == "camera")
    assert (camera.message, camera.remedy) == ("no camera is found, and no recorder asks for one", "")
    assert can_record(findings)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(recorder="cam0", kind="video", ids=("1f", "beef")), ""),
        (
            Wanted(recorder="cam0", kind="video", ids=("beef",)),
            'recorder cam0 asks for the id "beef": no camera has it',
        ),
        (Wanted(recorder="mic", kind="audio", ids=("1f",)), 'recorder mic asks for the id "1f": no microphone has it'),
        (Wanted(recorder="cam0", kind="video", label="imx219"), ""),
        (Wanted(recorder="cam0", kind="video", label="imx708"), "(there is: imx219 (1f), twin (2), twin (3))"),
        (Wanted(recorder="cam0", kind="video", label="twin"), "2 devices have it"),
    ],
)
def test_the_device_that_a_recorder_names(wanted: Wanted, words: str) -> None:
    twins = ({**CAMERA, "label": "twin", "device_id": "2"}, {**CAMERA, "label": "twin", "device_id": "3"})
    devices = ({**CAMERA, "device_id": "1f"}, *twins, {**MICROPHONE, "device_id": "m"})
    facts = replace(ZERO_2_W, devices=devices, wanted=(wanted,))
    errors = [finding.message for finding in diagnose(facts) if finding.level is Level.ERROR]
    assert len(errors) == bool(words)
    assert words in "".join(errors)
    gone = replace(facts, devices=[{**one, "state": "missing"} if one is devices[0] else one for one in devices])
    assert not can_record(diagnose(gone))


@pytest.mark.parametrize(
    ("free", "taken", "works"), [(900, 0, False), (900, 50, False), (900, 100, True), (1000, 0, True)]
)
def test_min_free_that_rotation_cannot_give(free: int, taken: int, works: bool) -> None:
    facts = replace(ZERO_2_W, storage_free=free * MIB, storage_taken=taken * MIB, min_free=1000 * MIB, has_limit=True)
    assert can_record(diagnose(facts)) is works
    assert wrong(facts) == ([] if works else [("storage", Level.ERROR)])


def test_a_limit_that_is_set_is_not_recommended() -> None:
    little = replace(ZERO_2_W, storage_free=10 * MIB, has_limit=True)
    (finding,) = (one for one in diagnose(little) if one.level is not Level.OK)
    assert "max_total" not in finding.remedy


def test_a_device_that_another_program_holds() -> None:
    held = {**CAMERA, "state": "busy", "detail": {"holder": "rpicam-vid (pid 812)"}}
    (finding,) = (f for f in diagnose(replace(ZERO_2_W, devices=(held, MICROPHONE))) if f.level is not Level.OK)
    assert "rpicam-vid (pid 812) has it open" in finding.message


def test_facts_come_from_the_files_of_the_board(tmp_path: Path) -> None:
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.5\0")
    (tree / "compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal: 1000 kB\nMemAvailable: 600 kB\nCmaTotal: 262144 kB\nCmaFree: 1000 kB\n"
    )
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video11").touch()
    facts = gather(None, ["no configuration"], [], tmp_path)
    assert (facts.board.soc, facts.has_encoder_node) == ("bcm2711", True)
    assert (facts.memory_total, facts.memory_available) == (1000 << 10, 600 << 10)
    assert facts.contiguous_memory == ContiguousMemory(total=256 * MIB, free=1000 << 10)


def test_the_folder_that_systemd_gives_to_the_service_may_be_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk that is new at /var/lib/msrecd: StateDirectory= changes its owner when the service starts."""
    tmp_path.chmod(0o755)
    recordings = tmp_path / "recordings"
    assert "cannot be written" in services.folder_unusable(recordings, "nobody")
    monkeypatch.setattr(services, "_MADE_BY_SYSTEMD", tmp_path)
    assert services.folder_unusable(recordings, "nobody") == ""
    monkeypatch.setattr(services, "_MADE_BY_SYSTEMD", Path("/proc"))
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((0,) * 8 + (os.ST_RDONLY, 255)))
    assert services.folder_unusable(Path("/proc/recordings"), "nobody") == "/proc cannot be written"


@pytest.mark.promise("limits-without-effect-are-told")
@pytest.mark.parametrize(
    ("controllers", "is_limited"),
    [("cpuset cpu io memory pids\n", True), ("cpuset cpu io pids\n", False), (None, True)],
)
def test_whether_the_kernel_limits_memory(controllers: str | None, is_limited: bool, tmp_path: Path) -> None:
    if controllers is not None:
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text(controllers)
    assert gather(None, ["no configuration"], [], tmp_path).is_memory_limited is is_limited


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msrecd", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command(tmp_path: Path) -> None:
    config = tmp_path / "msrecd.toml"
    recordings = tmp_path / "recordings"
    config.write_text(
        f'config_version = 1\n[devices]\nvirtual = true\n[storage]\npath = "{recordings}"\n'
        '[[recorder]]\nname = "cam0"\nvideo = true\naudio = true\n'
    )
    tmp_path.chmod(0o777)
    done = doctor("--config", str(config))
    assert "MiB free, will be made when recording begins" in done.stdout
    assert done.returncode == 0, done.stdout
    recordings.mkdir()
    recordings.chmod(0o777)
    done = doctor("--config", str(config))
    assert done.returncode == 0, done.stdout
    assert "will be made" not in done.stdout
    assert "camera: Virtual Camera (free)" in done.stdout
    assert done.stdout.endswith("recording can work\n")
    assert done.stderr == ""


@pytest.mark.promise("doctor")
def test_the_command_where_recording_cannot_work(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    recordings.chmod(0o777)
    (tmp_path / "state").mkdir(0o500)
    (tmp_path / "state").chmod(0o500)
    config = tmp_path / "msrecd.toml"
    config.write_text(
        '[device]\nid = "x"\n[devices]\nvirtual = true\n[storage]\npath = "recordings"\nmin_free = "900TiB"\n'
        '[[recorder]]\nname = "cam0"\nvideo = { device_id = "beef" }\n'
        '[[recorder]]\nname = "cam1"\nvideo = { device_id = { label = "Virtual Camera" } }\n'
        '[[recorder]]\nname = "cam2"\nvideo = { device_id = { ideal = "beef" } }\n'
    )
    done = doctor("--config", str(config), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["can_record"]) == (1, False)
    errors = {one["area"]: one["message"] for one in found["findings"] if one["level"] == "error"}
    assert 'recorder cam0 asks for the id "beef": no camera has it (there is: Virtual Camera (' in errors.pop("camera")
    assert "min_free asks for" in errors.pop("storage")
    if os.geteuid() != 0:  # root may write everywhere, where there is no user msrecd
        assert "cannot be written" in errors.pop("state")
    assert set(errors) <= {"state"}


def test_what_is_on_the_root_file_system_and_has_a_limit_is_no_finding(tmp_path: Path) -> None:
    path = tmp_path / "msrecd.toml"
    for limit in ('min_free = "1MiB"', 'max_total = "1GiB"'):
        path.write_text(f'[device]\nid = "x"\n[storage]\npath = "/home"\nstate_path = "{tmp_path}/state"\n{limit}\n')
        facts = gather(load(path), [], [])
        assert facts.has_limit
        assert not any("set max_total" in text for text in facts.storage_findings)


@pytest.mark.parametrize(("there", "works"), [("folder", True), ("file", False), ("nothing", True)])
def test_the_state_folder(tmp_path: Path, there: str, works: bool) -> None:
    path = tmp_path / "msrecd.toml"
    path.write_text('[device]\nid = "x"\n[storage]\npath = "recordings"\n')
    tmp_path.chmod(0o777)
    config = load(path)
    state = tmp_path / "state"
    if there == "folder":
        state.mkdir()
        state.chmod(0o777)
    elif there == "file":
        state.touch()
    facts = replace(gather(config, [], []), board=Board())
    assert (facts.state_problem == "") is works
    assert any(one.area == "state" and one.level is Level.ERROR for one in diagnose(facts)) is not works


def test_the_command_without_a_configuration(tmp_path: Path) -> None:
    done = doctor("--config", str(tmp_path / "absent.toml"))
    assert done.returncode == 1
    assert "FAIL  configuration:" in done.stdout


def with_services(folder: Path, port: int, *, password: bool = True, credentials: bool = True) -> Config:
    if password:
        (folder / "page").write_text("secret")
        (folder / "page").chmod(0o600)
    if credentials:
        (folder / "store").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
        (folder / "store").chmod(0o600)
    (folder / "msrecd.toml").write_text(
        f"""config_version = 1
[storage]
path = "{folder}/recordings"
[web]
listen = "127.0.0.1:8080"
password_file = "{folder}/page"
[offload]
kind = "s3"
endpoint = "http://127.0.0.1:{port}"
bucket = "bucket"
credentials_file = "{folder}/store"
[[recorder]]
name = "cam0"
video = true
[[recorder.trigger]]
kind = "motion"
"""
    )
    return load(folder / "msrecd.toml")


def of_services(config: Config) -> list[tuple[str, Level, str]]:
    findings = diagnose(gather(config, [], [CAMERA]))
    return [(f.area, f.level, f.message) for f in findings if f.area in ("triggers", "page", "off-load")]


def test_the_services_beside_the_recording(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert of_services(with_services(tmp_path, port)) == [
            ("triggers", Level.OK, "cam0 begins by itself: motion"),
            ("page", Level.OK, "127.0.0.1:8080"),
            ("off-load", Level.OK, f"http://127.0.0.1:{port}"),
        ]


def test_a_store_that_cannot_be_reached_and_files_that_are_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    _, page, keys, store = of_services(with_services(tmp_path, port, password=False, credentials=False))
    assert page[:2] == ("page", Level.WARNING)
    assert f"password_file: there is no {tmp_path}/page" in page[2]
    assert f"credentials_file: there is no {tmp_path}/store" in keys[2]
    assert f"127.0.0.1:{port} cannot be reached: Connection refused" in store[2]


def test_a_file_that_the_services_user_cannot_read(tmp_path: Path) -> None:
    """`check-config`, run by root, can."""
    config = with_services(tmp_path, 1)
    assert config.web is not None
    (problem,) = services.page_problems(config.web, "nobody")
    assert problem.startswith(f"password_file: the user nobody cannot read {tmp_path}/page; sudo chown nobody: ")
    (tmp_path / "page").chmod(0o644)
    assert services.page_problems(config.web, "nobody") == []


def test_a_storage_folder_that_the_daemon_would_not_make(tmp_path: Path) -> None:
    """By the storage's own rule: the medium that was there last is away."""
    path = tmp_path / "msrecd.toml"
    path.write_text('[device]\nid = "x"\n[storage]\npath = "recordings"\n')
    tmp_path.chmod(0o777)
    config = load(path)
    assert (gather(config, [], []).storage_problem, gather(config, [], []).is_storage_there) == ("", False)
    point = str(config.storage.path)
    known = {"id": "a", "mount_point": point, "file_system": "uuid:b"}
    (tmp_path / "state").mkdir()
    (tmp_path / "state/media.json").write_text(json.dumps({"paths": {point: known}, "known": ["a"]}))
    facts = gather(config, [], [])
    assert "is not mounted" in facts.storage_problem
    assert not can_record([one for one in diagnose(facts) if one.area == "storage"])


def of_rclone(folder: Path, remote: str) -> list[tuple[Level, str]]:
    file = folder / "rclone.conf"
    file.write_text("[disk]\ntype = local\n[nas]\ntype = sftp\nhost = 127.0.0.1\nport = 9\nuser = u\n")
    file.chmod(0o600)
    (folder / "msrecd.toml").write_text(
        f'[device]\nid = "x"\n[storage]\npath = "{folder}/recordings"\n'
        f'[offload]\nkind = "rclone"\nremote = "{remote}"\nconfig_file = "{file}"\n'
    )
    found = diagnose(gather(load(folder / "msrecd.toml"), [], []))
    return [(one.level, one.message) for one in found if one.area == "off-load"]


@pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed: scripts/setup.sh --tests does")
def test_a_store_that_rclone_cannot_reach(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    good = f"disk:{tmp_path}/nas"
    assert of_rclone(tmp_path, good) == [(Level.OK, good)]
    for remote, words in (
        ("disk:/proc/nope", "which holds no files"),
        (f"disk:{tmp_path}/recordings/nas", "lies in"),
        ("nas:cameras", "cannot be reached"),
    ):
        ((level, message),) = of_rclone(tmp_path, remote)
        assert level is Level.WARNING
        assert words in message
        assert message.count(remote) == 1


def test_rclone_renews_no_token_as_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would write its configuration anew, and the service could not read it any more."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    file = tmp_path / "rclone.conf"
    file.write_text("[cloud]\ntype = onedrive\ntoken = {}\n")
    file.chmod(0o600)
    offload = Offload(kind="rclone", remote="cloud:x", config_file=file)
    owner = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    (problem,) = services.offload_problems(offload, owner)
    assert problem == f"not tried: rclone may renew its token; sudo -u {owner} msrecd doctor"


@contextlib.contextmanager
def answering(protocol: str, status: str) -> Iterator[int]:
    """The port of a server that answers each request with this status."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while request := connection.recv(4096):
                    sequence = re.search(rb"CSeq: *\d+\r\n", request)
                    more = b"Content-Length: 0\r\n" + (sequence[0] if sequence else b"")
                    connection.sendall(f"{protocol} {status}\r\n".encode() + more + b"\r\n")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def command(config: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msrecd", *arguments, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.promise("doctor-opens-sources")
def test_sources_that_give_nothing(tmp_path: Path) -> None:
    """They are opened as a recorder opens them, so what `record` says of them is what is said here."""
    (tmp_path / "text.mp4").write_text("no media at all\n" * 100)
    good = storage_media.make("mp4")
    (tmp_path / "good.mp4").write_bytes(good)
    with (
        answering("RTSP/1.0", "404 Not Found") as nowhere,
        answering("RTSP/1.0", "503 Service Unavailable") as busy,
        answering("HTTP/1.0", "404 Not Found") as absent,
        socket.create_server(("127.0.0.1", 0)) as gone,
    ):
        silent = gone.getsockname()[1]
        gone.close()
        urls = {
            "file": f"{tmp_path}/absent.mp4",
            "text": f"{tmp_path}/text.mp4",
            "good": f"{tmp_path}/good.mp4",
            "silent": f"rtsp://u:hidden@127.0.0.1:{silent}/main",
            "path": f"rtsp://u:hidden@127.0.0.1:{nowhere}/wrong",
            "busy": f"rtsp://127.0.0.1:{busy}/main",
            "page": f"http://127.0.0.1:{absent}/live.mp4",
            "listens": "udp://:5000",
        }
        tables = "".join(f'[[recorder]]\nname = "{name}"\nsource.url = "{url}"\n' for name, url in urls.items())
        config = tmp_path / "msrecd.toml"
        config.write_text(f'[device]\nid = "x"\n[storage]\npath = "recordings"\n{tables}')
        runtime = tmp_path / "run"
        done = command(config, "doctor", "--json", RUNTIME_DIRECTORY=str(runtime))
        findings = [one for one in json.loads(done.stdout)["findings"] if one["area"] == "source"]
        for name in ("text", "silent", "path", "busy", "page"):
            looked = command(config, "look", name, RUNTIME_DIRECTORY=str(runtime))
            assert looked.returncode == 1
            sentence = looked.stderr.strip().removeprefix("msrecd: device_missing: ")
            assert f"recorder {name}: {sentence}" in [one["message"] for one in findings]
    assert [one["level"] for one in findings] == ["warning"] * 2 + ["ok"] + ["warning"] * 4 + ["ok"]
    said = {one["message"].split(":")[0]: one["message"] for one in findings}
    assert "404" in said["recorder path"]
    assert "failed to answer (5xx)" in said["recorder busy"]
    assert "404" in said["recorder page"]
    assert "hidden" not in done.stdout + done.stderr
    checked = command(config, "check-config")
    assert checked.returncode == 0
    assert f"warning: recorder file: source.url: there is no file {tmp_path}/absent.mp4" in checked.stderr


def test_of_a_source_that_the_daemon_reads_no_second_session_is_opened(tmp_path: Path) -> None:
    media = clip()
    with RtspCamera(media) as server:
        text = configuration(tmp_path, port=None, recorders=recorder("net", autostart=True, source={"url": server.url}))
        with DaemonProcess(tmp_path, text) as daemon:
            daemon.wait_for_part()
            before = server.connections
            done = command(daemon.config, "doctor", "--json", RUNTIME_DIRECTORY=str(daemon.runtime))
            found = [one for one in json.loads(done.stdout)["findings"] if one["area"] == "source"]
            assert [(one["level"], one["message"]) for one in found] == [("ok", "recorder net")]
            assert server.connections == before


def test_when_triggers_are_armed_and_what_they_lack(tmp_path: Path) -> None:
    path = tmp_path / "msrecd.toml"
    path.write_text(
        '[device]\nid = "x"\n[storage]\npath = "recordings"\n[[recorder]]\nname = "cam2"\nvideo = true\n'
        '[[recorder.trigger]]\nkind = "motion"\n'
        '[[recorder.schedule]]\nstart = "22:00"\nstop = "05:00"\naction = "arm"\n'
    )
    with_camera, without = (diagnose(gather(load(path), [], devices)) for devices in ([CAMERA], []))
    armed = "cam2 begins by itself: motion; armed from 22:00 to 05:00, else not"
    (there,) = (one for one in with_camera if one.area == "triggers")
    (away,) = (one for one in without if one.area == "triggers")
    assert (there.level, there.message) == (Level.OK, armed)
    assert (away.level, away.message) == (Level.WARNING, f"{armed}; but its camera is not there")


def test_an_invalid_configuration_says_nothing_of_ribbon_cables(tmp_path: Path) -> None:
    path = tmp_path / "msrecd.toml"
    path.write_text('[devices]\nvirtual = true\n[[recorder]]\nname = "cam0"\nvideo = true\nmime_type = "hvc1"\n')
    done = doctor("--config", str(path))
    assert done.returncode == 1
    assert "FAIL  configuration: recorder[0].mime_type" in done.stdout
    assert "ribbon" not in done.stdout
    assert "FAIL  camera" not in done.stdout
