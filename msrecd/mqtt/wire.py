"""What a connection and its users exchange: messages, the inbox, the last will, and what can go wrong."""

from __future__ import annotations

import socket
import threading
from collections import deque
from dataclasses import dataclass

from msrecd.errors import MsrecdError

INBOX_LIMIT = 1000
INBOX_LIMIT_BYTES = 4 * 1024 * 1024


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


class Inbox:
    """What the network thread received and the loop has not read yet: bounded, the newest dropped and counted."""

    def __init__(self, limit: int = INBOX_LIMIT, limit_bytes: int = INBOX_LIMIT_BYTES) -> None:
        self._lock = threading.Lock()
        self._messages: deque[Message] = deque()
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self.dropped = 0

    def put(self, message: Message) -> bool:
        """Add a message, from any thread; whether the loop must be woken."""
        with self._lock:
            size = len(message.payload) + len(message.topic)
            if len(self._messages) >= self._limit or self._bytes + size > self._limit_bytes:
                self.dropped += 1
                return False
            self._messages.append(message)
            self._bytes += size
            return len(self._messages) == 1

    def take(self) -> list[Message]:
        """All messages, oldest first; the inbox is empty then."""
        with self._lock:
            messages = list(self._messages)
            self._messages.clear()
            self._bytes = 0
            return messages
