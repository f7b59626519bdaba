"""What arrived and was not read yet: filled by the network thread, emptied by the loop."""

from __future__ import annotations

import threading
from collections import deque

from msrecd.mqtt.wire import Message

INBOX_LIMIT = 1000
INBOX_LIMIT_BYTES = 4 * 1024 * 1024


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
