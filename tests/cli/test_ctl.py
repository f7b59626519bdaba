"""`msrecd ctl` against real daemons at a real broker."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from broker import Broker
from config_text import camera, configuration, recorder
from console import Console
from daemon import DaemonProcess
from ports import free_port
from waiting import until

CAM0 = camera()


@dataclass(frozen=True)
class Fleet:
    """Two daemons at one broker: `test-device` in the group north, `other` in none."""

    config: Path
    console: Console


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with Broker(folder / "broker") as broker:
        one = configuration(folder / "one", port=broker.port, recorders=CAM0, groups=["north"])
        two = configuration(folder / "two", port=broker.port, recorders=CAM0).replace('"test-device"', '"other"')
        console = Console(broker.port)
        try:
            with DaemonProcess(folder / "one", one) as daemon, DaemonProcess(folder / "two", two):
                wait_online(console, "test-device")
                wait_online(console, "other")
                yield Fleet(daemon.config, console)
        finally:
            console.close()


def wait_online(console: Console, device: str) -> None:
    """Wait until a device, any, says that it is online."""
    deadline = time.monotonic() + 20
    while (f"msrecd/v1/{device}/availability", "online") not in console.messages:
        assert time.monotonic() < deadline, f"{device} does not come online"
        time.sleep(0.02)


def ctl(config: Path, *arguments: str, runtime: Path = Path("/nonexistent")) -> subprocess.CompletedProcess[str]:
    """Without `runtime` it finds no local socket."""
    return subprocess.run(
        [sys.executable, "-m", "msrecd", "ctl", "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"RUNTIME_DIRECTORY": str(runtime)},
    )


@pytest.mark.promise("ctl-starts-for-so-long")
@pytest.mark.promise("ctl-prints-the-reply")
def test_a_recording_from_start_to_stop(fleet: Fleet) -> None:
    started = ctl(fleet.config, "cam0", "start", "--duration", "10m")
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.startswith("cam0: recording, recording ")
    assert "until" in fleet.console.command("recorder/cam0/get")["data"]
    again = ctl(fleet.config, "cam0", "start")
    assert again.stdout.endswith("(nothing to change)\n")
    assert ctl(fleet.config, "cam0", "pause").stdout.startswith("cam0: paused")
    assert ctl(fleet.config, "cam0", "resume").stdout.startswith("cam0: recording")
    reply = json.loads(ctl(fleet.config, "cam0", "get", "--json").stdout)
    assert (reply["status"], reply["data"]["state"]) == ("ok", "recording")
    assert ctl(fleet.config, "cam0", "stop").stdout.startswith("cam0: inactive")


@pytest.mark.effect("exit: 1")
@pytest.mark.promise("exit-1")
def test_what_a_device_refuses_is_1(fleet: Fleet) -> None:
    refused = ctl(fleet.config, "cam0", "pause")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith("(wrong_state)\n")
    assert len(refused.stderr.splitlines()) == 1
    unknown = ctl(fleet.config, "cam9", "start", "--json")
    assert unknown.returncode == 1
    assert json.loads(unknown.stdout)["error"]["code"] == "unknown_recorder"
    assert "; there are: cam0" in json.loads(unknown.stdout)["error"]["message"]


@pytest.mark.slow
@pytest.mark.effect("exit: 3")
@pytest.mark.promise("exit-3")
def test_nobody_there_is_3(fleet: Fleet, tmp_path: Path) -> None:
    absent = ctl(fleet.config, "--device", "absent", "--timeout", "2s", "cam0", "start")
    assert (absent.returncode, absent.stdout) == (3, "")
    (line,) = absent.stderr.splitlines()
    assert line.startswith("msrecd: no reply from absent within 2 s; does msrecd run there")
    assert ctl(fleet.config, "--group", "south", "--timeout", "1s", "cam0", "get").returncode == 3
    assert ctl(fleet.config, "--device", "absent", "--timeout", "2s", "status").returncode == 3
    config = tmp_path / "msrecd.toml"
    config.write_text(configuration(tmp_path, port=free_port(), recorders=CAM0))
    for arguments in (("cam0", "start"), ("--all", "status"), ("--all", "cam0", "get")):
        nobody = ctl(config, *arguments)
        assert (nobody.returncode, nobody.stdout) == (3, "")
        assert "127.0.0.1" in nobody.stderr
        assert len(nobody.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("cam0",),
        ("cam0", "explode"),
        ("cam0", "stop", "--duration", "10m"),
        ("cam0", "start", "--duration", "10"),
        ("a/b", "start"),
        ("--group", "north", "status"),
        ("--group", "a/b", "cam0", "get"),
        ("--all", "--device", "x", "cam0", "get"),
    ],
)
@pytest.mark.promise("exit-2")
def test_wrong_usage_is_2(fleet: Fleet, arguments: tuple[str, ...]) -> None:
    done = ctl(fleet.config, *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done


def test_without_a_broker_and_without_a_daemon_there_is_no_answer(tmp_path: Path) -> None:
    config = tmp_path / "msrecd.toml"
    config.write_text(configuration(tmp_path, port=None, recorders=CAM0))
    done = ctl(config, "cam0", "start")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no [mqtt]" in done.stderr
    assert "control.sock" in done.stderr
    assert ctl(config, "--all", "cam0", "start").returncode == 2


@pytest.mark.promise("ctl-all")
def test_all_devices_do_it_and_show_it(fleet: Fleet) -> None:
    assert ctl(fleet.config, "--all", "cam0", "start").returncode == 0
    table = ctl(fleet.config, "--all", "status")
    assert (table.returncode, table.stderr) == (0, "")
    header, *rows = table.stdout.splitlines()
    assert header.split() == ["DEVICE", "AVAILABLE", "RECORDER", "STATE", "FOR", "CHUNKS", "SIZE", "ERROR"]
    assert [row.split()[:4] for row in rows] == [
        ["other", "online", "cam0", "recording"],
        ["test-device", "online", "cam0", "recording"],
    ]
    north = ctl(fleet.config, "--group", "north", "--timeout", "2s", "cam0", "stop")
    assert north.returncode == 0
    assert [row.split()[0] for row in north.stdout.splitlines()] == ["DEVICE", "test-device"]
    document = json.loads(ctl(fleet.config, "--all", "status", "--json").stdout)
    states = {device["device"]: device["recorders"]["cam0"]["state"] for device in document}
    assert states == {"other": "recording", "test-device": "inactive"}
    own = ctl(fleet.config, "status")
    assert [row.split()[0] for row in own.stdout.splitlines()] == ["DEVICE", "test-device"]
    stopped = ctl(fleet.config, "--all", "cam0", "stop", "--json")
    assert stopped.returncode == 0
    replies = json.loads(stopped.stdout)
    assert {name: reply["changed"] for name, reply in replies["replies"].items()} == {
        "other": True,
        "test-device": False,
    }
    assert replies["no_reply"] == []


def test_one_refusal_of_many_is_1(fleet: Fleet) -> None:
    done = ctl(fleet.config, "--all", "cam0", "pause")
    assert done.returncode == 1
    assert done.stdout.count("wrong_state") == 2


@pytest.mark.promise("ctl-without-a-broker")
@pytest.mark.promise("snapshot-goes-somewhere")
def test_without_a_broker_the_daemon_of_this_device_is_asked(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=CAM0)) as daemon:

        def here(*arguments: str) -> subprocess.CompletedProcess[str]:
            return ctl(daemon.config, *arguments, runtime=daemon.runtime)

        mode = (daemon.runtime / "control.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
        started = here("cam0", "start", "--duration", "10m", "--json")
        assert (started.returncode, started.stderr) == (0, "")
        state = json.loads(here("cam0", "get", "--json").stdout)["data"]
        assert (state["state"], state["cause"]) == ("recording", "ctl")
        assert state["until"] is not None
        assert "recording" in here("status").stdout
        refused = here("cam1", "start")
        assert (refused.returncode, "unknown_recorder" in refused.stderr) == (1, True)
        nowhere = here("cam0", "snapshot")
        assert (nowhere.returncode, "the frame would go nowhere" in nowhere.stderr) == (1, True), nowhere
        taken = here("cam0", "snapshot", "--full")
        assert taken.returncode == 0, taken.stderr
        (file,) = (daemon.recordings / "cam0").rglob("*.jpg")
        assert taken.stdout.rstrip().endswith(f", {file.relative_to(daemon.recordings)}")
        assert "or without a recorder: status" in here("cam0").stderr
        assert here("cam0", "stop").returncode == 0
        assert here("--device", "another", "cam0", "get").returncode == 2
        daemon.kill()
        assert here("cam0", "get").returncode == 3
        daemon.start()  # over the socket that the killed one left behind
        assert here("cam0", "get").returncode == 0
        assert daemon.stop() == 0
        assert not (daemon.runtime / "control.sock").exists()


def test_what_is_wrong_with_a_recorder_is_said(tmp_path: Path) -> None:
    missing = f"http://127.0.0.1:{free_port()}/live.ts"
    recorders = recorder("cam0", source={"url": missing}, autostart=True)
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=recorders)) as daemon:
        until(
            lambda: "(device_missing)" in ctl(daemon.config, "cam0", "get", runtime=daemon.runtime).stdout,
            lambda: "no reason in the answer",
            timeout=30,
        )
        got = ctl(daemon.config, "cam0", "get", runtime=daemon.runtime)
        assert got.returncode == 0
        assert got.stdout.startswith("cam0: error")
        state = json.loads(ctl(daemon.config, "cam0", "get", "--json", runtime=daemon.runtime).stdout)["data"]
        reason = f"{state['error']['message']} (device_missing)"
        assert got.stdout.endswith(f": {reason}\n")
        assert ctl(daemon.config, "status", runtime=daemon.runtime).stdout.rstrip().endswith(reason)


@pytest.mark.promise("ctl-asks-here-first")
def test_the_socket_is_preferred_to_the_broker(fleet: Fleet, tmp_path: Path) -> None:
    """The broker of the configuration is not there; another device's daemon behind the socket is not asked."""
    with DaemonProcess(tmp_path, configuration(tmp_path, port=free_port(), recorders=CAM0)) as daemon:
        assert ctl(daemon.config, "cam0", "get", runtime=daemon.runtime).returncode == 0
        assert ctl(daemon.config, "cam0", "get", "--timeout", "2s").returncode == 3
        other = tmp_path / "other.toml"
        other.write_text(daemon.config.read_text().replace('"test-device"', '"other-device"'))
        done = ctl(other, "cam0", "get", "--timeout", "2s", runtime=daemon.runtime)
        assert done.returncode == 3
        assert "127.0.0.1" in done.stderr
        there = f"control.sock is that of another daemon (test-device, {daemon.config})"
        assert there in done.stderr
        copy = tmp_path / "copy.toml"  # of one name, and without a broker
        copy.write_text(configuration(tmp_path / "copy", port=None, recorders=CAM0))
        for config in (other, copy):
            config.write_text(re.sub(r"(?s)\[mqtt\].*?(?=\n\[)", "", config.read_text()))
            done = ctl(config, "cam0", "get", "--timeout", "2s", runtime=daemon.runtime)
            assert (done.returncode, done.stdout) == (3, "")
            assert f"{there}, and {config} has no [mqtt]" in done.stderr
