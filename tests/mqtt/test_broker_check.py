"""`msrecd check-broker` names each setting of a real broker that breaks a rule, and nothing on one that is right."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from broker import Broker, Certificates, free_port

from msrecd.mqtt.broker_check import BrokerCheck, Finding
from msrecd.mqtt.settings import MqttSettings, password_hint
from msrecd.mqtt.wire import ConnectError

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "pi-check"
RIGHT = "max_queued_messages 20000\n"
ACL = (ROOT / "config" / "mosquitto" / "acl").read_text()

# Settings of mosquitto, and the rules that they break.
WRONG = {
    "default": ("", {"queue"}),
    "queue_of_bytes": (RIGHT + "max_queued_bytes 4000\n", {"queue"}),
    "no_retained": (
        RIGHT + "retain_available false\n",
        {"limits", "retained", "wildcards", "cleared", "handling", "as_published", "image", "will", "will_delay"},
    ),
    "small_packets": (RIGHT + "max_packet_size 65536\n", {"image"}),
    "small_messages": (RIGHT + "message_size_limit 65536\n", {"image"}),
}
# Lines that are taken out of the shipped list of rights, and the rules that this breaks.
WRONG_RIGHTS: dict[str, tuple[str, set[str] | None]] = {
    "no_commands": ("pattern readwrite msrecd/v1/%u/cmd/#", {"commands"}),
    "no_replies": ("pattern readwrite msrecd/v1/%u/reply/#", None),
}


def settings(broker: Broker, **more: object) -> MqttSettings:
    values: dict[str, object] = {"host": broker.host, "port": broker.port, "device_id": DEVICE, "groups": ("north",)}
    return MqttSettings(**(values | more))  # type: ignore[arg-type]


def failed(findings: list[Finding]) -> set[str]:
    assert len({finding.rule for finding in findings}) == len(findings)
    assert all(finding.seen and finding.notice for finding in findings)
    return {finding.rule for finding in findings if finding.outcome == "failed"}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named_by_the_rules_that_it_breaks(tmp_path: Path, name: str) -> None:
    config, rules = WRONG[name]
    with Broker(tmp_path / "broker", config=config) as broker:
        found = failed(BrokerCheck(settings(broker)).run())
    assert found == rules


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *WRONG_RIGHTS])
def test_missing_rights_are_named_and_the_shipped_ones_are_enough(tmp_path: Path, name: str | None) -> None:
    """With the shipped list of rights, the device's own user and password."""
    line, rules = WRONG_RIGHTS[name] if name is not None else ("", set())
    assert line in ACL
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "acl").write_text(ACL.replace(line, "# taken out") if line else ACL)
    password = folder / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(folder / "passwd"), DEVICE, "secret"], check=True, capture_output=True
    )
    config = RIGHT + f"acl_file {folder / 'acl'}\npassword_file {folder / 'passwd'}\n"
    with Broker(tmp_path / "broker", config=config, anonymous=False) as broker:
        found = failed(BrokerCheck(settings(broker, password_file=password)).run())
        if rules is None:  # nothing that is written comes back
            assert {"delivery", "retained", "wildcards", "session", "queue", "will"} <= found
        else:
            assert found == rules
        with pytest.raises(ConnectError, match=r"refuses the connection: Not authorized \(anonymous; no password"):
            BrokerCheck(settings(broker)).run()


def check(tmp_path: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "msrecd.toml"
    config.write_text(
        f'config_version = 1\n[device]\nid = "{DEVICE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
        f'[storage]\npath = "{tmp_path / "recordings"}"\n'
    )
    command = [sys.executable, "-m", "msrecd", "check-broker", "--config", str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
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
    assert wrong.stdout.splitlines()[-1].endswith("15 of 16 rules hold")
    assert wrong.stderr == ""


def test_a_broker_with_tls_is_not_reached_without(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path / "certificates")
    with Broker(tmp_path / "broker", certificates=certificates) as broker, pytest.raises(ConnectError):
        BrokerCheck(settings(broker)).run()


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
