"""Settings of a real mosquitto that break what msrecd relies on, on purpose; and those that are right."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker import Broker

from msrecd.mqtt.settings import MqttSettings

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "pi-check"
RIGHT = "max_queued_messages 20000\n"
ACL = (ROOT / "config" / "mosquitto" / "acl").read_text()

# Settings of mosquitto, and the rules that they break.
WRONG: dict[str, tuple[str, set[str]]] = {
    "default": ("", {"queue"}),
    "queue_of_bytes": (RIGHT + "max_queued_bytes 4000\n", {"queue"}),
    "no_retained": (
        RIGHT + "retain_available false\n",
        {
            "limits",
            "rights",
            "retained",
            "wildcards",
            "cleared",
            "handling",
            "as_published",
            "image",
            "will",
            "will_delay",
        },
    ),
    "small_packets": (RIGHT + "max_packet_size 65536\n", {"image"}),
    "small_messages": (RIGHT + "message_size_limit 65536\n", {"image"}),
}
# Lines that are taken out of the shipped list of rights, and the rules that this breaks.
WRONG_RIGHTS: dict[str, tuple[str, set[str] | None]] = {
    "no_commands": ("pattern readwrite msrecd/v1/%u/cmd/#", {"commands"}),
    "no_events": ("pattern write msrecd/v1/%u/event/#", {"rights"}),
    "no_states": ("pattern write msrecd/v1/%u/state/#", {"rights"}),
    "no_images": ("pattern write msrecd/v1/%u/image/#", {"rights"}),
    "no_replies": ("pattern readwrite msrecd/v1/%u/reply/#", None),
}
# Where nothing that is written comes back.
EVERYTHING = {"delivery", "retained", "wildcards", "session", "queue", "will"}


def settings(broker: Broker, **more: object) -> MqttSettings:
    values: dict[str, object] = {"host": broker.host, "port": broker.port, "device_id": DEVICE, "groups": ("north",)}
    return MqttSettings(**(values | more))  # type: ignore[arg-type]


@contextmanager
def broker_with(name: str | None, folder: Path) -> Iterator[tuple[Broker, MqttSettings]]:
    """A broker with one of the wrong settings, or with the shipped list of rights (None), and how a device connects.

    Where rights are wrong, as the device's own user with its password.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name in WRONG:
        with Broker(folder / "broker", config=WRONG[name][0]) as broker:
            yield broker, settings(broker)
        return
    line = WRONG_RIGHTS[name][0] if name is not None else ""
    assert line in ACL
    (folder / "acl").write_text(ACL.replace(line, "# taken out") if line else ACL)
    password = folder / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(folder / "passwd"), DEVICE, "secret"], check=True, capture_output=True
    )
    config = RIGHT + f"acl_file {folder / 'acl'}\npassword_file {folder / 'passwd'}\n"
    with Broker(folder / "broker", config=config, anonymous=False) as broker:
        yield broker, settings(broker, password_file=password)


def is_named(name: str | None, failed: set[str]) -> bool:
    """Whether these are the rules that the setting breaks; none for a right one."""
    if name is None:
        return not failed
    rules = WRONG[name][1] if name in WRONG else WRONG_RIGHTS[name][1]
    return failed == rules if rules is not None else failed >= EVERYTHING
