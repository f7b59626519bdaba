"""Playing a file or a network stream as sources: a process that reads it, a thread, one Source per stream of it.

Encoded units pass through untouched to those who want them as they are; they are decoded only while somebody wants raw
ones. A file is paced in real time; a live stream comes at its own pace.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msrecd import libav
from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.codecs import parameters
from msrecd.codecs.jpeg import jpeg_size
from msrecd.codecs.nal import PARAMETER_SETS, is_parameter_set, nal_units
from msrecd.codecs.opus import packet_samples
from msrecd.dom.exceptions import DOMException, NotFoundError, NotReadableError, NotSupportedError
from msrecd.errors import ConfigError
from msrecd.flow.encoded import EncodedFeed, EncodingRequest, Loss
from msrecd.flow.feed import Feed, Sink
from msrecd.flow.source import Source, SourceThread
from msrecd.flow.units import AudioFormat, Packet, VideoFormat
from msrecd.inputs.address import DEFAULT_OPTIONS, Address, SourceOptions, parse
from msrecd.inputs.processes import ReaderError
from msrecd.inputs.reader import Reader
from msrecd.inputs.timeline import BATCH_NS, FileLine, LiveLine, Placed, StreamTimes
from msrecd.media.lostframes import LostFrames
from msrecd.media.streamdecoding import KeyFrameDecoding, StreamDecoding
from msrecd.vocabulary.secrets import read_secret

log = logging.getLogger(__name__)

_CONNECTS_WITHIN_NS = 10 * NS  # the thread of a recorder that was started; a busy machine needs a second
_PASSES_THROUGH = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "aac", "opus", "flac"})


class _FramesSinceKey:
    """The packets of a video stream since its last key frame, for those that join. Belongs to the playback's thread."""

    _MOST, _MOST_BYTES = 1000, 16 << 20

    def __init__(self) -> None:
        self.frames: list[Packet] = []
        self._bytes = 0

    def add(self, packet: Packet) -> None:
        if packet.is_keyframe:
            self.frames, self._bytes = [], 0
        elif not self.frames:
            return  # there were too many, or there was no key frame
        self.frames.append(packet)
        self._bytes += len(packet.data)
        if len(self.frames) > self._MOST or self._bytes > self._MOST_BYTES:
            self.forget()

    def forget(self) -> None:
        self.frames, self._bytes = [], 0


def quickened(frames: Sequence[Packet], since_ns: int, until_ns: int) -> list[Packet]:
    """Frames of before, all within a short time: what refers to them can be decoded, and nothing becomes longer.

    Their order, of decoding and of presentation, stays.
    """
    step = (until_ns - since_ns) // (len(frames) + 5)  # the delay between decoding and presentation has to fit in too
    shown = sorted(frame.pts_ns for frame in frames)
    ranks = {pts: rank for rank, pts in enumerate(shown)}
    return [
        replace(
            frame,
            dts_ns=since_ns + number * step,
            pts_ns=since_ns + (max(ranks[frame.pts_ns], number - 4) + 4) * step,
            duration_ns=step,
        )
        for number, frame in enumerate(frames)
    ]


class _JoiningFeed(Feed[Packet]):
    """A feed whose new sinks have their first frame at once: those since the last key frame, quickened.

    So a recorder that begins between two key frames neither waits for the next one nor writes what cannot be decoded.
    """

    _JOINS_AFTER_NS = 20 * MS  # a recording begins a little later than it connects
    _EACH_NS = MS // 5

    def __init__(self, gop: _FramesSinceKey | None, clock: Clock) -> None:
        super().__init__()
        self._gop = gop
        self._clock = clock
        self.waiting: tuple[tuple[Sink[Packet], int], ...] = ()
        self._waiting_lock = threading.Lock()
        self.gives_batches = True

    @property
    def has_sinks(self) -> bool:
        return bool(self.waiting) or super().has_sinks

    def add(self, sink: Sink[Packet]) -> None:
        if self._gop is None or not self._gop.frames or self.ended:
            super().add(sink)
            return
        with self._waiting_lock:
            self.waiting = (*self.waiting, (sink, self._clock.monotonic_ns() + self._JOINS_AFTER_NS))

    def remove(self, sink: Sink[Packet]) -> None:
        with self._waiting_lock:
            self.waiting = tuple(one for one in self.waiting if one[0] is not sink)
        super().remove(sink)

    def put(self, unit: Packet) -> None:
        if self.waiting:
            self._let_in(unit)
        super().put(unit)

    def _let_in(self, unit: Packet) -> None:
        """Give those that wait what the unit refers to, once it lies behind the time at which they came."""
        frames = [] if unit.is_keyframe or self._gop is None else self._gop.frames
        needed_ns = len(frames) * self._EACH_NS + MS
        with self._waiting_lock:
            ready = [one for one in self.waiting if unit.dts_ns - one[1] >= needed_ns or not frames]
            self.waiting = tuple(one for one in self.waiting if one not in ready)
            for sink, since_ns in ready:
                for frame in quickened(frames, since_ns, unit.dts_ns):
                    sink.put(frame)
                super().add(sink)

    def end(self, error: BaseException | None = None) -> None:
        with self._waiting_lock:
            waiting, self.waiting = self.waiting, ()
        for sink, _ in waiting:
            super().add(sink)
        super().end(error)


