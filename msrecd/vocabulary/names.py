"""Names of recorders, groups and devices, and the ids of recordings."""

from __future__ import annotations

import re

# 1 to 63 characters, so that a name fits a DNS label, a folder and a level of a topic.
NAME = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAME_PATTERN = re.compile(NAME + r"\Z", re.ASCII)
RESERVED_DEVICE_IDS = frozenset({"group", "all"})  # the group trees of the topics begin with them

# With groups: `time` while the clock is trusted, else `boot` and `ms` (monotonic); `recorder` and `suffix` always.
RECORDING_ID = (
    r"(?:(?P<time>\d{8}T\d{6}Z)|boot(?P<boot>\d{4,})-(?P<ms>\d+))-(?P<recorder>[a-z0-9-]+)-(?P<suffix>[0-9a-f]{4})"
)
RECORDING_ID_PATTERN = re.compile(RECORDING_ID + r"\Z", re.ASCII)


def is_name(text: str) -> bool:
    """Whether `text` may name a recorder or a group: 1 to 63 of a-z, 0-9 and inner hyphens."""
    return NAME_PATTERN.match(text) is not None


def is_device_id(text: str) -> bool:
    """Whether `text` may be the id of this machine on the broker: a name that is not reserved for groups."""
    return is_name(text) and text not in RESERVED_DEVICE_IDS
