"""When a connection is encrypted."""

from __future__ import annotations

import ipaddress

# Other names below .localhost are not here: whether they stay on this machine depends on its resolver.
_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})


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
