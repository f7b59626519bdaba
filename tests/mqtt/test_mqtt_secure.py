"""TLS, client certificates and the ACL of config/mosquitto, against a real mosquitto."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from broker import MOSQUITTO, Broker, Certificates, Observer

from msrecd.errors import ConfigError
from msrecd.mqtt.ctl import send_command, send_group
from msrecd.mqtt.settings import MqttSettings, read_password, tls_context
from msrecd.mqtt.wire import PublishError
from msrecd.vocabulary.tls import is_loopback

CONFIG = Path(__file__).parents[2] / "config" / "mosquitto"
BASE = "msrecd/v1/pi-test"
PASSWORDS = {"pi-test": "one", "pi-other": "two", "console": "three", "homeassistant": "four"}

needs_mosquitto = pytest.mark.skipif(
    not MOSQUITTO or shutil.which("mosquitto_passwd") is None, reason="mosquitto is not installed"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


def example_config(folder, certificates, *, client_certificates=False, bound_ids=False):
    """The shipped configuration with the paths of this test; its listener lines are what `Broker` adds itself."""
    folder.mkdir(parents=True, exist_ok=True)
    passwd = folder / "passwd"
    passwd.touch(mode=0o600)
    for user, password in PASSWORDS.items():
        subprocess.run(["mosquitto_passwd", "-b", str(passwd), user, password], check=True, timeout=60)
    text = (CONFIG / "msrecd.conf").read_text()
    if client_certificates:
        text = text.replace("# require_certificate true", "require_certificate true")
        text = text.replace("# use_identity_as_username true", "use_identity_as_username true")
        text = text.replace("password_file /etc/mosquitto/passwd\n", "")
    if bound_ids:
        assert "# use_username_as_clientid true" in text
        text = text.replace("# use_username_as_clientid true", "use_username_as_clientid true")
    replacements = {
        "/etc/mosquitto/passwd": passwd,
        "/etc/mosquitto/acl": CONFIG / "acl",
        "/etc/mosquitto/certs/ca.crt": certificates.ca,
        "/etc/mosquitto/certs/broker.crt": certificates.broker,
        "/etc/mosquitto/certs/broker.key": certificates.broker_key,
    }
    for old, new in replacements.items():
        text = text.replace(old, str(new))
    return text + f"persistence_location {folder}/\n"


class ExampleBroker(Broker):
    """Runs the shipped configuration as it is, but for paths and the port."""

    def __init__(self, folder, certificates, **options):
        super().__init__(folder, certificates=certificates)
        text = example_config(folder, certificates, **options)
        assert "listener 8883\n" in text
        self._text = "user root\nlog_type all\n" + text.replace("listener 8883\n", f"listener {self.port} 127.0.0.1\n")


@pytest.fixture
def example(tmp_path, certificates):
    with ExampleBroker(tmp_path / "example", certificates) as broker:
        yield broker


def secret(tmp_path, user):
    path = tmp_path / f"{user}.secret"
    path.write_text(PASSWORDS[user] + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def console(example):
    with Observer(example, username="console", password="three") as observer:
        observer.subscribe("msrecd/v1/#")
        yield observer


@needs_mosquitto
@pytest.mark.promise("shipped-broker-configuration")
def test_the_whole_contract_works_with_the_example_configuration(
    example, console, certificates, tmp_path, service_for, caplog
):
    caplog.set_level(logging.INFO)
    service = service_for(
        example,
        username="pi-test",
        password_file=secret(tmp_path, "pi-test"),
        ca_file=certificates.ca,
        homeassistant=True,
    )
    with service as thread:
        thread.connected()
        thread.publish_state("daemon", {"version": "1"})
        thread.publish_image("cam0", b"\xff\xd8")
        thread.publish_event("device", {"event_type": "added"})
        for path in ("availability", "state/daemon", "image/cam0", "event/device"):
            console.wait_for(lambda m, path=path: m.topic == f"{BASE}/{path}")
        console.publish(f"{BASE}/cmd/recorder/cam0/start", {"id": "c1"})
        assert console.wait_for(lambda m: m.topic == f"{BASE}/reply/recorder/cam0/start").json["status"] == "ok"
        console.publish("msrecd/v1/group/north/cmd/recorder/cam0/stop", {"id": "c2"})
        assert console.wait_for(lambda m: m.topic == f"{BASE}/reply/recorder/cam0/stop").json["status"] == "ok"
        with Observer(example, username="homeassistant", password="four") as homeassistant:
            homeassistant.subscribe("homeassistant/#")
            homeassistant.wait_for(lambda m: m.topic == "homeassistant/device/pi-test/config")
            assert homeassistant.publish(f"{BASE}/cmd/recorder/cam0/set", b"ON") == "Success"
            assert homeassistant.publish(f"{BASE}/cmd/daemon/reload") == "Not authorized"
    assert "one" not in [word.strip(".,:;") for word in caplog.text.split() if word == PASSWORDS["pi-test"]]
    assert "check its ACL" not in caplog.text


@needs_mosquitto
@pytest.mark.promise("devices-speak-for-themselves")
@pytest.mark.promise("device-in-its-own-topics")
def test_a_device_cannot_speak_for_or_command_another(example, console):
    with Observer(example, username="pi-other", password="two") as other:
        for topic in (
            f"{BASE}/availability",
            f"{BASE}/reply/recorder/cam0/start",
            f"{BASE}/cmd/recorder/cam0/start",
            "msrecd/v1/group/all/cmd/recorder/cam0/start",
            "homeassistant/device/pi-test/config",
        ):
            assert other.publish(topic, b"x") == "Not authorized", topic
        assert other.publish("msrecd/v1/pi-other/availability", b"online") != "Not authorized"
        other.subscribe(f"{BASE}/#")
        console.publish(f"{BASE}/cmd/recorder/cam0/start", b"")
        other.subscribe("msrecd/v1/group/all/cmd/#")
        console.publish("msrecd/v1/group/all/cmd/daemon/ping", b"")
        other.wait_for(lambda m: m.topic == "msrecd/v1/group/all/cmd/daemon/ping")
        assert not [m for m in other.messages if m.topic.startswith(BASE)]


@needs_mosquitto
def test_ctl_with_the_devices_own_password_and_not_beyond(example, certificates, tmp_path, service_for, settings_for):
    own = {"username": "pi-test", "password_file": secret(tmp_path, "pi-test"), "ca_file": certificates.ca}
    with service_for(example, **own) as thread:
        thread.connected()
        reply = send_command(settings_for(example, **own), "pi-test", "cam0", "start", {"duration_s": 5})
        assert reply is not None
        assert reply["status"] == "ok"
        with pytest.raises(PublishError, match="Not authorized"):
            send_command(settings_for(example, **own), "pi-other", "cam0", "start")
        with pytest.raises(PublishError, match="Not authorized"):
            send_group(settings_for(example, **own), "all", "cam0", "start")


@needs_mosquitto
@pytest.mark.parametrize("bound_ids", [False, True])
@pytest.mark.promise("taken-client-id")
def test_another_user_takes_the_place_of_a_device_unless_the_broker_binds_ids(
    tmp_path, certificates, service_for, caplog, bound_ids
):
    """The threat of SECURITY.md is real, and the setting that it names prevents it."""
    own = {"username": "pi-test", "password_file": secret(tmp_path, "pi-test"), "ca_file": certificates.ca}
    with (
        ExampleBroker(tmp_path / "example", certificates, bound_ids=bound_ids) as broker,
        service_for(broker, **own) as thread,
    ):
        thread.connected()
        with Observer(broker, client_id="msrecd-pi-test", username="pi-other", password="two") as other:
            if not bound_ids:
                thread.wait(lambda _: "another client" in caplog.text)
                return
            other.subscribe("msrecd/v1/group/all/cmd/#")
            with Observer(broker, username="console", password="three") as console:
                console.subscribe(f"{BASE}/reply/#")
                console.publish(f"{BASE}/cmd/daemon/ping")
                assert console.wait_for(lambda m: m.topic == f"{BASE}/reply/daemon/ping").json["status"] == "ok"
            assert thread.health()["connected"]
            assert thread.health()["reconnects"] == 0


@needs_mosquitto
@pytest.mark.promise("shipped-broker-configuration")
def test_client_certificates_name_the_device(tmp_path, certificates, service_for, caplog):
    certificate, key = certificates.issue("pi-test", "pi-test")
    console_pair = certificates.issue("console", "console")
    with ExampleBroker(tmp_path / "example", certificates, client_certificates=True) as broker:
        with (
            Observer(broker, certificate=console_pair) as console,
            service_for(broker, ca_file=certificates.ca, cert_file=certificate, key_file=key) as thread,
        ):
            console.subscribe("msrecd/v1/#")
            thread.connected()
            console.publish(f"{BASE}/cmd/daemon/ping")
            assert console.wait_for(lambda m: m.topic == f"{BASE}/reply/daemon/ping").json["status"] == "ok"
        with service_for(broker, ca_file=certificates.ca, state="other") as thread:
            thread.wait(lambda _: "trying again" in caplog.text)
            assert not thread.health()["connected"]


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@needs_mosquitto
@pytest.mark.promise("foreign-authority", "certificates-are-checked")
@pytest.mark.promise("certificates-are-verified")
def test_a_foreign_authority_or_name_is_not_believed(example, certificates, tmp_path, service_for, caplog):
    foreign = Certificates.make(tmp_path / "foreign")
    with service_for(example, ca_file=foreign.ca, username="pi-test") as thread:
        thread.wait(lambda _: "CERTIFICATE_VERIFY_FAILED" in caplog.text or "certificate verify failed" in caplog.text)
        assert not thread.health()["connected"]


@needs_mosquitto
@pytest.mark.promise("refused-events-stay")
def test_events_that_the_acl_forbids_stay_and_do_not_hold_up_others(tmp_path, service_for, caplog):
    acl = tmp_path / "acl"
    allowed = ["topic readwrite msrecd/v1/+/availability", "topic readwrite msrecd/v1/+/event/device",
               "topic readwrite msrecd/v1/+/state/#", "topic read msrecd/v1/#"]  # fmt: skip
    acl.write_text("\n".join(allowed) + "\n")
    with Broker(tmp_path / "broker", config=f"acl_file {acl}") as broker:
        with service_for(broker) as thread, Observer(broker) as observer:
            observer.subscribe(f"{BASE}/#")
            thread.connected()
            for number in range(30):
                thread.publish_event("recorder/cam0", {"n": number})
                thread.publish_event("device", {"n": number})
            events = observer.wait_count(lambda m: m.topic == f"{BASE}/event/device", 30)
            assert [event.json["n"] for event in events] == list(range(30))
            thread.wait(lambda service: service.health()["spooled"] == 30)
            assert caplog.text.count("event/recorder/cam0: the broker refused it: Not authorized (check its ACL)") == 1
        acl.write_text("\n".join([*allowed, "topic readwrite msrecd/v1/+/event/#"]) + "\n")
        broker.restart()
        with Observer(broker) as observer:
            observer.subscribe(f"{BASE}/#")
            with service_for(broker):
                events = observer.wait_count(lambda m: m.topic == f"{BASE}/event/recorder/cam0", 30)
                assert [event.json["n"] for event in events] == list(range(30))


@pytest.mark.parametrize(
    ("host", "changes", "tls", "port"),
    [
        ("localhost", {}, False, 1883),
        ("127.0.0.5", {}, False, 1883),
        ("::1", {}, False, 1883),
        ("broker.lan", {}, True, 8883),
        ("192.168.1.4", {}, True, 8883),
        ("localhost.example.org", {}, True, 8883),
        ("broker.lan", {"allow_plaintext": True}, False, 1883),
        ("broker.lan", {"allow_plaintext": True, "ca_file": Path("/ca")}, True, 8883),
        ("localhost", {"ca_file": Path("/ca"), "port": 1884}, True, 1884),
    ],
)
@pytest.mark.promise("tls-off-the-machine")
@pytest.mark.promise("tls-off-this-machine")
def test_tls_is_on_off_loopback(host, changes, tls, port):
    settings = MqttSettings(host=host, device_id="pi-test", **changes)
    assert (settings.tls, settings.effective_port) == (tls, port)
    assert is_loopback(host) == (host in ("localhost", "127.0.0.5", "::1"))


@pytest.mark.promise("credential-is-read")
@pytest.mark.promise("where-the-password-is")
def test_the_password_comes_from_the_credential_first(tmp_path):
    file = tmp_path / "file"
    file.write_text("from-file\n")
    file.chmod(0o600)
    settings = MqttSettings(host="localhost", device_id="pi-test", password_file=file)
    assert read_password(settings, {}) == "from-file"
    (tmp_path / "mqtt-password").write_text("from-systemd")
    assert read_password(settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "from-systemd"
    assert read_password(MqttSettings(host="localhost", device_id="pi-test"), {}) is None
    assert "from-file" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "mode"), [(b"x\n", 0o640), (b"x\n", 0o604), (b"\n", 0o600), (b"\xff", 0o600), (None, 0)]
)
@pytest.mark.promise("where-the-password-is")
def test_a_bad_password_file_is_named(tmp_path, content, mode):
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(ConfigError, match=r"mqtt\.password_file"):
        read_password(MqttSettings(host="localhost", device_id="pi-test", password_file=file), {})


@pytest.mark.promise("key-file-is-guarded")
def test_bad_certificate_files_are_named(tmp_path, certificates):
    with pytest.raises(ConfigError, match=r"mqtt\.ca_file"):
        tls_context(MqttSettings(host="b", device_id="pi-test", ca_file=tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"mqtt\.cert_file"):
        tls_context(MqttSettings(host="b", device_id="pi-test", ca_file=certificates.ca, cert_file=tmp_path / "none"))
    certificate, key = certificates.issue("open-key", "open-key")
    key.chmod(0o644)
    with pytest.raises(ConfigError, match=r"mqtt\.key_file.*chmod"):
        tls_context(MqttSettings(host="b", device_id="pi-test", cert_file=certificate, key_file=key))


def test_tls_is_loaded_only_where_it_is_configured():
    program = (
        "import sys\n"
        "import msrecd.mqtt.service, msrecd.mqtt.client, msrecd.mqtt.ctl\n"
        "assert 'msrecd.mqtt.tls' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
