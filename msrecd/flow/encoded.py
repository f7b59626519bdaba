"""Encoded feeds: what a recorder asks for and what it gets, wherever it is encoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from msrecd.flow.feed import Feed
from msrecd.flow.units import UPRIGHT, Kind, Packet, Presentation
from msrecd.vocabulary.lapse import TimeLapse


class EncodingError(Exception):
    """The encoder did not open, or failed while the source was well; the message is the encoder's."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Text that is drawn into each frame before it is encoded.

    text: the line for a frame that was captured at this time (ns, CLOCK_MONOTONIC); called in the encoder's thread,
    which may be the camera's.
    """

    text: Callable[[int], str]
    position: Literal["top-left", "top-right", "bottom-left", "bottom-right"] = "bottom-left"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingRequest:
    """One encoding; equal requests on one source are served by one encoder.

    codec: libav's codec name ("h264", "vp9", "aac", "opus", "flac", "pcm_s16le", …).
    width, height, frame_rate: what the track's settings say (0 / None: as the source gives it); video only.
    crops: frames of another shape than that are cropped around the middle, else fitted in with black beside them.
    overlay: what is drawn into the frames; only a source that `draws_overlays` encodes them itself then.
    time_lapse: only some frames are encoded, as if they came at its `frame_rate`; packets have the time of capture and
    last for an interval. The source's own encoder is not used either.
    key_frame_interval_ns: longest distance of key frames; key_frame_interval_count: the same in frames (0: not asked).
    bit_rate: bits a second, a hint. With a time-lapse both are of the time that it is played in.
    """

    kind: Kind
    codec: str
    bit_rate: int = 0
    bitrate_mode: Literal["constant", "variable"] = "variable"
    width: int = 0
    height: int = 0
    frame_rate: float | None = None
    crops: bool = False
    key_frame_interval_ns: int = 0
    key_frame_interval_count: int = 0
    sample_rate: int = 0
    channels: int = 0
    overlay: Overlay | None = None
    time_lapse: TimeLapse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParameters:
    """What a container must know of a stream before its first packet.

    extradata: out-of-band codec headers in the codec's own form (H.264: Annex B SPS+PPS or avcC; Opus: OpusHead; …).
    header: a small container file (Matroska or MP4) that holds this stream's description and no media: what a muxer
    takes its stream description from.
    codec_string: RFC 6381, "avc1.640028".
    presentation: what the container is to say of how frames are shown.
    layout, bits: see AudioFormat; "" and 0 where they are not known.
    encoder: who encodes, for people: "passthrough", "libx264", "v4l2", …
    """

    kind: Kind
    codec: str
    header: bytes
    codec_string: str
    extradata: bytes = b""
    width: int = 0
    height: int = 0
    frame_rate: float | None = None
    presentation: Presentation = UPRIGHT
    sample_rate: int = 0
    channels: int = 0
    layout: str = ""
    bits: int = 0
    frame_samples: int = 0
    encoder: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """Media that an encoding lacks: frames of video, or a length of sound; at_ns is its beginning (CLOCK_MONOTONIC)."""

    at_ns: int
    frames: int = 0
    duration_ns: int = 0


class LossLog:
    """The losses of one encoding, in order. One thread adds, any number of `LossReader`s read."""

    LIMIT = 4096  # a reader that is further behind misses the oldest: seconds of nothing but losses

    def __init__(self) -> None:
        self._losses: deque[tuple[int, Loss]] = deque(maxlen=self.LIMIT)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, loss: Loss) -> None:
        with self._lock:
            self._count += 1
            self._losses.append((self._count, loss))

    def behind(self, number: int) -> list[tuple[int, Loss]]:
        """The losses after the one with this number (0: all), with their numbers."""
        if self._count == number:
            return []  # nearly always
        with self._lock:
            return [known for known in self._losses if known[0] > number]

    @property
    def count(self) -> int:
        return self._count


class LossReader:
    """Reads a LossLog: first what it still has of before, whose places in time say whom it concerns."""

    def __init__(self, log: LossLog) -> None:
        self._log = log
        self._number = 0

    def take(self) -> list[Loss]:
        """What was added since the last call."""
        losses = self._log.behind(self._number)
        if losses:
            self._number = losses[-1][0]
        return [loss for _, loss in losses]


@dataclass(slots=True)
class EncodingFacts:
    """What is known of one encoding; written by the producing thread, read by anybody.

    dropped: frames that a device's own encoder lost, and pieces of sound that came twice, in all;
    gap_samples: sound that was lost, in all; losses: the same and lost frames, with their places in time;
    drift_ppm: rate of the sound card against the monotonic clock; offset_ms: what is not corrected of it at present.
    """

    dropped: int = 0
    gap_samples: int = 0
    losses: LossLog = field(default_factory=LossLog)
    drift_ppm: float = 0.0
    offset_ms: float = 0.0


class EncodedFeed:
    """A feed of packets with its parameters, which may become known only with the first packet.

    The producer calls `set_parameters` once, before the first packet. `add`/`remove` as with Feed.
    """

    def __init__(
        self,
        *,
        on_demand: Callable[[bool], None] | None = None,
        request_key_frame: Callable[[], None] | None = None,
        key_frame_at: Callable[[int], None] | None = None,
        coming_ns: Callable[[], int | None] | None = None,
        hurry: Callable[[int], None] | None = None,
    ) -> None:
        """
        Args:
            on_demand: see Feed.
            request_key_frame: makes the next frame a key frame.
            key_frame_at: makes the first frame at or after a monotonic time (ns) a key frame; the better of the two.
            coming_ns: capture time of the oldest unit that is on its way through the encoder; None when none is.
            hurry: a consumer waits for what was captured up to this time: no batches until it is delivered.
        """
        self.feed: Feed[Packet] = Feed(on_demand)
        self.facts = EncodingFacts()
        self._key_frame_at = key_frame_at
        self._parameters: StreamParameters | None = None
        self._request_key_frame = request_key_frame
        self._coming_ns = coming_ns
        self._hurry = hurry
        self._waiting: list[Callable[[StreamParameters], None]] = []
        self._lock = threading.Lock()

    @property
    def parameters(self) -> StreamParameters | None:
        return self._parameters

    @property
    def can_force_key_frames(self) -> bool:
        return self._request_key_frame is not None or self._key_frame_at is not None

    @property
    def can_time_key_frames(self) -> bool:
        return self._key_frame_at is not None

    def set_parameters(self, parameters: StreamParameters) -> None:
        with self._lock:
            self._parameters = parameters
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            call(parameters)

    def when_parameters(self, call: Callable[[StreamParameters], None]) -> None:
        """Call `call(parameters)` once they are known: at once in this thread, or later in the producer's."""
        with self._lock:
            if self._parameters is None:
                self._waiting.append(call)
                return
        call(self._parameters)

    def request_key_frame(self, at_ns: int = 0) -> None:
        """Ask for a key frame at the first frame at or after `at_ns` (0: as soon as can be).

        A source that cannot time it takes the next frame; one that cannot force any ignores it.
        """
        if self._key_frame_at is not None:
            self._key_frame_at(at_ns)
        elif self._request_key_frame is not None:
            self._request_key_frame()

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder of ours makes the packets: then what takes long is this machine, not the source."""
        return self._coming_ns is not None

    def coming_ns(self) -> int | None:
        """Capture time of the oldest unit that the encoder has and whose packet has not come; None when there is none.

        Any thread. A feed without an encoder has none: what its source gives is here at once.
        """
        return None if self._coming_ns is None else self._coming_ns()

    def hurry(self, until_ns: int) -> None:
        """A consumer waits for what was captured up to `until_ns`; an encoder that works in batches goes without."""
        if self._hurry is not None:
            self._hurry(until_ns)
