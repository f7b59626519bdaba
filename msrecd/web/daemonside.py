"""DaemonSide: how the web thread reaches the daemon: calls on the daemon's loop, blocking work in a pool of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from msrecd.control.bus import Bus
from msrecd.control.commands import TIMEOUT_S, CommandPort, Commands, Request
from msrecd.web.router import HttpError

if TYPE_CHECKING:
    from msrecd.control.recorders import Recorders
    from msrecd.media.devices import MediaDevices
    from msrecd.storage.store import Store

T = TypeVar("T")
P = ParamSpec("P")

CALL_DEADLINE_S = 45.0  # opening a camera may take 30
_WORKERS = 3


class DaemonSide:
    """Made on the daemon's loop; `call`, `command` and `in_thread` are for the loop of the web thread.

    Attributes:
        store: the recordings; its methods block: use `in_thread`.
        recorders, devices, bus: belong to the daemon's loop: use `call`.
    """

    def __init__(
        self, *, bus: Bus, commands: Commands, recorders: Recorders, devices: MediaDevices, store: Store
    ) -> None:
        self.bus = bus
        self.recorders = recorders
        self.devices = devices
        self.store = store
        self._port: CommandPort = commands.port("web", cause_has_id=False)
        self._loop = asyncio.get_running_loop()
        self._pool = concurrent.futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="web-work")

    @property
    def commands_refused(self) -> int:
        return self._port.refused_for_rate

    async def call(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `work(…)` on the daemon's loop; cancelled there when it is cancelled here.

        Raises:
            HttpError: 503: no answer within CALL_DEADLINE_S, or the daemon stops.
        """

        async def within() -> T:
            return await work(*args, **kwargs)

        coroutine = within()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError as exc:
            coroutine.close()
            raise HttpError(503, "internal", "the daemon is stopping") from exc
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                return await asyncio.wrap_future(future)
        except TimeoutError as exc:
            raise HttpError(503, "internal", "the daemon did not answer in time", retryable=True) from exc

    async def forever(self, work: Callable[[], Awaitable[object]]) -> None:
        """As `call`, without a deadline."""

        async def within() -> None:
            await work()

        coroutine = within()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            return
        await asyncio.wrap_future(future)

    def post(self, work: Callable[..., object], *args: object) -> None:
        """Call `work(…)` on the daemon's loop, without waiting."""
        with suppress(RuntimeError):  # the daemon stops
            self._loop.call_soon_threadsafe(work, *args)

    async def in_thread(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks (files, the index) in one of a few threads of the page."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))

    async def command(self, path: str, payload: bytes) -> bytes:
        """Run a command as it came over the network; its reply, as over MQTT.

        Raises:
            HttpError: 503: there was none.
        """
        return await self.call(self._command, path, payload)

    async def _command(self, path: str, payload: bytes) -> bytes:
        answer: asyncio.Future[bytes] = self._loop.create_future()

        def reply(encoded: bytes) -> None:
            if not answer.done():
                answer.set_result(encoded)

        self._port.receive(Request(path=path, payload=payload, answer=reply))
        async with asyncio.timeout(TIMEOUT_S):
            return await answer

    def close(self) -> None:
        """Take no more work; what is under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
