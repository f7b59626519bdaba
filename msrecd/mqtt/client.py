"""One connection to the broker: the only importer of paho.

One paho client lives for one connection and is thrown away with it: there is no hidden queue, no half-dead
thread and no stale certificate to reason about.

Threads: paho's network thread calls the `_on_*` methods, which only hand facts to the loop. Everything else is
called on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msrecd.mqtt.lazily import lazily
from msrecd.mqtt.settings import MqttSettings, read_password, user_name
from msrecd.mqtt.wire import Inbox, Message, PublishError, Will, unreachable

if TYPE_CHECKING:
    import paho.mqtt.client as paho
    from paho.mqtt.properties import Properties
    from paho.mqtt.subscribeoptions import SubscribeOptions

log = logging.getLogger(__name__)

PACKET_LIMIT_BYTES = 20 * 1024
OUTSTANDING_LIMIT = 1000
WINDOW = 20
PACKET_OVERHEAD_BYTES = 32  # fixed header, lengths, packet id, expiry interval
WATCH_S = 2.0
SUBSCRIBE_DEADLINE_S = 10.0
DESCRIPTOR_LIMIT = 1024  # FD_SETSIZE: paho waits with select()


def new_client(settings: MqttSettings, client_id: str, *, limit_bytes: int | None = None) -> paho.Client:
    """A client with the settings' secrets that connects once; it is not connected yet.

    Args:
        settings: of the connection.
        client_id: as the broker will know it.
        limit_bytes: a larger packet ends the connection before paho makes room for it; None: no limit.

    Raises:
        ConfigError: a secret or certificate cannot be used.
    """
    # paho needs them for proxies and for brokers found by DNS only; they would load http, email and tempfile, 1.6 MB.
    # The second is there where aiortc is.
    with lazily("urllib.request", "dns.resolver"):
        import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

    class BoundedClient(paho.Client):  # here: paho is loaded only where there is a broker
        def _sock_recv(self, bufsize: int) -> bytes:
            if limit_bytes is not None and bufsize > limit_bytes:
                raise ConnectionError("packet too large")
            return super()._sock_recv(bufsize)

        def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except Exception as exc:  # paho before 2.2 lets what a malformed packet raises end its thread
                self.malformed = f"{type(exc).__name__}: {exc}"
                return MQTTErrorCode.MQTT_ERR_PROTOCOL

    client = BoundedClient(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
    )
    client.suppress_exceptions = True
    client.connect_timeout = 10.0
    password = read_password(settings)
    username = user_name(settings, has_password=password is not None)
    if username is not None:
        client.username_pw_set(username, password)
    if settings.tls:
        from msrecd.mqtt.settings import tls_context

        client.tls_set_context(tls_context(settings))
    return client


def connect_properties(*, session_expiry_s: int, packet_limit_bytes: int | None = None) -> Properties:
    """Of a connection: how long the broker keeps its session, and the largest packet that it may send."""
    properties = _properties("CONNECT")
    properties.SessionExpiryInterval = session_expiry_s
    if packet_limit_bytes is not None:
        properties.MaximumPacketSize = packet_limit_bytes
    return properties


def publish_properties(
    *,
    response_topic: str | None = None,
    correlation_data: bytes | None = None,
    expiry_s: int | None = None,
    will_delay_s: int | None = None,
) -> Properties:
    """Of a message; with `will_delay_s` of a will."""
    properties = _properties("PUBLISH" if will_delay_s is None else "WILLMESSAGE")
    if correlation_data is not None:
        properties.CorrelationData = correlation_data
    if response_topic is not None:
        properties.ResponseTopic = response_topic
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    if will_delay_s is not None:
        properties.WillDelayInterval = will_delay_s
    return properties


def subscribe_options(*, retain_handling: int = 0) -> SubscribeOptions:
    """QoS 1, live messages with their retain flag; `retain_handling` 2: nothing that was retained before."""
    from paho.mqtt.subscribeoptions import SubscribeOptions

    return SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=retain_handling)


def _properties(packet: str) -> Properties:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    return Properties(getattr(PacketTypes, packet))  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class _Pending:
    future: asyncio.Future[str]
    since: float


class Session:
    """One paho client and its connection. Created, used and closed on the loop."""

    def __init__(
        self,
        settings: MqttSettings,
        inbox: Inbox,
        drain: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        window: int,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._drain = drain
        self._loop = loop
        self._client: paho.Client | None = None
        self._thread: threading.Thread | None = None
        self._accepted = asyncio.Event()
        self._ended = asyncio.Event()
        self._reason = ""
        self._acks: dict[int, _Pending] = {}
        self._subscribed: dict[int, asyncio.Future[list[str]]] = {}
        self._packet_limit_bytes: int | None = None
        self.ready = False
        self.taken_over = False  # whether the broker says that another client came with this client id
        self.window = window

    @property
    def pending(self) -> Collection[int]:
        return self._acks.keys()

    @property
    def thread_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the network thread's end; from any thread."""
        if self._thread is not None:
            self._thread.join(max(0.0, timeout_s))

    def open(self, client_id: str, will: Will | None, *, persistent: bool) -> None:
        """Build the client and let its thread connect.

        Raises: ConfigError when a secret or certificate cannot be used.
        """
        settings = self._settings
        client = new_client(settings, client_id, limit_bytes=PACKET_LIMIT_BYTES)
        client.max_inflight_messages_set(self.window)
        client.max_queued_messages_set(OUTSTANDING_LIMIT)
        client.reconnect_delay_set(min_delay=0.01, max_delay=0.01)  # type: ignore[arg-type]
        if will is not None:
            properties = publish_properties(will_delay_s=will.delay_s)
            client.will_set(will.topic, will.payload, qos=1, retain=True, properties=properties)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        properties = connect_properties(
            session_expiry_s=settings.session_expiry_s if persistent else 0, packet_limit_bytes=PACKET_LIMIT_BYTES
        )
        client.connect_async(
            settings.address,
            settings.effective_port,
            keepalive=settings.keepalive_s,
            clean_start=not persistent,
            properties=properties,
        )
        before = set(threading.enumerate())
        self._client = client
        client.loop_start()
        started = [thread for thread in threading.enumerate() if thread not in before]
        self._thread = next((thread for thread in started if thread.name == f"paho-mqtt-client-{client_id}"), None)

    async def wait_accepted(self, stopping: asyncio.Task[bool], timeout_s: float) -> bool:
        """Whether the broker accepted the connection."""
        await self._wait(self._accepted, stopping, timeout_s)
        if not self._accepted.is_set() and not self._ended.is_set():
            self._end(f"no answer to the connection request{_tls_hint(self._settings)}")
        return self._accepted.is_set() and not self._ended.is_set()

    async def subscribe(
        self, commands: Collection[str], plain: Collection[str], stopping: asyncio.Task[bool]
    ) -> dict[str, str] | None:
        """Subscribe; the broker's reason for every filter that it refuses, or None when it did not answer."""
        import paho.mqtt.client as paho
        from paho.mqtt.subscribeoptions import SubscribeOptions

        filters = [(topic, subscribe_options(retain_handling=2)) for topic in commands]
        # Without retainAsPublished the flag says: this was stored, it was not said just now.
        filters += [(topic, SubscribeOptions(qos=1)) for topic in plain]
        if not filters or self._client is None:
            return {}
        answered: asyncio.Future[list[str]] = self._loop.create_future()
        code, mid = self._client.subscribe(filters)
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            self._end("the subscription could not be sent")
            return None
        self._subscribed[mid] = answered
        ended = asyncio.ensure_future(self._ended.wait())
        waited: set[asyncio.Future[Any]] = {answered, ended, stopping}
        try:
            await asyncio.wait(waited, timeout=SUBSCRIBE_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not answered.done():
            answered.cancel()
            self._end("no answer to the subscription")
            return None
        if self._ended.is_set():
            return None
        return {topic: refusal for (topic, _), refusal in zip(filters, answered.result(), strict=False) if refusal}

    async def is_over(self, stopping: asyncio.Task[bool], ack_timeout_s: float) -> bool:
        """Whether the connection is over: at once when it ends, else after a look at whether it still works."""
        await self._wait(self._ended, stopping, WATCH_S)
        if not self._ended.is_set() and not stopping.done():
            if not self.thread_alive:
                malformed = getattr(self._client, "malformed", None)
                self._end(f"a malformed packet came: {malformed}" if malformed else "the network thread died")
            elif self._acks and time.monotonic() - next(iter(self._acks.values())).since > ack_timeout_s:
                self._end("the broker does not acknowledge")
        return self._ended.is_set() or stopping.done()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        correlation_data: bytes | None,
        response_topic: str | None,
        expiry_s: int | None,
    ) -> asyncio.Future[str]:
        import paho.mqtt.client as paho

        if self._client is None:
            return failed(PublishError("not connected to the broker"))
        properties_size = sum(3 + len(value) for value in (correlation_data, (response_topic or "").encode()) if value)
        size = len(payload) + len(topic.encode()) + properties_size + PACKET_OVERHEAD_BYTES
        if self._packet_limit_bytes is not None and size > self._packet_limit_bytes:
            # Sent anyway, it would end the connection, again and again.
            return failed(
                PublishError(
                    f"{size} bytes are more than the broker takes ({self._packet_limit_bytes})", too_large=True
                )
            )
        if len(self._acks) >= OUTSTANDING_LIMIT:
            return failed(PublishError("too many publications are waiting for the broker"))
        properties = publish_properties(
            response_topic=response_topic, correlation_data=correlation_data, expiry_s=expiry_s
        )
        try:
            info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        except (ValueError, OSError, RuntimeError) as exc:
            return failed(PublishError(f"not published: {exc}"))
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return failed(PublishError(f"not published: {paho.error_string(info.rc)}"))
        future: asyncio.Future[str] = self._loop.create_future()
        if qos == 0:
            future.set_result("Success")
            return future
        future.add_done_callback(_retrieve)
        self._acks[info.mid] = _Pending(future, time.monotonic())
        return future

    def close(self) -> str:
        """End the connection, fail what was outstanding; why it ended."""
        self.ready = False
        self._end("stopped")
        client, self._client = self._client, None
        if client is not None:
            # A helper joins the thread: a hanging network must not hang the loop.
            threading.Thread(target=_dispose, args=(client, self._thread), name="mqtt close", daemon=True).start()
        pending, self._acks = self._acks, {}
        for entry in pending.values():
            if not entry.future.done():
                entry.future.set_exception(PublishError(f"connection lost: {self._reason}"))
        return self._reason

    async def _wait(self, event: asyncio.Event, stopping: asyncio.Task[bool], timeout_s: float) -> None:
        waiters = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._ended.wait())]
        waited: set[asyncio.Future[Any]] = {*waiters, stopping}
        try:
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()

    def _end(self, reason: str) -> None:
        if not self._ended.is_set():
            self._reason = reason
            self._ended.set()

    def _lost(self, reason: str, taken_over: bool) -> None:
        self.taken_over = taken_over
        if not self._accepted.is_set():
            reason = f"the broker closed the connection before it answered{_tls_hint(self._settings)}"
        self._end(reason)

    def _accept(self, properties: Any) -> None:
        self._packet_limit_bytes = getattr(properties, "MaximumPacketSize", None)
        # paho fixes its window before it connects; one that is too large for the broker needs another connection.
        maximum = getattr(properties, "ReceiveMaximum", None)
        if maximum is not None and maximum < self.window:
            self.window = max(1, int(maximum))
            self._end(f"the broker takes {self.window} messages at a time")
        self._accepted.set()

    def _acknowledge(self, mid: int, failure: str | None, reason: str) -> None:
        entry = self._acks.pop(mid, None)
        if entry is None or entry.future.done():
            return
        if failure is None:
            entry.future.set_result(reason)
        else:
            entry.future.set_exception(PublishError(f"the broker refused it: {failure}", refused=failure))

    def _subscription_answered(self, mid: int, refusals: list[str]) -> None:
        future = self._subscribed.pop(mid, None)
        if future is not None and not future.done():
            future.set_result(refusals)

    # The network thread's side: each hands one fact over and returns.

    def _post(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *args)

    def _on_socket_open(self, _client: Any, _userdata: Any, connection: Any) -> None:
        if connection.fileno() >= DESCRIPTOR_LIMIT:
            # paho would say "connection lost" without a reason, again and again.
            self._post(self._end, f"more than {DESCRIPTOR_LIMIT} files are open here, which the network library cannot")

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, reason_code: Any, properties: Any) -> None:
        if reason_code.is_failure:
            self._post(self._end, f"refused: {reason_code}")
        else:
            self._post(self._accept, properties)

    def _on_connect_fail(self, _client: Any, _userdata: Any) -> None:
        # paho calls this while it handles the error, and keeps the error to itself.
        self._post(self._end, unreachable(sys.exc_info()[1]) + _tls_hint(self._settings, sys.exc_info()[1]))

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, reason_code: Any, _properties: Any) -> None:
        # "Unspecified error" is paho's word for: it just broke off.
        reason = str(reason_code)
        text = "the connection broke" if reason == "Unspecified error" else f"disconnected: {reason}"
        self._post(self._lost, text, reason == "Session taken over")

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        if self._inbox.put(_convert(message)):
            self._post(self._drain)

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason_code: Any, _properties: Any) -> None:
        self._post(self._acknowledge, mid, str(reason_code) if reason_code.is_failure else None, str(reason_code))

    def _on_subscribe(self, _client: Any, _userdata: Any, mid: int, reason_codes: Any, _properties: Any) -> None:
        refusals = [str(code) if code.is_failure else "" for code in reason_codes]
        self._post(self._subscription_answered, mid, refusals)


