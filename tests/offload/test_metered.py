"""A link that costs money: what NetworkManager says, how often it is asked, and what waits for it."""

from __future__ import annotations

import logging
from datetime import time

import pytest
from offloading import Bench, MakeStore, record, target
from s3server import StandIn

from msrecd.offload.metered import ASK_S, HOLD_S, MeteredLink, costs
from msrecd.offload.pace import parse_window, pause_of
from msrecd.systembus import BusError

# https://networkmanager.dev/docs/api/latest/nm-dbus-types.html#NMMetered: "Most applications probably should treat the
# runtime state NM_METERED_GUESS_YES like NM_METERED_YES, and all other states as not metered."
ANSWERS = {0: False, 1: True, 2: False, 3: True, 4: False}


@pytest.mark.parametrize(("answer", "expected"), [*ANSWERS.items(), (None, False), (5, False), (2**32 - 1, False)])
def test_what_an_answer_means(answer: int | None, expected: bool) -> None:
    assert costs(answer) is expected
    assert not costs(answer, HOLD_S + 1)


def test_the_window_is_named_before_the_link() -> None:
    night = (parse_window("22:00-05:00"),)
    assert pause_of(night, time(12), is_metered=True) == "closed"
    assert pause_of(night, time(23), is_metered=True) == "metered"
    assert pause_of(night, time(23), is_metered=False) is None
    assert pause_of((), time(12), is_metered=True) == "metered"


class NetworkManager:
    """Says `answer`, or nothing."""

    def __init__(self) -> None:
        self.answer: int | None = 2
        self.asked = 0
        self.now_s = 100.0

    def __call__(self) -> int:
        self.asked += 1
        if self.answer is None:
            raise BusError("the bus or the service refuses")
        return self.answer


@pytest.fixture
def manager() -> NetworkManager:
    return NetworkManager()


def test_it_is_asked_at_most_once_in_some_seconds(manager: NetworkManager) -> None:
    link = MeteredLink(manager, lambda: manager.now_s)
    assert [link() for _ in range(50)] == [False] * 50
    assert manager.asked == 1
    manager.answer = 1
    assert not link()
    manager.now_s += ASK_S
    assert link()
    assert manager.asked == 2


def test_without_an_answer_the_last_one_holds_for_a_while_and_one_line_says_so(
    manager: NetworkManager, caplog: pytest.LogCaptureFixture
) -> None:
    link = MeteredLink(manager, lambda: manager.now_s)
    manager.answer = 3
    assert link()
    manager.answer = None  # it is started again
    with caplog.at_level(logging.WARNING):
        waits = []
        for _ in range(20):
            manager.now_s += ASK_S
            waits.append(link())
    assert waits == [True] * int(HOLD_S // ASK_S) + [False] * (20 - int(HOLD_S // ASK_S))
    assert [entry.getMessage() for entry in caplog.records] == [
        "NetworkManager does not say whether the link is metered (the bus or the service refuses);"
        " it counts as not metered"
    ]
    manager.answer = 1
    manager.now_s += ASK_S
    assert link()


def test_files_and_lines_wait_for_a_free_link(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 3)
    metered = True
    with StandIn() as server:
        bench = Bench(store, target(server.endpoint), is_metered=lambda: metered)
        for _ in range(3):
            assert bench.sender.turn() > 0
        health = bench.sender.health()
        assert (health["state"], health["backlog_files"], health["sent_files"]) == ("metered", 3, 0)
        assert server.requests == 0
        metered = False
        bench.turns()
        assert bench.sender.health()["sent_files"] == 3
        assert bench.failed == []
