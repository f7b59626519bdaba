"""What web-platform-tests (webaudio/the-audio-api) ask of nodes and parameters that are here; each test names its file.

Rendered offline, so every figure is exact.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import msrecd
from msrecd import ConstantSourceNode, GainNode, OfflineAudioContext

QUANTUM = 128
RATE = 16384  # a power of two: frames have exact times
Automate = Callable[[msrecd.AudioParam], Any]


def offset_of(automate: Automate, frames: int = 4 * QUANTUM, value: float = 1.0) -> np.ndarray[Any, Any]:
    """What a parameter does, frame by frame."""

    async def run() -> np.ndarray[Any, Any]:
        context = OfflineAudioContext(1, frames, RATE)
        source = ConstantSourceNode(context, {"offset": value})
        source.connect(context.destination)
        automate(source.offset)
        source.start()
        return (await context.start_rendering()).get_channel_data(0).copy()

    return asyncio.run(run())


def chain(*calls: tuple[str, tuple[Any, ...]]) -> Automate:
    def automate(param: msrecd.AudioParam) -> None:
        for name, arguments in calls:
            getattr(param, name)(*arguments)

    return automate


AT = 2 * QUANTUM
TIME = AT / RATE
SET, LINEAR = "set_value_at_time", "linear_ramp_to_value_at_time"
EXPONENTIAL, TARGET = "exponential_ramp_to_value_at_time", "set_target_at_time"


def test_of_events_at_one_time_the_last_one_counts() -> None:
    """the-audioparam-interface/event-insertion.html: the same event twice."""
    two, three, five = 2 * QUANTUM / RATE, 3 * QUANTUM / RATE, (5 * QUANTUM - 1) / RATE
    seen = offset_of(
        chain(
            (SET, (99, QUANTUM / RATE)),
            (SET, (1, QUANTUM / RATE)),
            (LINEAR, (99, two)),
            (LINEAR, (2, two)),
            (EXPONENTIAL, (99, three)),
            (EXPONENTIAL, (3, three)),
            ("set_value_curve_at_time", ([3, 4], three, QUANTUM / RATE)),
            (SET, (99, five)),
            (SET, (1, five)),
            (SET, (5, five)),
        ),
        frames=8 * QUANTUM,
        value=0.0,
    )
    assert seen[QUANTUM] == 1
    assert seen[2 * QUANTUM] == 2
    assert seen[4 * QUANTUM] == 4
    assert seen[5 * QUANTUM] == 5


@pytest.mark.parametrize(
    ("events", "before", "after"),
    [
        ([(LINEAR, (2, TIME)), (SET, (99, TIME)), (EXPONENTIAL, (3, TIME))], 1 + (AT - 1) / AT, 3.0),
        ([(EXPONENTIAL, (3, TIME)), (SET, (99, TIME)), (LINEAR, (2, TIME))], 3 ** ((AT - 1) / AT), 2.0),
    ],
    ids=["linear, exponential", "exponential, linear"],
)
def test_different_ramps_to_one_time(events: list[Any], before: float, after: float) -> None:
    """event-insertion.html: the first one leads there, the last one's value stays."""
    seen = offset_of(chain((SET, (1, 0)), *events))
    assert seen[AT - 1] == pytest.approx(before, rel=1e-6)
    assert np.all(seen[AT:] == after)


@pytest.mark.parametrize("middle", [[], [(SET, (100, TIME))]], ids=["ramp", "ramp, value"])
def test_a_target_begins_where_what_stands_before_it_has_led(middle: list[Any]) -> None:
    """event-insertion.html: a ramp, perhaps a value, and a target at one time."""
    seen = offset_of(chain((SET, (1, 0)), (LINEAR, (3, TIME)), *middle, (TARGET, (0, TIME, 0.1))))
    begin = 100.0 if middle else 3.0
    assert seen[AT - 1] == pytest.approx(1 + 2 * (AT - 1) / AT, rel=1e-6)
    expected = begin * np.exp(-np.arange(len(seen) - AT) / RATE / 0.1)
    assert np.allclose(seen[AT:], expected, rtol=3e-7)


def test_a_target_behind_an_event_of_the_same_quantum() -> None:
    """setTargetAtTime-after-event-within-block.html: the value stays; a second target takes over from the first."""
    seen = offset_of(chain((SET, (-0.5, 42 / RATE)), (TARGET, (-0.5, 53 / RATE, QUANTUM / RATE))), frames=179)
    assert np.all(seen[:42] == 1)
    assert np.all(seen[42:] == -0.5)
    first = -1 / math.expm1(-1)
    events = ((TARGET, (first, 125 / RATE, 1 / RATE)), (TARGET, (0, 126 / RATE, 1 / RATE)))
    seen = offset_of(chain(*events), frames=129, value=0.0)
    assert np.all(seen[:126] == 0)
    assert np.allclose(seen[126:], [1, math.exp(-1), math.exp(-2)], atol=2**-23)


