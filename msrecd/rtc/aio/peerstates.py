"""What is said of a connection: to its owner, in one piece. Values, without aiortc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msrecd.flow.units import Kind
from msrecd.rtc.receiving import ReceivedSource


@dataclass(frozen=True, slots=True)
class TransceiverState:
    """key: of our own, given when it is made; on either side of the threads."""

    key: int
    kind: Kind
    mid: str | None
    direction: str
    current_direction: str | None
    stopped: bool
    received: ReceivedSource | None
    track_id: str
    stream_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the owner of a connection may know of it."""

    signaling: str
    connection: str
    ice_connection: str
    ice_gathering: str
    local: tuple[str, str] | None  # type, SDP
    remote: tuple[str, str] | None
    candidates: tuple[tuple[str, str | None, int], ...]  # candidate, mid, index of its media section
    transceivers: tuple[TransceiverState, ...]


def candidates_of(text: str) -> tuple[tuple[str, str | None, int], ...]:
    """The candidates of a description."""
    found: list[tuple[str, str | None, int]] = []
    index, mid = -1, None
    own: list[str] = []
    for line in [*text.splitlines(), "m="]:
        if line.startswith("m="):
            found += [(one, mid, index) for one in own]
            index, mid, own = index + 1, None, []
        elif line.startswith("a=mid:"):
            mid = line[6:]
        elif line.startswith("a=candidate:"):
            own.append(line[2:])
    return tuple(found)


def plain_stats(stats: Any) -> dict[str, Any]:
    """A dataclass of aiortc's by the W3C's names in snake_case; times in ms since 1970."""
    plain: dict[str, Any] = {}
    for name, value in vars(stats).items():
        snake = "".join(f"_{one.lower()}" if one.isupper() else one for one in name)
        plain[snake] = value.timestamp() * 1000 if hasattr(value, "timestamp") else value
    return plain
