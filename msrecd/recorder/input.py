"""RecorderInput: the stream that one recorder records: devices, or a file or network stream; opened and closed as one.

It may be open while nothing is recorded (pre-roll). Who listens to it is set by `listen` and may change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from msrecd import MediaDevices, MediaElement, MediaStream, MediaStreamTrack, NotReadableError
from msrecd.errors import CommandError
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.settings import USUAL_BAND, AudioFilter, RecorderSettings, TriggerSettings

if TYPE_CHECKING:
    from msrecd import MediaElementOptions, MediaStreamConstraints
    from msrecd.recorder.filters import FilteredSound
    from msrecd.recorder.resting import RestingCamera

PASSES_THROUGH = "the sound of a source passes through as it is encoded; filters are for devices: remove one of them"
_OPEN_DEADLINE_S = 30.0
_KINDS = {"audio": ("audioinput", "microphone"), "video": ("videoinput", "camera")}
_AT_A_FREQUENCY = ("highpass", "lowpass", "notch")
_SAME_RATE = 0.01  # cameras that are asked for 30 frames a second may give 29.97


class RecorderInput:
    """An open stream; `close` it when it is not needed any more. Lives on the loop."""

    def __init__(
        self,
        stream: MediaStream,
        element: MediaElement | None,
        constraints: Mapping[str, Any] | None,
        filters: Sequence[AudioFilter] = (),
        triggers: Sequence[TriggerSettings] = (),
        resting: RestingCamera | None = None,
    ) -> None:
        """
        Args:
            stream: as the devices or the element give it; who records takes `stream` of the result.
            element: which plays it; None for devices.
            constraints: what was asked of devices.
            filters: through which its sound is recorded. triggers: that listen to it.
            resting: records the camera in place of `stream`, and has it.

        Raises:
            CommandError: it has no sound, and there are filters.
        """
        self._captured = stream
        self._filtered = _filtered(stream, filters) if filters else None
        self._resting = resting
        self.stream = stream if self._filtered is None else self._filtered.stream
        if resting is not None:
            self.stream = resting.stream
        self._element = element
        self.kinds = frozenset(track.kind for track in stream.get_tracks())  # those of a file leave it at its end
        self._on_ended: Callable[[MediaStreamTrack], None] = _ignore
        self._on_muted: Callable[[MediaStreamTrack, bool], None] = _ignore
        self._on_restarted: Callable[[MediaStreamTrack, float], None] = _ignore
        self._on_silent: Callable[[MediaStreamTrack], None] = _ignore
        self.unmet = [*unmet(stream.get_tracks(), constraints or {}), *beyond(stream.get_tracks(), filters, triggers)]
        if resting is not None:
            resting.listen(self._track_ended)
            return
        for track in stream.get_tracks():
            track.add_event_listener("ended", lambda event: self._track_ended(event.target))
            track.add_event_listener("mute", lambda event: self._on_muted(event.target, True))
            track.add_event_listener("unmute", lambda event: self._on_muted(event.target, False))
            track.add_event_listener("silence", lambda event: self._on_silent(event.target))
            track.add_event_listener("restart", lambda event: self._on_restarted(event.target, event.silent_s))

    @classmethod
    async def open(cls, settings: RecorderSettings, devices: MediaDevices, *, rests: bool = False) -> RecorderInput:
        """
        Args:
            rests: let the camera rest between the frames of its time-lapse, where that is configured.

        Raises:
            CommandError: device_missing, device_busy (there, but it cannot be opened), bad_args. Nothing is open then.
        """
        element: MediaElement | None = None
        try:
            async with asyncio.timeout(_OPEN_DEADLINE_S):
                if settings.url is None:
                    constraints = await _with_ids(settings.constraints or {}, devices)
                    stream = await devices.get_user_media(cast("MediaStreamConstraints", constraints))
                    try:
                        resting = (
                            await _resting(stream, settings, devices) if rests and settings.closes_camera else None
                        )
                        return cls(stream, None, constraints, settings.audio_filters, settings.triggers, resting)
                    except BaseException:
                        for track in stream.get_tracks():
                            track.stop()
                        raise
                if settings.audio_filters:
                    raise CommandError("bad_args", f"audio_filters: {PASSES_THROUGH}")
                element = MediaElement(
                    settings.url, cast("MediaElementOptions", settings.source_options), preload="none"
                )
                element.loop = settings.loop
                await element.load()
                return cls(element.capture_stream(), element, None, (), settings.triggers)
        except BaseException as exc:
            if element is not None:
                element.close()
            if not isinstance(exc, Exception):
                raise
            if isinstance(exc, TimeoutError) and element is not None:
                exc = NotReadableError(f"{element.src}: it cannot be told within {_OPEN_DEADLINE_S:g} s what it sends")
            raise problem_of(exc, is_input=settings.url is not None).error() from exc

    @property
    def is_file(self) -> bool:
        """Whether it has a regular end, and waits until it is played."""
        return self._element is not None and not self._element.is_live

    @property
    def has_played_out(self) -> bool:
        """Whether it came to its regular end. A live input has none."""
        return self.is_file and self._element is not None and self._element.ended and self._element.error is None

    @property
    def problem(self) -> Problem | None:
        """Why it ended by itself, where that is known."""
        if self._resting is not None:
            return self._resting.problem
        if self._element is None or not self._element.ended or self.has_played_out:
            return None
        if self._element.error is None:
            return Problem("device_missing", "the input ended: its connection was closed")
        return problem_of(self._element.error, is_input=True)

    @property
    def has_lost_track(self) -> bool:
        """Whether one of its tracks has ended."""
        if self._resting is not None:
            return self._resting.is_over
        return any(track.ready_state == "ended" for track in self._captured.get_tracks())

    @property
    def tracks(self) -> list[MediaStreamTrack]:
        """Those of its devices that deliver; with filters, what is recorded of them is another track.

        One that rests is the one that was open last.
        """
        if self._resting is not None:
            return [] if self._resting.is_over else [self._resting.track]
        return [track for track in self._captured.get_tracks() if track.ready_state == "live"]

    @property
    def is_resting(self) -> bool:
        """Whether its camera is open for each frame of a time-lapse only."""
        return self._resting is not None

    async def play(self) -> None:
        """Let a file or network stream run. Called when the recorder listens, so that its first frame is recorded.

        Raises:
            DOMException: it cannot be played.
        """
        if self._resting is not None:
            self._resting.start()
        if self._element is not None:
            await self._element.play()

    def listen(
        self,
        *,
        ended: Callable[[MediaStreamTrack], None],
        muted: Callable[[MediaStreamTrack, bool], None],
        restarted: Callable[[MediaStreamTrack, float], None],
        silent: Callable[[MediaStreamTrack], None],
    ) -> None:
        """Call these when a track ends, gives nothing (True) or gives again (False), its device is started anew after
        so many seconds of nothing, or has given digital silence for long; they take the place of those before."""
        self._on_ended, self._on_muted, self._on_restarted, self._on_silent = ended, muted, restarted, silent

    def close(self) -> None:
        """End the tracks; a device closes with its last track, of whichever recorder that is."""
        self.listen(ended=_ignore, muted=_ignore, restarted=_ignore, silent=_ignore)
        if self._element is not None:
            self._element.close()
        for track in (*self.stream.get_tracks(), *self._captured.get_tracks()):
            track.stop()
        if self._filtered is not None:
            self._filtered.close()
        if self._resting is not None:
            self._resting.close()

    def _track_ended(self, track: MediaStreamTrack) -> None:
        if self._filtered is not None and track.kind == "audio":
            self._filtered.close()  # a graph goes on without its microphone: its track must end, too
        self._on_ended(track)


def _filtered(stream: MediaStream, filters: Sequence[AudioFilter]) -> FilteredSound:
    """
    Raises:
        CommandError: bad_args: there is no sound.
    """
    from msrecd.recorder.filters import FilteredSound  # here: numpy and the graph, for recorders that have filters

    if not stream.get_audio_tracks():
        raise CommandError("bad_args", "audio_filters: the input has no sound")
    return FilteredSound(stream, filters)


async def _resting(stream: MediaStream, settings: RecorderSettings, devices: MediaDevices) -> RestingCamera:
    """A camera that is closed between the frames of its time-lapse."""
    from msrecd.recorder.resting import RestingCamera  # here: for those who have one

    async def reopen() -> MediaStream:
        async with asyncio.timeout(_OPEN_DEADLINE_S):
            constraints = await _with_ids(settings.constraints or {}, devices)
            return await devices.get_user_media(cast("MediaStreamConstraints", constraints))

    assert settings.time_lapse is not None
    camera = RestingCamera(stream, reopen, settings.time_lapse.interval_ns)
    await camera.prime()
    return camera


async def _with_ids(constraints: Mapping[str, Any], devices: MediaDevices) -> dict[str, Any]:
    """The constraints with the id of the one device that has the wanted label.

    Raises:
        CommandError: device_missing: there is none; bad_args: there are several.
    """
    resolved = dict(constraints)
    for kind, wanted in constraints.items():
        device_id = wanted.get("device_id") if isinstance(wanted, Mapping) else None
        if not isinstance(device_id, Mapping) or "label" not in device_id:
            continue
        info_kind, word = _KINDS[kind]
        infos = [info for info in await devices.enumerate_devices() if info.kind == info_kind]
        found = [info.device_id for info in infos if info.label == device_id["label"]]
        if not found:
            there = ", ".join(info.label for info in infos) or "none"
            raise CommandError("device_missing", f"no {word} is labelled {device_id['label']!r} (there is: {there})")
        if len(found) > 1:
            message = f"{word} label {device_id['label']!r} is ambiguous: {len(found)} devices have it; use device_id"
            raise CommandError("bad_args", message)
        resolved[kind] = {**wanted, "device_id": {"exact": found[0]}}
    return resolved


def unmet(tracks: Sequence[MediaStreamTrack], constraints: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was asked for, bare or as `ideal`, and is not what the tracks deliver: kind, constraint, asked, got.

    `got` is None where the device does not have it at all.
    """
    found: list[dict[str, Any]] = []
    for track in tracks:
        wanted = constraints.get(track.kind)
        settings = track.get_settings()
        for name, value in wanted.items() if isinstance(wanted, Mapping) else ():
            asked = value.get("ideal") if isinstance(value, Mapping) else value
            got = settings.get(name)
            if asked is None or isinstance(asked, (list, tuple, Mapping)):
                continue
            if not _is_met(asked, got):
                found.append({"kind": track.kind, "constraint": name, "asked": _plain(asked), "got": _plain(got)})
    return found


