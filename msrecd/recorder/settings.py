"""What a recorder of the daemon needs to know, apart from the form of the configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from msrecd.vocabulary.lapse import TimeLapse


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFilter:
    """One filter of a recorder's sound. frequency: in Hz; q: how narrow a notch is; gain_db: of `gain`."""

    type: Literal["highpass", "lowpass", "notch", "gain", "mono"]
    frequency: float = 0.0
    gain_db: float = 0.0
    q: float = 0.0


USUAL_BAND = (200.0, 8000.0)  # Hz


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerSettings:
    """One trigger of a recorder. sensitivity, mask: of motion; band (Hz), threshold_db: of sound.

    hold_s: recorded on after its event. max_per_hour: recordings that it may begin. protect: what it records.
    """

    kind: Literal["motion", "sound"]
    sensitivity: float = 0.5
    mask: tuple[tuple[tuple[float, ...], ...], ...] = ()
    band: tuple[float, float] = USUAL_BAND
    threshold_db: float = 12.0
    hold_s: float = 10.0
    max_per_hour: int = 60
    protect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSettings:
    """One configured recorder.

    constraints: for get_user_media; None where `url` names the source. `device_id` may be `{"label": …}`.
    source_options: of the MediaElement that plays `url`. options: of MediaRecorder.
    closes_camera: between the frames of its time-lapse.
    audio_filters: through which its sound goes, in order. triggers: what makes it begin by itself.
    """

    name: str
    constraints: Mapping[str, Any] | None
    url: str | None = None
    loop: bool = False
    source_options: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any]
    timeslice_ms: float = 250.0
    autostart: bool = False
    max_duration_s: float | None = None
    closes_camera: bool = False
    audio_filters: tuple[AudioFilter, ...] = ()
    triggers: tuple[TriggerSettings, ...] = ()

    @property
    def time_lapse(self) -> TimeLapse | None:
        """As `options` have it."""
        wanted = self.options.get("time_lapse")
        return None if wanted is None else TimeLapse(wanted["interval"] / 1000, wanted["frame_rate"])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are asked for, () where only the source knows."""
        if self.constraints is None:
            return ()
        return tuple(kind for kind in ("video", "audio") if self.constraints.get(kind))
