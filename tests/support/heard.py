"""What a RecorderController reports, in order, and a way to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from msrecd.recorder.controller import RecorderController


class Heard:
    """A controller's listener."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.findings: list[object] = []

    def state_changed(self, recorder: RecorderController) -> None:
        return None

    def found(self, recorder: RecorderController, finding: object) -> None:
        self.findings.append(finding)

    def played_out(self, recorder: RecorderController) -> None:
        return None

    def happened(self, recorder: RecorderController, event_type: str, facts: Mapping[str, Any]) -> None:
        self.events.append((event_type, facts))

    def of(self, event_type: str) -> list[Mapping[str, Any]]:
        return [facts for kind, facts in self.events if kind == event_type]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - what changes is in other threads
                await asyncio.sleep(0.02)