def beyond(
    tracks: Sequence[MediaStreamTrack], filters: Sequence[AudioFilter], triggers: Sequence[TriggerSettings]
) -> list[dict[str, Any]]:
    """Frequencies in Hz that the sound does not have, as entries of `unmet`: `got` is half of its sample rate."""
    rates = [track.get_settings().get("sample_rate") for track in tracks if track.kind == "audio"]
    if not rates or not rates[0]:
        return []
    asked = [("audio_filters.frequency", one.frequency) for one in filters if one.type in _AT_A_FREQUENCY]
    half = rates[0] / 2
    for low, high in (one.band for one in triggers if one.kind == "sound"):
        if low >= half:
            asked.append(("trigger.band", low))
        elif high > half and (low, high) != USUAL_BAND:  # the usual one was not asked for
            asked.append(("trigger.band", high))
    return [
        {"kind": "audio", "constraint": name, "asked": _plain(frequency), "got": _plain(half)}
        for name, frequency in asked
        if frequency >= half
    ]


def _is_met(asked: Any, got: Any) -> bool:
    """`got` is None where the device has no such setting: a camera without a torch, or without zoom."""
    if isinstance(asked, bool) and not isinstance(got, bool):
        return not asked or isinstance(got, (int, float))  # zoom = true asks for a camera that can
    if isinstance(asked, (int, float)) and isinstance(got, (int, float)):
        return bool(abs(asked - got) <= abs(asked) * _SAME_RATE)
    return bool(asked == got)


def _plain(value: Any) -> Any:
    """Without the fraction of a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ignore(*_: object) -> None:
    return None
