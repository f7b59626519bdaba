"""When a connection is encrypted, and with which certificates: whoever uses or judges their files loads them here."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING

from msrecd.errors import ConfigError
from msrecd.vocabulary.plainfile import open_plain
from msrecd.vocabulary.secrets import check_key_file

if TYPE_CHECKING:
    import ssl  # megabytes that plain connections save: the functions load it

# Other names below .localhost are not here: whether they stay on this machine depends on its resolver.
_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
# The labels of RFC 7468 and of openssl's older forms.
_CERTIFICATE = re.compile(rb"-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9]+ )?PRIVATE KEY-----")
_LIMIT_BYTES = 4 << 20


def is_loopback(host: str) -> bool:
    """Whether a host name or an address (IPv6 with or without brackets) means this machine; nothing is resolved."""
    name = host.strip("[]").lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name in _LOOPBACK_NAMES
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def uses_tls(host: str, *, allow_plaintext: bool, has_certificates: bool) -> bool:
    """TLS is on whenever `host` is not loopback, unless plaintext is allowed; a CA or certificate asks for it."""
    return has_certificates or (not is_loopback(host) and not allow_plaintext)


def mqtt_port(port: int | None, *, tls: bool) -> int:
    """The configured port, else the usual one."""
    return port or (8883 if tls else 1883)


def client_context(ca_file: Path | None, name: str) -> ssl.SSLContext:
    """For connections to servers: host names are checked, TLS is 1.2 or newer.

    Args:
        ca_file: the authorities that are believed; the system's without it.
        name: of the setting, for messages.

    Raises:
        ConfigError: the file cannot be read, or holds no certificate.
    """
    import ssl

    if ca_file is not None:
        _demand(_CERTIFICATE, ca_file, name, "holds no certificate in PEM form")
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as exc:
        raise ConfigError(f"{name}: {ca_file} cannot be used: {_reason(exc)}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def server_context(cert_file: Path, key_file: Path | None, table: str) -> ssl.SSLContext:
    """For a server with a certificate; TLS is 1.2 or newer.

    Raises:
        ConfigError: as `load_certificate`.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, cert_file, key_file, table)
    return context


def load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None, table: str) -> None:
    """Put a certificate and its key, which may be in the same file, into a context.

    Args:
        table: whose keys cert_file and key_file are, for messages.

    Raises:
        ConfigError: which file cannot be used, and why.
    """
    cert_name, key_name = f"{table}.cert_file", f"{table}.key_file"
    check_key_file(cert_file, cert_name)
    _demand(_CERTIFICATE, cert_file, cert_name, "holds no certificate in PEM form")
    holder, name = cert_file, cert_name
    if key_file is None:
        problem = f"holds no private key in PEM form; where it has a file of its own, {key_name} names it"
    else:
        check_key_file(key_file, key_name)
        holder, name, problem = key_file, key_name, "holds no private key in PEM form"
    if b"ENCRYPTED" in _demand(_KEY, holder, name, problem):
        raise ConfigError(f"{name}: {holder} is encrypted, and nobody is there to give its passphrase; decrypt it")
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except OSError as exc:
        if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{name}: {holder} is not the key of the certificate in {cert_file}") from exc
        # Without a reason one of the two could not be parsed; with one the certificate is refused.
        if key_file is not None and getattr(exc, "reason", None) is None and _can_be_read(cert_file):
            raise ConfigError(f"{name}: {holder} cannot be used: {_reason(exc)}") from exc
        raise ConfigError(f"{cert_name}: {cert_file} cannot be used: {_reason(exc)}") from exc


def _demand(mark: re.Pattern[bytes], path: Path, name: str, problem: str) -> bytes:
    try:
        with open_plain(path) as file:
            content = file.read(_LIMIT_BYTES)
    except OSError as exc:
        raise ConfigError(f"{name}: {path}: {exc.strerror}") from exc
    if not mark.search(content):
        raise ConfigError(f"{name}: {path} {problem}")
    return content


def _can_be_read(cert_file: Path) -> bool:
    """Whether its certificates are whole."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(cert_file))
    except OSError:
        return False
    return True


def _reason(exc: OSError) -> str:
    """The libraries' word, where they have one."""
    import ssl

    if not isinstance(exc, ssl.SSLError):
        return str(exc.strerror or exc)
    return str(exc.reason).lower().replace("_", " ") if exc.reason else "it is damaged"
