"""Connections and graphs made and dropped: no thread, descriptor, object or memory stays.

A few by default; MSRECD_PEERS=500 makes as many of each, and prints what it counted.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import leaks
import pytest
from peers import negotiate, unmuted
from recording import Scene, run

import msrecd

pytest.importorskip("aiortc")
ROUNDS = int(os.environ.get("MSRECD_PEERS", "8"))
CONNECTED_EVERY = 4  # the others are dropped as they are, without close()
GROWTH_BYTES = 24 << 20  # over all of a long run, after its first quarter: malloc's arenas breathe
pytestmark = pytest.mark.timeout(120 + 3 * ROUNDS)


async def connected(stream: msrecd.MediaStream) -> None:
    caller, callee = msrecd.RTCPeerConnection(), msrecd.RTCPeerConnection()
    for track in stream.get_tracks():
        caller.add_track(track, stream)
    caller.create_data_channel("talk")
    came: list[msrecd.RTCTrackEvent] = []
    callee.ontrack = came.append
    await negotiate(caller, callee)
    await unmuted(*(event.track for event in came))
    caller.close()
    callee.close()


async def dropped(stream: msrecd.MediaStream) -> None:
    connection = msrecd.RTCPeerConnection()
    connection.add_track(stream.get_tracks()[0], stream)
    await connection.create_offer()


async def graph(stream: msrecd.MediaStream) -> None:
    context = msrecd.AudioContext()
    end = context.create_media_stream_destination()
    context.create_media_stream_source(stream).connect(context.create_gain()).connect(end)
    await asyncio.sleep(0)


def ours() -> dict[str, int]:
    """Live objects of WebRTC and Web Audio, by class."""
    gc.collect()
    found: dict[str, int] = {}
    for thing in gc.get_objects():
        name = f"{type(thing).__module__}.{type(thing).__qualname__}"
        if name.startswith(("msrecd.rtc.", "msrecd.webaudio.", "aiortc.rtcpeer", "aioice.ice.Connection")):
            found[name] = found.get(name, 0) + 1
    return found


def rtc_threads() -> list[str]:
    names = ("webrtc", "audio graph", "decode-", "audio-decoder", "video-decoder")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(names)]


def test_connections_and_graphs_leave_nothing() -> None:
    async def scenario() -> tuple[int, int, int, int]:
        with Scene("av") as scene:
            await connected(scene.stream)  # what is loaded once
            await graph(scene.stream)
            await leaks.until(lambda: not ours_left() and not rtc_threads())
            files, memory = leaks.open_files(), 0
            for number in range(ROUNDS):
                if number % CONNECTED_EVERY == 0:
                    await connected(scene.stream)
                else:
                    await dropped(scene.stream)
                await graph(scene.stream)
                if number % 20 == 19:
                    gc.collect()
                if number == ROUNDS // 4:
                    memory = leaks.resident_bytes()
            await leaks.until(lambda: not ours_left() and not rtc_threads())
            assert [track.ready_state for track in scene.stream.get_tracks()] == ["live", "live"]
            return files, leaks.open_files(), memory, leaks.resident_bytes()

    before, after, memory, grown = run(scenario(), 100 + 3 * ROUNDS)
    print(f"{ROUNDS} rounds: descriptors {before} -> {after}, memory {memory >> 20} -> {grown >> 20} MiB")
    assert after <= before + 2  # those of the executor's threads come and go
    if ROUNDS >= 100:
        assert grown - memory < GROWTH_BYTES


def ours_left() -> dict[str, int]:
    """What stays for good is made once: classes' own constants, caches."""
    return {name: count for name, count in ours().items() if name.endswith(_PER_USE)}


_PER_USE = (
    "RTCPeerConnection",
    "Peer",
    "Outgoing",
    "ReceivedSource",
    "RtcLoop",
    "AudioContext",
    "MediaStreamAudioSourceNode",
    "GainNode",
    "aioice.ice.Connection",
)
