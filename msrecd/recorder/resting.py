"""A camera that rests between the frames of a time-lapse: open for each frame, closed until the next one.

What is recorded is a track of its own that gets one frame an interval, with the time at which the camera captured it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msrecd import DOMException, ImageCapture, MediaStream, MediaStreamTrack, VideoTrackGenerator
from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.errors import CommandError
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.settling import settle

SETTLE_S = 5.0  # at most
_OPENING_S = 2.0  # until it is known how long it takes
_AGAIN_S = 5.0
_LATEST_S = 30.0  # so late a frame may be before the camera counts as missing


class RestingCamera:
    """`stream` has the track to record; `run` it. Lives on the loop; `close` it."""

    def __init__(
        self,
        first: MediaStream,
        reopen: Callable[[], Awaitable[MediaStream]],
        interval_ns: int,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """
        Args:
            first: the camera, open; belongs to this from now on.
            reopen: opens it again.
        """
        self._open: MediaStream | None = first
        (self.track,) = first.get_video_tracks()  # the last one that was open
        self._reopen = reopen
        self._interval_ns = interval_ns
        self._clock = clock
        self._opening_ns = round(_OPENING_S * NS)
        settings = self.track.get_settings()
        self._generator = VideoTrackGenerator(
            {"width": int(settings.get("width") or 640), "height": int(settings.get("height") or 480)}
        )
        self.stream = MediaStream([self._generator.track])
        self.problem: Problem | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the camera could not be had any more."""
        return self.problem is not None

    def listen(self, ended: Callable[[MediaStreamTrack], None]) -> None:
        """Call this when the camera cannot be had any more."""
        self._generator.track.add_event_listener("ended", lambda _: ended(self.track))

    def start(self) -> None:
        """Let the frames come; the first one at once."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="resting camera")

    def close(self) -> None:
        """End it, and close the camera."""
        if self._task is not None:
            self._task.cancel()
        self._rest()
        self._generator.track.stop()

    async def prime(self) -> None:
        """Let the track have the shape of the camera's frames before it is recorded.

        Raises:
            DOMException: there is no frame.
        """
        await self._generator.write(await ImageCapture(self.track).grab_frame())

    async def _run(self) -> None:
        try:
            due_ns = await self._give(None)
            while True:
                due_ns += self._interval_ns
                late_ns = self._clock.monotonic_ns() - due_ns
                if late_ns > 0:  # the grid goes on; what was missed is a gap
                    due_ns += -(-late_ns // self._interval_ns) * self._interval_ns
                lead_ns = min(self._opening_ns + round(SETTLE_S * NS), self._interval_ns // 2)
                await self._sleep_until(due_ns - lead_ns)
                await self._give(due_ns)
        except (CommandError, DOMException) as exc:
            self.problem = problem_of(exc)
        except Exception as exc:
            self.problem = problem_of(exc)
            raise
        finally:
            self._rest()
            self._generator.close()

    async def _give(self, due_ns: int | None) -> int:
        """Give the frame that is due; when it was captured.

        Args:
            due_ns: None: as soon as the camera has settled.

        Raises:
            CommandError, DOMException: the camera gave none, for long.
        """
        begun_ns = self._clock.monotonic_ns()
        while True:
            try:
                if self._open is None:
                    begins_ns = self._clock.monotonic_ns()
                    self._open = await self._reopen()
                    self._opening_ns = self._clock.monotonic_ns() - begins_ns
                    (self.track,) = self._open.get_video_tracks()
                capture = ImageCapture(self.track)
                left_ns = round(SETTLE_S * NS) if due_ns is None else due_ns - self._clock.monotonic_ns()
                await settle(capture, min(SETTLE_S, left_ns / NS))
                if due_ns is not None:
                    await self._sleep_until(due_ns)
                frame = await capture.grab_frame()
                while due_ns is not None and frame.timestamp_ns < due_ns:
                    frame = await capture.grab_frame()
                self._rest()
                await self._generator.write(frame)
                return frame.timestamp_ns
            except (CommandError, DOMException):
                if self._clock.monotonic_ns() - (due_ns or begun_ns) > _LATEST_S * NS:
                    raise
            finally:
                self._rest()
            await asyncio.sleep(_AGAIN_S)

    async def _sleep_until(self, at_ns: int) -> None:
        await asyncio.sleep(max(0.0, (at_ns - self._clock.monotonic_ns()) / NS))

    def _rest(self) -> None:
        stream, self._open = self._open, None
        for track in () if stream is None else stream.get_tracks():
            track.stop()
