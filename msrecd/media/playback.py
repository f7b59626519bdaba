"""Playing a file or a network stream as sources: a process that reads it, a thread, one Source per stream of it.

A file is paced in real time; a live stream comes at its own pace.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from msrecd import libav
from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.dom.exceptions import DOMException, NotFoundError, NotReadableError, NotSupportedError
from msrecd.errors import ConfigError
from msrecd.flow.source import SourceThread
from msrecd.inputs.address import DEFAULT_OPTIONS, Address, SourceOptions, parse
from msrecd.inputs.processes import ReaderError
from msrecd.inputs.reader import Reader
from msrecd.inputs.timeline import BATCH_NS, FileLine, LiveLine, Placed, StreamTimes
from msrecd.media.streamsource import StreamSource, usual_duration_ns
from msrecd.vocabulary.secrets import read_secret

log = logging.getLogger(__name__)

_CONNECTS_WITHIN_NS = 10 * NS  # the thread of a recorder that was started; a busy machine needs a second


@dataclass(slots=True)
class _Pause:
    """From when until when a file was paused. Times, not a state: the thread may come to a pause after its end."""

    begin_ns: int
    end_ns: int | None = None


class Playback:
    """Opens an input (blocking) and plays it in a thread. `on_end(error)` is called in that thread, once.

    A file has a regular end; the end of a live input is an error.
    """

    def __init__(
        self,
        location: str,
        options: SourceOptions = DEFAULT_OPTIONS,
        *,
        loop: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """
        Raises:
            NotFoundError: there is no such file.
            NotReadableError: it cannot be opened or is no media.
            NotSupportedError: no audio or video stream in it.
        """
        self.address = resolve(location, options)
        self.loop = loop
        self.clock = clock
        try:
            self._reader = Reader(self.address, options)
        except ReaderError as exc:
            raise NotReadableError(f"cannot open {self.address.shown}: {exc}") from None
        found = self._reader.description
        self.is_live = found.is_live
        self._times = found.times
        for reason in found.skipped:
            log.warning("%s: a stream is left out: %s", self.address.shown, reason)
        name = Path(urlsplit(self.address.shown).path).name or self.address.shown
        chosen: dict[str, StreamSource] = {}
        for info in found.streams:
            if info.kind not in chosen and (info.kind == "audio" or info.width):
                chosen[info.kind] = StreamSource(info, name, clock, self.leave, is_live=self.is_live)
                if info.index in found.absent:
                    chosen[info.kind].muted = True
                    log.warning(
                        "%s: its description names %s, but none has come; it is recorded from when it comes",
                        self.address.shown,
                        "sound" if info.kind == "audio" else "frames",
                    )
        if not chosen:
            self._reader.close()
            wanted = " or ".join(options.tracks) or "audio or video"
            why = f" ({'; '.join(found.skipped)})" if found.skipped else ""
            raise NotSupportedError(f"{self.address.shown} has no {wanted} stream that can be read{why}")
        if any(source.info.needs_hidden for source in chosen.values()):
            log.info(
                "%s: its edit list begins between two key frames; its frames are decoded and encoded again",
                self.address.shown,
            )
        self.sources = list(chosen.values())
        self._left: set[StreamSource] = set()
        self._playing = threading.Event()
        self._pauses: deque[_Pause] = deque()  # those that the thread has not come to yet
        self._thread: SourceThread | None = None
        self._lock = threading.Lock()
        self.on_end: Callable[[BaseException | None], None] = lambda _: None
        self._position_ns = 0

    @property
    def position_s(self) -> float:
        """Where the playback is, in seconds of the input."""
        return self._position_ns / NS

    def play(self) -> None:
        """Begin, or continue after `pause`."""
        if not self._playing.is_set() and self._pauses:
            self._pauses[-1].end_ns = self.clock.monotonic_ns()
        self._playing.set()
        with self._lock:
            if self._thread is None:
                self._thread = SourceThread(f"play-{self.sources[0].label}"[:40], self._run, self._fail)
                self._thread.start()

    def pause(self) -> None:
        """Deliver nothing that comes later until `play`; what a live input gives meanwhile is lost."""
        if self._playing.is_set():
            self._playing.clear()
            if not self.is_live:
                self._pauses.append(_Pause(self.clock.monotonic_ns()))

    def leave(self, source: StreamSource) -> None:
        """This source is wanted no more."""
        self._left.add(source)
        if len(self._left) == len(self.sources):
            self.close()

    def close(self) -> None:
        """End the thread and the reading process. Idempotent."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.stopping.set()
            self._playing.set()
        self._reader.close()
        for source in self.sources:
            source.end_decoding()
        if thread is not None:
            thread.stop(5.0)

    def _fail(self, exc: Exception) -> None:
        if self._thread is not None and self._thread.stopping.is_set():
            self._finish(None)
            return
        if isinstance(exc, ReaderError):
            error: DOMException = NotReadableError(f"{self.address.shown}: {exc}")
        elif isinstance(exc, DOMException):
            error = exc
        else:
            error = NotReadableError(f"{self.address.shown}: internal error")
            log.error("playing %s failed", self.address.shown, exc_info=exc)
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        self._reader.close()
        for source in self.sources:
            source.finish(error)
        self.on_end(error)

    def _run(self, stopping: threading.Event) -> None:
        self._by_index = {source.info.index: source for source in self.sources}
        streams = {
            source.info.index: StreamTimes(
                is_video=source.kind == "video",
                duration_ns=usual_duration_ns(source.info),
                reorder_depth=source.info.reorder_depth,
                is_read_late=source.info.comes_with_next,
            )
            for source in self.sources
        }
        self._wait_for_recorders(stopping)
        if self.is_live:
            self._play_live(streams, stopping)
        else:
            self._play_file(streams, stopping)

    def _wait_for_recorders(self, stopping: threading.Event) -> None:
        """Recorders that were started before the playback have the first frame, however late their threads begin."""
        deadline_ns = self.clock.monotonic_ns() + _CONNECTS_WITHIN_NS
        for source in self.sources:
            while not source.wait_for_announced(0.1):
                if stopping.is_set() or self.clock.monotonic_ns() > deadline_ns:
                    return

    def _play_live(self, streams: dict[int, StreamTimes], stopping: threading.Event) -> None:
        line = LiveLine(
            streams,
            shares_clock=self._times not in ("rtp", "rtp_aligned"),
            is_aligned=self._times == "rtp_aligned",
            trusts_dts=self._times == "container",
            on_arrival=self._times == "arrival",
        )
        first_ns: int | None = None
        for batch in self._reader.batches(list(streams)):
            if stopping.is_set():
                break
            if not batch:
                for source in self.sources:
                    source.interrupt()
                continue
            placed = line.place(batch, self.clock.monotonic_ns())
            for index, found in line.disbelieved().items():
                log.warning(
                    "%s: the clock of its %s cannot be right, it %s; from now on they have the times of their arrival",
                    self.address.shown,
                    "sound" if self._by_index[index].kind == "audio" else "frames",
                    found.reason,
                )
            if self._playing.is_set():
                for unit in placed:
                    self._by_index[unit.packet.stream].deliver(unit)
                if placed:
                    at_ns = placed[-1].packet.pts_ns or placed[-1].packet.dts_ns or 0
                    if self._times == "rtp_aligned":  # whose zero may lie anywhere
                        first_ns = at_ns if first_ns is None else first_ns
                        at_ns -= first_ns
                    self._position_ns = at_ns
                self._give_gathered()
            else:
                for source in self.sources:
                    source.interrupt(is_loss=False)
        self._finish(None if stopping.is_set() else NotReadableError(f"{self.address.shown} ended its stream"))

    def _play_file(self, streams: dict[int, StreamTimes], stopping: threading.Event) -> None:
        line = FileLine(streams, self.clock, trusts_dts=self._times == "container")
        while not stopping.is_set():
            for batch in self._reader.batches(list(streams)):
                if not self._play_batch(batch, line, stopping):
                    break
            else:
                if self.loop and not stopping.is_set():
                    self._reader.rewind()
                    line.continue_after_rewind()
                    continue
            break
        self._finish(None)

    def _play_batch(self, batch: list[libav.Demuxed], line: FileLine, stopping: threading.Event) -> bool:
        """Deliver each packet when it is due; False when stopped."""
        line.look_ahead(batch)
        for packet in batch:
            unit = self._wait_for(line.place(packet), line, stopping)
            if unit is None:
                return False
            self._deliver(unit)
        return True

    def _wait_for(self, unit: Placed, line: FileLine, stopping: threading.Event) -> Placed | None:
        """Wait until a packet is due, behind the pauses that began before it: with its new times; None when stopped."""
        while not stopping.is_set():
            if self._pauses and self._pauses[0].begin_ns <= unit.dts_ns:
                self._give_gathered()
                pause = self._pauses[0]
                if pause.end_ns is not None:
                    self._pauses.popleft()
                    unit = line.resume(unit, pause.begin_ns, pause.end_ns)
                else:
                    self._playing.wait(0.5)
            elif line.is_due_later(unit.dts_ns):
                self._give_gathered()
                self.clock.wait_until(unit.dts_ns + BATCH_NS, stopping)
            else:
                return unit
        return None

    def _deliver(self, unit: Placed) -> None:
        packet = unit.packet
        self._position_ns = packet.pts_ns or packet.dts_ns or 0
        self._by_index[packet.stream].deliver(unit)

    def _give_gathered(self) -> None:
        for source in self.sources:
            source.give_gathered()
        for source in self.sources:
            source.flush()


def resolve(location: str, options: SourceOptions = DEFAULT_OPTIONS) -> Address:
    """The address of an input; a file is looked for.

    Raises:
        NotFoundError: a local file that does not exist.
        NotReadableError: it is a folder; the password cannot be read.
        NotSupportedError: it cannot be an input: see `address.parse`.
    """
    try:
        password = None if options.password_file is None else read_secret(Path(options.password_file), "password_file")
    except ConfigError as exc:
        raise NotReadableError(str(exc)) from None
    try:
        address = parse(location, options.user, password)
    except ValueError as exc:
        raise NotSupportedError(str(exc)) from None
    if not address.is_file:
        return address
    path = Path(address.opened)
    if not address.opened or not path.exists():
        raise NotFoundError(f"there is no file {address.shown or 'without a name'}")
    if path.is_dir():
        raise NotReadableError(f"{address.shown} is a folder")
    # A path that looks like a protocol of libav's must not be taken for one.
    return replace(address, opened=str(path.absolute()))
