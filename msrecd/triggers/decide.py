"""From scores to decisions: when an event begins and ends, and whether it may begin a recording. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

_NS = 1_000_000_000
LOOKS_PER_SECOND = 5.0  # at the frames of a camera
LUMA_WIDTH = 640  # pixels of the frames that are looked at, about
HOUR_NS = 3600 * _NS

Change = Literal["begin", "end"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a detector makes of one look: `score` is compared with `threshold`, in the detector's own unit.

    at_ns: capture time of what was looked at, CLOCK_MONOTONIC.
    """

    at_ns: int
    score: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Hysteresis: an event begins when `needed` of the last `window` samples reach the threshold.

    It ends when no sample has reached `release` times the threshold for `quiet_ns`. Samples that are further apart
    than `sparse_ns` (key frames of a network camera) count each by itself: waiting for a second one takes too long.
    """

    needed: int
    window: int
    release: float
    quiet_ns: int
    sparse_ns: int = _NS // 2


# Five looks a second: at most 0.6 s from the first frame with an object to the decision.
MOTION = Rule(needed=3, window=5, release=0.7, quiet_ns=_NS)
# Some 25 looks a second: a chirp of a tenth of a second has two of them.
SOUND = Rule(needed=2, window=3, release=0.5, quiet_ns=_NS // 2)
# From what began an event to the start of a recording, at most: looks, decoding, the start itself on a busy machine. A
# recorder keeps that much more than its `pre_roll`, which is counted from the cause.
DECISION_S = {"motion": 0.8, "sound": 0.4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a trigger stands.

    is_active: an event lasts. since_ns: the first sample of it that reached the threshold.
    """

    is_active: bool = False
    since_ns: int = 0
    last_ns: int = 0  # the last sample that kept the event alive
    recent: tuple[tuple[int, bool], ...] = ()  # (time, whether it reached the threshold)


def step(rule: Rule, before: Progress, sample: Sample) -> tuple[Progress, Change | None]:
    """One more sample: where the trigger stands now, and what has changed by it."""
    at_ns = sample.at_ns
    is_over = sample.score >= sample.threshold
    if before.is_active:
        if is_over or sample.score >= rule.release * sample.threshold:
            return replace(before, last_ns=at_ns), None
        if at_ns - before.last_ns < rule.quiet_ns:
            return before, None
        return Progress(), "end"
    is_sparse = bool(before.recent) and at_ns - before.recent[-1][0] >= rule.sparse_ns
    recent = (*before.recent, (at_ns, is_over))[-rule.window :]
    over = [at for at, reached in recent if reached]
    if is_over and (is_sparse or len(over) >= rule.needed):
        since_ns = at_ns if is_sparse else over[0]
        return Progress(is_active=True, since_ns=since_ns, last_ns=at_ns), "begin"
    return replace(before, recent=recent), None


def may_begin(begun_ns: Sequence[int], now_ns: int, max_per_hour: int) -> bool:
    """Whether one more recording may begin: at most `max_per_hour` did within the last 60 minutes.

    begun_ns: when recordings began by this trigger, CLOCK_MONOTONIC.
    """
    return len(within_the_hour(begun_ns, now_ns)) < max_per_hour


def within_the_hour(begun_ns: Sequence[int], now_ns: int) -> tuple[int, ...]:
    """Those of the last 60 minutes; what is older need not be remembered."""
    return tuple(at for at in begun_ns if now_ns - at < HOUR_NS)
