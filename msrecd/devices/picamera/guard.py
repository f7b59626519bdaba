"""What makes picamera2 fit to be left alone: old versions are refused, its threads are kept alive.

Knows its classes only as they are given.

When a camera is unplugged, giving a buffer back to it raises in whichever thread does that: the camera's event loop, or
the thread of the V4L2 encoder. picamera2 lets the thread die. `stop()` and `close()` then wait for ever, for they are
jobs of that loop; and a job that was done but not signalled yet when something raised stays unsignalled. So neither may
happen: a buffer that cannot go back is forgotten, and the loop outlives what raises in it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from msrecd.devices.board import Board, has_pisp

log = logging.getLogger(__name__)

_TRIES = 3
_OF_ALLOCATOR = ("allocate", "acquire", "release", "cleanup", "close")


def check_version(distribution: str, oldest: tuple[int, ...]) -> None:
    """
    Raises:
        RuntimeError: it is older than that. One whose version nobody knows is taken as it is.
    """
    from importlib.metadata import PackageNotFoundError, version  # here: a megabyte for those who have no camera

    try:
        text = version(distribution)
    except PackageNotFoundError:
        return
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[: len(oldest)])
    if numbers < oldest:
        raise RuntimeError(f"{distribution} {text} is too old, {'.'.join(map(str, oldest))} or later is needed")


def wait_for_pisp(board: Board, *, has_pisp: Callable[[], bool] = has_pisp, timeout_s: float = 10.0) -> None:
    """Wait on a Pi 5 until its image processor is there; what comes later is found out by `check_platform`."""
    deadline = time.monotonic() + timeout_s
    if board.platform == "pisp" and not has_pisp():
        log.info("waiting up to %g s for the image processor of this %s", timeout_s, board.name)
        while not has_pisp() and time.monotonic() < deadline:
            time.sleep(0.1)


def check_platform(found: str, board: Board) -> None:
    """Compare the board that picamera2 has found (the name of its Platform) with the device tree.

    picamera2 decides that once, when it is imported: by the first ISP among the video nodes, VC4 if there is none
    (platform.py). With the wrong one libcamera registers no camera until the process ends. So picamera2 is forgotten,
    to be imported anew.

    Raises:
        WrongPlatform: they disagree.
    """
    if not board.platform or found.lower() == board.platform:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "picamera2"]:
        del sys.modules[name]
    if f"/{found.lower()}/" in os.environ.get("LIBCAMERA_RPI_CONFIG_FILE", ""):
        del os.environ["LIBCAMERA_RPI_CONFIG_FILE"]
    raise WrongPlatform(
        f"picamera2 takes this {board.name} for a {found}: the drivers of its image processor were not there yet"
    )


class WrongPlatform(RuntimeError):
    """picamera2 was imported before the board's drivers were there."""


def guard_release(request_class: Any) -> None:
    """Make `release()` of picamera2's CompletedRequest swallow what libcamera says of a camera that has gone.

    And of a buffer that picamera2's allocator does not know any more: no thread of an encoder may end by that.
    """
    release = request_class.release
    if getattr(release, "is_guarded", False):
        return

    def guarded(self: Any) -> None:
        try:
            release(self)
        except (KeyError, RuntimeError) as exc:
            log.debug("a frame's buffer could not be given back to the camera: %s", exc)

    guarded.is_guarded = True  # type: ignore[attr-defined]
    request_class.release = guarded


def one_at_a_time(allocator: Any) -> None:
    """Let one thread use picamera2's allocator at a time.

    `configure()` frees what the mode before has left, and so does each frame that another thread gives back then
    (`cleanup()` of dmaallocator.py). The second one finds it gone, and no configuration succeeds from there on.
    """
    lock = threading.RLock()  # they call one another

    def locked(call: Callable[..., Any]) -> Callable[..., Any]:
        def alone(*arguments: Any) -> Any:
            with lock:
                return call(*arguments)

        return alone

    for name in _OF_ALLOCATOR:
        if hasattr(allocator, name):
            setattr(allocator, name, locked(getattr(allocator, name)))


def steady_preview(preview_class: Any) -> Any:
    """A subclass of picamera2's NullPreview, its event loop, that goes on after an exception."""

    class SteadyPreview(preview_class):  # type: ignore[misc]
        def handle_request(self, picam2: Any) -> None:
            for _ in range(_TRIES):  # what raised is not there any more the next time, and a job may still wait
                try:
                    picam2.process_requests(self)
                    return
                except Exception as exc:
                    level = logging.DEBUG if self.has_complained else logging.WARNING
                    log.log(level, "picamera2: a frame could not be processed: %s", exc)
                    self.has_complained = True

        has_complained = False

    return SteadyPreview


def construct(camera_class: Any, allocator_class: Any, position: int, number: int, **options: Any) -> Any:
    """A Picamera2, or what its constructor raises, with nothing of it left behind.

    position: in `global_camera_info()`. number: the `Num` there, by which its camera manager knows it.
    """
    manager = camera_class._cm
    before = manager.cameras.get(number)
    camera = camera_class.__new__(camera_class)  # so that there is something to clean up when the constructor fails
    try:
        camera.__init__(position, **options)
    except BaseException:
        _clean_up(camera, allocator_class)
        # Up to 0.3.36 it enters itself before it can fail, also where that number is a camera's that is in use.
        if manager.cameras.get(number) is camera and before is not None:
            manager.cameras[number] = before
        elif manager.cameras.get(number) is camera:
            manager.cleanup(number)  # or its thread would never end
        raise
    one_at_a_time(getattr(camera, "allocator", None))
    return camera


def _clean_up(camera: Any, allocator_class: Any) -> None:
    """Free what a failed constructor holds: `close()` frees nothing of a camera that did not open, as the pipe."""
    if getattr(camera, "is_open", False):
        camera.allocator = allocator_class()  # close() wants one
        close_quietly(camera)
        return
    for close in (lambda: camera.notifymeread.close(), lambda: os.close(camera.notifyme_w)):
        try:
            close()
        except (AttributeError, OSError) as exc:  # it did not get that far
            log.debug("cleaning up a camera that did not open: %s", exc)


def close_quietly(camera: Any) -> None:
    """Close after a failure: that is what is to be told, not that closing failed as well."""
    try:
        camera.close()
    except Exception as exc:
        log.warning("closing a camera failed: %s", exc)
