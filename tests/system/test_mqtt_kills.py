"""A broker that is killed again and again, at any moment of the traffic, with a whole daemon behind it.

Every command is sent until it is answered, as a controller does, so copies come from three sides: the sender, its
client and the broker. What the replies say must be what a recorder that hears each command once would have done.

Three kills in the ordinary run; `MSRECD_BROKER_KILLS=100` for the acceptance figure.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from typing import Any

import pytest
from broker import Broker
from config_text import camera
from console import Console
from daemon import DaemonFor
from judge import read_chunk

KILLS = int(os.environ.get("MSRECD_BROKER_KILLS", "3"))
RECORDER = camera(frame_rate=15, chunk_duration="5s")
VERBS = ("start", "start", "stop", "pause", "resume", "split", "snapshot", "get")
ANSWER_S = 90.0


class Model:
    """A recorder that hears every command once: what its reply must say."""

    def __init__(self) -> None:
        self.state = "inactive"
        self.events: Counter[str] = Counter()

    def hear(self, verb: str) -> tuple[str, bool | None]:
        """Status and `changed` of the reply (None: an error)."""
        after = {"start": "recording", "stop": "inactive", "pause": "paused", "resume": "recording"}.get(verb)
        if verb in ("pause", "resume", "split") and self.state == "inactive":
            return "wrong_state", None
        if verb == "start" and self.state != "inactive":
            return "ok", False
        if after is None or after == self.state:
            return "ok", verb in ("split", "snapshot")
        name = {"start": "started", "stop": "stopped", "pause": "paused", "resume": "resumed"}[verb]
        self.state = after
        self.events[name] += 1
        return "ok", True


class Killer(threading.Thread):
    """Kills the broker at random moments, of the traffic or of the reconnection."""

    def __init__(self, broker: Broker, console: Console, kills: int, seed: int) -> None:
        super().__init__(name="killer", daemon=True)
        self._broker = broker
        self._console = console
        self._chance = random.Random(seed)
        self._left = kills
        self.done = 0
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            while self._left:
                time.sleep(self._chance.uniform(0, 5))  # the moment is what varies
                for _ in range(1 + (self._chance.random() < 0.2)):  # and sometimes the next one while all come back
                    since = len(self._console.messages)  # all may be back before the break that follows is over
                    self._broker.restart(kill=True)
                    self.done += 1
                    self._left = max(0, self._left - 1)
                    time.sleep(self._chance.uniform(0, 0.5))
                self._console.wait("availability", lambda text: text == "online", since=since, timeout=ANSWER_S)
        finally:
            self.ended.set()


def ask(console: Console, number: int, verb: str) -> tuple[dict[str, Any], int]:
    """Send a command until it is answered; the reply, and how often it was sent."""
    path, id_ = f"recorder/cam0/{verb}", f"k{number}"
    payload = json.dumps({"id": id_}).encode()
    deadline = time.monotonic() + ANSWER_S
    sent = 0
    while True:
        since = len(console.messages)
        for _ in range(1 + (random.random() < 0.3)):  # a copy may also come without any outage
            console.raw(path, payload)
            sent += 1
        try:
            reply = console.wait(
                f"reply/{path}", lambda reply: reply["id"] == id_, since=since, timeout=random.uniform(0.2, 2.0)
            )
        except AssertionError:
            assert time.monotonic() < deadline, f"{path} {id_} is not answered"
            continue
        if (reply.get("error") or {}).get("code") == "rate_limited":
            time.sleep(0.3)
            continue
        return reply, sent


@pytest.mark.slow
@pytest.mark.timeout(300 + 30 * KILLS)
@pytest.mark.promise("an-id-acts-once")
def test_no_command_acts_twice_and_none_by_halves(daemon_for: DaemonFor, broker: Broker, console: Console) -> None:
    chance = random.Random(6)
    with daemon_for(RECORDER) as daemon:
        console.wait("availability", lambda text: text == "online")
        killer = Killer(broker, console, KILLS, seed=60)
        killer.start()
        model, number, sent = Model(), 0, 0
        while not killer.ended.is_set() or number < 20:
            verb = chance.choice(VERBS)
            reply, times = ask(console, number, verb)
            status, changed = model.hear(verb)
            told = (reply.get("error") or {}).get("code", reply["status"]), reply.get("changed")
            assert told == (status, changed), f"{verb} {reply['id']}, sent {times} times: {reply}"
            if reply["status"] == "ok":
                assert reply["data"]["state"] == model.state, reply
            number, sent = number + 1, sent + times
            time.sleep(chance.uniform(0, 0.25))
        assert killer.done >= KILLS, "the killer ended early"
        killer.join(10)

        # Reality at the end: the daemon's word, the retained topic, the files.
        console.wait_connected()
        console.wait_online()
        state = console.command("recorder/cam0/get")["data"]
        assert state["state"] == model.state == console.retained("state/recorder/cam0")["state"]
        if model.state == "recording":
            daemon.wait_for_part()
        if model.state != "inactive":
            model.events["stopped"] += 1
            assert console.command("recorder/cam0/stop")["changed"] is True
        recordings = daemon.recording_ids()
        assert not daemon.parts()
        assert console.retained("state/recorder/cam0")["state"] == "inactive"
        console.wait_delivered(ANSWER_S)
        assert daemon.stop() == 0
    # Each command was looked at once: its copies got the stored reply, which is not logged again.
    handled = Counter(re.findall(r"command recorder/cam0/\w+ id (k\d+): ", daemon.log.read_text()))
    assert handled == {f"k{n}": 1 for n in range(number)}
    done = Counter(re.findall(r"cam0: (started|stopped|paused|resumed)\b", daemon.log.read_text()))
    assert done == model.events
    # What the broker had taken when it was killed nobody may have heard; what was heard happened.
    contents: dict[str, Any] = {}
    for event in console.events():
        assert contents.setdefault(event["event_id"], event) == event
    counted = Counter(event["event_type"] for event in contents.values())
    assert all(counted[name] <= model.events[name] for name in ("started", "stopped", "paused", "resumed"))
    assert not counted["error"]
    assert len(recordings) <= model.events["started"]
    for path in daemon.chunks():
        assert read_chunk(path).numbers, path
    print(f"{killer.done} kills: {number} commands, sent {sent} times, each done once: {dict(done)}")
