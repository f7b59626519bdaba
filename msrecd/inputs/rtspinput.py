"""An RTSP camera over TCP that is read without libav's client: a Demuxer for H.264, HEVC, AAC and G.711.

libav says what the streams are, of the first frames that come. `open_rtsp` gives None where libav is to read it.
"""

from __future__ import annotations

import base64
import errno
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from msrecd.clock import NS
from msrecd.inputs import wire
from msrecd.inputs.confine import in_child
from msrecd.inputs.rtp import RtpError, Unpacker
from msrecd.inputs.rtsp import Media, Refused, Session, Unsuited
from msrecd.libav.demuxer import KEY_FRAME_S, explain, stream_info_of_annexb
from msrecd.libav.rawsound import sound_info
from msrecd.libav.values import MAX_PIXELS, Demuxed, LibavError, StreamInfo

NAP_S = 0.3  # between two looks at the network: draining it in one go costs half of waking for each packet
_LOOK_NS = NS * 4 // 10  # of a stream of frames, to know its rate
_LOOK_S = 0.5
_SOUND_S = 2.0  # sound that has not come by then does not come
_MAX_EARLY = 16 << 20  # bytes of what comes before the streams are known
_MAX_AT_ONCE = 4 << 20
_PIECE = 1 << 16
_PACKETS_A_SECOND = 40_000  # of RTP: what comes faster waits, and with it its sender
_MAX_SETS = 16


def open_rtsp(request: dict[str, Any]) -> RtspInput | None:
    """
    Raises:
        LibavError: it cannot be read; the message does not hold the address.
    """
    if not request["url"].startswith("rtsp://") or request["transport"] == "udp":
        return None
    timeout_s = float(request["timeout_s"])
    try:
        session = Session(request["url"], timeout_s=timeout_s, kinds=request["kinds"])
    except Unsuited:
        return None
    except Refused:
        raise LibavError("it refused the user name or password (401)") from None
    except (OSError, ValueError) as exc:
        raise LibavError(_explained(exc)) from None
    try:
        return RtspInput(session, timeout_s)
    except BaseException:
        session.end()
        raise


