"""Snapshots by interval: which failures are faults."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from msrecd.config.recorder_tables import Snapshots
from msrecd.control.snapshot_taker import SnapshotTaker, SnapshotTimes, _Part
from msrecd.errors import CommandError
from msrecd.recorder.snapshot import Photo


class Camera:
    """A photographer; `before` happens to the recorder while it takes a photo."""

    def __init__(self, before: Any = lambda: None, *, jpegs: dict[int | None, bytes] | None = None) -> None:
        self.before, self.jpegs = before, jpegs

    async def take(self, width: int | None = None, *, is_full: bool = False, is_dng: bool = False) -> Photo:
        self.before()
        if self.jpegs is None:
            raise CommandError("device_busy", "the track gives no frames: it has ended, is muted or disabled")
        return Photo(jpeg=self.jpegs[width], taken_ns=0)

    def close(self) -> None:
        pass


def take(unit: SimpleNamespace, camera: Camera) -> tuple[list[str], dict[str, int], list[bytes]]:
    """The errors, the counts and the published images of one snapshot by interval."""
    errors: list[str] = []
    shown: list[bytes] = []
    publisher = SimpleNamespace(
        report_error=lambda code, message, recorder: errors.append(message), happened=lambda *facts: None
    )
    recorders = SimpleNamespace(config=SimpleNamespace(mqtt=object()))

    async def save(unit: Any, jpeg: bytes, taken_ns: int, mime_type: str) -> dict[str, Any]:
        return {}

    taker = SnapshotTaker(
        cast(Any, recorders), cast(Any, None), cast(Any, publisher), save, show=lambda name, jpeg: shown.append(jpeg)
    )
    settings = Snapshots(every_s=1.0)
    part = _Part(settings, SnapshotTimes(settings, None), cast(Any, unit))
    part.photographer = cast(Any, camera)
    asyncio.run(taker._take_part(part))
    return errors, dict(taker.counts("cam0") or {}), shown


def recorder(*, is_recording: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        name="cam0", input=object(), is_recording=is_recording, log=logging.getLogger("test"), settings=None
    )


@pytest.mark.effect("state-health: missed")
def test_a_recording_that_ends_under_a_snapshot_is_no_fault() -> None:
    unit = recorder()
    errors, counts, _ = take(unit, Camera(lambda: setattr(unit, "is_recording", False)))
    assert (errors, counts) == ([], {"taken": 0, "failed": 0, "missed": 1})
    again = recorder()
    errors, _, _ = take(again, Camera(lambda: setattr(again, "input", object())))
    assert not errors, "the next recording has begun by then"


@pytest.mark.effect("state-health: failed")
def test_a_camera_that_gives_nothing_is_a_fault_and_is_named_once() -> None:
    errors, counts, _ = take(recorder(), Camera())
    assert errors == ["cam0: no snapshot: the track gives no frames: it has ended, is muted or disabled"]
    assert counts["failed"] == 1


@pytest.mark.promise("snapshots", "image-fits")
def test_what_is_taken_by_interval_is_published_no_larger_than_what_is_taken_by_command() -> None:
    large = bytes((256 << 10) + 1)
    _, _, shown = take(recorder(), Camera(jpegs={None: b"whole"}))
    assert shown == [b"whole"]
    _, counts, shown = take(recorder(), Camera(jpegs={None: large, 1920: large, 1280: b"small"}))
    assert shown == [b"small"]
    assert counts["taken"] == 1
