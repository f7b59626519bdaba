"""ViewWorker: one muxing for all viewers of a stream, beside whatever records it.

It takes the encodings that recorders use where they fit, and makes a fragment of each frame. Nothing here can hold up a
recording: what the worker or a viewer does not take in time is dropped up to the next key frame, and all viewers go
when an encoder of this process falls behind, before it loses a frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.codecs import hub
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.queue import UnitQueue
from msrecd.flow.shutdown import end_with_process
from msrecd.flow.units import Packet
from msrecd.libav import LibavError
from msrecd.muxing.fmp4 import Fragment, FragmentWriter
from msrecd.muxing.input import Arrival, TrackInput

log = logging.getLogger(__name__)

VIEWER_LIMIT_NS = 2 * NS
VIEWER_LIMIT_BYTES = 8 << 20
PARAMETERS_DEADLINE_NS = 5 * NS
SOUND_FRAGMENT_NS = 60 * MS
BUSY_FULLNESS = 0.5
_MAX_PACKETS = 1200
_MAX_BYTES = 16 << 20
_CHECK_NS = 100 * MS  # also how late sound may be: encoders work on a quarter of a second at a time unless asked
_KEY_FRAME_NS = 500 * MS  # between two requests


class Viewer:
    """What one viewer has not read yet. `offer` and `end` from the worker, `read` on the viewer's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._fragments: deque[Fragment] = deque()
        self._bytes = 0
        self._header: bytes | None = None
        self._needs_key = True
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False
        self.error: Exception | None = None
        self.dropped = 0

    def begin(self, header: bytes) -> None:
        """What comes first."""
        with self._lock:
            self._header = header
        self._wake()

    def offer(self, fragment: Fragment) -> bool:
        """Queue a fragment, and say whether the viewer has to be woken for it.

        A viewer that is too far behind loses all up to the next key frame.
        """
        with self._lock:
            if self._fragments and (
                fragment.at_ns - self._fragments[0].at_ns > VIEWER_LIMIT_NS or self._bytes > VIEWER_LIMIT_BYTES
            ):
                self.dropped += len(self._fragments)
                self._fragments.clear()
                self._bytes = 0
                self._needs_key = True
            if self._needs_key and not fragment.is_key:
                self.dropped += 1
                return False
            self._needs_key = False
            self._fragments.append(fragment)
            self._bytes += len(fragment.data)
            return self._waiting is not None

    def end(self, error: Exception | None) -> None:
        """Nothing follows."""
        with self._lock:
            if not self._ended:
                self._ended, self.error = True, error
        self._wake()

    async def read(self) -> bytes | None:
        """The next piece; None at the end."""
        while True:
            with self._lock:
                if self._header is not None:
                    header, self._header = self._header, None
                    return header
                if self._fragments:
                    fragment = self._fragments.popleft()
                    self._bytes -= len(fragment.data)
                    return fragment.data
                if self._ended:
                    return None
                waiting = self._waiting = self.loop.create_future()
            try:
                await waiting
            finally:
                self._waiting = None

    def _wake(self) -> None:
        wake([self])

    def resume(self) -> None:
        """On its loop."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def wake(viewers: Sequence[Viewer]) -> None:
    """Wake viewers, each loop once: that costs more than what there is to do for one of them. Any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Viewer]] = {}
    for viewer in viewers:
        by_loop.setdefault(viewer.loop, []).append(viewer)
    for loop, its in by_loop.items():
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(_resume, its)


def _resume(viewers: Sequence[Viewer]) -> None:
    for viewer in viewers:
        viewer.resume()


