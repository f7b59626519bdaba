"""The words between a connection and those who use it: messages, the last will, and what can go wrong."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from msrecd.errors import MsrecdError


class PublishError(MsrecdError):
    """A message was not accepted. `refused` names the broker's reason; None when the connection was lost."""

    def __init__(self, message: str, *, refused: str | None = None, too_large: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        self.too_large = too_large


class ConnectError(MsrecdError):
    """The broker cannot be reached, or does not want this client."""


_HINTS = (
    (ConnectionRefusedError, "no broker listens there: does it run, is the port right?"),
    (socket.gaierror, "is the name right, does this machine find its DNS server?"),
    (TimeoutError, "is the network up, does a firewall stand between?"),
)


def unreachable(error: BaseException | None) -> str:
    """Why a connection does not come about, and where to look."""
    reason = getattr(error, "strerror", None) or str(error or "")
    hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
    if "not yet valid" in reason:  # of a certificate
        hint = "is this machine's clock right?"
    return f"cannot be reached{reason and ': '}{reason}{hint and ' ('}{hint}{hint and ')'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What arrived, as it arrived. `expiry_s` is what the broker left of the message's expiry interval."""

    topic: str
    payload: bytes
    retain: bool = False
    dup: bool = False
    response_topic: str | None = None
    correlation_data: bytes | None = None
    expiry_s: int | None = None
    arrived_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes, retained and with QoS 1, when this client is gone for `delay_s` seconds."""

    topic: str
    payload: bytes
    delay_s: int
