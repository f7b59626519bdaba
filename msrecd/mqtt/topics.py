"""The topic tree, and what an incoming topic means. Pure functions, no input or output."""

from __future__ import annotations

from collections.abc import Collection

from msrecd.vocabulary.names import is_device_id, is_name

PREFIX = "msrecd/v1"
RESPONSE_TOPIC_LIMIT_BYTES = 256
# What stands behind `cmd/` is echoed in the reply topic. Every legal path is far shorter.
ECHO_LIMIT_BYTES = 1024
BIRTH_TOPIC = "homeassistant/status"


class Topics:
    """The topics of one device."""

    def __init__(self, device_id: str, groups: Collection[str] = ()) -> None:
        """Raises: ValueError when `device_id` or a group is not a name that may stand in a topic."""
        if not is_device_id(device_id):
            raise ValueError(
                f"device id {device_id!r}: only a-z, 0-9 and inner hyphens, at most 63, not 'group' or 'all'"
            )
        for group in groups:
            if not is_name(group):
                raise ValueError(f"group {group!r}: only a-z, 0-9 and inner hyphens, at most 63")
        self.device_id = device_id
        self.base = f"{PREFIX}/{device_id}"
        self.availability = f"{self.base}/availability"
        self.discovery = f"homeassistant/device/{device_id}/config"
        self._command_bases: dict[str, str | None] = {f"{self.base}/cmd/": None}
        for group in ("all", *groups):
            self._command_bases[f"{PREFIX}/group/{group}/cmd/"] = group

    def below(self, path: str) -> str:
        """The full topic of a path below the device's own tree."""
        return f"{self.base}/{path}"

    def subscriptions(self) -> list[str]:
        """The topic filters whose messages are commands."""
        return [f"{base}#" for base in self._command_bases]

    def split_command(self, topic: str) -> tuple[str, str | None] | None:
        """What stands behind `cmd/`, and the group; None when the topic belongs to none of the command trees."""
        for base, group in self._command_bases.items():
            if topic.startswith(base):
                return topic[len(base) :], group
        return None

    def reply_topic(self, path: str, response_topic: str | None) -> str | None:
        """Where the reply goes: the response topic if it is allowed, else `reply/<path of the command>`.

        None when the path is too long to be echoed and no response topic is allowed.
        """
        if response_topic is not None and self.allows_response_topic(response_topic):
            return response_topic
        if len(path.encode("utf-8", "replace")) > ECHO_LIMIT_BYTES:
            return None
        return self.below(f"reply/{path}")

    def allows_response_topic(self, topic: str) -> bool:
        """Only below the device's own reply tree, without wildcards, up to 256 bytes.

        Otherwise a sender of commands could make the device publish anywhere.
        """
        own = f"{self.base}/reply/"
        if not topic.startswith(own) or topic == own:
            return False
        if any(character in topic for character in "+#\0"):
            return False
        try:
            return len(topic.encode("utf-8")) <= RESPONSE_TOPIC_LIMIT_BYTES
        except UnicodeEncodeError:
            return False
