"""Attempt: one MediaRecorder on one open input, from its arming or start to its `stop` event. It never repairs itself.

A recording has one attempt after the other: each fault that costs all devices ends one, and the supervisor begins the
next.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from msrecd import MediaRecorder
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.settings import RecorderSettings
from msrecd.vocabulary.formats import DEFAULT_TYPES

if TYPE_CHECKING:
    from msrecd import MediaRecorderOptions
    from msrecd.recorder.controller import RecorderController

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 20.0


class Attempt:
    """`start` it once. Who made it closes it, and with it the input. Lives on the loop."""

    def __init__(
        self,
        number: int,
        settings: RecorderSettings,
        input: RecorderInput,
        listener: RecorderController,
        *,
        before: Attempt | None = None,
    ) -> None:
        """With `pre_roll` in the options, the encodings run and the last seconds are kept from now on.

        Args:
            number: no two attempts of a recorder have the same.
            settings: what is recorded, and how.
            input: open; belongs to the attempt from now on.
            listener: hears everything from now on.
            before: an attempt on the same input that has ended: its MediaRecorder has kept a pre-roll since then.

        Raises:
            DOMException, TypeError: it cannot be recorded like this.
        """
        self.number = number
        self.input = input
        self._settings = settings
        self._listener = listener
        self.has_media = False  # whether it gave some; the owner sets it
        self._problem: Problem | None = None
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._recorder: MediaRecorder = (
            MediaRecorder(input.stream, cast("MediaRecorderOptions", settings.options))
            if before is None
            else before._recorder
        )
        self._recorder.onstart = lambda _: self._started.set()
        self._recorder.ondataavailable = lambda event: listener.attempt_gave(self, event)
        self._recorder.ongap = listener.attempt_missed
        self._recorder.onerror = lambda event: self._failed(event.error)
        self._recorder.onstop = lambda _: self._ended()
        input.listen(
            ended=lambda track: listener.attempt_lost_track(self, track),
            muted=listener.attempt_muted,
            restarted=listener.attempt_restarted,
            silent=listener.attempt_silent,
        )

    @property
    def state(self) -> str:
        """inactive, recording or paused: that of the MediaRecorder."""
        return self._recorder.state

    @property
    def is_active(self) -> bool:
        return self.state != "inactive"

    @property
    def has_started(self) -> bool:
        return self._started.is_set()

    @property
    def mime_type(self) -> str:
        """With its codecs from the `start` event on."""
        return self._recorder.mime_type

    @property
    def file_type(self) -> str:
        """The type of its files: a recording without video is `audio/…`."""
        mime_type = self.mime_type or DEFAULT_TYPES["video"]
        return mime_type if "video" in self.input.kinds else mime_type.replace("video/", "audio/", 1)

    @property
    def pre_roll_bytes(self) -> int:
        """What the pre-roll holds in memory."""
        return self._recorder.pre_roll_bytes

    @property
    def problem(self) -> Problem | None:
        """Why it ended by itself, where that is known."""
        return self._problem or self.input.problem

    @property
    def frame_interval_s(self) -> float:
        """Seconds from one frame to the next; 0 without video."""
        if (lapse := self._settings.time_lapse) is not None:
            return lapse.interval_s
        rates = [track.get_settings().get("frame_rate") for track in self.input.tracks if track.kind == "video"]
        return max((1 / rate for rate in rates if rate), default=0.0)

    async def arm(self) -> None:
        """Let the input run, so that there is something to keep for the pre-roll.

        Raises:
            DOMException: it cannot be played.
        """
        await self.input.play()

    async def start(self) -> None:
        """Record; returns when it has started, or has ended already.

        Raises:
            CommandError: it did not start; stop and close it.
        """
        try:
            self._recorder.start(self._settings.timeslice_ms)
            await self.input.play()
            # The first frame of a time-lapse may come a whole interval later.
            async with asyncio.timeout(START_DEADLINE_S + 2 * self.frame_interval_s):
                await _first(self._started, self._stopped)
        except Exception as exc:
            raise problem_of(exc, is_input=self._settings.url is not None).error() from exc

    def pause(self) -> None:
        if self.is_active:
            self._recorder.pause()

    def resume(self) -> None:
        if self.is_active:
            self._recorder.resume()

    def split(self) -> None:
        """A new chunk from the next key frame on."""
        if self.is_active:
            self._recorder.split()

    async def stop(self) -> bool:
        """End it; whether its last blob was given within STOP_DEADLINE_S."""
        if self.is_active:
            self._recorder.stop()
        elif not self._started.is_set():
            return True  # it was not begun, or could not
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE_S):
                await self._stopped.wait()
        return self._stopped.is_set()

    def close(self) -> None:
        """Forget the pre-roll, stop recording and close the devices, as far as no other recorder has them."""
        self._recorder.stop()
        self.input.close()

    def _failed(self, error: BaseException | None) -> None:
        self._problem = problem_of(error if error is not None else RuntimeError("unknown"))

    def _ended(self) -> None:
        self._stopped.set()
        self._listener.attempt_stopped(self)


async def _first(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
