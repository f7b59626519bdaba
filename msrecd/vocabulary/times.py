"""Times on the wire: RFC 3339 in UTC with milliseconds and `Z`, as nanoseconds since 1970 inside the program."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FARTHEST_NS = 9_223_000_000 * 1_000_000_000  # from 1970, to 1677 or 2262: a signed integer of 64 bits, as in the index


def format_utc(utc_ns: int) -> str:
    """`2026-11-20T18:00:00.412Z`, cut to milliseconds."""
    moment = _EPOCH + timedelta(milliseconds=utc_ns // 1_000_000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def within_reach(utc_ns: int) -> int:
    """The time, or one that the program can keep and that is as far away as all that can be recorded.

    "From year 1" means from the beginning. Of two such times the later one stays the later one, to the millisecond.
    """
    beyond_ns = abs(utc_ns) - _FARTHEST_NS
    if beyond_ns <= 0:
        return utc_ns
    far_ns = _FARTHEST_NS + beyond_ns // 1_000_000  # year 9999 is 2.5e14 ms beyond; 3.7e14 ns are left
    return far_ns if utc_ns > 0 else -far_ns


def parse_utc(text: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 time or date, as far as they reach; without a zone it is UTC.

    Raises:
        ValueError: the text is not a time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return within_reach(((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000)


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 of a time in the form of RFC 3339, which requires a zone.

    Raises:
        ValueError: the text has another form, or there is no such time.
    """
    if _RFC3339.match(text) is None:
        raise ValueError(f"{text!r} is not a time like 2026-11-20T18:00:00Z")
    return parse_utc(text.upper())
