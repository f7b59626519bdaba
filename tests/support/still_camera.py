"""A camera that gives nothing of its own: what it would give, the test says."""

from __future__ import annotations

from typing import Any

from msrecd.flow.feed import Feed
from msrecd.flow.source import Source
from msrecd.flow.units import VideoFormat


class StillCamera(Source):
    kind = "video"

    @property
    def format(self) -> VideoFormat:
        return VideoFormat(width=64, height=48)

    def raw(self) -> Feed[Any]:
        return Feed()

    def close(self) -> None:
        return None
