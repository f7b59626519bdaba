"""The link between a connection, on its loop, and aiortc's, in the thread of WebRTC. Calls arrive in their order."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from msrecd.dom.exceptions import InvalidStateError
from msrecd.flow.forgotten import WhenForgotten
from msrecd.rtc.loop import RtcLoop

if TYPE_CHECKING:
    from msrecd.rtc.aio.aiopeer import Peer

log = logging.getLogger(__name__)

_CLOSE_S = 10.0


class _Bound(Protocol):
    def release(self) -> None: ...


class PeerLink:
    """Keeps no connection alive: one that nobody can reach any more is closed."""

    def __init__(self, owner: Any, configuration: dict[str, Any], *, changed: str, channel_opened: str) -> None:
        """
        Args:
            owner: the connection; on its running loop.
            changed: its method for a Snapshot; channel_opened: for (a channel of aiortc's, messages that came early).
        """
        loop = asyncio.get_running_loop()
        self.rtc = rtc = RtcLoop.acquire()
        self.bindings: set[_Bound] = set()  # released with it, on the loop
        self._holder = holder = _Holder()
        self._release = WhenForgotten(owner, partial(_let_go, rtc, holder, loop, self.bindings))
        take, channel = _weakly(owner, changed), _weakly(owner, channel_opened)

        def begin() -> None:
            from msrecd.rtc.aio.aiopeer import Peer

            def opened(inner: Any) -> None:
                early: list[Any] = []  # messages can come before the program knows of the channel
                inner.on("message", early.append)
                _post(loop, channel, (inner, early))

            holder.peer = Peer(rtc, configuration, lambda snapshot: _post(loop, take, snapshot), opened)

        rtc.post(begin)

    def do(self, call: Callable[[Peer], object]) -> None:
        """Call something of the peer's in the thread of WebRTC, behind all that was called before."""
        holder = self._holder

        def run() -> None:
            if holder.peer is not None:
                try:
                    call(holder.peer)
                except Exception:
                    log.exception("a call to a peer connection failed")

        self.rtc.post(run)

    def do_async(self, call: Callable[[Peer], Coroutine[Any, Any, Any]]) -> None:
        rtc = self.rtc
        self.do(lambda peer: rtc.tasks.spawn(call(peer), "a call to a peer connection"))

    async def ask(self, call: Callable[[Peer], Coroutine[Any, Any, Any]]) -> Any:
        """The answer of something of the peer's; what was posted before it has been taken on the loop by then."""
        holder = self._holder

        async def run() -> Any:
            if holder.peer is None:
                raise InvalidStateError("the connection is closed")
            return await call(holder.peer)

        return await self.rtc.call(run())

    def close(self) -> None:
        """Idempotent."""
        self._release.now()


class _Holder:
    """The peer, also for what follows when its owner is forgotten."""

    peer: Peer | None = None


def _let_go(rtc: RtcLoop, holder: _Holder, loop: asyncio.AbstractEventLoop, bindings: set[_Bound]) -> None:
    """Close the peer and give the thread back; from any thread."""
    _post(loop, _release_all, list(bindings))

    async def close() -> None:
        peer, holder.peer = holder.peer, None
        try:
            if peer is not None:
                async with asyncio.timeout(_CLOSE_S):
                    await peer.close()
        except TimeoutError:
            log.warning("a peer connection did not close within %g s", _CLOSE_S)
        finally:
            rtc.release()

    rtc.post(lambda: rtc.tasks.spawn(close(), "closing a peer connection"))


def _release_all(bindings: Sequence[_Bound]) -> None:
    for one in bindings:
        one.release()


def _weakly(owner: Any, method: str) -> Callable[[Any], None]:
    """A call of a method that keeps nothing alive."""
    reference = weakref.ref(owner)

    def call(value: Any) -> None:
        alive = reference()
        if alive is not None:
            getattr(alive, method)(value)

    return call


def _post(loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], value: Any) -> None:
    try:
        loop.call_soon_threadsafe(call, value)
    except RuntimeError:
        return  # the loop is closed
