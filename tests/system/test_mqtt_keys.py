"""Keys of [mqtt] and the ids in a running daemon, as the broker sees them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from broker import MOSQUITTO, Broker, Certificates
from config_text import camera, configuration
from daemon import DaemonProcess
from waiting import until

pytestmark = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")


def mqtt(folder: Path, broker: Broker, host: str, lines: str) -> str:
    text = configuration(folder, port=broker.port, recorders=camera())
    return text.replace('host = "127.0.0.1"', f'host = "{host}"\n{lines}', 1)


def connected(broker: Broker, daemon: DaemonProcess) -> str:
    """The broker's line on the daemon: `… as <client id> (p5, c0, k<keep-alive>, u'<user>').`"""

    def lines() -> list[str]:
        return [line for line in broker.log().splitlines() if " as msrecd-test-device " in line]

    until(lines, lambda: broker.log()[-2000:] + daemon.log.read_text())
    return lines()[-1]


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto_passwd is not installed")
@pytest.mark.effect(
    "config: mqtt.username", "config: mqtt.password_file", "config: mqtt.keepalive", "config: mqtt.port",
    "config: device.id",
)  # fmt: skip
def test_who_it_says_it_is(tmp_path: Path) -> None:
    """A broker that wants a password; without the right one nobody is connected."""
    passwords, secret = tmp_path / "passwd", tmp_path / "secret"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "meadow", "right"], check=True, timeout=60)
    secret.write_text("right\n")
    secret.chmod(0o600)
    lines = f'username = "meadow"\npassword_file = "{secret}"\nkeepalive = "33s"'
    broker = Broker(tmp_path / "broker", config=f"password_file {passwords}", anonymous=False)
    with broker, DaemonProcess(tmp_path, mqtt(tmp_path, broker, "127.0.0.1", lines)) as daemon:
        line = connected(broker, daemon)
    assert "k33," in line
    assert "u'meadow'" in line


@pytest.mark.effect("config: mqtt.ca_file", "config: mqtt.cert_file", "config: mqtt.key_file")
def test_certificates(tmp_path: Path) -> None:
    """A broker that wants a certificate and takes the name in it for the user."""
    certificates = Certificates.make(tmp_path / "certificates")
    certificate, key = certificates.issue("device", "meadow-7")
    broker = Broker(tmp_path / "broker", certificates=certificates)
    broker._text += "require_certificate true\nuse_identity_as_username true\n"
    lines = f'ca_file = "{certificates.ca}"\ncert_file = "{certificate}"\nkey_file = "{key}"'
    with broker, DaemonProcess(tmp_path, mqtt(tmp_path, broker, "localhost", lines)) as daemon:
        assert "u'meadow-7'" in connected(broker, daemon)


@pytest.mark.effect("config: mqtt.host", "config: mqtt.allow_plaintext")
def test_tls_wherever_the_host_is_not_this_machine_unless_it_is_switched_off(tmp_path: Path) -> None:
    """0.0.0.0 is no address of loopback, but reaches this machine (Linux, ip(7))."""
    with Broker(tmp_path / "broker") as broker:
        text = mqtt(tmp_path, broker, "0.0.0.0", "allow_plaintext = true")
        with DaemonProcess(tmp_path, text) as daemon:
            connected(broker, daemon)
        before = broker.log().count(" as msrecd-test-device ")
        daemon.config.write_text(text.replace("allow_plaintext = true\n", ""))
        with daemon:
            until(lambda: "TLS" in daemon.log.read_text(), lambda: daemon.log.read_text())
        assert broker.log().count(" as msrecd-test-device ") == before