class ViewWorker(threading.Thread):
    """Runs from its first viewer to its last one. `add`, `remove` and `gate_changed` from any thread."""

    def __init__(
        self,
        inputs: Sequence[TrackInput],
        *,
        on_end: Callable[[Exception | None], None],
        busy: Callable[[], Exception],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """
        Args:
            inputs: at most one of each kind; that of frames first.
            on_end: called in the worker's thread when it ends by itself.
            busy: makes the error of viewers that are dropped because the machine has no time for them.
        """
        super().__init__(name="view", daemon=True)
        end_with_process(self, lambda worker: worker.stop())
        self._inputs = list(inputs)
        self._on_end = on_end
        self._busy = busy
        self._clock = clock
        self._queue: UnitQueue[Arrival] = UnitQueue(
            max_units=_MAX_PACKETS,
            max_bytes=_MAX_BYTES,
            size=lambda arrival: 0 if arrival.packet is None else len(arrival.packet.data),
        )
        self._gates: deque[tuple[int, bool]] = deque()
        self._viewers: tuple[Viewer, ...] = ()
        self._lock = threading.Lock()
        self._stopping = False
        self._writer: FragmentWriter | None = None
        self._streams: list[int] = []  # of the inputs that are shown, in the order of the file
        self._pending: list[tuple[int, Packet]] = []
        self._has_key = False
        self._wants_key = False
        self._asked_ns = 0
        self._losses = 0
        self.parameters: tuple[StreamParameters, ...] = ()

    def add(self, viewer: Viewer) -> bool:
        """Show it to one more; False when it has ended."""
        with self._lock:
            if self._stopping:
                return False
            self._viewers = (*self._viewers, viewer)
            if self._writer is not None:
                viewer.begin(self._writer.header)
            self._wants_key = True
        return True

    def remove(self, viewer: Viewer) -> None:
        """The last one ends it."""
        with self._lock:
            self._viewers = tuple(known for known in self._viewers if known is not viewer)
            if self._viewers:
                return
            self._stopping = True
        self._queue.nudge()

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    def stop(self) -> None:
        self._stopping = True
        self._queue.nudge()

    def gate_changed(self, track: int, is_open: bool) -> None:
        """A track was muted or disabled, or is not any more."""
        self._gates.append((track, is_open))
        self._queue.nudge()

    # --- the thread --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        error: Exception | None = None
        try:
            try:
                for track in self._inputs:
                    track.connect(self._queue.offer, self._queue.nudge)
                self._show()
            finally:
                for track in self._inputs:
                    track.disconnect()
        except Exception as exc:
            error = exc
            if not isinstance(exc, LibavError) and exc.__class__.__module__.partition(".")[0] != "msrecd":
                log.exception("internal error, a view stopped")
        with self._lock:
            self._stopping = True
            viewers, self._viewers = self._viewers, ()
        self._on_end(error)
        for viewer in viewers:
            viewer.end(error)

    def _show(self) -> None:
        for track in self._inputs:
            if not track.gate.is_open:
                self._gates.append((track.track, False))
        early: list[Arrival] = []
        deadline_ns = self._clock.monotonic_ns() + PARAMETERS_DEADLINE_NS
        next_check_ns = 0
        while not self._stopping:
            arrivals = self._queue.take(0.1)
            now_ns = self._clock.monotonic_ns()
            if self._writer is None:
                early += arrivals
                if not self._can_begin(early, now_ns > deadline_ns):
                    early = early[-_MAX_PACKETS:]
                    continue
                self._begin()
                arrivals, early = early, []
            self._take(arrivals, now_ns)
            if now_ns >= next_check_ns:
                next_check_ns = now_ns + _CHECK_NS
                self._give_way()
                for track in self._inputs:
                    track.hurry(now_ns)
            if all(track.ended for track in self._inputs):
                self._flush()
                return

    def _can_begin(self, arrivals: Sequence[Arrival], is_late: bool) -> bool:
        """
        Raises:
            BaseException: what the only encoding failed with.
        """
        for arrival in arrivals:
            if arrival.packet is None and not arrival.blank:
                track = self._inputs[arrival.track]
                track.ended, track.error = True, arrival.error
        known = [track for track in self._inputs if track.parameters is not None]
        missing = [track for track in self._inputs if track.parameters is None]
        if missing and not known and all(track.ended for track in missing):
            raise missing[0].error or self._busy()
        return bool(known) and (is_late or all(track.ended for track in missing))

    def _begin(self) -> None:
        shown = [track for track in self._inputs if track.parameters is not None]
        parameters = tuple(track.parameters for track in shown if track.parameters is not None)
        writer = FragmentWriter(parameters)
        self._streams = [shown.index(track) if track in shown else -1 for track in self._inputs]
        self._has_key = parameters[0].kind == "audio"
        self._losses = self._lost()
        with self._lock:
            self._writer, self.parameters = writer, parameters
            for viewer in self._viewers:
                viewer.begin(writer.header)

    def _take(self, arrivals: Sequence[Arrival], now_ns: int) -> None:
        while self._gates:
            number, is_open = self._gates.popleft()
            self._inputs[number].set_gate(is_open, now_ns)
        if self._wants_key and now_ns - self._asked_ns > _KEY_FRAME_NS:
            self._wants_key, self._asked_ns = False, now_ns
            self._inputs[0].request_key_frame()
        for arrival in arrivals:
            track = self._inputs[arrival.track]
            if arrival.packet is None:
                track.ended, track.error = track.ended or not arrival.blank, arrival.error
            self._mux(arrival.track, track.accept(arrival))
        for track in self._inputs:
            self._mux(track.track, track.fill(now_ns))

    def _mux(self, number: int, packets: Sequence[Packet]) -> None:
        stream = self._streams[number]
        if stream < 0:
            return
        is_video = self._inputs[number].kind == "video"
        for packet in packets:
            if not self._has_key:
                if not is_video or not packet.is_keyframe:
                    continue
                self._has_key = True
            self._pending.append((stream, packet))
            first_ns = self._pending[0][1].dts_ns
            if is_video or packet.dts_ns - first_ns >= SOUND_FRAGMENT_NS:
                self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if self._writer is None or not pending:
            return
        fragment = self._writer.write(sorted(pending, key=lambda entry: entry[0]))
        if fragment is not None:
            wake([viewer for viewer in self._viewers if viewer.offer(fragment)])

    def _give_way(self) -> None:
        """Let all viewers go when an encoder is about to lose something, or one that others share has.

        Raises:
            Exception: made by `busy`.
        """
        lost = self._lost()
        if lost != self._losses or hub.fullness() > BUSY_FULLNESS:
            log.warning("dropping all viewers: the encoders of this device are late")
            raise self._busy()

    def _lost(self) -> int:
        return sum(track.output.facts.losses.count for track in self._inputs if track.kind == "video")
