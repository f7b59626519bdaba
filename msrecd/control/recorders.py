"""The recorders of a running daemon, and the configuration they follow: what a reload changes and others look at."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from msrecd.clock.wall import WallTime
from msrecd.config.model import Config
from msrecd.recorder.controller import RecorderController


@dataclass(slots=True)
class Recorders:
    """Belongs to the loop.

    Attributes:
        units: by name; a recorder that a reload replaces is missing while its recording ends.
    """

    config: Config
    walltime: WallTime
    units: dict[str, RecorderController] = field(default_factory=dict)

    def names(self) -> Collection[str]:
        """Of the recorders that are configured now."""
        return [recorder.name for recorder in self.config.recorders]

    def at_work(self) -> set[str]:
        """Names of those that use their devices for a recording."""
        return {name for name, unit in self.units.items() if unit.status.state in ("recording", "paused")}
