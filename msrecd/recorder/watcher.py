"""TriggerWatch: looks at what a recorder has open, and says what its triggers find. Lives on the loop.

The arithmetic is done in the pool of threads, and numpy is loaded with the first look: a recorder without triggers has
nothing of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from msrecd import DOMException, MediaStreamTrack, MediaStreamTrackReader
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.reporter import RecorderLog
from msrecd.recorder.settings import TriggerSettings
from msrecd.tasks import Tasks
from msrecd.triggers import decide
from msrecd.triggers.decide import Progress, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable

_AGAIN_S = 5.0
_POLL_S = 0.2  # whether the recorder has opened its inputs
_BATCH_S = 0.1  # sound is looked at in pieces of this length: each look costs a change of threads
_SILENT_NS = 5 * NS  # an input that gives nothing for so long has ended what was found in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A trigger has found something (`begin`), or that is over (`end`).

    number: of the trigger in the configuration. at_ns: when what was found began, CLOCK_MONOTONIC.
    """

    number: int
    change: Literal["begin", "end"]
    kind: str
    score: float
    at_ns: int
    protect: bool


@dataclass(slots=True)
class _Trigger:
    number: int
    settings: TriggerSettings
    rule: decide.Rule
    progress: Progress = field(default_factory=Progress)
    last: Sample | None = None
    highest: float = 0.0  # score since the last report
    events: int = 0


class TriggerWatch:
    """The triggers of one recorder; they run while it is armed and has its inputs open."""

    def __init__(
        self,
        name: str,
        triggers: tuple[TriggerSettings, ...],
        *,
        input: Callable[[], RecorderInput | None],
        found: Callable[[Finding], None],
        log: RecorderLog,
        tasks: Tasks,
    ) -> None:
        """
        Args:
            input: what the recorder has open now.
            found: called on the loop.
        """
        self._name = name
        self._input = input
        self._found = found
        self._log = log
        self._tasks = tasks
        self._triggers = [
            _Trigger(number, one, decide.MOTION if one.kind == "motion" else decide.SOUND)
            for number, one in enumerate(triggers)
        ]
        self._running: list[asyncio.Task[None]] = []
        self._said: set[str] = set()
        self.is_armed = False

    def arm(self, is_armed: bool) -> None:
        """Let the triggers look, or not; what they have found ends then."""
        if is_armed == self.is_armed:
            return
        self.is_armed = is_armed
        if is_armed:
            self._running = [
                self._tasks.spawn(self._run(one), f"{self._name}-{one.settings.kind}-trigger") for one in self._triggers
            ]
            return
        self._log.info("triggers disarmed")
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        for one in self._triggers:
            self._end(one)

    def facts(self, *, holds_inputs: bool) -> list[dict[str, Any]]:
        """For state/health: the highest score since the last call beside its threshold, for each trigger.

        Args:
            holds_inputs: whether the recorder is idle and has its inputs open.
        """
        facts = []
        for one in self._triggers:
            facts.append(
                {
                    "kind": one.settings.kind,
                    "armed": self.is_armed and holds_inputs,
                    "active": one.progress.is_active,
                    "score": round(one.highest, 2),
                    "threshold": None if one.last is None else round(one.last.threshold, 2),
                    "events": one.events,
                }
            )
            one.highest = 0.0
        return facts

    async def _run(self, one: _Trigger) -> None:
        while True:
            track = self._track(one.settings.kind)
            if track is None:
                self._end(one)
                await asyncio.sleep(_POLL_S)
                continue
            try:
                await self._watch(one, track)
            except DOMException as exc:
                self._say_once(f"{one.settings.kind} trigger: {exc.message}")
                await asyncio.sleep(_AGAIN_S)
            except Exception:  # whatever it is: a trigger that has ended for good would go unnoticed for months
                self._log.exception("%s trigger failed; trying again in %g s", one.settings.kind, _AGAIN_S)
                await asyncio.sleep(_AGAIN_S)
            self._end(one)

    def _track(self, kind: str) -> MediaStreamTrack | None:
        input = self._input()
        if input is None:
            return None
        wanted = "video" if kind == "motion" else "audio"
        tracks = [track for track in input.tracks if track.kind == wanted]
        if not tracks and input.tracks:
            self._say_once(f"{kind} trigger: the input has no {wanted}")
        return tracks[0] if tracks else None

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._log.warning("%s", message)

    async def _watch(self, one: _Trigger, track: MediaStreamTrack) -> None:
        """Until the track ends."""
        look = await asyncio.to_thread(_detector, one.settings)
        options: dict[str, Any] = {}
        if one.settings.kind == "motion":
            options = {"luma_width": decide.LUMA_WIDTH, "frame_rate": decide.LOOKS_PER_SECOND, "key_frames": True}
        async with MediaStreamTrackReader(track, **options) as reader:
            units: list[Any] = []
            begun_ns = 0
            while True:
                try:
                    async with asyncio.timeout(_SILENT_NS / NS):
                        unit = await anext(reader)
                except TimeoutError:
                    self._end(one)
                    continue
                except StopAsyncIteration:
                    return
                if track.muted or not track.enabled:
                    continue
                begun_ns = begun_ns or unit.timestamp_ns
                units.append(unit)
                if one.settings.kind == "sound" and unit.timestamp_ns - begun_ns < _BATCH_S * NS:
                    continue
                taken, units, begun_ns = units, [], 0
                for sample in await asyncio.to_thread(look, taken):
                    self._step(one, sample)

    def _step(self, one: _Trigger, sample: Sample) -> None:
        one.last = sample
        one.highest = max(one.highest, sample.score)
        one.progress, change = decide.step(one.rule, one.progress, sample)
        if change == "begin":
            one.events += 1
            self._report(one, "begin", sample.score, one.progress.since_ns)
        elif change == "end":
            self._report(one, "end", sample.score, sample.at_ns)

    def _end(self, one: _Trigger) -> None:
        """Nothing can be seen or heard any more."""
        if one.progress.is_active:
            one.progress = Progress()
            self._report(one, "end", 0.0, SYSTEM_CLOCK.monotonic_ns())

    def _report(self, one: _Trigger, change: Literal["begin", "end"], score: float, at_ns: int) -> None:
        self._found(
            Finding(
                number=one.number,
                change=change,
                kind=one.settings.kind,
                score=score,
                at_ns=at_ns,
                protect=one.settings.protect,
            )
        )


def _detector(settings: TriggerSettings) -> Callable[[list[Any]], Iterable[Sample]]:
    """What makes samples of what a reader gives; in a thread, for numpy may have to be loaded."""
    if settings.kind == "motion":
        from msrecd.triggers.motion import MotionDetector

        motion = MotionDetector(sensitivity=settings.sensitivity, mask=settings.mask)
        return lambda units: [motion.look(unit.array, unit.timestamp_ns) for unit in units]
    from msrecd.triggers.sound import SoundDetector

    sound = SoundDetector(band=settings.band, threshold_db=settings.threshold_db)
    return lambda units: [
        sample for unit in units for sample in sound.listen(unit.array, unit.sample_rate, unit.timestamp_ns)
    ]
