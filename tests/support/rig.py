"""Virtual devices and a loop with a deadline, for tests of the object model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone
from msrecd.dom.events import Event, EventTarget
from msrecd.media.devices import MediaDevices

DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """Two cameras and a microphone; camera and microphone are of one unit."""

    camera: VirtualCamera
    other: VirtualCamera
    microphone: VirtualMicrophone
    devices: MediaDevices


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """Devices that are closed at the end."""
    camera = VirtualCamera("Front", modes=[(640, 360, 30), (320, 240, 30)], group_id="unit")
    other = VirtualCamera("Back", modes=[(320, 180, 30)])
    microphone = VirtualMicrophone("Voice", group_id="unit")
    devices = MediaDevices(backends=[VirtualBackend([camera, other, microphone])])
    async with devices:
        yield Rig(camera=camera, other=other, microphone=microphone, devices=devices)
    assert not camera.is_open
    assert not other.is_open
    assert not microphone.is_open


def on_rig(test: Callable[[Rig], Awaitable[None]]) -> None:
    """Run a test with a rig on a loop of its own."""

    async def run() -> None:
        async with rig() as made:
            await test(made)

    on_loop(run)


def on_loop(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a loop of its own, with a deadline."""

    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state that worker threads bring about; the loop's deadline limits it."""
    while not condition():  # noqa: ASYNC110 - what changes is in other threads
        await asyncio.sleep(0.005)


async def turns(count: int = 5) -> None:
    """Let queued tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Log:
    """Events in their order, and a way to wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, target: EventTarget, *types: str) -> Log:
        for type in types:
            target.add_event_listener(type, self.events.append)
        return self

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    async def wait(self, type: str, count: int = 1) -> Any:
        await until(lambda: self.types.count(type) >= count)
        return [event for event in self.events if event.type == type][count - 1]
