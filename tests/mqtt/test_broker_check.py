"""`msrecd check-broker` names each setting of a real broker that breaks a rule, and nothing on one that is right."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from broker import Broker, Certificates
from ports import free_port
from wrong_brokers import DEVICE, RIGHT, WRONG, WRONG_RIGHTS, broker_with, is_named, settings

from msrecd.mqtt.broker_check import BrokerCheck, Finding
from msrecd.mqtt.settings import MqttSettings, password_hint
from msrecd.mqtt.wire import ConnectError


def failed(findings: list[Finding]) -> set[str]:
    assert len({finding.rule for finding in findings}) == len(findings)
    assert all(finding.seen and finding.notice for finding in findings)
    return {finding.rule for finding in findings if finding.outcome == "failed"}


# mosquitto 2.0.21 refuses with reasons that paho has no name for; its thread ends, and the rule fails as it should.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.slow
@pytest.mark.promise("rules-of-a-broker")
@pytest.mark.promise("check-broker-exits-1")
def test_each_of_ten_wrong_settings_is_named_by_the_rules_that_it_breaks(tmp_path: Path) -> None:
    """And the shipped list of rights is enough, with the device's own user and password. All at once: they wait."""

    def one(name: str | None) -> str | None:
        with broker_with(name, tmp_path / (name or "right")) as (broker, known):
            found = failed(BrokerCheck(known).run())
            if name is None:
                with pytest.raises(
                    ConnectError, match=r"refuses the connection: Not authorized \(anonymous; no password"
                ):
                    BrokerCheck(settings(broker)).run()
        return None if is_named(name, found) else f"{name}: {sorted(found)}"

    names = [None, *WRONG, *WRONG_RIGHTS]
    assert len(names) == 11
    with ThreadPoolExecutor(len(names)) as pool:
        assert not [wrong for wrong in pool.map(one, names) if wrong]


def check(tmp_path: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "msrecd.toml"
    config.write_text(
        f'config_version = 1\n[device]\nid = "{DEVICE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
        f'[storage]\npath = "{tmp_path / "recordings"}"\n'
    )
    command = [sys.executable, "-m", "msrecd", "check-broker", "--config", str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
@pytest.mark.promise("check-broker", "check-broker-clears")
@pytest.mark.promise("seventeen-rules")
def test_the_command_prints_a_table_and_json_and_leaves_nothing_retained(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", config=RIGHT) as broker:
        right = check(tmp_path, broker.port, "--json")
        assert right.returncode == 0, right.stderr
        told = json.loads(right.stdout)
        assert told["ok"] is True
        assert {rule["outcome"] for rule in told["rules"]} == {"ok"}
        kept = subprocess.run(
            ["mosquitto_sub", "-V", "mqttv5", "-p", str(broker.port), "-t", "msrecd/#", "-W", "1", "--retained-only"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert kept.stdout == ""
    with Broker(tmp_path / "broker2", config=RIGHT + "max_packet_size 65536\n") as broker:
        wrong = check(tmp_path, broker.port)
    assert wrong.returncode == 1
    assert "FAILED  takes a retained message of 256 KiB" in wrong.stdout
    assert "so: snapshots do not arrive" in wrong.stdout
    assert wrong.stdout.splitlines()[-1].endswith("16 of 17 rules hold")
    assert wrong.stderr == ""


def test_a_broker_with_tls_is_not_reached_without(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path / "certificates")
    with Broker(tmp_path / "broker", certificates=certificates) as broker, pytest.raises(ConnectError):
        BrokerCheck(settings(broker)).run()


@pytest.mark.promise("check-broker")
@pytest.mark.promise("check-broker-exits-1")
def test_a_broker_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    nobody = check(tmp_path, free_port())
    assert nobody.returncode == 1
    assert nobody.stdout == ""
    assert (
        "cannot be reached: Connection refused (no broker listens there: does it run, is the port right?)"
        in nobody.stderr
    )
    assert len(nobody.stderr.splitlines()) == 1


def test_a_refused_login_names_the_user_and_the_file_of_the_password(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hidden\n")
    password.chmod(0o600)
    refused = MqttSettings(host="localhost", device_id=DEVICE, password_file=password)
    assert password_hint(refused) == f' (user name "{DEVICE}", password from {password})'
    assert password_hint(replace(refused, username="u")).startswith(' (user name "u", password from ')
    assert password_hint(replace(refused, password_file=None)).startswith(" (anonymous; no password was found")
