"""Decoding what comes from outside: in a process of its own for each stream, as confined as those that read.

Decoders have as many flaws as demuxers. What goes to the process is a packet, what comes back a frame (in memory that
both have mapped: the kernel copies nothing) or PCM, and each length and number of it is checked. A packet that ends the
process, or keeps it for longer than `DECODE_S`, is the end of the input (ReaderError): its recorders open it again.
"""

from __future__ import annotations

import base64
import logging
import os
from collections import deque
from collections.abc import Sequence

from msrecd.flow.units import Presentation, VideoFormat, VideoFrame
from msrecd.inputs import decoder, wire
from msrecd.inputs.limits import board_bytes, pixels_that_fit
from msrecd.inputs.processes import Process, ReaderError, SharedMemory
from msrecd.libav.values import LibavError, StreamInfo, decoded_presentation

log = logging.getLogger(__name__)

DECODE_S = 10.0  # for one packet, on a slow and busy board
_AT_ONCE = 16  # packets of sound that are sent before the first answer is read: together less than a socket holds
_AT_ONCE_BYTES = 32 << 10
_MOST_FRAMES = 64


class _Decoder:
    """Shared by both kinds. Belongs to one thread, but for `close`.

    Raises:
        ReaderError: the process cannot be started, died or hung.
    """

    def __init__(self, info: StreamInfo, name: str, kinds: Sequence[bytes], fds: Sequence[int] = ()) -> None:
        self._name = name
        self._max_pixels = pixels_that_fit(board_bytes())
        self._process = Process((*kinds, decoder.FAILED))
        request = {
            "decode": info.kind,
            "width": info.width,
            "height": info.height,
            "max_pixels": self._max_pixels,
            "sample_format": "s32" if info.bits > 16 else "s16",
            "channels": info.channels,
            "sample_rate": info.sample_rate,
            "layout": info.layout,
            "header": base64.b64encode(info.header).decode(),
        }
        try:
            self._process.ask(request, fds)
        except OSError as exc:
            self.close()
            raise ReaderError("the process that decodes it is gone") from exc

    def _send(self, kind: bytes, body: Sequence[bytes | memoryview] = ()) -> None:
        head = wire.HEADER.pack(kind, sum(map(len, body)))
        try:
            self._process.socket.settimeout(DECODE_S)
            wire.send_parts(self._process.socket, [head, *body])
        except OSError as exc:
            raise self._gone(exc) from None

    def _answer(self) -> tuple[bytes, bytes]:
        """
        Raises:
            LibavError: this packet cannot be decoded; the next one may be.
        """
        try:
            kind, body = self._process.read(DECODE_S)
        except (wire.WireError, OSError) as exc:
            raise self._gone(exc) from None
        if kind == decoder.FAILED:
            raise LibavError("".join(c if c.isprintable() else " " for c in body[:300].decode(errors="replace")))
        return kind, body

    def _gone(self, exc: Exception) -> ReaderError:
        if self._process.is_closed:
            return ReaderError("closed")
        if isinstance(exc, TimeoutError):
            self._process.kill()
            how = f"hung for {DECODE_S:g} s"
        else:
            how = f"was {self._process.how_it_ended() or 'ended'}"
        self.close()
        log.warning("the process that decodes %s %s; no other input is concerned", self._name, how)
        return ReaderError(f"the process that decodes it {how}")

    def close(self) -> None:
        """End the process. Idempotent."""
        self._process.close()


class ConfinedVideoDecoder(_Decoder):
    """Packets of one video stream to 8-bit YUV frames of limited range."""

    def __init__(self, info: StreamInfo, name: str) -> None:
        try:
            shared = SharedMemory.make(decoder.SHARED_BYTES)
        except OSError as exc:
            raise ReaderError(f"no memory to decode with: {exc.strerror}") from exc
        try:
            super().__init__(info, name, (decoder.FRAME, decoder.DONE), (shared.fd,))
        finally:
            os.close(shared.fd)
        self._info = info
        self._shared = shared.map
        self.size = (info.width, info.height)  # of the last frame

    def decode(self, data: bytes | memoryview, pts_ns: int) -> list[VideoFrame]:
        """Frames that became ready.

        Raises:
            LibavError: the packet cannot be decoded.
        """
        self._send(decoder.PACKET, (decoder.PTS.pack(pts_ns), data))
        return self._frames()

    def flush(self) -> list[VideoFrame]:
        self._send(decoder.FLUSH)
        return self._frames()

    def _frames(self) -> list[VideoFrame]:
        frames: list[VideoFrame] = []
        while True:
            kind, body = self._answer()
            if kind == decoder.DONE:
                return frames
            frame, more_follow = self._frame(body)
            frames.append(frame)
            if not more_follow:
                return frames
            if len(frames) >= _MOST_FRAMES:
                raise self._gone(wire.WireError("more frames than a decoder can hold"))
            self._send(decoder.TAKEN)

    def _frame(self, head: bytes) -> tuple[VideoFrame, bool]:
        if len(head) != decoder.FRAME_HEAD.size:
            raise self._gone(wire.WireError("no frame"))
        pts_ns, width, height, is_full, matrix, more_follow = decoder.FRAME_HEAD.unpack(head)
        if not width or not height or width * height > self._max_pixels or not -(1 << 61) < pts_ns < 1 << 61:
            raise self._gone(wire.WireError("a frame out of bounds"))
        self.size = (width, height)
        size = width * height + 2 * (-(-width // 2) * -(-height // 2))
        format = VideoFormat(
            width=width,
            height=height,
            frame_rate=self._info.frame_rate,
            presentation=self._presentation(bool(is_full), matrix),
        )
        return VideoFrame(pts_ns=pts_ns, format=format, data=self._shared[:size]), bool(more_follow)

    def _presentation(self, is_full: bool, matrix: int) -> Presentation:
        return decoded_presentation(self._info.presentation, is_full=is_full, matrix=matrix)


class ConfinedAudioDecoder(_Decoder):
    """Packets of one audio stream to interleaved PCM: "s32" where they have more than 16 bits, else "s16"."""

    def __init__(self, info: StreamInfo, name: str) -> None:
        super().__init__(info, name, (decoder.SOUND,))
        self._frame_bytes = info.channels * (4 if info.bits > 16 else 2)

    def decode(self, packets: Sequence[bytes | memoryview]) -> list[bytes | None]:
        """The PCM of each packet, empty while the decoder fills, None for one that cannot be decoded."""
        pcm: list[bytes | None] = []
        waiting = deque(packets)
        while waiting:
            sent, size = 0, 0
            while waiting and sent < _AT_ONCE and (not sent or size + len(waiting[0]) < _AT_ONCE_BYTES):
                size += len(waiting[0])
                self._send(decoder.PACKET, (decoder.PTS.pack(0), waiting.popleft()))
                sent += 1
            for _ in range(sent):
                try:
                    _, body = self._answer()
                except ReaderError:
                    raise
                except LibavError as exc:
                    log.debug("%s: a packet could not be decoded: %s", self._name, exc)
                    pcm.append(None)
                    continue
                if len(body) > decoder.MAX_SOUND or len(body) % self._frame_bytes:
                    raise self._gone(wire.WireError("no sound"))
                pcm.append(body)
        return pcm
