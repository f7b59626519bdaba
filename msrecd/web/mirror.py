"""StateMirror: what the bus says, in the web thread; and the clients that hear of it (server-sent events).

The daemon's loop hands items over by `receive`, which never waits. Behind it everything is bounded: the handover, and
what each client has not read yet.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from msrecd.control.bus import Event, Item, Payload, State
from msrecd.web.metrics import Happened

HANDOVER_LIMIT = 1000
CLIENT_LIMIT_MESSAGES = 512
CLIENT_LIMIT_BYTES = 512 * 1024
CLIENTS_LIMIT = 24
ERRORS_LIMIT = 30
HEARTBEAT_S = 15.0
_RECORDER = "recorder/"


class StateMirror:
    """`receive` on the daemon's loop; everything else in the web thread."""

    def __init__(self) -> None:
        self.states: dict[str, Payload] = {}
        self._lock = threading.Lock()
        self._waiting: deque[Item] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_called = False
        self._clients: set[EventClient] = set()
        self._levels: dict[str, Mapping[str, object]] = {}
        self.on_clients: Callable[[int], None] = lambda _: None  # so many more, or fewer
        self.happened = Happened()
        self.errors: deque[dict[str, object]] = deque(maxlen=ERRORS_LIMIT)  # the newest first
        self.lost_items = 0
        self.closed_clients = 0
        self.dropped_levels = 0

    def receive(self, item: Item) -> None:
        """Take over a state or an event; when too many wait the oldest event goes, which is counted."""
        if not isinstance(item, State | Event):
            return
        with self._lock:
            if len(self._waiting) >= HANDOVER_LIMIT:
                self._make_room()
            self._waiting.append(item)
            loop, is_called = self._loop, self._is_called
            self._is_called = loop is not None
        if loop is not None and not is_called:
            _call(loop, self._take)

    def _make_room(self) -> None:
        """A state that a later one replaces is no loss; nor are there more paths than items may wait."""
        latest: dict[str, State] = {}
        events: list[Event] = []
        for item in self._waiting:
            if isinstance(item, State):
                latest[item.path] = item
            elif isinstance(item, Event):
                events.append(item)
        keep = events[-(HANDOVER_LIMIT // 2) :]
        self.lost_items += len(events) - len(keep)
        self._waiting = deque([*latest.values(), *keep])

    def receive_level(self, value: Mapping[str, object]) -> None:
        """Take over a level; one that was not taken yet is replaced. Any thread."""
        with self._lock:
            key = str(value.get("recorder"))
            if key in self._levels:
                self.dropped_levels += 1
            self._levels[key] = value
            loop, is_called = self._loop, self._is_called
            self._is_called = loop is not None
        if loop is not None and not is_called:
            _call(loop, self._take)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on items are taken on this loop."""
        with self._lock:
            self._loop, self._is_called = loop, True
        self._take()

    def detach(self) -> None:
        """End all streams."""
        with self._lock:
            self._loop = None
        for client in list(self._clients):
            client.close()

    def _take(self) -> None:
        with self._lock:
            items, self._waiting = self._waiting, deque()
            levels, self._levels = self._levels, {}
            self._is_called = False
        for value in levels.values():
            self._level(value)
        for item in items:
            if isinstance(item, State):
                if item.payload is None:
                    self.states.pop(item.path, None)
                else:
                    self.states[item.path] = item.payload
                self._send(*state_message(item.path, item.payload))
            elif isinstance(item, Event):
                self.happened.count(item.payload)
                self._keep_error(item)
                self._send("event", {**item.payload, "path": item.path})

    def _keep_error(self, event: Event) -> None:
        """One that repeats the newest is counted with it."""
        if event.payload.get("event_type") != "error":
            return
        error = event.payload.get("error")
        facts = error if isinstance(error, Mapping) else event.payload
        recorder = event.payload.get("recorder") or event.path.removeprefix(_RECORDER)
        count = event.payload.get("count")
        kept: dict[str, object] = {
            "ts": event.payload.get("ts"),
            "recorder": None if recorder == event.path else recorder,
            "code": facts.get("code"),
            "message": facts.get("message"),
            "count": count if isinstance(count, int) else 1,
        }
        newest = self.errors[0] if self.errors else None
        if newest is not None and all(newest[name] == kept[name] for name in ("recorder", "code", "message")):
            kept["count"] = int(str(newest["count"])) + int(str(kept["count"]))
            self.errors.popleft()
        self.errors.appendleft(kept)

    def recorders(self) -> dict[str, Payload]:
        """The states of the recorders, by name."""
        return {
            path.removeprefix(_RECORDER): payload
            for path, payload in sorted(self.states.items())
            if path.startswith(_RECORDER)
        }

    @property
    def clients(self) -> int:
        return len(self._clients)

    def _level(self, value: Mapping[str, object]) -> None:
        """Send it to all clients that keep up."""
        if self._clients:
            data = encode("level", value)
            for client in list(self._clients):
                if not client.offer(data, optional=True):
                    self.dropped_levels += 1

    def _send(self, kind: str, value: Mapping[str, object]) -> None:
        if self._clients:
            data = encode(kind, value)
            for client in list(self._clients):
                if not client.offer(data):
                    self.closed_clients += 1
                    client.close()

    async def stream(self) -> AsyncIterator[bytes]:
        """What one client is sent: all present states, then what happens."""
        client = EventClient()
        self._clients.add(client)
        self.on_clients(1)
        try:
            yield b"retry: 2000\n\n" + b"".join(
                encode(*state_message(path, payload)) for path, payload in sorted(self.states.items())
            )
            async for data in client.messages():
                yield data
        finally:
            self._clients.discard(client)
            self.on_clients(-1)


class EventClient:
    """What one client has not read yet."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._closed = False

    def offer(self, data: bytes, *, optional: bool = False) -> bool:
        """Queue a message; False when there is no room. One that is optional takes only half of it."""
        share = 2 if optional else 1
        is_full = len(self._messages) >= CLIENT_LIMIT_MESSAGES // share
        if is_full or self._bytes + len(data) > CLIENT_LIMIT_BYTES // share:
            return False
        self._messages.append(data)
        self._bytes += len(data)
        self._wake.set()
        return True

    def close(self) -> None:
        """End its stream: it comes again, and then gets the states as they are."""
        self._closed = True
        self._wake.set()

    async def messages(self) -> AsyncIterator[bytes]:
        while not self._closed:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            except TimeoutError:
                yield b": still here\n\n"
                continue
            self._wake.clear()
            if self._messages:
                data = b"".join(self._messages)
                self._messages.clear()
                self._bytes = 0
                yield data


def state_message(path: str, payload: Payload | None) -> tuple[str, dict[str, Any]]:
    """Kind and value of the message for a state. `path` names it; that of a recorder has `recorder`, too; one that is
    a list stands under its name; one that no longer exists has `gone`."""
    value: dict[str, Any] = {"path": path}
    if path.startswith(_RECORDER):
        value["recorder"] = path.removeprefix(_RECORDER)
    if payload is None:
        return "state", value | {"gone": True}
    if isinstance(payload, Mapping):
        return "health" if path == "health" else "state", {**payload, **value}
    return "state", value | {path: payload}


def encode(kind: str, value: Mapping[str, object]) -> bytes:
    """A server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return f"event: {kind}\ndata: {text}\n\n".encode("utf-8", "backslashreplace")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value)  # type: ignore[call-overload]


def _call(loop: asyncio.AbstractEventLoop, work: Any) -> None:
    try:
        loop.call_soon_threadsafe(work)
    except RuntimeError:
        return  # the loop is closed: there are no clients any more
