"""What is fuzzed: a program that opens, plays and records what it is given, as the daemon does, several at a time.

`python -m tests.fuzz.player`: each line of standard input is a JSON object {"n", "url", "type", "seconds"}; each line
of standard output says how one of them ended. It must answer all of them and never end by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import msrecd
from msrecd.inputs import decoding
from msrecd.media import streamdecoding

AT_ONCE = 4
TIMEOUT_S = 1.0
BOARD_BYTES = 512 << 20  # how large a frame may be encoded goes by the memory of the board
GIVEN_UP_S = 90.0  # far beyond every time-out: a hang


class Deaths(logging.Handler):
    """Counts processes that died and inputs that ended by an internal error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0
        self.internal: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if "no other input is concerned" in words:
            self.count += 1
        elif record.exc_info or "internal error" in words:
            self.internal.append(logging.Formatter().format(record)[-1500:])


async def play(task: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"n": task["n"], "outcome": "refused", "bytes": 0}
    element = msrecd.MediaElement(task["url"], {"timeout": TIMEOUT_S}, preload="none")
    try:
        await element.load()
        recorder = msrecd.MediaRecorder(element.capture_stream(), {"mime_type": task["type"]})
        recorder.ondataavailable = lambda event: facts.update(bytes=facts["bytes"] + event.data.size)
        recorder.onerror = lambda event: facts.update(error=f"{event.error.name}: {event.error.message}")
        recorder.start(300)
        await element.play()
        try:
            await asyncio.wait_for(asyncio.shield(recorder.stopped), task["seconds"])
        except TimeoutError:
            if recorder.state != "inactive":
                recorder.stop()
            await recorder.stopped
        facts["outcome"] = "recorded"
    except msrecd.DOMException as exc:
        facts["error"] = f"{exc.name}: {exc.message}"
    finally:
        element.close()
    return facts


async def guarded(task: dict[str, Any]) -> dict[str, Any]:
    try:
        return await asyncio.wait_for(play(task), GIVEN_UP_S)
    except TimeoutError:
        return {"n": task["n"], "outcome": "hang", "bytes": 0}
    except Exception as exc:
        logging.getLogger("player").exception("unforeseen")
        return {"n": task["n"], "outcome": "exception", "bytes": 0, "error": f"{type(exc).__name__}: {exc}"}


async def main() -> None:
    decoding.board_bytes = streamdecoding.board_bytes = lambda: BOARD_BYTES
    deaths = Deaths()
    logging.getLogger().addHandler(deaths)
    lines: asyncio.Queue[str] = asyncio.Queue(AT_ONCE)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def work() -> None:
        while line := await lines.get():
            facts = await guarded(json.loads(line))
            facts |= {"deaths": deaths.count, "internal": deaths.internal}
            deaths.count, deaths.internal = 0, []
            print(json.dumps(facts), flush=True)

    workers = [asyncio.create_task(work()) for _ in range(AT_ONCE)]
    while line := (await reader.readline()).decode():
        await lines.put(line)
    for _ in workers:
        await lines.put("")
    await asyncio.gather(*workers)


if __name__ == "__main__":
    asyncio.run(main())
