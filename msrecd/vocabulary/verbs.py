"""Commands, their reply codes, and the words of states and events."""

from __future__ import annotations

from collections.abc import Mapping

RECORDER_VERBS = ("start", "stop", "pause", "resume", "split", "snapshot", "get", "protect")
DAEMON_VERBS = ("ping", "devices", "reload", "health")
SWITCH_VERB = "set"  # takes ON or OFF; becomes start or stop
VERBS = (*RECORDER_VERBS, SWITCH_VERB, *DAEMON_VERBS)

# Reply code -> whether the same command may succeed when it is sent again later.
RETRYABLE: Mapping[str, bool] = {
    "bad_payload": False,
    "unknown_verb": False,
    "unknown_recorder": False,
    "bad_args": False,
    "wrong_state": False,
    "device_missing": True,
    "device_busy": True,
    "no_space": True,
    "expired": False,
    "retained_rejected": False,
    "rate_limited": True,
    "internal": True,
}
CODES = frozenset(RETRYABLE)

RECORDER_STATES = ("inactive", "recording", "paused", "error")
RECORDER_EVENTS = (
    "started",
    "stopped",
    "paused",
    "resumed",
    "chunk",
    "gap",
    "error",
    "snapshot",
    "offload",
    "trigger",
)
