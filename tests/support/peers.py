"""Peer connections for tests: made, connected to each other, closed."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import msrecd

DEADLINE_S = 30.0


class Peers:
    """Connections that are closed together, and the thread of WebRTC with them."""

    def __init__(self) -> None:
        self._all: list[msrecd.RTCPeerConnection] = []

    async def __aenter__(self) -> Peers:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for one in self._all:
            one.close()

    def new(self, configuration: dict[str, Any] | None = None) -> msrecd.RTCPeerConnection:
        connection = msrecd.RTCPeerConnection(configuration)
        self._all.append(connection)
        return connection


async def negotiate(caller: msrecd.RTCPeerConnection, callee: msrecd.RTCPeerConnection) -> None:
    """One offer and its answer."""
    await caller.set_local_description(await caller.create_offer())
    assert caller.local_description is not None
    await callee.set_remote_description(caller.local_description)
    await callee.set_local_description(await callee.create_answer())
    assert callee.local_description is not None
    await caller.set_remote_description(callee.local_description)


async def until(event_target: Any, type_: str, what: Any = lambda: True) -> None:
    """Wait until a condition holds; it is looked at now and after each event."""
    changed = asyncio.Event()
    listener = lambda _: changed.set()  # noqa: E731
    event_target.add_event_listener(type_, listener)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not what():
                changed.clear()
                await changed.wait()
    finally:
        event_target.remove_event_listener(type_, listener)


async def unmuted(*tracks: msrecd.MediaStreamTrack) -> None:
    """Something has come on each track."""
    for track in tracks:
        await until(track, "unmute", lambda track=track: not track.muted)


async def sent_to(
    peers: Peers, stream: msrecd.MediaStream
) -> tuple[msrecd.RTCPeerConnection, msrecd.RTCPeerConnection, msrecd.MediaStream]:
    """A stream sent over a connection: sender, receiver, the stream as it comes out."""
    caller, callee = peers.new(), peers.new()
    for track in stream.get_tracks():
        caller.add_track(track, stream)
    came: list[Any] = []
    callee.ontrack = came.append
    await negotiate(caller, callee)
    received: msrecd.MediaStream = came[0].streams[0]
    await unmuted(*received.get_tracks())
    return caller, callee, received
