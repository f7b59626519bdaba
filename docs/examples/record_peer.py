"""Record what a peer sends over WebRTC: its offer comes on standard input, the answer goes to standard output.

python record_peer.py [--seconds 10] OUT.webm < offer.sdp > answer.sdp
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msrecd

PEER_DEADLINE_S = 30


async def main(arguments: argparse.Namespace) -> int:
    connection = msrecd.RTCPeerConnection()
    tracks: list[msrecd.MediaStreamTrack] = []
    connection.ontrack = lambda event: tracks.append(event.track)
    try:
        offer = await asyncio.to_thread(sys.stdin.read)
        await connection.set_remote_description({"type": "offer", "sdp": offer})
        await connection.set_local_description()
        answer = connection.local_description
        print("" if answer is None else answer.sdp, end="", flush=True)
        # A received track is muted until something has come: only then its size is known.
        async with asyncio.timeout(PEER_DEADLINE_S):
            for track in tracks:
                unmuted = asyncio.Event()
                track.onunmute = lambda _, unmuted=unmuted: unmuted.set()
                if track.muted:
                    await unmuted.wait()
        recorder = msrecd.MediaRecorder(msrecd.MediaStream(tracks))  # as it comes: nothing is coded again
        blobs: list[bytes] = []
        recorder.ondataavailable = lambda event: blobs.append(bytes(event.data))
        recorder.start()
        waiting = asyncio.ensure_future(recorder.stopped)  # all tracks end when the peer closes
        await asyncio.wait([waiting], timeout=arguments.seconds)
        if recorder.state != "inactive":
            recorder.stop()
        await recorder.stopped
    except msrecd.DOMException as exc:
        print(exc, file=sys.stderr)
        return 1
    except TimeoutError:
        print(f"nothing came within {PEER_DEADLINE_S} s", file=sys.stderr)
        return 1
    finally:
        connection.close()
    await asyncio.to_thread(Path(arguments.out).write_bytes, b"".join(blobs))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=10)
    sys.exit(asyncio.run(main(parser.parse_args())))
