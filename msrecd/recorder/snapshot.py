"""A JPEG of what a recorder's camera sees, without disturbing a recording."""

from __future__ import annotations

from msrecd import DOMException, ImageCapture, MediaDevices
from msrecd.errors import CommandError
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import problem_of

_LIMIT_BYTES = 256 << 10
_WIDTHS = (1920, 1280, 640, 320)


async def take_snapshot(recorder: RecorderController, devices: MediaDevices) -> bytes:
    """
    Raises:
        CommandError: no video, device missing or busy, no frame in time.
    """
    opened: RecorderInput | None = None
    try:
        input = recorder.input
        if input is None:
            opened = input = await RecorderInput.open(recorder.settings, devices)
            await opened.play()
        tracks = [track for track in input.tracks if track.kind == "video"]
        if not tracks:
            raise CommandError("bad_args", f"{recorder.name} has no video")
        capture = ImageCapture(tracks[0])
        jpeg = b""
        for width in _WIDTHS:
            jpeg = bytes(await capture.take_photo({"image_width": width}))
            if len(jpeg) <= _LIMIT_BYTES:
                break
        return jpeg
    except DOMException as exc:
        if exc.name in ("UnknownError", "InvalidStateError"):
            raise CommandError("device_busy", f"no snapshot: {exc.message}") from exc
        raise problem_of(exc, is_input=recorder.settings.url is not None).error() from exc
    finally:
        if opened is not None:
            opened.close()
