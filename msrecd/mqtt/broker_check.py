"""Whether a broker keeps the rules that msrecd relies on, tried against the broker itself. Blocking.

Everything happens below `msrecd/v1/<device>/reply/check-…`: there a device may write and read with its own password.
Beyond it go a ping to the device itself, and empty messages where it publishes. What is retained is cleared at the end.
Each rule says what an operator would notice where it does not hold.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from msrecd.mqtt.broker_peer import ANSWER_S, Broken, Peer, Untried
from msrecd.mqtt.settings import MqttSettings
from msrecd.mqtt.topics import PREFIX
from msrecd.mqtt.wire import ConnectError

QUIET_S = 1.0  # after which nothing more is expected
WILL_DELAY_S = 2
EVENTS = 2000  # that wait for a consumer: some 30 recorders' chunks of an hour
IMAGE_BYTES = 256 * 1024
LIMIT_BYTES = 20 * 1024

Outcome = Literal["ok", "failed", "untried"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule and what became of it. `seen` says what the broker did; `notice` what an operator would see."""

    rule: str
    title: str
    outcome: Outcome
    seen: str
    notice: str


class BrokerCheck:
    """All rules against one broker; about half a minute."""

    def __init__(self, settings: MqttSettings, progress: Callable[[str], None] = lambda _: None) -> None:
        """
        Args:
            settings: those of the device, or of another user who may write and read below the device's `reply/`.
            progress: called with the title of each rule before it is tried.
        """
        self.settings = settings
        self._progress = progress
        self._root = f"{PREFIX}/{settings.device_id}/reply/check-{secrets.token_hex(4)}"
        self._peers: list[Peer] = []
        self._retained: list[str] = []

    def run(self) -> list[Finding]:
        """
        Raises:
            ConnectError: the broker cannot be reached, or refuses the connection: no rule can be tried.
            ConfigError: a secret or certificate cannot be used.
        """
        self._peer("reach").connect()
        findings = [self._try(*rule) for rule in self._rules()]
        self._clear()
        return findings

    def _rules(self) -> list[tuple[str, str, Callable[[], str], str]]:
        return [
            ("limits", "announces what msrecd needs: QoS 1, retained messages, wildcards", self._limits,
             "events or states are refused, or never reach anybody"),
            ("commands", "delivers the device its commands, and grants those of its groups", self._commands,
             "the device says online and takes no command"),
            ("rights", "lets the device publish its states, events and images", self._rights,
             "the device is online and tells nothing, and its events wait on its card"),
            ("delivery", "delivers what it acknowledges, with response topic and correlation data", self._delivery,
             "commands get no reply, or one that no program can match"),
            ("retained", "gives retained messages to who subscribes to exactly that topic", self._retained_exact,
             "a console that is opened later shows no state"),
            ("wildcards", "gives retained messages to who subscribes with + and #", self._retained_wildcard,
             "a console of several devices shows nothing until something changes"),
            ("cleared", "forgets a retained message when an empty one comes", self._cleared,
             "recorders and devices that are gone stay on every console"),
            ("handling", "gives no retained messages where they are not asked for (retain handling 2)", self._handling,
             "an old command is carried out when the device connects"),
            ("as_published", "keeps the retain flag of live messages (retain as published)", self._as_published,
             "a command that was sent retained by mistake is carried out at each connection"),
            ("image", f"takes a retained message of {IMAGE_BYTES // 1024} KiB", self._image,
             "snapshots do not arrive"),
            ("large", "drops what is larger than the receiver takes, and keeps the connection", self._large,
             "one large message disconnects the device, again and again"),
            ("expiry", "counts the expiry of a message down", self._expiry,
             "commands that have waited too long are carried out"),
            ("session", "keeps QoS 1 messages for a client that is away, and drops those that have expired",
             self._session, "commands and events are lost whenever a connection breaks"),
            ("queue", f"keeps {EVENTS} events for a consumer that is away, in their order", self._queue,
             "after an outage of the database events are missing or out of order, though all were acknowledged"),
            ("will", "publishes a retained will when a device is gone, after its delay", self._will,
             "a device without power is shown as online"),
            ("will_delay", "does not publish the will of a device that is back in time", self._will_delay,
             "every short break of the network is shown as offline"),
            ("takeover", "ends the older of two connections with one client id", self._takeover,
             "a device that reconnects is two clients, and gets each command twice"),
        ]  # fmt: skip

    def _try(self, rule: str, title: str, attempt: Callable[[], str], notice: str) -> Finding:
        self._progress(title)
        outcome: Outcome
        try:
            outcome, seen = "ok", attempt()
        except Untried as exc:
            outcome, seen = "untried", str(exc)
        except (Broken, ConnectError, OSError, ValueError) as exc:
            outcome, seen = "failed", str(exc)
        finally:
            for peer in self._peers:
                peer.close()
            self._peers.clear()
        return Finding(rule=rule, title=title, outcome=outcome, seen=seen, notice=notice)

    def _peer(self, name: str, *, will: tuple[str, int] | None = None) -> Peer:
        peer = Peer(self.settings, f"msrecd-check-{secrets.token_hex(4)}-{name}", will=will)
        self._peers.append(peer)
        return peer

    def _topic(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _keep(self, peer: Peer, name: str, payload: bytes) -> str:
        topic = self._topic(name)
        self._retained.append(topic)
        peer.publish(topic, payload, retain=True)
        return topic

    def _clear(self) -> None:
        """Leave nothing retained behind, as far as the broker lets us."""
        try:
            peer = self._peer("clear").connect()
            for topic in self._retained:
                peer.publish(topic, b"", retain=True)
        except (Broken, ConnectError):
            pass
        finally:
            for peer in self._peers:
                peer.close()
            self._peers.clear()

    # --- the rules ---------------------------------------------------------------------------------------------------

    def _limits(self) -> str:
        properties = self._peer("limits").connect(expiry_s=self.settings.session_expiry_s).properties
        if getattr(properties, "MaximumQoS", 2) < 1:
            raise Broken("QoS 1 is not available")
        if not getattr(properties, "RetainAvailable", 1):
            raise Broken("retained messages are not available")
        if not getattr(properties, "WildcardSubscriptionAvailable", 1):
            raise Broken("subscriptions with wildcards are not available")
        expiry_s = getattr(properties, "SessionExpiryInterval", self.settings.session_expiry_s)
        if expiry_s < self.settings.session_expiry_s:
            raise Broken(f"sessions are kept for {expiry_s} s, msrecd asks for {self.settings.session_expiry_s}")
        limit = getattr(properties, "MaximumPacketSize", None)
        return "QoS 1, retained messages, wildcards" + ("" if limit is None else f"; packets up to {limit} bytes")

    def _commands(self) -> str:
        """Some brokers grant a subscription and deliver nothing, so a command is sent: a ping, which changes nothing.

        Commands of groups are for all of the group and are not tried beyond the subscription.
        """
        peer = self._peer("commands").connect()
        own = f"{PREFIX}/{self.settings.device_id}/cmd"
        filters = [f"{own}/#", f"{PREFIX}/group/all/cmd/#"]
        filters += [f"{PREFIX}/group/{group}/cmd/#" for group in self.settings.groups]
        peer.subscribe(*filters, handling=2)
        peer.publish(f"{own}/daemon/ping", b"{}", response_topic=self._topic("ping"), expiry_s=5)
        while (message := peer.next()) is not None:
            if message.topic == f"{own}/daemon/ping":
                return f"{len(filters)} subscriptions granted, a ping delivered"
        raise Broken(f"the subscription to {own}/# is granted and a ping does not come: look at the broker's ACL")

    def _rights(self) -> str:
        """By empty messages: a retained one that is empty leaves nothing, and an empty event is none."""
        peer = self._peer("rights").connect()
        check = self._root.rpartition("/")[2]
        for topic, retain in ((f"state/{check}", True), (f"image/{check}", True), (f"event/{check}", False)):
            peer.publish(f"{PREFIX}/{self.settings.device_id}/{topic}", b"", retain=retain, expiry_s=1)
            if (refusal := peer.refusal) is not None:
                raise Broken(f"{topic.partition('/')[0]}/# is refused ({refusal}): look at the broker's ACL")
        return "nothing is refused"

    def _delivery(self) -> str:
        peer = self._peer("delivery").connect()
        topic = self._topic("delivery")
        peer.subscribe(topic)
        began = time.monotonic()
        peer.publish(topic, b"payload", response_topic=topic, correlation_data=b"\0id", expiry_s=60)
        message = peer.next()
        if message is None:
            raise Broken("it acknowledged a message and did not deliver it")
        seen = (message.payload, _property(message, "ResponseTopic"), _property(message, "CorrelationData"))
        if seen != (b"payload", topic, b"\0id"):
            raise Broken(f"payload, response topic or correlation data changed on the way: {seen!r}")
        return f"delivered in {1000 * (time.monotonic() - began):.0f} ms"

    def _retained_exact(self) -> str:
        topic = self._keep(self._peer("writer").connect(), "retained", b"state")
        reader = self._peer("reader").connect()
        reader.subscribe(topic)
        message = reader.next()
        if message is None or message.payload != b"state" or not message.retain:
            raise Broken("the retained message does not come")
        return "it comes"

    def _retained_wildcard(self) -> str:
        self._keep(self._peer("writer").connect(), "wild/a/b", b"state")
        for pattern in (f"{self._root}/wild/#", f"{self._root}/wild/+/b"):
            reader = self._peer("reader").connect()
            reader.subscribe(pattern)
            message = reader.next()
            if message is None or message.payload != b"state":
                raise Broken(f"nothing comes for {pattern.removeprefix(self._root + '/')}")
        return "it comes for both"

    def _cleared(self) -> str:
        writer = self._peer("writer").connect()
        topic = self._keep(writer, "cleared", b"state")
        writer.publish(topic, b"", retain=True)
        reader = self._peer("reader").connect()
        reader.subscribe(topic)
        if reader.next(QUIET_S) is not None:
            raise Broken("it still comes")
        return "it is gone"

    def _handling(self) -> str:
        topic = self._keep(self._peer("writer").connect(), "handling", b"old")
        reader = self._peer("reader").connect()
        reader.subscribe(topic, handling=2)
        if reader.next(QUIET_S) is not None:
            raise Broken("the retained message comes all the same")
        return "nothing comes"

    def _as_published(self) -> str:
        topic = self._topic("live")
        reader = self._peer("reader").connect()
        reader.subscribe(topic, handling=2)
        self._keep(self._peer("writer").connect(), "live", b"retained by mistake")
        message = reader.next()
        if message is None:
            raise Broken("the live message does not come")
        if not message.retain:
            raise Broken("the flag is gone")
        return "the flag is there"

    def _image(self) -> str:
        writer = self._peer("writer").connect()
        limit = getattr(writer.properties, "MaximumPacketSize", None)
        if limit is not None and limit < IMAGE_BYTES + 512:
            raise Broken(f"packets may have {limit} bytes")
        topic = self._keep(writer, "image", bytes(IMAGE_BYTES))
        reader = self._peer("reader").connect()
        reader.subscribe(topic)
        message = reader.next()
        if message is None or len(message.payload) != IMAGE_BYTES:
            raise Broken("it is acknowledged and does not come")
        return "it comes"

    def _large(self) -> str:
        topic = self._topic("large")
        reader = self._peer("reader").connect(limit_bytes=LIMIT_BYTES)
        reader.subscribe(topic)
        writer = self._peer("writer").connect()
        writer.publish(topic, bytes(2 * LIMIT_BYTES))
        writer.publish(topic, b"behind it")
        message = reader.next()
        if not reader.is_connected():
            raise Broken("the receiver is disconnected")
        if message is None or message.payload != b"behind it":
            raise Broken("what comes behind it is not delivered")
        return "dropped; what came behind it arrived"

    def _expiry(self) -> str:
        topic = self._topic("expiry")
        reader = self._peer("reader").connect(clean=True, expiry_s=60)
        reader.subscribe(topic)
        reader.close()
        self._peer("writer").connect().publish(topic, b"x", expiry_s=100)
        time.sleep(2.1)  # two seconds are what is looked for
        reader.connect(clean=False, expiry_s=0)
        message = reader.next()
        if message is None:
            raise Untried("no message was kept, see the rule on sessions")
        left = _property(message, "MessageExpiryInterval")
        if left is None or left > 98:
            raise Broken(f"after 2 s of 100 the message says {left}")
        return f"{left} s of 100 were left after 2"

    def _session(self) -> str:
        topic = self._topic("session")
        reader = self._peer("reader").connect(clean=True, expiry_s=60)
        reader.subscribe(topic)
        reader.close()
        writer = self._peer("writer").connect()
        writer.publish(topic, b"expired", expiry_s=1)
        writer.publish(topic, b"kept")
        time.sleep(2.1)  # the first one's second is over
        reader.connect(clean=False, expiry_s=0)
        message = reader.next()
        if message is None:
            raise Broken("nothing was kept")
        if message.payload == b"expired":
            raise Broken("what had expired was delivered")
        return "kept, without what had expired"

    def _queue(self) -> str:
        topic = self._topic("queue")
        reader = self._peer("reader").connect(clean=True, expiry_s=300)
        reader.subscribe(topic)
        reader.close()
        writer = self._peer("writer").connect()
        sent = [writer.client.publish(topic, b"%d" % number, qos=1) for number in range(EVENTS)]
        deadline = time.monotonic() + 60
        for info in sent:
            info.wait_for_publish(max(0.1, deadline - time.monotonic()))
        if not all(info.is_published() for info in sent):
            raise Broken(f"{EVENTS} events are not acknowledged within 60 s")
        reader.connect(clean=False, expiry_s=0)
        got: dict[int, None] = {}  # in the order of arrival; a repeated one is no loss
        while len(got) < EVENTS and (message := reader.next()) is not None:
            got.setdefault(int(message.payload))
        if len(got) < EVENTS:
            raise Broken(f"{len(got)} of {EVENTS} arrived: raise the broker's limit of queued messages")
        if list(got) != sorted(got):
            raise Broken("they arrived out of order")
        return f"{EVENTS} arrived in order"

    def _will(self) -> str:
        topic = self._topic("will")
        self._retained.append(topic)
        reader = self._peer("reader").connect()
        reader.subscribe(topic)
        # With a session that outlives the delay, as a device has: the end of the session ends the delay, too.
        self._peer("device", will=(topic, WILL_DELAY_S)).connect(clean=True, expiry_s=60).drop()
        began = time.monotonic()
        if reader.next(ANSWER_S + WILL_DELAY_S) is None:
            raise Broken("no will comes")
        waited = time.monotonic() - began
        if waited < WILL_DELAY_S - 0.5:
            raise Broken(f"it comes after {waited:.1f} s, not after {WILL_DELAY_S}")
        later = self._peer("later").connect()
        later.subscribe(topic)
        if later.next() is None:
            raise Broken("it is not retained: who subscribes later does not get it")
        return f"after {waited:.1f} s, and retained"

    def _will_delay(self) -> str:
        topic = self._topic("will-delay")
        self._retained.append(topic)
        reader = self._peer("reader").connect()
        reader.subscribe(topic)
        for _ in range(3):
            device = self._peer("device", will=(topic, WILL_DELAY_S)).connect(clean=True, expiry_s=60)
            device.drop()
            began = time.monotonic()
            time.sleep(0.3)  # a line that breaks is not back at once
            device.connect(clean=False, expiry_s=60)
            back_after = time.monotonic() - began
            if reader.next(WILL_DELAY_S + QUIET_S) is None:
                return "nothing is published"
            if back_after < WILL_DELAY_S - 0.5:
                raise Broken("it is published all the same")
            device.close()
        raise Untried(f"this machine took {back_after:.1f} s to connect again")

    def _takeover(self) -> str:
        older = self._peer("twin").connect()
        newer = Peer(self.settings, older.name)
        self._peers.append(newer)
        newer.connect()
        deadline = time.monotonic() + ANSWER_S
        while older.is_connected():
            if time.monotonic() > deadline:
                raise Broken("both stay connected")
            time.sleep(0.05)
        older.client.loop_stop()  # or it would come back and take its turn
        return "the older one is ended"


def _property(message: Any, name: str) -> Any:
    return getattr(message.properties, name, None)