@pytest.mark.parametrize(("begin", "end"), [(2.0, -3.0), (0.0, -2.0)])
def test_an_exponential_ramp_that_cannot_be(begin: float, end: float) -> None:
    """exponentialRamp-special-cases.html: through zero, or from it, the value waits for the end."""
    seen = offset_of(chain((SET, (begin, 0)), (EXPONENTIAL, (end, 3 / RATE))), frames=6)
    assert seen.tolist() == [begin] * 3 + [end] * 3


def test_cancelling_takes_a_curve_under_way_with_it() -> None:
    """cancel-scheduled-values.html: what stands at its beginning stays, its time is free again; wrong times."""
    quarter = RATE // 4
    seen = offset_of(
        chain(
            (SET, (0.5, 0)),
            (SET, (1.5, 0.25)),
            ("set_value_curve_at_time", ([1, -1], 0.25, 0.25)),
            (SET, (99, 0.5)),
            ("cancel_scheduled_values", (0.3,)),
            (SET, (3, 0.375)),
        ),
        frames=RATE,
    )
    assert np.all(seen[:quarter] == 0.5)
    assert np.all(seen[quarter : quarter * 3 // 2] == 1.5)
    assert np.all(seen[quarter * 3 // 2 :] == 3)
    param = GainNode(OfflineAudioContext(1, 128, RATE)).gain
    with pytest.raises(ValueError, match="negative"):
        param.cancel_scheduled_values(-1)
    for wrong in (math.nan, math.inf):
        with pytest.raises(TypeError):
            param.cancel_scheduled_values(wrong)


def in_two_ways(one: Automate, other: Automate, until: int, frames: int) -> tuple[Any, Any]:
    """Two parameters that are automated while rendering is suspended at frame `until`."""

    async def run() -> tuple[Any, Any]:
        context = OfflineAudioContext(2, frames, RATE)
        merger = context.create_channel_merger(2)
        merger.connect(context.destination)
        params = []
        for channel in (0, 1):
            source = ConstantSourceNode(context)
            source.offset.set_value_at_time(1, 64 / RATE)
            source.connect(merger, 0, channel)
            source.start()
            params.append(source.offset)

        async def change() -> None:
            await context.suspend(until / RATE)
            one(params[0])
            other(params[1])
            await context.resume()

        changing = asyncio.ensure_future(change())
        await asyncio.sleep(0)
        buffer = await context.start_rendering()
        await changing
        return buffer.get_channel_data(0).copy(), buffer.get_channel_data(1).copy()

    return asyncio.run(run())


@pytest.mark.parametrize(("name", "arguments"), [(SET, (0.0,)), (TARGET, (0.25,))])
def test_an_event_in_the_past_happens_now(name: str, arguments: tuple[float, ...]) -> None:
    """retrospective-setValueAtTime.html, retrospective-setTargetAtTime.html"""
    frames, now = 1024, QUANTUM / RATE
    more = (0.01,) if name == TARGET else ()
    ramp = [] if name == TARGET else [(LINEAR, (float(frames - QUANTUM), frames / RATE))]
    seen, expected = in_two_ways(
        chain((name, (*arguments, now / 2, *more)), *ramp),
        chain((name, (*arguments, now, *more)), *ramp),
        QUANTUM,
        frames,
    )
    assert np.all(seen[:QUANTUM] == 1)
    assert np.array_equal(seen[QUANTUM:], expected[QUANTUM:])
    assert seen[-1] != 1


@pytest.mark.parametrize("name", [LINEAR, EXPONENTIAL])
def test_a_ramp_that_is_added_late_begins_at_the_event_before(name: str) -> None:
    """adding-events.html: as if it had been there from the beginning."""
    end = 1024 + 64
    seen, _ = in_two_ways(chain((name, (2, end / RATE))), chain(), 512, 2048)
    part = (np.arange(512, end) - 64) / (end - 64)
    expected = 1 + part if name == LINEAR else 2**part
    assert np.all(seen[:512] == 1)
    assert np.allclose(seen[512:end], expected, rtol=1e-6)
    assert np.all(seen[end:] == 2)


def test_every_method_of_a_parameter_returns_it() -> None:
    """audioparam-method-chaining.html"""
    param = GainNode(OfflineAudioContext(1, 8000, 8000)).gain
    assert param.set_value_at_time(1, 0) is param
    assert param.linear_ramp_to_value_at_time(2, 0.1) is param
    assert param.exponential_ramp_to_value_at_time(1, 0.2) is param
    assert param.set_target_at_time(1, 0.3, 0.1) is param
    assert param.set_value_curve_at_time([1, 2], 0.5, 0.1) is param
    assert param.cancel_scheduled_values(0.4) is param
    with pytest.raises(ValueError, match="0"):
        param.exponential_ramp_to_value_at_time(0, 0.7)
    with pytest.raises(ValueError, match="negative"):
        param.set_value_at_time(1, -0.1)
