"""How long packets may gather before a recording looks at them. Pure."""

from __future__ import annotations

from msrecd.clock import NS

POLL_S = 0.2
_SHORTEST_S = 0.01
_LONGEST_S = 0.5  # while the next blob has time; what comes meanwhile waits in the queue
_USUAL_S = 0.25  # a blob of so much is awaited in one go
BATCHED_S = 1.0  # where the sources say when something has come


def poll_interval_s(timeslice_ns: int | None, lacks_ns: int | None) -> float:
    """Each look costs as much as the packets of a tenth of a second: the next one comes when a blob can be due.

    Args:
        timeslice_ns: a blob is wanted at least every so much media; None: only when asked for.
        lacks_ns: how much media is missing until the next blob; None when that cannot be told.
    """
    if timeslice_ns is None:
        return POLL_S
    timeslice_s = timeslice_ns / NS
    poll_s = max(_SHORTEST_S, min(POLL_S, timeslice_s / 3))
    if lacks_ns is None:
        return poll_s
    longest_s = max(poll_s, min(_LONGEST_S, max(_USUAL_S, timeslice_s / 2)))
    return max(poll_s / 2, min(longest_s, lacks_ns / NS))
