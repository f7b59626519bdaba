"""VideoEncoding: raw frames in, packets out, in a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping

from msrecd import libav
from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.codecs import parameters
from msrecd.codecs.encoding import Encoding
from msrecd.codecs.lapsegate import LapseGate
from msrecd.flow.encoded import EncodingRequest, Loss, StreamParameters
from msrecd.flow.feed import Feed
from msrecd.flow.keyframes import KeyFrameRequests
from msrecd.flow.overlay import drawn
from msrecd.flow.queue import UnitQueue
from msrecd.flow.shape import reshaped
from msrecd.flow.units import UPRIGHT, Packet, Presentation, VideoFrame

DEFAULT_KEY_FRAME_INTERVAL_NS = 2 * NS
# A frame that nothing follows is shown again after this long: what is seen is what is recorded, also of a source
# that delivers only changes (a canvas).
REPEAT_AFTER_NS = 200_000_000
_MAX_FRAMES = 64  # two seconds of small frames; of large ones what the bytes allow
_MAX_BYTES = 48 << 20

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "h264": {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1", "x264-params": "scenecut=0"},
    # Only the black of a disabled track that passes through is encoded so.
    "hevc": {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1", "x265-params": "log-level=error:pools=1"},
    "vp8": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "1"},
    "vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "row-mt": "1"},
    # Low delay, which SVT-AV1 has with a constant bit rate only (rc=2). scm=0: no camera's frame is a screen's; where
    # that of Debian 13 takes one for it, small parts that changed stay as they were. rtc=1: SVT-AV1's real-time mode;
    # without it the threads of version 4.1 wait for each other for good on a busy machine, in one of 40 runs. Versions
    # that do not know it warn, and go on.
    "av1": {"preset": "11", "svtav1-params": "pred-struct=1:lookahead=0:rc=2:scm=0:rtc=1"},
    "mjpeg": {"qmin": "3", "qmax": "6"},
}
_LARGE_VP8 = 640 * 480
_EVEN_ONLY = frozenset({"h264", "hevc", "av1"})  # libx264, libx265, and the SVT-AV1 of Debian 13
# What encoders refuse to be less than, in both directions, and the largest rate; measured by
# tests/codecs/test_encoder_edges.py. The times of frames are their own: a rate tells an encoder only what to expect.
_LEAST: Mapping[str, int] = {"h264": 2, "hevc": 16, "av1": 64}
_MOST_RATE: Mapping[str, float] = {"av1": 240.0}
_LEAST_RATE = 1 / 3600  # of any: libvpx refuses one frame a day


class Decimator:
    """Which frames of a faster source a slower track keeps (https://w3c.github.io/mediacapture-main/: decimation)."""

    def __init__(self, frame_rate: float | None) -> None:
        self._period = NS / frame_rate if frame_rate else 0.0
        self._due: float | None = None

    def keep(self, pts_ns: int) -> bool:
        """Whether the frame at `pts_ns` is delivered; times must rise."""
        if not self._period:
            return True
        if self._due is None or pts_ns >= self._due + 4 * self._period:
            self._due = float(pts_ns)
        if pts_ns < self._due - self._period * 0.25:
            return False
        self._due += self._period
        return True


class KeyFrames:
    """Decides which frames become key frames; `ask` from any thread, `due` from the encoder's."""

    def __init__(self, interval_ns: int, interval_count: int) -> None:
        self._interval_ns = interval_ns or (0 if interval_count else DEFAULT_KEY_FRAME_INTERVAL_NS)
        self._interval_count = interval_count
        self._asked = KeyFrameRequests()
        self._last_ns: int | None = None
        self._since = 0

    def ask(self, at_ns: int) -> None:
        self._asked.ask(at_ns)

    def due(self, pts_ns: int, captured_ns: int | None = None) -> bool:
        """Whether the frame at `pts_ns` is to be a key frame; counts it as given.

        Args:
            captured_ns: its time of capture, by which key frames are asked for; None: the same.
        """
        asked = self._asked.take(pts_ns if captured_ns is None else captured_ns)
        self._since += 1
        key = (
            asked
            or self._last_ns is None
            or (self._interval_ns > 0 and pts_ns - self._last_ns >= self._interval_ns)
            or (self._interval_count > 0 and self._since > self._interval_count)
        )
        if key:
            self._last_ns = pts_ns
            self._since = 1
        return key


class VideoEncoding(Encoding[VideoFrame]):
    """Frames of a raw feed for one request; shows the last one again when none follows and the source has no rate."""

    def __init__(
        self,
        source: Feed[VideoFrame],
        request: EncodingRequest,
        *,
        name: str,
        presentation: Presentation = UPRIGHT,
        repeats: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ):
        self._request = request
        self._presentation = presentation
        self._clock = clock
        self._keys = KeyFrames(request.key_frame_interval_ns, request.key_frame_interval_count)
        self._lapse = request.time_lapse
        self._gate = None if self._lapse is None else LapseGate(self._lapse.interval_ns, request.frame_rate)
        self._captured: dict[int, int] = {}  # of a time-lapse: by the time at which a frame is played
        self._lapsed = 0  # frames of it
        self._repeats = request.frame_rate is None and repeats and self._lapse is None
        self._decimator = Decimator(request.frame_rate)
        self._last: VideoFrame | None = None
        self._last_ns = -1
        self._shown_ns = -1  # time of the last frame that was none shown again
        super().__init__(
            source,
            UnitQueue(max_units=_MAX_FRAMES, max_bytes=_MAX_BYTES, size=lambda frame: len(frame.data)),
            name=name,
            wait_s=REPEAT_AFTER_NS / NS if self._repeats else 0.5,
            key_frame_at=self._keys.ask,
        )

    def put(self, unit: VideoFrame) -> None:
        """As Encoding's; of a time-lapse only what is kept wakes the encoder's thread."""
        if self._gate is None or self._gate.keep(unit.pts_ns):
            super().put(unit)

    @property
    def _frame_rate(self) -> float | None:
        """Of what the encoder is given."""
        return self._request.frame_rate if self._lapse is None else self._lapse.frame_rate

    def _open(self) -> StreamParameters:
        request = self._request
        width, height = encoded_size(request.codec, request.width, request.height)
        self._encoder = libav.VideoEncoder(
            codec=request.codec,
            width=width,
            height=height,
            frame_rate=encoded_rate(request.codec, self._frame_rate or 30.0),
            bit_rate=request.bit_rate,
            constant_bit_rate=request.bitrate_mode == "constant",
            options=OPTIONS.get(request.codec),
            threads=threads_for(request.codec, width, height),
            presentation=self._presentation,
        )
        return parameters.of_video_encoder(self._encoder, self._frame_rate)

    def _take(self, units: list[VideoFrame]) -> None:
        for frame in units:
            pts_ns = frame.pts_ns
            if pts_ns <= self._last_ns and self._lapse is None:
                if pts_ns <= min(self._shown_ns, self._last_ns - REPEAT_AFTER_NS):  # of a clock that went back
                    self.output.facts.losses.add(Loss(pts_ns, frames=1))
                    continue
                pts_ns = self._last_ns + MS  # another frame has its time, or the one before was shown again in it
            if pts_ns > self._last_ns and (self._lapse is not None or self._decimator.keep(pts_ns)):
                self._shown_ns = frame.pts_ns
                self._encode(frame, pts_ns)

    def _idle(self) -> None:
        if self._repeats and self._last is not None:
            now = self._clock.monotonic_ns()
            if now - self._last_ns >= REPEAT_AFTER_NS:
                self._encode(self._last, now)

    def _encode(self, frame: VideoFrame, pts_ns: int) -> None:
        self._last, self._last_ns = frame, pts_ns
        encoder = self._encoder
        if self._request.overlay is not None:
            frame = drawn(frame, self._request.overlay)
        shaped = reshaped(frame, (encoder.width, encoder.height), crops=self._request.crops)
        encoded = libav.picture(shaped.format, shaped.data)
        played_ns = pts_ns if self._lapse is None else self._lapse.playing_ns(self._lapsed)
        if self._lapse is not None:
            self._lapsed += 1
            self._captured[played_ns] = pts_ns
        self._deliver(encoder.encode(encoded, played_ns, key_frame=self._keys.due(played_ns, pts_ns)))

    def _finish(self) -> None:
        self._deliver(self._encoder.flush())

    def _close(self) -> None:
        self._encoder.close()

    def _deliver(self, packets: list[libav.Encoded]) -> None:
        duration = round(NS / self._request.frame_rate) if self._request.frame_rate else REPEAT_AFTER_NS
        if self._lapse is not None:
            duration = self._lapse.interval_ns
        for packet in packets:
            captured_ns = self._captured.pop(packet.pts, packet.pts)
            self.output.feed.put(
                Packet(
                    pts_ns=captured_ns,
                    dts_ns=captured_ns + packet.dts - packet.pts,
                    duration_ns=duration,
                    is_keyframe=packet.is_keyframe,
                    data=packet.data,
                )
            )


def threads_for(codec: str, width: int, height: int) -> int:
    """How many threads an encoder gets; 0: what libav and the machine have.

    libvpx's threads for VP8 wait for each other by spinning. On a busy machine a frame of 160x96 takes 5 to 13 ms of
    CPU with two of them and 0.6 ms with one.
    """
    return 1 if codec == "vp8" and width * height < _LARGE_VP8 else 0


def encoded_size(codec: str, width: int, height: int) -> tuple[int, int]:
    """The size that a codec's encoder takes for a frame: some take even ones only, some none that are tiny.

    A frame that is smaller is scaled up, with black beside it where its shape differs.
    """
    if codec in _EVEN_ONLY:
        width, height = width & ~1, height & ~1
    least = _LEAST.get(codec, 1)
    return max(least, width), max(least, height)


def encoded_rate(codec: str, frame_rate: float) -> float:
    """The frame rate that a codec's encoder is told."""
    return max(_LEAST_RATE, min(_MOST_RATE.get(codec, frame_rate), frame_rate))
