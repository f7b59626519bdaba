"""Source: one opened device, canvas or file; what a MediaStreamTrack is a handle of.

A source lives in threads of its own. It sends facts: units through its feeds, the end and muting by two callbacks.
Decisions (which state a track is in, when the source is closed) are taken on the event loop by those who hold it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msrecd.dom.exceptions import NotReadableError, NotSupportedError
from msrecd.flow.feed import Feed
from msrecd.flow.shutdown import end_with_process
from msrecd.flow.units import AudioBlock, AudioFormat, Kind, VideoFormat, VideoFrame

if TYPE_CHECKING:
    from msrecd.flow.encoded import EncodedFeed, EncodingRequest


@dataclass(slots=True)
class SourceStats:
    """What a source knows of its own losses; read by anybody, written by the source's thread."""

    delivered: int = 0
    dropped: int = 0
    xruns: int = 0
    lost_samples: int = 0


@dataclass(frozen=True, slots=True)
class RawStill:
    """A still, and what the sensor gave for it, as a DNG."""

    frame: VideoFrame
    dng: bytes


class Source(ABC):
    """Base of all sources; a subclass provides `kind`, the format, and starts delivering when its feed is wanted.

    `on_ended(error)` is called once, from any thread, when the source stops for good by itself (unplugged, end of file:
    error None; failure: the error). `on_muted(muted)` when it temporarily has nothing to give, or has again.
    `on_restarted(silent_s)` when it gave nothing for so many seconds that it starts its device anew by itself.
    `on_silence(is_silent)` when a microphone has given nothing but zeros for a minute, or gives sound again.
    """

    kind: Kind
    draws_overlays = False  # whether `encoded` draws what a request wants drawn
    has_past = (
        False  # what it gives first may have been captured before it was asked to begin, and is wanted all the same
    )
    is_file = False  # what it gives first is where a file begins

    def __init__(self, *, label: str, device_id: str = "", group_id: str = "") -> None:
        self.label = label
        self.device_id = device_id
        self.group_id = group_id
        self.stats = SourceStats()
        self.muted = False
        self.on_ended: Callable[[BaseException | None], None] = _ignore
        self.on_muted: Callable[[bool], None] = _ignore
        self.on_restarted: Callable[[float], None] = _ignore
        self.on_silence: Callable[[bool], None] = _ignore
        self._expected_consumers = 0
        self._consumers_changed = threading.Condition()

    def announce(self) -> Callable[[], None]:
        """A consumer connects in a moment, from a thread of its own; it calls the result then (once counts). Any
        thread."""
        is_open = True
        with self._consumers_changed:
            self._expected_consumers += 1

        def connected() -> None:
            nonlocal is_open
            with self._consumers_changed:
                if is_open:
                    is_open = False
                    self._expected_consumers -= 1
                    self._consumers_changed.notify_all()

        return connected

    @property
    def is_awaited(self) -> bool:
        """Whether a consumer that was announced has not connected yet."""
        return bool(self._expected_consumers)

    def wait_for_announced(self, timeout_s: float) -> bool:
        """Whether all that were announced have connected. For sources that can wait: files."""
        with self._consumers_changed:
            return self._consumers_changed.wait_for(lambda: not self._expected_consumers, timeout_s)

    @property
    @abstractmethod
    def format(self) -> VideoFormat | AudioFormat:
        """What `raw()` delivers at present."""

    @property
    def holds_last_frame(self) -> bool:
        """Whether its last frame is what is to be seen until the next one comes, as of a canvas.

        What a device does not give is a loss, and is not made up.
        """
        return not self.device_id

    @property
    def written_until_ns(self) -> int | None:
        """Up to when a program has given units, whose times are its own and may lie ahead of the clock, or behind it;
        None: the source gives units as they are captured.
        """
        return None

    def figures(self) -> Mapping[str, float | str]:
        """What a camera says of its newest frame, by name; {}: nothing (yet). Costs something only while it is asked.

        Any thread. Names and units are the W3C's (`focus_distance` in metres, `exposure_time` in 100 µs, `iso`,
        `color_temperature`); beside these `focus_figure` (the sharper, the larger), `focus_state`, `lux`.
        """
        return {}

    @abstractmethod
    def raw(self) -> Feed[Any]:
        """The feed of VideoFrame or AudioBlock.

        Raises:
            NotSupportedError: this source has encoded units only.
        """

    def key_frames(self) -> Feed[Any] | None:
        """The feed of VideoFrame that has key frames only, at most five a second, where `raw()` would have to decode
        all; None: take `raw()`."""
        return None

    def encoded(self, request: EncodingRequest) -> EncodedFeed | None:
        """A feed of packets that the source itself can make for `request` (hardware encoder, file that is already so).

        None means: cannot; the caller encodes `raw()` through libav.
        """
        return None

    @property
    def still_size(self) -> tuple[int, int] | None:
        """What `take_still` gives, where the device has stills that are larger than its frames; None: it has none."""
        return None

    def take_still(self) -> VideoFrame:
        """A still of `still_size`: the device switches its mode for that, and is muted meanwhile. Takes seconds.

        Raises:
            NotReadableError: there was none; the device goes on as before, or has ended.
        """
        raise NotReadableError(f"{self.label} has no stills of its own")

    def take_raw_still(self) -> RawStill:
        """A still of the sensor's full resolution, and its raw frame. As `take_still`, and some seconds more.

        Raises:
            NotSupportedError: the device gives no raw frames; the message says why. NotReadableError: as `take_still`.
        """
        raise NotSupportedError(f"{self.label} gives no raw frames; a DNG needs a camera at the board's own connector")

    @property
    def reorders(self) -> bool:
        """Whether its encoded frames do not come in the order in which they are shown (B-frames)."""
        return False

    def native_codec(self) -> str | None:
        """The codec the source already delivers ("h264", "opus", …), None for raw sources."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Stop and free the device; idempotent; may be called from any thread; returns within a few seconds.

        Feeds end without an error, `on_ended` is not called.
        """


