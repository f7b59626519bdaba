"""An RTSP camera over TCP that is read without libav's client: a Demuxer for H.264, HEVC, AAC and G.711.

libav says what the streams are, of the first frames that come. `open_rtsp` gives None where libav is to read it.
"""

from __future__ import annotations

import base64
import errno
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

from msrecd.clock import NS
from msrecd.inputs import wire
from msrecd.inputs.confine import in_child
from msrecd.inputs.rtp import CODECS, RecodedError, RtpError, Track, Unpacker
from msrecd.inputs.rtsp import Media, Playing, Refused, Session, Unsuited
from msrecd.libav.demuxer import KEY_FRAME_S
from msrecd.libav.explaining import explain
from msrecd.libav.rawsound import sound_info
from msrecd.libav.streamfacts import stream_info_of_annexb
from msrecd.libav.values import MAX_PIXELS, Demuxed, LibavError, StreamInfo, Times

NAP_S = 0.3  # between two looks at the network: draining it in one go costs half of waking for each packet
_LOOK_NS = NS * 4 // 10  # of a stream of frames, to know its rate
_LOOK_S = 0.5
_SOUND_S = 2.0  # sound that has not come by then is known by the description alone
_MAX_EARLY = 16 << 20  # bytes of what comes before the streams are known
_MAX_AT_ONCE = 4 << 20
_PIECE = 1 << 16
_PACKETS_A_SECOND = 40_000  # of RTP: what comes faster waits, and with it its sender
_MOST = round(_PACKETS_A_SECOND * NAP_S)  # in one look
_MAX_HANDED = 4 << 20  # bytes that go to another process, by way of the program
_REQUESTS_LOST = 1000  # more than a process that is gone can have sent
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
    transport = "tcp"

    def __init__(self, session: Session, timeout_s: float) -> None:
        self._session, self._timeout_s = session, timeout_s
        self._unpacker = Unpacker([one.track for one in session.media])
        self._early: list[Demuxed] = []
        self._raw: list[bytes] = []  # what came until it is known
        self.streams: list[StreamInfo] = []
        self.skipped: list[str] = []
        self.absent: list[int] = []
        has_zero = all(one.track.zero_stamp is not None for one in session.media)
        self.times: Times = "rtp_aligned" if has_zero else "rtp"
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
            data = self._more()
            size += len(data)
            if size > _MAX_EARLY or time.monotonic() - begun > KEY_FRAME_S:
                raise LibavError("what came is no media that is known")
            before = self._unpacker.packets
            try:
                self._early += self._unpacker.feed(data)
            except RtpError as exc:
                raise LibavError(str(exc)) from None
            self._early += self._unpacker.flush()
            self._raw.append(data)
            if (came := self._unpacker.packets - before) > _PIECE // 100:  # small ones, too many for a time this short
                time.sleep(came / _PACKETS_A_SECOND)
        found = wire.read_description(in_child(self._description))
        self.streams, self.skipped, self.absent = list(found.streams), list(found.skipped), list(found.absent)

    def _description(self) -> bytes:
        """By libav, in a process that ends with it: reading needs nothing of what it touches, some 6 MiB."""
        streams: list[StreamInfo] = []
        skipped, absent = [], []
        for one in self._session.media:
            own = [packet for packet in self._early if packet.stream == one.track.stream]
            try:
                streams.append(_described(one, own))
                if not own:
                    absent.append(one.track.stream)
            except LibavError as exc:
                skipped.append(f"{one.kind} stream {one.track.stream}: {exc}"[:200])
        found = wire.Description(
            streams=tuple(streams), is_live=True, times=self.times, skipped=tuple(skipped), absent=tuple(absent)
        )
        return wire.description(found)[wire.HEADER.size :]

    def _is_known(self, waited_s: float) -> bool:
        if not self._early:
            return False
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

    def _more(self) -> bytes:
        try:
            return self._session.more()
        except TimeoutError:
            raise LibavError(f"silent for {self._timeout_s:g} s") from None
        except OSError as exc:
            raise LibavError(_explained(exc)) from None

    def hand_over(self, indexes: Sequence[int]) -> tuple[int, bytes] | None:
        """(connection, what another process has to know to read on, see `Flow.of`); None: it is too much."""
        raw = b"".join(self._raw) + self._session.rest
        if len(raw) > _MAX_HANDED:
            return None
        facts = {
            "session": self._session.facts(),
            "tracks": [asdict(one.track) for one in self._session.media],
            "indexes": list(indexes),
            "timeout_s": self._timeout_s,
            "stamps": [list(one) for one in self._unpacker.first_stamps.items()],
        }
        return self._session.socket.fileno(), wire.handover(json.dumps(facts).encode(), b"", raw)

    def batches(self, indexes: Sequence[int]) -> Iterator[list[Demuxed]]:
        """What comes within 0.3 s, together, until the end of the input.

        Raises:
            LibavError: it is silent, or breaks off.
        """
        flow = Flow(self._session, self._unpacker, indexes, self._timeout_s)
        batch, self._early, self._raw = [one for one in self._early if one.stream in flow.wanted], [], []
        batch += flow.look()  # what came meanwhile: the newest packet tells how late the others are
        while True:
            if batch:
                yield batch
            if flow.is_over:
                return
            time.sleep(flow.pause_s)
            batch = flow.look()


