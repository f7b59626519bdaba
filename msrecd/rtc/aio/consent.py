"""A peer's consent to be sent to, as RFC 7675 has it: lost when none of our checks was answered for 30 s.

aioice counts a check as failed when its answer takes longer than half a second, and gives up after six: a way by
satellite, or a machine that has other things to do, loses every connection half a minute after it was made.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Any

from aioice import stun

log = logging.getLogger(__name__)

CHECKS_EVERY_S = 5.0  # RFC 7675 section 5.1, times 0.8 to 1.2
EXPIRES_S = 30.0
_UNANSWERED = 5  # so many at the least: a machine that slept, or a loop that stood still, has not asked
_REPEATS = 5  # of a check, later and later: an answer is taken for 31 s


@dataclass(slots=True)
class Consent:
    """Pure; times in seconds of the loop."""

    answered_s: float  # when the latest answer came
    unanswered: int = 0  # checks since

    def ask(self) -> None:
        self.unanswered += 1

    def answer(self, now_s: float) -> None:
        self.answered_s, self.unanswered = now_s, 0

    def has_expired(self, now_s: float) -> bool:
        return now_s - self.answered_s > EXPIRES_S and self.unanswered > _UNANSWERED


def keep_consent(connection: Any) -> None:
    """In place of the checks of an aioice connection that is not connected yet."""
    connection.query_consent = lambda: _query(connection)


async def _query(connection: Any) -> None:
    loop = asyncio.get_running_loop()
    consent = Consent(loop.time())
    checks: set[asyncio.Task[None]] = set()

    async def check(pair: Any) -> None:
        try:
            await pair.protocol.request(
                connection.build_request(pair, nominate=False),
                pair.remote_addr,
                integrity_key=connection.remote_password.encode(),
                retransmissions=_REPEATS,
            )
        except (stun.TransactionError, ConnectionError):
            return
        consent.answer(loop.time())

    try:
        while not consent.has_expired(loop.time()):
            consent.ask()
            for pair in connection._nominated.values():
                task = loop.create_task(check(pair))
                checks.add(task)
                task.add_done_callback(checks.discard)
            await asyncio.sleep(CHECKS_EVERY_S * random.uniform(0.8, 1.2))
    finally:
        for task in list(checks):
            task.cancel()
    log.warning("a peer has not answered for %.0f s: the connection to it has ended", loop.time() - consent.answered_s)
    connection._query_consent_task = None  # else close() cancels the task that calls it
    await connection.close()
