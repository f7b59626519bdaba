"""Whether what each recorder with a source records can be opened: as the daemon opens it, or as the daemon says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msrecd.config.model import Config
from msrecd.config.recorder_model import Recorder
from msrecd.daemon.doctor.services import is_source_visible
from msrecd.daemon.from_config import recorder_settings
from msrecd.errors import CommandError
from msrecd.inputs.address import parse
from msrecd.media.devices import MediaDevices
from msrecd.recorder.input import RecorderInput

_AT_ONCE = 8  # each has a process that reads it
_WAITED_FOR = ("udp",)  # it is sent, or not yet: nothing says whether it is there


async def source_problems(
    config: Config, devices: MediaDevices, ask_daemon: Callable[[str], str | None]
) -> dict[str, str]:
    """By recorder why nothing comes of its source, "" where something does or nothing can be said; no secrets.

    Args:
        ask_daemon: blocking, in any thread: what the daemon of this configuration says of a recorder's input, "" where
            it can be read; None: no such daemon runs.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def problem(recorder: Recorder) -> str:
        url = recorder.source.url if recorder.source is not None else ""
        async with turns:
            if parse(url).scheme in _WAITED_FOR or not is_source_visible(url):
                return ""
            said = await asyncio.to_thread(ask_daemon, recorder.name)
            return await _opened(recorder, devices) if said is None else said

    recorders = [recorder for recorder in config.recorders if recorder.source is not None]
    problems = await asyncio.gather(*map(problem, recorders))
    return {recorder.name: text for recorder, text in zip(recorders, problems, strict=True)}


async def _opened(recorder: Recorder, devices: MediaDevices) -> str:
    """Open it as the daemon would, with its deadline, and close it."""
    try:
        opened = await RecorderInput.open(recorder_settings(recorder), devices)
    except CommandError as exc:
        return exc.message
    opened.close()
    return ""
