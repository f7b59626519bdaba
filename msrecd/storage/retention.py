"""What has to go: a pure plan from (chunks, limits, now).

In this order, each rule seeing what the one before has freed:

1. age: a chunk older than its recorder's `max_age` or the global one, if both its time and the clock are trusted; a
   step of the clock makes nothing old;
2. a recorder's `max_total`: its oldest chunks;
3. the global `max_total`: the oldest chunks of all;
4. `min_free`: the oldest chunks of all, so early that what is being written still fits. Without it, where the global
   `max_total` makes a ring, the file system may be smaller than that: then as few of the oldest as let recording go on
   (`no_space`), and none where all of them together would not.

Never: open chunks, protected recordings, files that are not in the index (nobody else's, that is), and what no store
has proven, where that is required.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from msrecd.clock import NS


class Reason(StrEnum):
    """Why a chunk goes; the words of the manifest."""

    MAX_AGE = "max_age"
    RECORDER_MAX_TOTAL = "recorder_max_total"
    MAX_TOTAL = "max_total"
    MIN_FREE = "min_free"
    NO_SPACE = "no_space"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """None: no limit. max_protected_bytes: of what may be protected."""

    max_total_bytes: int | None = None
    max_age_s: float | None = None
    min_free_bytes: int | None = None
    max_protected_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRef:
    """A finished chunk as the index knows it. `trusted`: its times were, or have been corrected.

    A snapshot is one, too: its `seq` is its number below zero. `proven`: a store has it, by its hash, and its line.
    """

    recording_id: str
    recorder: str
    seq: int
    file: str
    bytes: int
    started_ns: int
    ended_ns: int
    trusted: bool
    protected: bool = False
    boot_id: str = ""  # of the boot whose clock said the times, where that was not trusted
    proven: bool = False

    @property
    def is_snapshot(self) -> bool:
        return self.seq < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    chunk: ChunkRef
    reason: Reason


class ChunkView(Protocol):
    """Finished chunks; without the protected ones where chunks are given, with them where bytes are counted."""

    def total_bytes(self, recorder: str | None) -> int: ...
    def oldest(self, recorder: str | None) -> Iterator[ChunkRef]:
        """In the order of recording."""

    def aged(self, recorder: str | None, before_ns: int) -> Iterator[ChunkRef]:
        """Trusted ones that ended before a time, the oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the plan depends on besides chunks and limits.

    requires_proof: only what a store has proven may go. age_now_ns: the time by which chunks are old, None while no
    clock is trusted; open_bytes: of unfinished chunks by recorder; missing_files: inodes that must become free;
    headroom_bytes: what open chunks may still grow by; one_chunk_bytes: what one of them may; least_free_bytes:
    with less no chunk begins, whatever the limits are.
    """

    age_now_ns: int | None
    free_bytes: int
    headroom_bytes: int = 0
    one_chunk_bytes: int = 0
    open_bytes: Mapping[str, int] = field(default_factory=dict)
    missing_files: int = 0
    least_free_bytes: int = 0
    requires_proof: bool = False


def plan(view: ChunkView, limits: Limits, recorder_limits: Mapping[str, Limits], situation: Situation) -> list[Planned]:
    """What to delete, in order."""
    planner = _Planner(view, situation)
    planner.by_all(limits, recorder_limits)
    return planner.planned


def kept(view: ChunkView, limits: Limits, recorder_limits: Mapping[str, Limits], situation: Situation) -> list[Planned]:
    """What the limits would take beyond the plan, if nothing were protected and no proof of a store required.

    Args:
        view: of all chunks, the protected ones included.
    """
    planner = _Planner(view, situation)
    planner.by_all(limits, recorder_limits)
    known = len(planner.planned)
    planner.requires_proof = planner.respects_protection = False
    planner.by_all(limits, recorder_limits)
    return planner.planned[known:]


class _Planner:
    def __init__(self, view: ChunkView, situation: Situation) -> None:
        self.planned: list[Planned] = []
        self.requires_proof = situation.requires_proof
        self.respects_protection = True
        self._view = view
        self._situation = situation
        self._files: set[str] = set()
        self._freed: dict[str, int] = {}

    def by_all(self, limits: Limits, recorder_limits: Mapping[str, Limits]) -> None:
        for recorder, own in recorder_limits.items():
            self.by_age(recorder, own.max_age_s)
        self.by_age(None, limits.max_age_s)
        for recorder, own in recorder_limits.items():
            self.by_total(recorder, own.max_total_bytes, Reason.RECORDER_MAX_TOTAL)
        self.by_total(None, limits.max_total_bytes, Reason.MAX_TOTAL)
        if limits.min_free_bytes is not None:
            self.by_free(limits.min_free_bytes)
            self.by_files()
        elif limits.max_total_bytes is not None:
            self.to_go_on()

    def by_age(self, recorder: str | None, max_age_s: float | None) -> None:
        now_ns = self._situation.age_now_ns
        if max_age_s is not None and now_ns is not None:
            before_ns = now_ns - round(max_age_s * NS)
            for chunk in self._view.aged(recorder, before_ns):
                self._take(chunk, Reason.MAX_AGE)

    def by_total(self, recorder: str | None, limit: int | None, reason: Reason) -> None:
        if limit is None:
            return
        open_bytes = self._situation.open_bytes
        written = sum(open_bytes.values()) if recorder is None else open_bytes.get(recorder, 0)
        freed = sum(self._freed.values()) if recorder is None else self._freed.get(recorder, 0)
        if recorder is None:  # until the next rotation several may grow, and only one chunk may lie over the limit
            written += self._situation.headroom_bytes - self._situation.one_chunk_bytes
        self._free(recorder, self._view.total_bytes(recorder) + written - freed - limit, reason)

    def by_free(self, limit: int) -> None:
        self._free(None, limit + self._situation.headroom_bytes - self._free_bytes(), Reason.MIN_FREE)

    def to_go_on(self) -> None:
        """Room for what is being written; if that cannot be had, the least with which a chunk begins; or nothing."""
        least = self._situation.least_free_bytes - self._free_bytes()
        missing_files = self._situation.missing_files - len(self.planned)
        for missing in (least + self._situation.headroom_bytes, least):
            chunks = self._enough(missing, missing_files)
            if chunks is not None:
                for chunk in chunks:
                    self._take(chunk, Reason.NO_SPACE)
                return

    def _enough(self, missing_bytes: int, missing_files: int) -> list[ChunkRef] | None:
        """The oldest chunks that give so many bytes and inodes; None: all of them do not."""
        found: list[ChunkRef] = []
        if missing_bytes <= 0 and missing_files <= 0:
            return found
        if self._view.total_bytes(None) - sum(self._freed.values()) < missing_bytes:
            return None  # without looking at each
        for chunk in self._view.oldest(None):
            if not self._may_go(chunk):
                continue
            found.append(chunk)
            missing_bytes -= chunk.bytes
            missing_files -= 1
            if missing_bytes <= 0 and missing_files <= 0:
                return found
        return None

    def _free_bytes(self) -> int:
        return self._situation.free_bytes + sum(self._freed.values())

    def by_files(self) -> None:
        """Each chunk that goes frees an inode; so many are missing."""
        missing = self._situation.missing_files - len(self.planned)
        if missing > 0:
            for chunk in self._view.oldest(None):
                missing -= self._take(chunk, Reason.MIN_FREE)
                if missing <= 0:
                    return

    def _free(self, recorder: str | None, excess: int, reason: Reason) -> None:
        if excess <= 0:
            return
        for chunk in self._view.oldest(recorder):
            if self._take(chunk, reason):
                excess -= chunk.bytes
                if excess <= 0:
                    return

    def _may_go(self, chunk: ChunkRef) -> bool:
        is_free = (chunk.proven or not self.requires_proof) and not (chunk.protected and self.respects_protection)
        return is_free and chunk.file not in self._files

    def _take(self, chunk: ChunkRef, reason: Reason) -> bool:
        if not self._may_go(chunk):
            return False
        self._files.add(chunk.file)
        self._freed[chunk.recorder] = self._freed.get(chunk.recorder, 0) + chunk.bytes
        self.planned.append(Planned(chunk=chunk, reason=reason))
        return True
