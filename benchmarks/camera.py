"""A network camera for the benchmarks: RTSP, RTP over TCP; each client gets the same frames, from the first one on.

    python benchmarks/camera.py FILE [--port PORT]

It prints `PORT` once it listens, and `PLAY SECONDS` (CLOCK_MONOTONIC) for each client that begins: frame n is sent n
frame intervals later. The rules: RFC 2326 (10.12: interleaving), RFC 3550 (5.1, 6.4.1), RFC 6184 (single units, 5.8:
FU-A), RFC 3640 (3.3.6: AAC-hbr), RFC 3551 (4.5.14: PCMU and PCMA).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

PAYLOAD = 1400  # bytes of a packet of RTP, as cameras send it through Ethernet
NTP = 2_208_988_800  # seconds from 1900 to 1970


def fragments(units: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The payloads of one frame of H.264, and whether each is its last."""
    for number, unit in enumerate(units):
        is_last = number == len(units) - 1
        if len(unit) <= PAYLOAD:
            yield unit, is_last
            continue
        for at in range(1, len(unit), PAYLOAD):
            ends = at + PAYLOAD >= len(unit)
            marks = (0x80 if at == 1 else 0) | (0x40 if ends else 0) | unit[0] & 31
            yield bytes([unit[0] & 0xE0 | 28, marks]) + unit[at : at + PAYLOAD], is_last and ends


class Media:
    """A file as what a camera sends of it: (time, stream, [(payload, whether it is the frame's last)])."""

    def __init__(self, path: Path) -> None:
        self.units: list[tuple[float, int, list[tuple[bytes, bool]]]] = []
        with av.open(str(path)) as container:
            video: Any = container.streams.video[0]
            audio: Any = container.streams.audio[0] if container.streams.audio else None
            annexb = av.BitStreamFilterContext("h264_mp4toannexb", video)
            self.frame_rate = float(video.average_rate)
            self.rates = [90_000, audio.sample_rate if audio else 0]
            self.sound = audio.codec_context.name if audio else ""
            self.channels = len(audio.codec_context.layout.channels) if audio else 0
            self.config = bytes(audio.codec_context.extradata or b"") if audio else b""
            frames = 0
            for packet in container.demux(*(stream for stream in (video, audio) if stream)):
                if not packet.size:
                    continue
                at = float(packet.pts * packet.time_base)
                if packet.stream is not video:
                    data = bytes(packet)
                    head = struct.pack(">HH", 16, len(data) << 3) if self.sound == "aac" else b""
                    self.units.append((at, 1, [(head + data, True)]))
                    continue
                for one in annexb.filter(packet):
                    units = [unit.rstrip(b"\0") for unit in bytes(one).split(b"\0\0\1")[1:]]
                    units = [unit for unit in units if unit and unit[0] & 31 not in (6, 9)]
                    if not frames:
                        self.sets = [unit for unit in units if unit[0] & 31 in (7, 8)]
                    self.units.append((frames / self.frame_rate, 0, list(fragments(units))))
                    frames += 1
        self.units.sort(key=lambda unit: unit[0])
        self.length_s = frames / self.frame_rate

    def description(self) -> str:
        sets = ",".join(base64.b64encode(unit).decode() for unit in self.sets)
        lines = [
            *("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "t=0 0", "a=control:*", "m=video 0 RTP/AVP 96"),
            *("a=control:track0", "a=rtpmap:96 H264/90000"),
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}",
        ]
        if self.sound == "aac":
            lines += [
                *("m=audio 0 RTP/AVP 97", "a=control:track1"),
                f"a=rtpmap:97 MPEG4-GENERIC/{self.rates[1]}/{self.channels}",
                "a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;"
                f"config={self.config.hex()}",
            ]
        elif self.sound:
            name = {"pcm_mulaw": "PCMU", "pcm_alaw": "PCMA"}[self.sound]
            lines += ["m=audio 0 RTP/AVP 97", "a=control:track1", f"a=rtpmap:97 {name}/{self.rates[1]}/{self.channels}"]
        return "\r\n".join(lines) + "\r\n"


class Client:
    """One connection."""

    def __init__(self, media: Media, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._media, self._reader, self._writer = media, reader, writer
        self._playing: asyncio.Task[None] | None = None
        self._channels: dict[int, int] = {}

    async def serve(self) -> None:
        try:
            while not self._writer.is_closing():
                if (first := await self._reader.readexactly(1)) == b"$":
                    _, size = struct.unpack(">BH", await self._reader.readexactly(3))
                    await self._reader.readexactly(size)
                else:
                    self._answer((first + await self._reader.readuntil(b"\r\n\r\n")).decode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if self._playing is not None:
                self._playing.cancel()
            self._writer.close()

    def _answer(self, request: str) -> None:
        first, *lines = request.split("\r\n")
        method, url = first.split()[:2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        extra, body = ["Session: 1;timeout=60"], ""
        if method == "OPTIONS":
            extra = ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"]
        elif method == "DESCRIBE":
            extra, body = [f"Content-Base: {url}/", "Content-Type: application/sdp"], self._media.description()
        elif method == "SETUP":
            transport = headers.get("transport", "")
            track = int(url[-1])
            self._channels[track] = int(transport.split("interleaved=")[1].split("-")[0])
            channel = self._channels[track]
            extra.append(f"Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1};ssrc={track + 1:08X}")
        head = ["RTSP/1.0 200 OK", f"CSeq: {headers.get('cseq', '0')}", *extra, f"Content-Length: {len(body)}"]
        self._writer.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
        if method == "PLAY":
            self._playing = asyncio.ensure_future(self._play())
        elif method == "TEARDOWN":
            self._writer.close()

    async def _play(self) -> None:
        begun, wall = time.monotonic(), time.time()
        print(f"PLAY {begun:.6f}", flush=True)
        sequence, reported = [0, 0], [-10.0, -10.0]
        rounds = 0
        while True:
            for at, track, payloads in self._media.units:
                at += rounds * self._media.length_s
                if (wait_s := begun + at - time.monotonic()) > 0.001:
                    await asyncio.sleep(wait_s)
                if self._writer.is_closing():
                    return  # the client has gone; there is no pause in which that is told while this camera is behind
                if self._writer.transport.get_write_buffer_size() > 64 << 20:
                    return  # the client does not read
                if track in self._channels:
                    self._send(track, at, payloads, sequence, reported, wall)
            rounds += 1

    def _send(
        self,
        track: int,
        at: float,
        payloads: list[tuple[bytes, bool]],
        sequence: list[int],
        reported: list[float],
        wall: float,
    ) -> None:
        stamp = round(at * self._media.rates[track]) & 0xFFFF_FFFF
        channel = self._channels[track]
        parts = []
        if at - reported[track] >= 5.0:
            reported[track] = at
            ntp = wall + at + NTP
            report = struct.pack(
                ">BBHIIIIII", 0x80, 200, 6, track + 1, int(ntp), int(ntp % 1 * 2**32), stamp, sequence[track], 0
            )
            parts.append(struct.pack(">cBH", b"$", channel + 1, len(report)) + report)
        for payload, is_last in payloads:
            parts.append(
                struct.pack(
                    ">cBHBBHII", b"$", channel, 12 + len(payload), 0x80, (0x80 if is_last else 0) | 96 + track,
                    sequence[track] & 0xFFFF, stamp, track + 1,
                )
            )  # fmt: skip
            parts.append(payload)
            sequence[track] += 1
        self._writer.write(b"".join(parts))


async def serve(media: Media, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Client(media, reader, writer).serve()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=200)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    asyncio.run(serve(Media(args.file), args.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
