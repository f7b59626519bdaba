"""What is fuzzed at the boundary: processes that read and decode, and lie. `python -m tests.fuzz.lying FOLDER SECONDS SEED`

In the place of a confined process, a thread of this program answers: what a good process said of a file in FOLDER, with
the structure of its description, the numbers of its packets and frames, and what they hold spoiled. The program opens,
plays and records it, as the daemon does. Each must come to an end that is documented. Prints a JSON object of counts.
"""  # noqa: E501

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msrecd
from msrecd.inputs import decoder, decoding, wire
from msrecd.inputs.processes import helpers
from msrecd.libav.demuxer import Demuxer
from msrecd.libav.values import Demuxed, LibavError
from msrecd.media import streamdecoding
from tests.fuzz.player import BOARD_BYTES, Deaths
from tests.fuzz.seeds import spoiled

AT_ONCE = 4
GIVEN_UP_S = 90.0
STRANGE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 25, 255, 256, 65535, 65536, 1 << 31, 1 << 63, 1 << 70, -(1 << 63), 0.0, 1e-300,
    1e-9, 0.5, 499.9, 1e308, float("nan"), float("inf"), "", "x", "x" * 99, "x" * 5000, "\x1b[2J", "\ud800", "h264",
    "hevc", "aac", "opus", "flac", "pcm_s16le", "mjpeg", "audio", "video", "5.1", "999 channels", "AAAA", "full", [],
    {}, [1], [0, 0], [1, 0], ["x"], [[]], {"a": 1}, [1, 2, 3],
)  # fmt: skip
TIMES = (0, 1, -1, wire._NONE, -(1 << 61), 1 << 61, (1 << 61) - 1, 1 << 62, 1 << 40, -(1 << 40), 40_000_000)
PASSED = ("video/x-matroska", "video/mp4", "audio/x-matroska", "audio/mp4", "video/webm", "audio/ogg")
ENCODED = ("video/webm;codecs=vp8,opus", "video/x-matroska;codecs=mjpeg,flac", "audio/ogg;codecs=opus", "audio/wav")


class Truth:
    """What a good process says of a file."""

    def __init__(self, path: Path) -> None:
        demuxer = Demuxer(str(path))
        self.streams = list(demuxer.streams)
        described = wire.Description(streams=tuple(self.streams), is_live=True, times=demuxer.times)
        self.description = json.loads(wire.description(described)[wire.HEADER.size :])
        self.packets: list[Demuxed] = []
        with contextlib.suppress(LibavError):
            self.packets = list(demuxer.packets([info.index for info in self.streams]))[:300]
        demuxer.close()


