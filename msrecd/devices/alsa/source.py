"""AlsaSource: the thread that reads one microphone. It never touches a disk, a lock of others or the event loop.

The PCM is opened non-blocking and read at the pace of the sample clock: after each read the time when the next block
will be there is known, and the thread waits for that time on its stop event. So nothing ever hangs in a read, stopping
takes effect at once, and the traps of polling (a PCM that has not been started never gets ready; a plug-in's descriptor
that nobody drains is always ready) do not arise. A buffer of half a second and more covers any oversleeping.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.devices.alsa.sample_clock import SampleClock
from msrecd.devices.deadline import leave_behind
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source, SourceThread, ZombieThread
from msrecd.flow.units import AudioBlock, AudioFormat, Kind

log = logging.getLogger(__name__)

_BLOCK_NS = 20 * MS
_NAP_NS = 2 * MS
_LONGEST_STEP_NS = 100 * MS
MUTED_AFTER_NS = 2 * NS
SILENCE_NS = 60 * NS
FAILED_AFTER_NS = 10 * NS
CLOSE_TIMEOUT_S = 2.0


class PcmGone(Exception):
    """The sound card is not there any more: somebody pulled the plug."""


class CapturePcm(Protocol):
    """An opened capture PCM; belongs to one thread after it was given to a source."""

    format: AudioFormat
    period_samples: int
    buffer_samples: int

    def is_overrun(self) -> bool:
        """Whether the card has stopped because nobody read in time."""

    def read(self) -> tuple[int, bytes]:
        """Samples per channel and their bytes; 0 when there are none yet; negative after an overrun. Never blocks.

        Raises:
            PcmGone: unplugged. NotReadableError: any other failure.
        """

    def timestamp(self) -> tuple[int, int]:
        """(ns of the last status, samples that were unread then); rubbish when the card has none. Never raises."""

    def close(self) -> None:
        """Free the device; never raises."""


class AlsaSource(Source):
    """A microphone; delivers blocks of 20 to 40 ms from the moment it is made until `close()` or its end."""

    kind: Kind = "audio"

    def __init__(
        self, pcm: CapturePcm, *, label: str, device_id: str = "", group_id: str = "", clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(label=label, device_id=device_id, group_id=group_id)
        self._pcm = pcm
        self._clock = clock
        self._feed: Feed[AudioBlock] = Feed()
        self._sample_clock = SampleClock(sample_rate=pcm.format.sample_rate, buffer_samples=pcm.buffer_samples)
        self._block_samples = pcm.format.sample_rate * _BLOCK_NS // NS
        self._pending: list[bytes] = []
        self._pending_samples = 0
        self._overrun = False
        self._silent_samples = 0  # that are all zero, up to now
        self._thread = SourceThread(f"alsa {label}", self._run, self._end)
        self._thread.start()

    @property
    def format(self) -> AudioFormat:
        return self._pcm.format

    @property
    def is_running(self) -> bool:
        """Whether the device is still held open. Any thread."""
        return self._thread.is_alive()

    @property
    def timestamp_fallbacks(self) -> int:
        """Blocks whose time is that of reading because the card gave none."""
        return self._sample_clock.fallbacks

    def raw(self) -> Feed[AudioBlock]:
        return self._feed

    def close(self) -> None:
        try:
            self._thread.stop(CLOSE_TIMEOUT_S)
        except ZombieThread:
            log.error("microphone %s: the driver does not let go; its thread is left behind", self.label)
            leave_behind(self._thread, self.label)
        self._feed.end()

    # Everything below runs in the thread.

    def _run(self, stop: threading.Event) -> None:
        error: NotReadableError | None = None
        try:
            self._capture(stop)
        except PcmGone:
            log.info("microphone %s was unplugged", self.label)
        except NotReadableError as exc:
            log.warning("microphone %s failed: %s", self.label, exc.message)
            error = exc
        finally:
            self._pcm.close()  # first: whoever hears of the end may open it again
        self._end(error)

    def _capture(self, stop: threading.Event) -> None:
        before_ns = self._clock.monotonic_ns()
        idle_ns = 0  # without a sample; a stop of the whole process counts for little
        while not stop.is_set():
            if self._pcm.is_overrun():  # pyalsaaudio 0.10 hides it: read() just starts the card again
                self._note_overrun()
            samples, data = self._pcm.read()
            now_ns = self._clock.monotonic_ns()
            idle_ns = 0 if samples > 0 else idle_ns + min(now_ns - before_ns, _LONGEST_STEP_NS)
            before_ns = now_ns
            if samples > 0:
                self._set_muted(False)
                wake_ns = self._take(samples, data)
            else:
                if samples < 0:
                    self._note_overrun()
                self._check_silence(idle_ns)
                wake_ns = now_ns + _NAP_NS
            self._clock.wait_until(wake_ns, stop)

    def _note_overrun(self) -> None:
        if not self._overrun:
            self._flush()
            self._overrun = True
            self.stats.xruns += 1

    def _check_silence(self, idle_ns: int) -> None:
        if idle_ns > FAILED_AFTER_NS:
            raise NotReadableError(f"{self.label} gave no samples for {FAILED_AFTER_NS // NS} s")
        if idle_ns > MUTED_AFTER_NS:
            self._set_muted(True)

    def _set_muted(self, muted: bool) -> None:
        if muted != self.muted:
            self.muted = muted
            if muted:
                log.warning("microphone %s gives no samples", self.label)
            self.on_muted(muted)

    def _take(self, samples: int, data: bytes) -> int:
        """Add what was read to the block under way; returns when to read again."""
        ts_ns, avail = self._pcm.timestamp()
        now_ns = self._clock.monotonic_ns()
        self._pending.append(data)
        self._pending_samples += samples
        self._last_status = (now_ns, ts_ns, avail)
        if self._pending_samples >= self._block_samples:
            self._flush()
        missing = self._block_samples - self._pending_samples - (avail if 0 <= avail <= self._pcm.buffer_samples else 0)
        if missing <= 0:
            return now_ns
        return now_ns + missing * NS // self.format.sample_rate + MS // 2

    def _flush(self) -> None:
        """Deliver the block under way."""
        if not self._pending_samples:
            return
        now_ns, ts_ns, avail = self._last_status
        stamp = self._sample_clock.stamp(
            now_ns=now_ns, ts_ns=ts_ns, avail=avail, samples=self._pending_samples, overrun=self._overrun
        )
        self._overrun = False
        if stamp.lost_before:
            self.stats.lost_samples += stamp.lost_before
        block = AudioBlock(
            pts_ns=stamp.pts_ns,
            format=self.format,
            samples=self._pending_samples,
            data=self._pending[0] if len(self._pending) == 1 else b"".join(self._pending),
            lost_before=stamp.lost_before,
        )
        self._watch_silence(block)
        self._pending.clear()
        self._pending_samples = 0
        self.stats.delivered += 1
        self._feed.put(block)

    def _watch_silence(self, block: AudioBlock) -> None:
        """Warn once of a microphone that gives nothing but zeros: a mixer that is closed, or a wire that is off.

        A quiet room is no digital silence: the lowest bits of every converter are noise.
        """
        if block.data.count(0) != len(block.data):
            if self._is_silent:
                log.info("microphone %s: there is sound again", self.label)
                self.on_silence(False)
            self._silent_samples = 0
            return
        limit = SILENCE_NS * self.format.sample_rate // NS
        was_silent = self._is_silent
        self._silent_samples = min(self._silent_samples + block.samples, limit)
        if self._is_silent and not was_silent:
            log.warning(
                "microphone %s gives digital silence for %d s: look at its mixer and its wires (docs/microphones.md)",
                self.label,
                SILENCE_NS // NS,
            )
            self.on_silence(True)

    @property
    def _is_silent(self) -> bool:
        return self._silent_samples >= SILENCE_NS * self.format.sample_rate // NS

    def _end(self, error: Exception | None) -> None:
        self._feed.end(error)
        if not self._thread.stopping.is_set():
            self.on_ended(error)
