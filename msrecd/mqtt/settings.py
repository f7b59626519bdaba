"""The settings of a connection, and where its secrets come from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msrecd.errors import ConfigError
from msrecd.vocabulary.secrets import read_secret
from msrecd.vocabulary.tls import client_context, load_certificate, mqtt_port, uses_tls

if TYPE_CHECKING:
    import ssl

CREDENTIAL = "mqtt-password"
# What the unit's LoadCredential= makes while the service runs, and what it reads.
CREDENTIAL_FILES = (
    Path("/run/credentials/msrecd.service/mqtt-password"),
    Path("/etc/credstore/msrecd.mqtt-password"),
    Path("/run/credstore/msrecd.mqtt-password"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """The settings of one connection. `port` None means 8883 with TLS and 1883 without.

    `allow_verbs` None allows every verb. `username` None means the device id when there is a password.
    `credential_files` are read when there is no other password.
    The reconnect times bound the random wait between two attempts.
    """

    host: str
    device_id: str
    port: int | None = None
    username: str | None = None
    password_file: Path | None = None
    credential_files: tuple[Path, ...] = ()
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    allow_plaintext: bool = False
    groups: tuple[str, ...] = ()
    allow_verbs: frozenset[str] | None = None
    command_max_age_s: float = 60.0
    keepalive_s: int = 30
    session_expiry_s: int = 3600
    will_delay_s: int = 10
    reconnect_min_s: float = 1.0
    reconnect_max_s: float = 30.0
    ack_timeout_s: float = 45.0
    heartbeat_s: float = 300.0
    homeassistant: bool = False

    @property
    def tls(self) -> bool:
        """TLS is on whenever the host is not loopback, unless plaintext is allowed; a CA or certificate asks for it."""
        return uses_tls(
            self.host,
            allow_plaintext=self.allow_plaintext,
            has_certificates=self.ca_file is not None or self.cert_file is not None,
        )

    @property
    def address(self) -> str:
        """The host as a resolver takes it: an IPv6 address without the brackets that URLs put around it."""
        return self.host.removeprefix("[").removesuffix("]")

    @property
    def effective_port(self) -> int:
        """The port to connect to."""
        return mqtt_port(self.port, tls=self.tls)

    def __repr__(self) -> str:
        return f"MqttSettings({self.device_id} at {self.host}:{self.effective_port}, tls={self.tls})"


def read_password(settings: MqttSettings, environment: Mapping[str, str] | None = None) -> str | None:
    """The password from systemd's credential `mqtt-password`, from `password_file`, or where the service has it.

    None when it is nowhere.

    Raises:
        ConfigError: the file cannot be read, is not a secret (readable by group or others) or is empty.
    """
    return _find_password(settings, os.environ if environment is None else environment)[0]


def _find_password(settings: MqttSettings, environment: Mapping[str, str]) -> tuple[str | None, Path]:
    """The password and the file that it comes from."""
    if folder := environment.get("CREDENTIALS_DIRECTORY"):
        credential = Path(folder) / CREDENTIAL
        if credential.exists():
            return read_secret(credential, f"credential {CREDENTIAL}", is_private=False), credential
    if settings.password_file is not None:
        return read_secret(settings.password_file, "mqtt.password_file"), settings.password_file
    for path in settings.credential_files:
        with contextlib.suppress(OSError, ConfigError):  # another one may have it
            if path.exists():
                return read_secret(path, f"credential {CREDENTIAL}", is_private=False), path
    return None, Path()


def user_name(settings: MqttSettings, *, has_password: bool) -> str | None:
    """As whom a client connects; None: anonymous."""
    return settings.username or (settings.device_id if has_password else None)


def is_about_login(reason: str) -> bool:
    """Whether a broker's reason for a refusal is about user name and password."""
    return "uthori" in reason or "user name" in reason


def password_hint(settings: MqttSettings) -> str:
    """For a broker that refuses a client: its user name and where its password comes from, or was looked for."""
    try:
        password, file = _find_password(settings, os.environ)
        user = user_name(settings, has_password=password is not None)
        if password is not None:
            return f' (user name "{user}", password from {file})'
    except ConfigError as exc:
        return f" ({exc})"
    places = [f"${{CREDENTIALS_DIRECTORY}}/{CREDENTIAL}", "mqtt.password_file", *map(str, settings.credential_files)]
    who = "anonymous" if user is None else f'user name "{user}"'
    return (
        f" ({who}; no password was found; looked for in {', '.join(places)}. The service's own credential is readable "
        f"for root only: {CREDENTIAL_FILES[0]})"
    )


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """The verification every connection gets: the system's or the given CA, host name checked, TLS 1.2 or newer.

    Raises: ConfigError naming the file that cannot be used.
    """
    context = client_context(settings.ca_file, "mqtt.ca_file")
    if settings.cert_file is not None:
        load_certificate(context, settings.cert_file, settings.key_file, "mqtt")
    return context
