"""Topics, names, the back-off and the inbox, without a broker."""

from __future__ import annotations

import random

import pytest

from msrecd.mqtt.topics import Topics
from msrecd.mqtt.wire import Inbox, Message
from msrecd.vocabulary.backoff import BackOff
from msrecd.vocabulary.names import is_device_id, is_name


def test_topics():
    topics = Topics("pi-1", ["north"])
    assert topics.subscriptions() == [
        "msrecd/v1/pi-1/cmd/#", "msrecd/v1/group/all/cmd/#", "msrecd/v1/group/north/cmd/#",
    ]  # fmt: skip
    path, group = topics.split_command("msrecd/v1/group/north/cmd/recorder/cam0/start")
    assert (path, group) == ("recorder/cam0/start", "north")
    assert topics.reply_topic(path, None) == "msrecd/v1/pi-1/reply/recorder/cam0/start"
    assert topics.reply_topic(path, "msrecd/v1/pi-1/reply/+") == "msrecd/v1/pi-1/reply/recorder/cam0/start"
    assert topics.reply_topic("x" * 2000, None) is None
    assert topics.split_command("msrecd/v1/pi-2/cmd/recorder/cam0/start") is None
    assert topics.split_command("msrecd/v1/group/south/cmd/daemon/ping") is None


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "a\n", "ä", "x" * 64, "..", "a b", "#"])
def test_no_names(name):
    assert not is_name(name)
    with pytest.raises(ValueError):
        Topics(name)


def test_names():
    assert is_name("cam0")
    assert is_name("x" * 63)
    assert is_name("all")
    assert not is_device_id("all")
    assert not is_device_id("group")


@pytest.mark.promise("back-off-of-devices")
def test_backoff_grows_is_bounded_and_resets_after_a_stable_minute():
    upper = BackOff(1.0, 30.0, spread=lambda low, high: high)
    assert [upper.next_s(None) for _ in range(6)] == [2, 4, 8, 16, 30, 30]
    assert upper.next_s(1.0) == 30
    assert upper.next_s(6.0) == 4
    assert upper.next_s(61.0) == 2
    spread = BackOff(1.0, 30.0, spread=random.Random(1).uniform)
    assert len({round(spread.next_s(60.0), 3) for _ in range(50)}) > 40


def test_the_inbox_is_bounded():
    inbox = Inbox(limit=3, limit_bytes=1000)
    assert inbox.put(Message(topic="t", payload=b"1"))
    assert not inbox.put(Message(topic="t", payload=b"x" * 2000))
    assert not inbox.put(Message(topic="t", payload=b"2"))
    assert not inbox.put(Message(topic="t", payload=b"3"))
    assert not inbox.put(Message(topic="t", payload=b"4"))
    assert [message.payload for message in inbox.take()] == [b"1", b"2", b"3"]
    assert inbox.dropped == 2
    assert inbox.put(Message(topic="t", payload=b"5"))
