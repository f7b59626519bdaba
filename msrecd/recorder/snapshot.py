"""JPEGs of what a recorder's camera sees, without disturbing a recording."""

from __future__ import annotations

from dataclasses import dataclass

from msrecd import DOMException, ImageCapture, MediaDevices
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.errors import CommandError
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.settling import settle

_LIMIT_BYTES = 256 << 10
_WIDTHS = (1920, 1280, 640, 320)


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A JPEG of the whole frame, its raw frame where that was wanted, and when it was taken on CLOCK_MONOTONIC."""

    jpeg: bytes
    taken_ns: int
    dng: bytes | None = None


async def take_snapshot(recorder: RecorderController, devices: MediaDevices) -> bytes:
    """One that is small enough to be sent over MQTT.

    Raises:
        CommandError: no video, device missing or busy, no frame in time.
    """
    photographer = Photographer(recorder, devices)
    try:
        return await small(photographer)
    finally:
        photographer.close()


async def small(photographer: Photographer, jpeg: bytes | None = None) -> bytes:
    """One that is small enough to be sent over MQTT: `jpeg` itself, if it is.

    Raises:
        CommandError: as `Photographer.take`.
    """
    for width in _WIDTHS:
        if jpeg is not None and len(jpeg) <= _LIMIT_BYTES:
            break
        jpeg = (await photographer.take(width)).jpeg
    assert jpeg is not None
    return jpeg


class Photographer:
    """Takes photos of a recorder's camera; opens it where the recorder has not, until `close`. Lives on the loop."""

    def __init__(self, recorder: RecorderController, devices: MediaDevices, *, settle_s: float = 0.0) -> None:
        """
        Args:
            settle_s: so long at most a camera that has just been opened may take to settle, before it is photographed.
        """
        self._recorder = recorder
        self._devices = devices
        self._settle_s = settle_s
        self._opened: RecorderInput | None = None

    async def take(self, width: int | None = None, *, is_full: bool = False, is_dng: bool = False) -> Photo:
        """
        Args:
            width: scaled down to it.
            is_full: of the sensor's full resolution, which may cost a recording a second.
            is_dng: so, and with the sensor's raw frame as a DNG.

        Raises:
            CommandError: no video, device missing or busy, no frame in time, a camera without raw frames.
        """
        recorder = self._recorder
        try:
            input = recorder.shared_input
            is_new = False
            if input is not None:
                self.close()  # the recorder has it open itself by now
                since_ns = recorder.wanted_since_ns
                is_new = since_ns is not None and SYSTEM_CLOCK.monotonic_ns() - since_ns < self._settle_s * NS
            elif self._opened is not None and self._opened.tracks and not self._opened.has_lost_track:
                input = self._opened
            else:
                self.close()
                self._opened = input = await RecorderInput.open(recorder.settings, self._devices)
                is_new = True
                await input.play()
            tracks = [track for track in input.tracks if track.kind == "video"]
            if not tracks and "video" in input.kinds:
                problem = input.problem or Problem("device_missing", f"the video of {recorder.name} has ended")
                raise problem.error()
            if not tracks:
                raise CommandError("bad_args", f"{recorder.name} has no video")
            capture = ImageCapture(tracks[0])
            if is_new and self._settle_s:
                await settle(capture, self._settle_s)
            taken_ns = SYSTEM_CLOCK.monotonic_ns()
            recorder.is_taking_still = is_full or is_dng
            if is_dng:
                photo, dng = await capture.take_raw_photo()
                return Photo(jpeg=bytes(photo), taken_ns=taken_ns, dng=bytes(dng))
            jpeg = bytes(await capture.take_photo({"image_width": width, "full": is_full}))
            return Photo(jpeg=jpeg, taken_ns=taken_ns)
        except DOMException as exc:
            if is_dng and exc.name == "NotSupportedError":
                raise CommandError("bad_args", exc.message) from exc
            if exc.name in ("UnknownError", "InvalidStateError"):
                raise CommandError("device_busy", exc.message) from exc
            raise problem_of(exc, is_input=recorder.settings.url is not None).error() from exc
        finally:
            recorder.is_taking_still = False

    def close(self) -> None:
        """Close the camera, if it was opened for this."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
