"""Opened virtual devices: threads that deliver test frames and test sound in real time on a Clock.

They obey the rules of the real ones: units come from a thread of their own, they are late when the machine is
late, what is lost is counted, and a device that is pulled out ends its source.
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from msrecd.clock import MS, NS, Clock
from msrecd.devices.camera.frames import flip
from msrecd.devices.virtual.testframe import FrameGrid, TestFrame, is_flash
from msrecd.devices.virtual.testsound import SampleTimes, Signal, TestSound
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source, SourceThread, ZombieThread
from msrecd.flow.units import AudioBlock, AudioFormat, Kind, VideoFormat, VideoFrame

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 3.0
HOPELESS_NS = NS  # who is later than this has lost what lies in between
BLOCKS_PER_SECOND = 50
SWITCH_NS = 500 * MS  # what a sensor takes for a still of another mode and the way back

Unit = TypeVar("Unit", VideoFrame, AudioBlock)


class PacedSource(Source, Generic[Unit]):
    """A source whose thread runs while its feed has sinks; all public methods may be called from any thread.

    `released()` is called by `close()`, in its thread.
    """

    def __init__(
        self, *, label: str, device_id: str, group_id: str, clock: Clock, muted: bool, released: Callable[[], None]
    ) -> None:
        super().__init__(label=label, device_id=device_id, group_id=group_id)
        self.muted = muted
        self._clock = clock
        self._released = released
        self._feed: Feed[Unit] = Feed(self._on_demand)
        self._lock = threading.Lock()
        self._thread: SourceThread | None = None  # the latest one
        self._over = False  # ended by itself or closed
        self._announced = False  # the end is told, or must not be told any more
        self._error: BaseException | None = None

    def raw(self) -> Feed[Unit]:
        return self._feed

    def set_muted(self, muted: bool) -> None:
        """Have nothing to give for a while, or have it again."""
        with self._lock:
            if muted == self.muted or self._over:
                return
            self.muted = muted
        self.on_muted(muted)

    def terminate(self, error: BaseException | None) -> None:
        """End by itself, as a device does that is pulled out (None) or breaks (the error); does not wait."""
        with self._lock:
            if self._over:
                return
            self._over, self._error = True, error
            thread = self._thread
            is_running = thread is not None and not thread.stopping.is_set()
            if thread is not None:
                thread.stopping.set()
        if not is_running:
            self._announce_end()

    def close(self) -> None:
        with self._lock:
            self._over = self._announced = True
            thread = self._thread
        try:
            if thread is not None:
                thread.stop(CLOSE_TIMEOUT_S)
        except ZombieThread as exc:
            log.error("%s: %s: a consumer of its units blocks it", self.label, exc)
        self._feed.end(None)
        self._released()

    @abstractmethod
    def _begin(self) -> None:
        """The thread starts, for the first time or after a pause: go on with what is next now."""

    @abstractmethod
    def _step(self, stop: threading.Event) -> None:
        """Wait for the next unit and put it unless muted; return early when `stop` is set."""

    def _on_demand(self, wanted: bool) -> None:
        with self._lock:
            before = self._thread
            if before is not None:
                before.stopping.set()
            if wanted and not self._over:
                self._thread = self._new_thread(before)
                self._thread.start()

    def _new_thread(self, before: SourceThread | None) -> SourceThread:
        place = self._clock.participate()

        def run(stop: threading.Event) -> None:
            with place:
                if before is not None:
                    before.join(CLOSE_TIMEOUT_S)  # it was told to stop; two at once would mix up the numbers
                self._begin()
                while not stop.is_set():
                    self._step(stop)
            if self._over:
                self._announce_end()

        return SourceThread(f"virtual {self.label}", run, self._failed)

    def _failed(self, error: Exception) -> None:
        log.error("%s failed", self.label, exc_info=error)
        self.terminate(error)
        self._announce_end()

    def _announce_end(self) -> None:
        with self._lock:
            if self._announced:
                return
            self._announced = True
            error = self._error
        self._feed.end(error)
        self.on_ended(error)


class VirtualCameraSource(PacedSource[VideoFrame]):
    """An opened VirtualCamera: numbered frames on the grid of its frame rate."""

    kind: Kind = "video"

    def __init__(
        self,
        video_format: VideoFormat,
        *,
        label: str,
        device_id: str,
        group_id: str,
        clock: Clock,
        muted: bool,
        released: Callable[[], None],
        hflip: bool = False,
        vflip: bool = False,
        still_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(
            label=label, device_id=device_id, group_id=group_id, clock=clock, muted=muted, released=released
        )
        self._format = video_format
        self._hflip, self._vflip = hflip, vflip
        self._still_size = still_size
        self._grid = FrameGrid(video_format.frame_rate or 30.0)
        self._frame = TestFrame(video_format.width, video_format.height)
        self._index = 0  # of the next frame on the grid
        self._number = 0  # of the next frame delivered

    @property
    def format(self) -> VideoFormat:
        return self._format

    def figures(self) -> Mapping[str, float | str]:
        """As if a lens moved to and fro."""
        return {"focus_figure": 500 + abs(self._number % 200 - 100), "focus_state": "focused", "focus_distance": 2.0}

    def _begin(self) -> None:
        self._index = max(self._index, self._grid.index_at_or_after(self._clock.monotonic_ns()))

    def _step(self, stop: threading.Event) -> None:
        pts_ns = self._grid.time_of(self._index)
        if self._clock.wait_until(pts_ns, stop):
            return
        now_ns = self._clock.monotonic_ns()
        if now_ns - pts_ns > HOPELESS_NS:
            following = self._grid.index_at_or_after(now_ns)
            if not self.muted:
                self.stats.dropped += following - self._index
            self._index = following
            return
        self._index += 1
        if self.muted:
            return
        frame = self._painted(self._frame, self._format, pts_ns)
        self._number += 1
        self.stats.delivered += 1
        self._feed.put(frame)

    @property
    def still_size(self) -> tuple[int, int] | None:
        return self._still_size

    def take_still(self) -> VideoFrame:
        """As a sensor does that has to switch its mode for it, and back."""
        if self._still_size is None or self.muted or self._over:
            raise NotReadableError(f"{self.label} gives no still now")
        self.set_muted(True)
        try:
            now_ns = self._clock.monotonic_ns()
            self._clock.wait_until(now_ns + SWITCH_NS, threading.Event())
            width, height = self._still_size
            return self._painted(TestFrame(width, height), replace(self._format, width=width, height=height), now_ns)
        finally:
            self.set_muted(False)

    def _painted(self, frame: TestFrame, format: VideoFormat, pts_ns: int) -> VideoFrame:
        data = frame.paint(self._number, flash=is_flash(pts_ns))
        if self._hflip or self._vflip:
            data = flip(data, format.width, format.height, hflip=self._hflip, vflip=self._vflip)
        return VideoFrame(pts_ns=pts_ns, format=format, data=data)


class VirtualMicrophoneSource(PacedSource[AudioBlock]):
    """An opened VirtualMicrophone: blocks of 20 ms, each delivered when its last sample is captured."""

    kind: Kind = "audio"

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        signal: Signal,
        ppm: float,
        label: str,
        device_id: str,
        group_id: str,
        clock: Clock,
        muted: bool,
        released: Callable[[], None],
    ) -> None:
        super().__init__(
            label=label, device_id=device_id, group_id=group_id, clock=clock, muted=muted, released=released
        )
        self._format = audio_format
        self._block_samples = audio_format.sample_rate // BLOCKS_PER_SECOND
        self._sound = TestSound(
            signal,
            sample_rate=audio_format.sample_rate,
            channels=audio_format.channels,
            block_samples=self._block_samples,
        )
        self._ppm = self._wanted_ppm = ppm
        self._times = SampleTimes(sample_rate=audio_format.sample_rate, origin_ns=clock.monotonic_ns(), ppm=ppm)
        self._sample = 0  # the first one of the next block
        self._lose = 0  # samples an overrun shall take, under _lock
        self._lost = 0  # samples lost since the last delivered block

    @property
    def format(self) -> AudioFormat:
        return self._format

    def set_ppm(self, ppm: float) -> None:
        """Run the sample clock at another speed from the next block on."""
        self._wanted_ppm = ppm

    def overrun(self, duration_s: float) -> None:
        """Lose that much of the sound that is captured next."""
        with self._lock:
            self._lose += round(duration_s * self._format.sample_rate)

    def _begin(self) -> None:
        self._sample = max(self._sample, self._times.sample_at_or_after(self._clock.monotonic_ns()))
        self._lost = 0  # nobody listened meanwhile

    def _step(self, stop: threading.Event) -> None:
        self._apply_wishes()
        end = self._sample + self._block_samples
        if self._clock.wait_until(self._times.time_of(end), stop):
            return
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._times.time_of(end) > HOPELESS_NS:
            self._skip(self._times.sample_at_or_after(now_ns) - self._sample)
            return
        first, self._sample = self._sample, end
        lost, self._lost = self._lost, 0
        if self.muted:
            return
        data = self._sound.block(first, self._block_samples, self._times)
        self.stats.delivered += 1
        self._feed.put(
            AudioBlock(
                pts_ns=self._times.time_of(first),
                format=self._format,
                samples=self._block_samples,
                data=data,
                lost_before=lost,
            )
        )

    def _apply_wishes(self) -> None:
        with self._lock:
            lose, self._lose = self._lose, 0
            ppm = self._wanted_ppm
        if ppm != self._ppm:
            self._ppm = ppm
            self._times = self._times.change_speed(sample_rate=self._format.sample_rate, ppm=ppm, sample=self._sample)
        if lose:
            self._skip(lose)

    def _skip(self, samples: int) -> None:
        self._sample += samples
        if not self.muted:
            self._lost += samples
            self.stats.xruns += 1
            self.stats.lost_samples += samples