def strange(value: Any, chance: random.Random) -> Any:
    """One node of it replaced, doubled, renamed or left out."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return {name: part for name, part in value.items() if name != key}
            case 1:
                return value | {"new": chance.choice(STRANGE)}
            case 2:
                return value | {key: value[chance.choice(list(value))]}
            case _:
                return value | {key: strange(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        match chance.randrange(8):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value * chance.choice((2, 40))
            case _:
                return [*value[:at], strange(value[at], chance), *value[at + 1 :]]
    if isinstance(value, str) and len(value) > 40 and chance.random() < 0.7:  # bytes
        return base64.b64encode(spoiled(base64.b64decode(value), chance)).decode()
    return chance.choice(STRANGE)


class Liar(threading.Thread):
    """In the place of one process."""

    def __init__(self, truths: list[Truth], seed: str) -> None:
        super().__init__(daemon=True)
        self._chance = random.Random(seed)
        self._truth = self._chance.choice(truths)
        self._socket, self.theirs = socket.socketpair()
        self._socket.settimeout(20)
        self.end, self._alive = os.pipe()
        self.status, self._status = os.pipe()

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError, struct.error):
            head = self._socket.recv(wire.HEADER.size, socket.MSG_WAITALL)
            request = json.loads(self._socket.recv(wire.HEADER.unpack(head)[1], socket.MSG_WAITALL))
            if "decode" in request:
                self._decode(request)
            else:
                self._read()
        if self._chance.random() < 0.2:
            os.write(self._status, self._chance.choice((b"killed by SIGSEGV", b"\x1b[2J\xff\n" * 30)))
        self._socket.close()
        os.close(self._status)
        os.close(self._alive)

    def _frame(self, kind: bytes, body: bytes) -> None:
        """A frame; some have another kind or length than they should."""
        chance = self._chance
        size = len(body)
        if chance.random() < 0.02:
            kind = chance.choice((b"D", b"P", b"E", b"V", b"S", b"N", b"X", b"Q", b"\0"))
        if chance.random() < 0.01:
            size = chance.choice((0, 1, size + 1, size - 1 & 0xFFFFFFFF, 1 << 20, 32 << 20, 0xFFFFFFFF))
        self._socket.sendall(wire.HEADER.pack(kind, size) + body)

    def _read(self) -> None:
        chance = self._chance
        value = self._truth.description
        for _ in range(chance.choice((0, 0, 0, 0, 1, 1, 2, 5))):
            value = strange(value, chance)
        text = json.dumps(value).encode()
        if chance.random() < 0.05:
            text = chance.choice(
                (b"[" * 100_000, b"{}", b"null", b"\xff", b'{"streams":' * 1000, spoiled(text, chance))
            )
        self._frame(wire.DESCRIPTION, text)
        line = b""
        while not line.endswith(b"\n"):
            if not (part := self._socket.recv(65536)):
                return
            line += part
        indexes = json.loads(line)
        for number in range(chance.choice((1, 5, 40))):
            self._frame(wire.PACKETS, self._batch(indexes, number))
            time.sleep(chance.choice((0, 0, 0.02)))
        error = chance.choice((None, "it ended", *STRANGE))
        self._frame(wire.END, json.dumps({"error": error} if chance.random() < 0.9 else error).encode())
        self._socket.recv(1)

    def _batch(self, indexes: list[int], number: int) -> bytes:
        chance, packets = self._chance, self._truth.packets
        taken = [packets[(number * 8 + at) % len(packets)] for at in range(8)] if packets else []
        honest = chance.random() < 0.5
        heads, datas = bytearray(), b""
        for at, packet in enumerate(taken):
            data = bytes(packet.data)
            step = (number * 8 + at) * 40_000_000
            flags = packet.is_keyframe | packet.is_damaged << 1
            fields = [packet.stream, flags, len(data), step, step, 40_000_000, wire._NONE, 0]
            if not honest and chance.random() < 0.5:
                data = chance.choice((b"", b"\0", spoiled(data, chance), chance.randbytes(40), data * 30))
                fields[2] = len(data)
            if not honest and chance.random() < 0.5:
                which = chance.randrange(8)
                fields[which] = chance.choice(
                    ((*indexes, 0, 1, 7, 65535), range(8), (0, len(data) + 1, 0xFFFFFFFF), TIMES, TIMES,
                     (0, 1, (1 << 50) - 1, 1 << 50, -1), TIMES, (0, 1, 40_000_000, 0xFFFFFFFF))[which]
                )  # fmt: skip
            heads += wire._PACKET.pack(*fields)
            datas += data
        count = len(taken) if chance.random() < 0.98 else chance.choice((0, 1, 10_001, 0xFFFFFFFF))
        return struct.pack("<I", count) + heads + datas

    def _decode(self, request: dict[str, Any]) -> None:
        chance = self._chance
        frames = wire.FrameReader(self._socket, (decoder.PACKET, decoder.FLUSH, decoder.TAKEN))
        while True:
            try:
                kind, body = frames.read(20)
            except wire.WireError:
                return
            if chance.random() < 0.05:
                self._frame(decoder.FAILED, chance.choice((b"", b"\x1b[2J" * 900, b"no")))
            elif request["decode"] == "audio":
                channels = max(1, int(request["channels"])) * (4 if request["sample_format"] == "s32" else 2)
                size = 1024 * channels if chance.random() < 0.9 else chance.choice((0, 1, 3, 1 << 20, (4 << 20) + 4))
                self._frame(decoder.SOUND, bytes(size))
            elif kind == decoder.FLUSH or chance.random() < 0.1:
                self._frame(decoder.DONE, b"")
            else:
                fields = [decoder.PTS.unpack_from(body)[0], request["width"], request["height"], 0, 2, 0]
                if chance.random() < 0.3:
                    which = chance.randrange(6)
                    sizes = (0, 1, 2, 15, 161, 4096, 65535)
                    fields[which] = chance.choice((TIMES, sizes, sizes, (0, 1, 255), (0, 9, 255), (0, 1, 255))[which])
                head = decoder.FRAME_HEAD.pack(*fields)
                self._frame(decoder.FRAME, head if chance.random() < 0.98 else head[:-1])


async def play(path: Path, mime_type: str) -> str:
    element = msrecd.MediaElement(str(path), {"timeout": 1.0}, preload="none")
    try:
        await element.load()
        recorder = msrecd.MediaRecorder(element.capture_stream(), {"mime_type": mime_type})
        recorder.start(300)
        await element.play()
        try:
            await asyncio.wait_for(asyncio.shield(recorder.stopped), 1.0)
        except TimeoutError:
            if recorder.state != "inactive":
                recorder.stop()
            await recorder.stopped
        return "recorded"
    except msrecd.DOMException:
        return "refused"
    finally:
        element.close()


async def main(folder: Path, seconds: float, seed: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    logged = Deaths()
    logging.getLogger().addHandler(logged)
    paths = sorted(folder.iterdir())  # noqa: ASYNC240
    truths = []
    for path in paths:
        with contextlib.suppress(LibavError):
            truths.append(Truth(path))
    assert truths
    numbers = iter(range(1 << 30))

    def fork() -> tuple[socket.socket, int, int]:
        liar = Liar(truths, f"{seed}/{next(numbers)}")
        liar.start()
        return liar.theirs, liar.end, liar.status

    helpers.fork = fork  # type: ignore[method-assign]
    decoding.board_bytes = streamdecoding.board_bytes = lambda: BOARD_BYTES
    ends = time.monotonic() + seconds

    async def work(worker: int) -> None:
        chance = random.Random(f"{seed}/{worker}")
        while time.monotonic() < ends:
            begun = time.monotonic()
            outcome = await asyncio.wait_for(play(paths[0], chance.choice(PASSED + ENCODED)), GIVEN_UP_S)
            counts[outcome] += 1
            counts["slow"] += time.monotonic() - begun > 20
            assert not logged.internal, logged.internal[0]

    await asyncio.gather(*(work(number) for number in range(AT_ONCE)))
    counts["liars"] = next(numbers)
    counts["deaths told"] = logged.count
    return counts


if __name__ == "__main__":
    found = asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
    status = Path("/proc/self/status").read_text()  # getrusage would count the process that started this one
    found["peak MiB"] = int(status.split("VmHWM:")[1].split()[0]) >> 10
    print(json.dumps(found))