class Gate:
    """Whether a track lets its source through: closed (muted or disabled) means black and silence. For any thread.

    is_lost: it is closed because the source gives nothing, not because the track was disabled.
    """

    __slots__ = ("_on_change", "is_lost", "is_open")

    def __init__(self) -> None:
        self.is_open = True
        self.is_lost = False
        self._on_change: tuple[Callable[[bool], None], ...] = ()

    def set(self, is_open: bool, *, is_lost: bool = False) -> None:
        """Called on the loop by the track."""
        if (is_open, is_lost) != (self.is_open, self.is_lost):
            self.is_open, self.is_lost = is_open, is_lost
            for call in self._on_change:
                call(is_open)

    def watch(self, call: Callable[[bool], None]) -> None:
        self._on_change = (*self._on_change, call)

    def unwatch(self, call: Callable[[bool], None]) -> None:
        self._on_change = tuple(known for known in self._on_change if known != call)


class SourceThread(threading.Thread):
    """A thread with a stop event, for a source's loop; an exception in `run_until` reaches `failed`."""

    def __init__(
        self, name: str, run_until: Callable[[threading.Event], None], failed: Callable[[Exception], None]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()
        end_with_process(self, lambda thread: thread.stopping.set())
        self._run_until = run_until
        self._failed = failed

    def run(self) -> None:
        try:
            self._run_until(self.stopping)
        except Exception as exc:
            self._failed(exc)

    def stop(self, timeout: float = 5.0) -> None:
        """Set the event and wait.

        Raises:
            ZombieThread: the thread did not end in time.
        """
        self.stopping.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(timeout)
            if self.is_alive():
                raise ZombieThread(f"thread {self.name} did not end within {timeout:g} s")


class ZombieThread(RuntimeError):
    """A thread that was told to end did not."""


def _ignore(_: Any) -> None:
    return None


__all__ = ["AudioBlock", "Gate", "Source", "SourceStats", "SourceThread", "VideoFrame", "ZombieThread"]