def _tls_hint(settings: MqttSettings, error: BaseException | None = None) -> str:
    """What may be wrong when no MQTT comes about: one side speaks TLS and the other does not."""
    if isinstance(error, socket.gaierror) or "not yet valid" in str(error):
        return ""
    where = f"port {settings.effective_port}"
    if not settings.tls:
        return (
            "" if isinstance(error, OSError) else f" (this side speaks no TLS: does the broker expect it on {where}?)"
        )
    if "CERTIFICATE_VERIFY" in str(error):
        return " (TLS: mqtt.ca_file names the authority that signed the broker's certificate)"
    return f" (TLS is on: does the broker speak TLS on {where}? mqtt.allow_plaintext = true connects without it)"


def _convert(message: Any) -> Message:
    properties = message.properties
    return Message(
        topic=message.topic,
        payload=bytes(message.payload),
        retain=bool(message.retain),
        dup=bool(message.dup),
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation_data=getattr(properties, "CorrelationData", None),
        expiry_s=getattr(properties, "MessageExpiryInterval", None),
        arrived_ns=time.monotonic_ns(),
    )


def _dispose(client: paho.Client, thread: threading.Thread | None) -> None:
    """Disconnect and wait for the thread; runs in a thread of its own."""
    client.disconnect()
    if thread is not None:
        thread.join(2.0)
    if thread is not None and thread.is_alive():
        connection = client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
    client.loop_stop()


def failed(error: PublishError) -> asyncio.Future[str]:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    future.exception()  # need not be awaited: this marks it as seen
    return future


def _retrieve(future: asyncio.Future[str]) -> None:
    """Mark a failure as seen, so that it need not be awaited."""
    if not future.cancelled():
        future.exception()
