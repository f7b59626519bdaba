"""When a peer's consent to be sent to is over: pure."""

from __future__ import annotations

import pytest

pytest.importorskip("aiortc")

from msrecd.rtc.aio.consent import CHECKS_EVERY_S, EXPIRES_S, Consent


def test_an_answer_renews_it_however_late() -> None:
    consent = Consent(0.0)
    for second in range(0, 300, 5):
        consent.ask()
        if second % 25 == 20:  # one in five, late
            consent.answer(second + 4.0)
        assert not consent.has_expired(second + 5.0)


def test_it_expires_when_nothing_answers() -> None:
    consent, now_s = Consent(100.0), 100.0
    while not consent.has_expired(now_s):
        consent.ask()
        now_s += CHECKS_EVERY_S
    assert EXPIRES_S < now_s - 100.0 <= EXPIRES_S + CHECKS_EVERY_S


def test_a_machine_that_slept_asks_again_first() -> None:
    consent = Consent(0.0)
    consent.ask()
    assert not consent.has_expired(3600.0)
    for _ in range(4):
        consent.ask()
    assert not consent.has_expired(3620.0)
    consent.ask()
    assert consent.has_expired(3625.0)