class StreamSource(Source):
    """One audio or video stream of a Playback."""

    def __init__(self, info: libav.StreamInfo, playback: Playback, label: str) -> None:
        super().__init__(label=label)
        self.kind = info.kind
        self.has_past = playback.is_live  # what was sent while it was opened
        self.info = info
        self._playback = playback
        self._raw: Feed[Any] = Feed()
        self._format = _format_of(info)
        self._gop = _FramesSinceKey() if info.kind == "video" else None
        self.passing = EncodedFeed()
        self.passing.feed = self._joining = _JoiningFeed(self._gop, playback.clock)
        self.passing.set_parameters(parameters.of_input(info))
        self._passed: list[Packet] = []  # until nothing follows for a while
        self._is_decoding = False
        self._parameter_sets: tuple[bytes, ...] = ()
        self._jpeg_size: tuple[int, int] | None = None
        self._broken = True  # until the first key frame
        self._lost = LostFrames(_usual_duration_ns(info))
        self._keys = KeyFrameDecoding(info, label) if info.kind == "video" else None
        sound = self._format if isinstance(self._format, AudioFormat) else None
        self._decoding = StreamDecoding(info, label, self._raw, self.stats, sound, playback.clock)

    @property
    def format(self) -> VideoFormat | AudioFormat:
        return self._format

    def raw(self) -> Feed[Any]:
        return self._raw

    def key_frames(self) -> Feed[Any] | None:
        return None if self._keys is None else self._keys.feed

    def encoded(self, request: EncodingRequest) -> EncodedFeed | None:
        info = self.info
        if request.codec != info.codec or not self._passes_through:
            return None
        if info.kind == "video" and (request.width, request.height) not in ((0, 0), (info.width, info.height)):
            return None
        if request.frame_rate and info.frame_rate and request.frame_rate < info.frame_rate * 0.99:
            return None
        return self.passing

    @property
    def reorders(self) -> bool:
        return self.info.reorder_depth > 0

    def native_codec(self) -> str | None:
        return self.info.codec if self._passes_through else None

    @property
    def _passes_through(self) -> bool:
        """Whether its packets can be recorded as they are: no container that we write can hide frames in its middle."""
        return self.info.codec in _PASSES_THROUGH and not self.info.needs_hidden

    def close(self) -> None:
        """The playback goes on for its other streams; it ends with the last one."""
        self._playback.leave(self)

    # --- in the playback's thread ------------------------------------------------------------------------------------

    def deliver(self, unit: Placed) -> None:
        packet = unit.packet
        if self.muted:
            self.muted = False
            log.info("%s: its %s has come", self.label, "sound" if self.kind == "audio" else "first frame")
            self.on_muted(False)
        if packet.is_hidden:
            self._deliver_hidden(unit)
            return
        if self.kind == "video":
            if not self._follows(packet):
                self._refuse(unit)
                return
            missing, due_ns = self._lost.missing_before(unit.dts_ns)
            if missing:
                self._count_lost(due_ns, missing)
        if packet.is_keyframe and self._playback.is_live:
            self._check_description(packet.data)
        duration_ns = unit.duration_ns
        if self.info.codec == "opus" and not packet.duration_ns and (samples := packet_samples(packet.data)):
            duration_ns = samples * NS // 48_000
        passed = Packet(
            pts_ns=unit.pts_ns,
            dts_ns=unit.dts_ns,
            duration_ns=duration_ns,
            is_keyframe=packet.is_keyframe or self.kind == "audio",
            data=packet.data,
        )
        if self._joining.waiting:
            self._joining.put(passed)
        else:
            self._passed.append(passed)
        if self._raw.has_sinks:
            self._is_decoding = True
            self._decoding.take(passed, () if self._gop is None else self._gop.frames, packet.hidden_ns)
        elif self._is_decoding:
            self._is_decoding = False
            self._decoding.forget()  # nobody wants raw units any more
        if self._keys is not None:
            self._keys.take(passed)
        if self._gop is not None:
            self._gop.add(passed)
        self.stats.delivered += 1

    def _deliver_hidden(self, unit: Placed) -> None:
        """What an edit list hides: what follows may need it decoded; nobody sees it."""
        packet = unit.packet
        if self.kind == "video":
            self._broken = self._broken and not packet.is_keyframe
            if self._broken:
                return
        hidden = Packet(
            pts_ns=unit.pts_ns, dts_ns=unit.dts_ns, duration_ns=unit.duration_ns, is_keyframe=packet.is_keyframe,
            data=packet.data,
        )  # fmt: skip
        if self._raw.has_sinks:
            self._is_decoding = True
            self._decoding.take(hidden, () if self._gop is None else self._gop.frames, hidden_ns=NS)
        if self._gop is not None and self.info.needs_hidden:  # for a decoder that begins later
            self._gop.add(hidden)

    def _check_description(self, key_frame: bytes | memoryview) -> None:
        """
        Raises:
            ReaderError: the stream is not the one that was described any more (another size, another profile): whoever
                records it begins anew, with a header that is right.
        """
        if self.info.codec == "mjpeg":
            size = jpeg_size(key_frame)
            if size and self._jpeg_size and size != self._jpeg_size:
                raise ReaderError("its frames changed (size or coding)")
            self._jpeg_size = size or self._jpeg_size
        elif self.info.codec in PARAMETER_SETS:
            self._check_parameter_sets(key_frame)

    def _check_parameter_sets(self, key_frame: bytes | memoryview) -> None:
        units = nal_units(bytes(key_frame[:2048]))[:-1]  # the last one may be cut
        codec = self.info.codec
        found = [unit for unit in units if is_parameter_set(unit, codec) and not _is_pps(unit, codec)]
        sets = tuple(dict.fromkeys(found))  # a sender, or the network, may give one twice
        if sets and self._parameter_sets and sets != self._parameter_sets:
            raise ReaderError("its frames changed (size or coding)")
        self._parameter_sets = sets or self._parameter_sets

    def _refuse(self, unit: Placed) -> None:
        if self._lost.has_begun:
            self._count_lost(unit.dts_ns, 1)
        else:
            self.stats.dropped += 1
        self._lost.refuse()

    def _count_lost(self, at_ns: int, frames: int) -> None:
        """For those who want raw frames, and for those who record them as they come."""
        self.stats.dropped += frames
        self.passing.facts.losses.add(Loss(at_ns, frames=frames))

    def interrupt(self, *, is_loss: bool = True) -> None:
        """Something was left out here: nothing follows until the next key frame."""
        self._broken = True
        self._lost.interrupt(is_loss=is_loss)
        if self._gop is not None:
            self._gop.forget()
        self._decoding.forget()

    def _follows(self, packet: libav.Demuxed) -> bool:
        """Whether a frame can be decoded: not behind one that is missing or damaged, up to the next key frame."""
        if packet.is_damaged:
            self.interrupt()
        elif packet.is_keyframe:
            self._broken = False
        return not self._broken

    def give_gathered(self) -> None:
        """Nothing follows for a while."""
        self._decoding.give()
        self._pass_on()
        self._joining.flush()

    def _pass_on(self) -> None:
        """What was gathered goes out in one go."""
        if self._passed:
            passed, self._passed = self._passed, []
            self._joining.put_all(passed)

    def finish(self, error: BaseException | None) -> None:
        """The input has ended."""
        try:
            if self._raw.has_sinks and error is None:
                self._decoding.finish()
        except ReaderError as exc:
            log.debug("%s: its last frames are lost: %s", self.label, exc)
        self._decoding.forget()
        self._pass_on()
        self.passing.feed.end(error)
        self._raw.end(error)
        if self._keys is not None:
            self._keys.close()
            self._keys.feed.end(error)

    def end_decoding(self) -> None:
        """What waits for the decoding process comes back. Any thread."""
        self._decoding.close()


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
                chosen[info.kind] = StreamSource(info, self, name)
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
                duration_ns=_usual_duration_ns(source.info),
                reorder_depth=source.info.reorder_depth,
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


def _is_pps(unit: bytes, codec: str) -> bool:
    """A picture parameter set, which a sender may change at any time."""
    return unit[0] & 0x1F == 8 if codec == "h264" else unit[0] >> 1 & 0x3F == 34


def _format_of(info: libav.StreamInfo) -> VideoFormat | AudioFormat:
    if info.kind == "audio":
        return AudioFormat(
            sample_rate=info.sample_rate,
            channels=info.channels,
            sample_format="s32" if info.bits > 16 else "s16",
            layout=info.layout,
            bits=info.bits if info.bits > 16 else 0,
        )
    return VideoFormat(width=info.width, height=info.height, frame_rate=info.frame_rate, presentation=info.presentation)


def _usual_duration_ns(info: libav.StreamInfo) -> int:
    """Of a packet that does not tell."""
    if info.kind == "video":
        return round(NS / (info.frame_rate or 25.0))
    return round((info.frame_samples or 1024) * NS / (info.sample_rate or 48000))


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
