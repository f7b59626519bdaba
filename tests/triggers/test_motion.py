"""The motion trigger on scenes with known truth. MSRECD_LONG=1 plays an hour of each restless scene."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import NS, WITHOUT_FOLIAGE, Passage, Scene, frames

from msrecd.triggers.decide import MOTION, Progress, step
from msrecd.triggers.motion import MotionDetector, Polygon, block_means, counted_blocks

IS_LONG = bool(os.environ.get("MSRECD_LONG"))
if IS_LONG:  # an hour of a scene is minutes of work, on a machine that has other work many
    pytestmark = pytest.mark.timeout(3600)
VTEST = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")  # Debian's package opencv-doc
Event = tuple[float, float, float]  # detected, began, ended, in seconds


def events_of(scene: Scene, mask: tuple[Polygon, ...] = ()) -> list[Event]:
    detector, progress, found = MotionDetector(mask=mask), Progress(), []
    for at_ns, luma in frames(scene):
        before = progress
        progress, change = step(MOTION, progress, detector.look(luma, at_ns))
        if change == "begin":
            found.append((at_ns / NS, progress.since_ns / NS, scene.duration_s))
        elif change == "end":
            found[-1] = (found[-1][0], before.since_ns / NS, at_ns / NS)
    return found


def passages(*, contrast: float, sizes: tuple[int, ...] = (12, 20, 40)) -> tuple[Passage, ...]:
    found, at_s = [], 8.0
    for size, speed in itertools.product(sizes, (40, 100, 300)):
        found.append(Passage(at_s=at_s, size=size, speed=speed, y=100, contrast=contrast, to_left=size == 20))
        at_s = found[-1].until_s + 3
    return tuple(found)


RESTLESS: dict[str, dict[str, Any]] = {
    "noise": {"noise": 6.0},
    "night": {"noise": 8.0, "brightness": 0.3},
    "clouds": {"clouds": 0.2},
    "foliage": {"has_foliage": True},
    "rain": {"rain": 40},
    "lamps": {"light_steps": ((6.0, 0.7), (40.3, 1.4)), "half_light_steps": (20.1,)},
}


@pytest.mark.parametrize("kind", RESTLESS)
@pytest.mark.promise("motion-of-clips")
def test_every_passage_is_found_within_a_second(kind: str) -> None:
    """With a pre-roll of two seconds, each recording begins before the object is to be seen."""
    mask = WITHOUT_FOLIAGE if kind == "foliage" else ()
    sizes = (12, 20, 40) if IS_LONG else (12,)
    there = passages(contrast=20 if kind == "night" else 40, sizes=sizes)
    scene = Scene(duration_s=there[-1].until_s + 4, passages=there, **RESTLESS[kind])
    found = events_of(scene, mask)
    for passage in there:
        # A lamp that is switched meanwhile hides everything for two seconds.
        latest = passage.at_s + (3.5 if kind == "lamps" else 1.7)
        assert any(begun <= latest and ended >= passage.at_s for begun, _, ended in found), (passage, found)


@pytest.mark.parametrize("kind", ["foliage", "lamps", "clouds", "night"])
@pytest.mark.promise("brightness-is-no-motion", "motion-of-clips")
@pytest.mark.promise("foliage-with-a-mask")
def test_restless_scenes_begin_nothing(kind: str) -> None:
    seconds = 3600 if IS_LONG else 60
    options: dict[str, Any] = dict(RESTLESS[kind])
    if kind == "lamps":
        options["light_steps"] = tuple((10.0 + 30 * n, 1.4 if n % 2 else 1 / 1.4) for n in range(seconds // 30))
        options["half_light_steps"] = tuple(25.0 + 60 * n for n in range(seconds // 60))
    scene = Scene(duration_s=seconds, seed=7, **options)
    assert events_of(scene, WITHOUT_FOLIAGE if kind == "foliage" else ()) == []


def test_lamps_that_are_switched_soon_after_each_other_begin_nothing() -> None:
    steps = ((6.0, 0.7), (12.0, 1.4), (18.0, 0.7))
    assert events_of(Scene(duration_s=24, light_steps=steps, half_light_steps=(9.0, 15.0))) == []


def test_a_lamp_that_blinks_hides_no_object_for_long() -> None:
    there = passages(contrast=40, sizes=(40,))
    blinks = tuple((2.0 + n / 2, 0.7 if n % 2 else 1 / 0.7) for n in range(2 * round(there[-1].until_s)))
    found = events_of(Scene(duration_s=there[-1].until_s + 4, passages=there, light_steps=blinks))
    slow = there[0]
    assert any(begun <= slow.until_s and ended >= slow.at_s for begun, _, ended in found), (slow, found)


def test_foliage_without_the_mask_would_be_noticed() -> None:
    """The scene of the test before is one that needs its mask."""
    assert events_of(Scene(duration_s=60, seed=7, has_foliage=True))


def test_pedestrians_are_one_long_event() -> None:
    av = pytest.importorskip("av")
    if not VTEST.exists():
        pytest.skip("vtest.avi is not there (apt install opencv-doc)")
    detector, progress, changes, looked_s = MotionDetector(), Progress(), [], -1.0
    with av.open(str(VTEST)) as container:
        for frame in container.decode(video=0):
            if frame.time - looked_s < 0.199:
                continue
            looked_s = frame.time
            luma = np.frombuffer(bytes(frame.planes[0]), np.uint8).reshape(frame.height, -1)[:, : frame.width]
            progress, change = step(MOTION, progress, detector.look(luma, round(frame.time * NS)))
            changes += [(change, frame.time)] if change else []
            if looked_s > (1e9 if IS_LONG else 20):
                break
    assert [change for change, _ in changes] == ["begin"], changes
    assert changes[0][1] < 3


def test_block_means() -> None:
    luma = np.zeros((20, 30), np.uint8)
    luma[8:16, 16:24] = 200
    means = block_means(luma)
    assert means.shape == (2, 3)
    assert means[1, 2] == 200
    assert means.sum() == 200


def test_what_lies_in_a_polygon_counts() -> None:
    triangle = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    counted = counted_blocks([triangle], 10, 10)
    assert counted[0, 0]
    assert counted[2, 6]
    assert not counted[6, 6]
    assert 40 <= counted.sum() <= 50
    assert counted_blocks([], 3, 4).all()
