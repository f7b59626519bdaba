"""From picamera2's encoder to a feed of packets, over a bounded queue.

Nothing of ours runs in picamera2's threads but an enqueue: an exception in an output would end the encoder's thread
(V4L2) or the camera's (libav) without a word, and a slow output would stall the camera.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.devices.camera.modes import FrameGaps
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.encoded import EncodedFeed, StreamParameters
from msrecd.flow.queue import UnitQueue
from msrecd.flow.source import SourceThread, ZombieThread
from msrecd.flow.units import Packet

log = logging.getLogger(__name__)

_MAX_UNITS = 150
_MAX_BYTES = 16 << 20
_OLDEST_NS = 5 * NS
_FUTURE_NS = 50 * MS


class SensorTimes:
    """Sensor timestamps on CLOCK_MONOTONIC.

    libcamera documents CLOCK_BOOTTIME, drivers use CLOCK_MONOTONIC; on a machine that never sleeps both are the same.
    That is checked at the first frame: one that is not between 0 and 5 s old is of another clock, which is shifted.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._offset_ns: int | None = None

    def to_monotonic(self, ts_ns: int, now_ns: int) -> int:
        if self._offset_ns is None:
            age_ns = now_ns - ts_ns
            self._offset_ns = 0 if -_FUTURE_NS <= age_ns <= _OLDEST_NS else age_ns
            if self._offset_ns:
                log.warning(
                    "camera %s: its timestamps are %.3f s away from the monotonic clock; shifted",
                    self._label,
                    self._offset_ns / NS,
                )
        return ts_ns + self._offset_ns


@dataclass(frozen=True, slots=True)
class _Offered:
    number: int
    timestamp_us: int
    is_keyframe: bool
    data: bytes


class EncodedStream:
    """One run of one encoder: `offer` from picamera2's thread, packets from a thread of its own into the feed."""

    def __init__(
        self,
        feed: EncodedFeed,
        *,
        name: str,
        times: SensorTimes,
        frame_ns: int,
        make_parameters: Callable[[bytes], StreamParameters],
        is_rate_fixed: bool = False,
        delivered: Callable[[int, bool], None] = lambda pts_ns, is_keyframe: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """
        Args:
            frame_ns: nominal distance of frames.
            is_rate_fixed: the camera was told that rate, so that a hole in the times is lost frames: of a camera that
                had no buffer, or of an encoder (libx264 runs in the camera's thread) that was too slow.
            delivered: called with the time of each packet and whether it is a key frame; in the stream's thread.
            make_parameters: makes the stream's description out of the first key frame (Annex B, with SPS and PPS).
        """
        self._feed = feed
        self._times = times
        self._frame_ns = frame_ns
        self._gaps = FrameGaps(frame_ns, is_fixed=is_rate_fixed)
        self._delivered = delivered
        self._skipped = 0  # frames since the last packet that came and were not passed on
        self._make_parameters = make_parameters
        self._clock = clock
        self._queue: UnitQueue[_Offered] = UnitQueue(
            max_units=_MAX_UNITS, max_bytes=_MAX_BYTES, size=lambda unit: len(unit.data)
        )
        self._numbers = itertools.count()
        self._expected = 0
        self._started = False
        self._broken = False
        self._last_pts_ns = -1
        self._thread = SourceThread(f"packets {name}", self._run, self._failed)
        self._thread.start()

    def offer(self, data: bytes, is_keyframe: bool, timestamp_us: int) -> None:
        """Take one encoded frame; `timestamp_us` is the sensor's absolute time. Never blocks, never raises."""
        self._queue.put(_Offered(next(self._numbers), timestamp_us, is_keyframe, data))

    def stop(self) -> None:
        """Deliver what is queued and end the thread; the feed stays open for the next run."""
        self._queue.end()
        try:
            self._thread.stop(2.0)
        except ZombieThread as exc:
            log.error("%s", exc)

    def _run(self, stop: threading.Event) -> None:
        while True:
            ended = self._queue.ended
            for unit in self._queue.take(0.5):
                self._deliver(unit)
            if ended:
                return

    def _deliver(self, unit: _Offered) -> None:
        missing = unit.number - self._expected
        self._expected = unit.number + 1
        if missing:
            self._drop(missing)
            self._broken = True
        if (self._broken or not self._started) and not unit.is_keyframe:
            self._drop(int(self._started))  # what refers to a lost frame is of no use
            return
        if not self._started:
            if self._feed.parameters is None:
                self._feed.set_parameters(self._make_parameters(unit.data))
            self._started = True
        pts_ns = self._times.to_monotonic(unit.timestamp_us * 1000, self._clock.monotonic_ns())
        if pts_ns <= self._last_pts_ns:
            self._broken = not unit.is_keyframe
            return
        self._count_holes(pts_ns)
        self._last_pts_ns = pts_ns
        self._delivered(pts_ns, unit.is_keyframe)
        discontinuity, self._broken = self._broken, False
        self._feed.feed.put(
            Packet(
                pts_ns=pts_ns,
                dts_ns=pts_ns,  # these encoders reorder nothing
                duration_ns=self._frame_ns,
                is_keyframe=unit.is_keyframe,
                data=unit.data,
                discontinuity=discontinuity,
            )
        )

    def _drop(self, frames: int) -> None:
        self._feed.facts.dropped += frames
        self._skipped += frames

    def _count_holes(self, pts_ns: int) -> None:
        """Count the frames that never came, by the times of those that did."""
        self._feed.facts.dropped += max(0, self._gaps.missing(pts_ns) - self._skipped)
        self._skipped = 0

    def _failed(self, exc: Exception) -> None:
        log.warning("the camera's encoder delivers unusable data: %s", exc)
        self._queue.end()
        self._feed.feed.end(NotReadableError(f"the camera's encoder gives nothing usable: {exc}"))
