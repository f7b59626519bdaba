"""Who is logged in. In memory only: a session ends with the daemon. Belongs to the web thread."""

from __future__ import annotations

import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.web.router import Access

COOKIE = "msrecd_session"
SESSIONS_LIMIT = 64
IDLE_NS = 30 * 60 * NS
LIFE_NS = 12 * 3600 * NS
_ADDRESSES_LIMIT = 256


@dataclass(slots=True, eq=False)
class Session:
    """on_end: what is under way for it and ends with it."""

    token: str
    access: Access
    begun_ns: int
    used_ns: int
    on_end: set[Callable[[], object]] = field(default_factory=set)


class Sessions:
    """At most SESSIONS_LIMIT; the one that was not used for longest goes."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, access: Access) -> Session:
        """A new one, with 256 random bits."""
        now_ns = self._clock.monotonic_ns()
        self.sweep()
        while len(self._sessions) >= SESSIONS_LIMIT:
            self.end(next(iter(self._sessions)))
        session = Session(secrets.token_urlsafe(32), access, now_ns, now_ns)
        self._sessions[session.token] = session
        return session

    def find(self, token: str) -> Session | None:
        """The session of a cookie, which counts as used now; None when it has ended."""
        session = self._sessions.get(token)
        if session is None:
            return None
        if self._has_expired(session):
            self.end(token)
            return None
        session.used_ns = self._clock.monotonic_ns()
        self._sessions.move_to_end(token)
        return session

    def end(self, token: str) -> None:
        """Log out: what is under way for this session ends, too."""
        session = self._sessions.pop(token, None)
        if session is not None:
            for call in list(session.on_end):
                call()

    def sweep(self) -> None:
        """End those whose time is over."""
        for token, session in list(self._sessions.items()):
            if self._has_expired(session):
                self.end(token)

    def _has_expired(self, session: Session) -> bool:
        now_ns = self._clock.monotonic_ns()
        return now_ns - session.begun_ns > LIFE_NS or (now_ns - session.used_ns > IDLE_NS and not session.on_end)


class LoginLimit:
    """How often somebody may try a password: `burst` times, then once in `every_s` seconds; for each network address,
    and for all together a multiple of it. A try that was right is given back."""

    def __init__(
        self, clock: Clock = SYSTEM_CLOCK, *, burst: int = 5, every_s: float = 10.0, together: int = 6
    ) -> None:
        self._clock = clock
        self._burst, self._every_ns, self._together = burst, round(every_s * NS), together
        self._tried: OrderedDict[str, tuple[float, int]] = OrderedDict()  # tries left, since when
        self.refused = 0

    def take(self, peer: str) -> bool:
        """Whether one more try may be made from `peer`; it is counted."""
        address, everybody = _network_of(peer), ""
        if min(self._left(address, 1), self._left(everybody, self._together)) < 1:
            self.refused += 1
            return False
        self._add(address, 1, -1.0)
        self._add(everybody, self._together, -1.0)
        return True

    def give_back(self, peer: str) -> None:
        self._add(_network_of(peer), 1, 1.0)
        self._add("", self._together, 1.0)

    def _left(self, key: str, times: int) -> float:
        most = float(self._burst * times)
        left, since_ns = self._tried.get(key, (most, 0))
        return min(most, left + (self._clock.monotonic_ns() - since_ns) * times / self._every_ns)

    def _add(self, key: str, times: int, change: float) -> None:
        left = min(self._burst * times, self._left(key, times) + change)
        self._tried[key] = (left, self._clock.monotonic_ns())
        self._tried.move_to_end(key)
        while len(self._tried) > _ADDRESSES_LIMIT:
            oldest = next(name for name in self._tried if name)
            del self._tried[oldest]


def _network_of(peer: str) -> str:
    """An IPv4 address, or the /64 network of an IPv6 one: who has one of those has all of its addresses."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer or "unix"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