def _explained(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return explain(OSError(errno.ETIMEDOUT, ""))
    return explain(exc) if isinstance(exc, OSError) and exc.errno and exc.errno > 0 else "no such host"


class RtspInput:
    """As libav's Demuxer; see there."""

    is_live = True
    times = "rtp"
    transport = "tcp"

    def __init__(self, session: Session, timeout_s: float) -> None:
        self._session, self._timeout_s = session, timeout_s
        self._unpacker = Unpacker([one.track for one in session.media])
        self._early: list[Demuxed] = []
        self._keep_alive_at = time.monotonic() + session.session_s / 2
        self.streams: list[StreamInfo] = []
        self.skipped: list[str] = []
        self._look()

    def close(self) -> None:
        self._session.end()

    def rewind(self) -> None:
        raise LibavError("a camera does not go back to the beginning")

    # --- what it is --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read until all streams can be described."""
        begun = time.monotonic()
        size = 0
        while not self._is_known(time.monotonic() - begun):
            data = self._received(self._session.more)
            size += len(data)
            if size > _MAX_EARLY or time.monotonic() - begun > KEY_FRAME_S:
                raise LibavError("what came is no media that is known")
            self._early += self._fed(data)
            self._early += self._unpacker.flush()
        found = wire.read_description(in_child(self._description))
        self.streams, self.skipped = list(found.streams), list(found.skipped)

    def _description(self) -> bytes:
        """By libav, in a process that ends with it: reading needs nothing of what it touches, some 6 MiB."""
        streams: list[StreamInfo] = []
        skipped = []
        for one in self._session.media:
            own = [packet for packet in self._early if packet.stream == one.track.stream]
            try:
                streams.append(_described(one, own))
            except LibavError as exc:
                skipped.append(f"{one.kind} stream {one.track.stream}: {exc}"[:200])
        found = wire.Description(streams=tuple(streams), is_live=True, times=self.times, skipped=tuple(skipped))
        return wire.description(found)[wire.HEADER.size :]

    def _is_known(self, waited_s: float) -> bool:
        for one in self._session.media:
            own = [packet for packet in self._early if packet.stream == one.track.stream]
            if one.kind == "audio":
                if not own and waited_s < _SOUND_S:
                    return False
                continue
            if not own or not (_sets_of(one) or any(packet.is_keyframe for packet in own)):
                return False
            times = [packet.pts_ns or 0 for packet in own]
            if max(times) - min(times) < _LOOK_NS and (waited_s < _LOOK_S or len(own) < 2):
                return False
        return True

    # --- what it sends -----------------------------------------------------------------------------------------------

    def _received(self, ask: Any) -> bytes:
        try:
            data: bytes = ask()
        except TimeoutError:
            raise LibavError(f"silent for {self._timeout_s:g} s") from None
        except OSError as exc:
            raise LibavError(_explained(exc)) from None
        return data

    def _fed(self, data: bytes) -> list[Demuxed]:
        before = self._unpacker.packets
        try:
            packets = self._unpacker.feed(data)
        except RtpError as exc:
            raise LibavError(str(exc)) from None
        if (came := self._unpacker.packets - before) > _PIECE // 100:  # small ones, too many for a time this short
            time.sleep(came / _PACKETS_A_SECOND)
        return packets

    def batches(self, indexes: Sequence[int]) -> Iterator[list[Demuxed]]:
        """What comes within 0.3 s, together, until the end of the input.

        Raises:
            LibavError: it is silent, or breaks off.
        """
        wanted = set(indexes)
        batch, self._early = [packet for packet in self._early if packet.stream in wanted], []
        heard_at = time.monotonic()
        while True:
            if batch:
                yield batch
            if self._unpacker.has_ended:
                return
            time.sleep(NAP_S)
            got = 0
            batch = []
            while (
                got < _MAX_AT_ONCE
                and len(batch) < wire.MAX_BATCH // 2
                and (data := self._received(self._session.waiting))
            ):
                got += len(data)
                batch += self._fed(data)
            batch += self._unpacker.flush()
            batch = [packet for packet in batch if packet.stream in wanted]
            now = time.monotonic()
            if batch:
                heard_at = now
            elif now - heard_at > self._timeout_s:
                raise LibavError(f"silent for {self._timeout_s:g} s")
            if now >= self._keep_alive_at or self._unpacker.messages:
                self._keep_alive(now)
            if self._session.is_over:
                if batch:
                    yield batch
                return

    def _keep_alive(self, now: float) -> None:
        messages, self._unpacker.messages = self._unpacker.messages, []
        try:
            asks_again = self._session.read_messages(messages)
            if asks_again or now >= self._keep_alive_at:
                self._keep_alive_at = now + self._session.session_s / 2
                self._session.keep_alive()
        except OSError as exc:
            raise LibavError(_explained(exc)) from None


def _sets_of(one: Media) -> bytes:
    """Parameter sets that the description names, as a byte stream."""
    found = re.findall(r"sprop-(?:parameter-sets|vps|sps|pps)\s*=\s*([^;\s]*)", one.parameters)
    sets = []
    for text in ",".join(found).split(",")[:_MAX_SETS]:
        try:
            unit = base64.b64decode(text, validate=True)
        except ValueError:
            continue
        if unit:
            sets.append(b"\0\0\0\1" + unit)
    return b"".join(sets)


def _described(one: Media, packets: Sequence[Demuxed]) -> StreamInfo:
    """
    Raises:
        LibavError: it cannot be told.
    """
    track = one.track
    if one.kind == "audio":
        config = re.search(r"config\s*=\s*([0-9A-Fa-f]+)", one.parameters)
        info = sound_info(
            track.codec, [bytes(packet.data) for packet in packets[:8]], clock_rate=track.clock_rate,
            channels=one.channels, config=bytes.fromhex(config[1][: len(config[1]) & ~1]) if config else b"",
        )  # fmt: skip
        return replace(info, index=track.stream)
    first = next((packet for packet in packets if packet.is_keyframe), packets[0])
    data, sets = bytes(first.data), _sets_of(one)
    has_sets = data[4] & 0x1F == 7 if track.codec == "h264" else data[4] >> 1 & 0x3F == 32
    info = stream_info_of_annexb(data if has_sets else sets + data, track.codec, sets or None)
    if info.width * info.height > MAX_PIXELS:
        raise LibavError("its frames are too large")
    return replace(info, index=track.stream, frame_rate=_rate_of(packets) or info.frame_rate)


def _rate_of(packets: Sequence[Demuxed]) -> float | None:
    """Frames a second, by the times of the first ones; usual rates for what is near them."""
    times = sorted({packet.pts_ns for packet in packets if packet.pts_ns is not None})
    steps = [b - a for a, b in pairwise(times)]
    if not steps:
        return None
    rate = NS / sorted(steps)[len(steps) // 2]
    near = min(
        (*range(1, 121), 12.5, 7.5, 24000 / 1001, 30000 / 1001, 60000 / 1001), key=lambda usual: abs(usual - rate)
    )
    return float(near if abs(near - rate) < 0.02 * near else rate) if 0.05 < rate < 500 else None
