"""What a recorder of the daemon needs to know, apart from the form of the configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSettings:
    """One configured recorder.

    constraints: for get_user_media; None where `url` names the source. `device_id` may be `{"label": …}`.
    source_options: of the MediaElement that plays `url`. options: of MediaRecorder.
    extension_type: MIME type by which the storage names the files when the full one is not known.
    """

    name: str
    constraints: Mapping[str, Any] | None
    url: str | None = None
    loop: bool = False
    source_options: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any]
    timeslice_ms: float = 1000.0
    autostart: bool = False
    max_duration_s: float | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are asked for, () where only the source knows."""
        if self.constraints is None:
            return ()
        return tuple(kind for kind in ("video", "audio") if self.constraints.get(kind))
