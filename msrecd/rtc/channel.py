"""RTCDataChannel: messages between peers (https://w3c.github.io/webrtc-pc/#rtcdatachannel)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msrecd.dom.dictionaries import warn_of_unknown
from msrecd.dom.events import Event, EventTarget, event_handler, init_members, queue_task
from msrecd.dom.exceptions import InvalidStateError, OperationError
from msrecd.rtc.loop import RtcLoop

MAX_BUFFERED = 16 << 20  # bytes that wait to be sent
MAX_MESSAGE = 256 << 10  # bytes; what browsers take
_OPTIONS = {
    "ordered": "ordered",
    "max_packet_life_time": "maxPacketLifeTime",
    "max_retransmits": "maxRetransmits",
    "protocol": "protocol",
    "negotiated": "negotiated",
    "id": "id",
}
_CONSTRUCTION = object()


def channel_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """RTCDataChannelInit in the names of aiortc.

    Raises:
        TypeError: a member has a wrong type, two exclude each other, or `negotiated` lacks its `id`.
    """
    given = dict(options or {})
    warn_of_unknown("create_data_channel", given, list(_OPTIONS), stacklevel=4)
    made = {_OPTIONS[name]: value for name, value in given.items() if name in _OPTIONS and value is not None}
    for name in ("max_packet_life_time", "max_retransmits", "id"):
        value = made.get(_OPTIONS[name])
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535):
            raise TypeError(f"{name} must be an int from 0 to 65535, not {value!r}")
    if "maxPacketLifeTime" in made and "maxRetransmits" in made:
        raise TypeError("max_packet_life_time and max_retransmits exclude each other")
    if made.get("negotiated") and "id" not in made:
        raise TypeError("negotiated needs an id")
    if not isinstance(made.get("protocol", ""), str):
        raise TypeError("protocol must be a str")
    return made


class MessageEvent(Event):
    """A message has come over a data channel: `message`, its `data` a str or bytes."""

    def __init__(self, type: str, init: Mapping[str, object] | None = None, **keywords: object) -> None:
        """
        Args:
            type: of the event.
            init: `{"data": …}`.
        """
        super().__init__(type, init)
        self._data = init_members("MessageEvent", init, keywords).get("data")

    @property
    def data(self) -> Any:
        return self._data


class RTCDataChannel(EventTarget):
    """Made by `create_data_channel`, or given by a `datachannel` event. Belongs to the loop's thread.

    Events: open, message (MessageEvent), close, closing, bufferedamountlow, error.
    """

    onopen = event_handler("open")
    onmessage = event_handler("message")
    onclose = event_handler("close")
    onbufferedamountlow = event_handler("bufferedamountlow")
    onerror = event_handler("error")

    def __init__(self, _token: object, rtc: RtcLoop, label: str, options: Mapping[str, Any]) -> None:
        """
        Raises:
            TypeError: when called by hand.
        """
        if _token is not _CONSTRUCTION:
            raise TypeError("an RTCDataChannel cannot be made by hand; create_data_channel gives one")
        super().__init__()
        self._rtc = rtc
        self._loop = asyncio.get_running_loop()
        self._label = label
        self._options = dict(options)
        self._id: int | None = options.get("id")
        self._state = "connecting"
        self._buffered = 0
        self._low = 0
        self._inner: Any = None  # aiortc's, in the thread of WebRTC

    @classmethod
    def _create(cls, rtc: RtcLoop, label: str, options: Mapping[str, Any]) -> RTCDataChannel:
        return cls(_CONSTRUCTION, rtc, label, options)

    @property
    def label(self) -> str:
        return self._label

    @property
    def ordered(self) -> bool:
        return bool(self._options.get("ordered", True))

    @property
    def max_packet_life_time(self) -> int | None:
        return self._options.get("maxPacketLifeTime")

    @property
    def max_retransmits(self) -> int | None:
        return self._options.get("maxRetransmits")

    @property
    def protocol(self) -> str:
        return str(self._options.get("protocol", ""))

    @property
    def negotiated(self) -> bool:
        return bool(self._options.get("negotiated", False))

    @property
    def id(self) -> int | None:
        """None until it is known."""
        return self._id

    @property
    def ready_state(self) -> str:
        """`connecting`, `open`, `closing`, `closed`."""
        return self._state

    @property
    def buffered_amount(self) -> int:
        """Bytes that wait to be sent."""
        return self._buffered

    @property
    def buffered_amount_low_threshold(self) -> int:
        return self._low

    @buffered_amount_low_threshold.setter
    def buffered_amount_low_threshold(self, size: int) -> None:
        self._low = int(size)

    def send(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send a message.

        Raises:
            TypeError: it is neither str nor bytes.
            InvalidStateError: the channel is not open.
            TypeError: it is larger than 256 KiB.
            OperationError: more than MAX_BUFFERED bytes wait already.
        """
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a message is str or bytes, not {type(data).__name__}")
        if self._state != "open":
            raise InvalidStateError(f"the channel is {self._state}")
        message = data if isinstance(data, str) else bytes(data)
        size = len(message.encode()) if isinstance(message, str) else len(message)
        if size > MAX_MESSAGE:
            raise TypeError(f"a message has at most {MAX_MESSAGE} bytes, this one {size}")
        if self._buffered + size > MAX_BUFFERED:
            raise OperationError(f"{self._buffered} bytes wait to be sent; await bufferedamountlow")
        self._buffered += size
        inner = self._inner

        def send() -> None:
            try:
                inner.send(message)
            except Exception:  # it has closed meanwhile, which its event tells
                return

        self._rtc.post(send)

    def close(self) -> None:
        """Close it, once what was sent is on its way. Idempotent."""
        if self._state in ("closing", "closed"):
            return
        self._state = "closing"
        self._rtc.post(lambda: self._inner is not None and self._inner.close())

    # --- in the thread of WebRTC -------------------------------------------------------------------------------------

    def _bind(self, inner: Any, early: Sequence[Any] = ()) -> None:
        """The channel of aiortc's that it stands for, and messages that have come over it already."""
        self._inner = inner
        inner.bufferedAmountLowThreshold = 0
        if inner.readyState == "open":
            self._post(lambda: self._opened(inner.id))
        inner.remove_all_listeners("message")
        for message in early:
            self._came(message)
        inner.on("message", self._came)
        inner.on("open", lambda: self._post(lambda: self._opened(inner.id)))
        inner.on("bufferedamountlow", lambda: self._post(lambda: self._set_buffered(0)))
        inner.on("close", lambda: self._post(self._closed))

    def _came(self, message: Any) -> None:
        self._post(lambda: self._fire(MessageEvent("message", {"data": message})))

    def _post(self, task: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(task)
        except RuntimeError:
            return

    # --- on the loop -------------------------------------------------------------------------------------------------

    def _opened(self, id_: int | None) -> None:
        if self._state == "connecting":
            self._id, self._state = id_, "open"
            self._fire(Event("open"))

    def _set_buffered(self, amount: int) -> None:
        was, self._buffered = self._buffered, amount
        if was > self._low >= amount:
            self._fire(Event("bufferedamountlow"))

    def _closed(self) -> None:
        if self._state != "closed":
            self._state = "closed"
            queue_task(lambda: self._fire(Event("close")), self._loop)


class RTCDataChannelEvent(Event):
    """The peer has opened a data channel: `datachannel`."""

    def __init__(self, type: str, init: Mapping[str, object] | None = None, **keywords: object) -> None:
        """
        Args:
            type: of the event.
            init: `{"channel": RTCDataChannel}`.

        Raises:
            TypeError: there is no RTCDataChannel in it.
        """
        super().__init__(type, init)
        channel = init_members("RTCDataChannelEvent", init, keywords).get("channel")
        if not isinstance(channel, RTCDataChannel):
            raise TypeError("RTCDataChannelEvent needs its member channel, an RTCDataChannel")
        self._channel = channel

    @property
    def channel(self) -> RTCDataChannel:
        return self._channel