class Flow:
    """What a camera that plays sends from now on. Waits for nothing; belongs to one thread."""

    def __init__(self, session: Playing, unpacker: Unpacker, wanted: Sequence[int], timeout_s: float) -> None:
        self._session, self._unpacker, self._timeout_s = session, unpacker, timeout_s
        self.wanted = set(wanted)
        self.is_over = unpacker.has_ended
        self.pause_s = NAP_S  # until the next look
        self._heard_at = time.monotonic()
        self._keep_alive_at = self._heard_at + session.session_s / 2

    @classmethod
    def of(cls, connection: socket.socket, body: bytes) -> tuple[Flow, list[Demuxed]]:
        """What another process has read so far, as `RtspInput.hand_over` gives it, with its first packets.

        Raises:
            ValueError: it is none.
            LibavError: what came is out of bounds.
        """
        try:
            text, times, raw = wire.read_handover(body)
            facts = json.loads(text)
            session = Playing.of(connection, facts["session"])
            tracks = [_checked_track(one) for one in facts["tracks"]]
            wanted = [int(one) for one in facts["indexes"]]
            timeout_s = float(facts["timeout_s"])
            follows = _followed(facts["stamps"], times) if times else None
            if not 0 < len(tracks) <= wire.MAX_STREAMS or not 0 < timeout_s < 1e5:
                raise ValueError("bounds")
            unpacker = Unpacker(tracks, follows)
        except (wire.WireError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as exc:
            raise ValueError("no camera that plays") from exc
        flow = cls(session, unpacker, wanted, timeout_s)
        if follows is not None:
            session.requests.number += _REQUESTS_LOST
            session.requests.login.count += _REQUESTS_LOST
        return flow, flow._wanted_of(raw) if raw else []

    @property
    def held_bytes(self) -> int:
        return self._unpacker.held_bytes

    def close(self) -> None:
        self._session.end()

    def look(self) -> list[Demuxed]:
        """What has come since the last look.

        Raises:
            LibavError: the camera is silent, or has broken off.
            Misbehaves: what it sends is out of bounds.
        """
        batch: list[Demuxed] = []
        got = 0
        before = self._unpacker.packets
        try:
            while got < _MAX_AT_ONCE and len(batch) < wire.MAX_BATCH // 2 and self._unpacker.packets - before < _MOST:
                if not (data := self._session.waiting()):
                    break
                got += len(data)
                batch += self._fed(data)
        except OSError as exc:
            raise LibavError(_explained(exc)) from None
        batch += self._unpacker.flush()
        batch = [packet for packet in batch if packet.stream in self.wanted]
        now = time.monotonic()
        if batch:
            self._heard_at = now
        elif now - self._heard_at > self._timeout_s:
            raise LibavError(f"silent for {self._timeout_s:g} s")
        if now >= self._keep_alive_at or self._unpacker.messages:
            self._keep_alive(now)
        self.is_over = self._session.is_over or self._unpacker.has_ended
        return batch

    def _wanted_of(self, data: bytes) -> list[Demuxed]:
        batch = self._fed(data) + self._unpacker.flush()
        return [packet for packet in batch if packet.stream in self.wanted]

    def _fed(self, data: bytes) -> list[Demuxed]:
        try:
            return self._unpacker.feed(data)
        except RecodedError as exc:
            raise LibavError(str(exc)) from None
        except RtpError as exc:
            raise Misbehaves(str(exc)) from None

    def _keep_alive(self, now: float) -> None:
        messages, self._unpacker.messages = self._unpacker.messages, []
        try:
            asks_again = self._session.read_messages(messages)
            if asks_again or now >= self._keep_alive_at:
                self._keep_alive_at = now + self._session.session_s / 2
                self._session.keep_alive()
        except OSError as exc:
            raise LibavError(_explained(exc)) from None


class Misbehaves(LibavError):
    """What comes is out of bounds: the input is not read together with others any more."""


def _checked_track(item: dict[str, Any]) -> Track:
    """
    Raises:
        ValueError, TypeError: it is none.
    """
    track = Track(**item)
    numbers = {
        "stream": wire.MAX_STREAMS, "channel": 256, "reports": 256, "payload_type": 128, "clock_rate": 192_001,
        "unit_ns": NS,
    }  # fmt: skip
    for name, end in numbers.items():
        value = getattr(track, name)
        if type(value) is not int or not 0 <= value < end:
            raise ValueError(name)
    if track.codec not in CODECS or not track.clock_rate:
        raise ValueError("codec")
    if track.zero_stamp is not None and (type(track.zero_stamp) is not int or not 0 <= track.zero_stamp < 1 << 32):
        raise ValueError("zero_stamp")
    return track


def _followed(stamps: Any, times: bytes) -> dict[int, tuple[int, int]]:
    """
    Raises:
        ValueError, TypeError: they are none.
    """
    last = {int(stream): int(pts_ns) for stream, pts_ns in json.loads(times)}
    first = {int(stream): int(stamp) % (1 << 32) for stream, stamp in stamps}
    return {stream: (first[stream], last[stream]) for stream in first.keys() & last.keys()}


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
