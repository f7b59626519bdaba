"""Whether bytes on this machine's way to the network cost money, as NetworkManager says it.

Property `Metered` of org.freedesktop.NetworkManager: that of the connection with the default route, 0 unknown, 1 yes,
2 no, 3 and 4 the same two, guessed (of the kind of device, or because a phone's DHCP server says so).
https://networkmanager.dev/docs/api/latest/nm-dbus-types.html#NMMetered
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from msrecd.systembus import BusError, read_uint32, system_bus

log = logging.getLogger(__name__)

ASK_S = 5.0  # between two questions
HOLD_S = 60.0  # an answer counts for so long when no newer one comes: NetworkManager may start again
_TIMEOUT_S = 2.0
_YES, _GUESS_YES = 1, 3
_SERVICE = "org.freedesktop.NetworkManager"


def costs(answer: int | None, age_s: float = 0.0) -> bool:
    """Whether to save bytes, after an answer of NetworkManager of this age; None: there was none yet.

    As its documentation advises, what it guesses counts as what it knows, and what it does not know as free.
    """
    return answer in (_YES, _GUESS_YES) and age_s <= HOLD_S


def ask_network_manager() -> int:
    """Blocks, for a few seconds at most. It is not started where it does not run.

    Raises:
        BusError: there is no answer.
    """
    path = "/org/freedesktop/NetworkManager"
    return read_uint32(system_bus(), _SERVICE, path, "Metered", timeout_s=_TIMEOUT_S, starts=False)


class MeteredLink:
    """Says whether the link is metered; asks again when the answer is older than a few seconds. For one thread."""

    def __init__(
        self, ask: Callable[[], int] = ask_network_manager, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            ask: raises BusError when there is no answer.
        """
        self._ask = ask
        self._monotonic_s = monotonic_s
        self._answer: int | None = None
        self._answered_s = 0.0
        self._due_s: float | None = None
        self._is_reported = False

    def __call__(self) -> bool:
        now_s = self._monotonic_s()
        if self._due_s is None or now_s >= self._due_s:
            self._due_s = now_s + ASK_S
            try:
                self._answer, self._answered_s = self._ask(), now_s
                self._is_reported = False
            except BusError as exc:
                if not self._is_reported:
                    self._is_reported = True
                    log.warning(
                        "NetworkManager does not say whether the link is metered (%s); it counts as not metered",
                        exc,
                    )
        return costs(self._answer, now_s - self._answered_s)
