"""JPEGs that come over HTTP one after the other, where libav's reader of parts or its probing does not do.

Cameras send them as parts (multipart/x-mixed-replace) whose first boundary is missing or whose parts have no type, or
with nothing between them. So what lies between two is not looked at: each is read from its first marker to its last
(ITU-T T.81, B.1 and B.2), and its time is when its end came. Standard library, but for the first one's description.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import SplitResult, unquote, urlsplit

from msrecd.clock import NS
from msrecd.inputs.httpconnection import connection_to, request_target
from msrecd.inputs.rtsp import Login, Unsuited
from msrecd.libav.demuxer import SNAPSHOT
from msrecd.libav.streamfacts import stream_info_of_annexb
from msrecd.libav.values import MAX_PIXELS, Demuxed, LibavError, StreamInfo, Times

_MOST_BYTES = 16 << 20  # of a JPEG
_MOST_BETWEEN = 64 << 10  # bytes that are none of a JPEG
_PIECE = 1 << 16
_LOOK_NS = NS  # of a stream of frames, to know its rate
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment


class JpegInput:
    """As libav's Demuxer; see there.

    Raises:
        LibavError: it sends no JPEGs, or only one.
    """

    is_live = True
    looks_up_names = False
    transport = "tcp"
    times: Times = "container"
    skipped: Sequence[str] = ()

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connection, self._answer = _asked(urlsplit(url), timeout_s)
        self._splitter = Splitter()
        self._has_ended = False
        try:
            self._early = self._first()
            info = stream_info_of_annexb(self._early[0][1], "mjpeg")
            if info.width * info.height > MAX_PIXELS:
                raise LibavError("its frames are too large")
        except BaseException:
            self.close()
            raise
        passed_ns = self._early[-1][0] - self._early[0][0]
        rate = (len(self._early) - 1) * NS / passed_ns if passed_ns else 25.0
        self.streams: list[StreamInfo] = [replace(info, index=0, frame_rate=min(rate, 120.0))]

    def _first(self) -> list[tuple[int, bytes]]:
        """(when it came, the JPEG), of the first second; two at least."""
        found: list[tuple[int, bytes]] = []
        deadline_ns = time.monotonic_ns() + round(self._timeout_s * NS)
        while len(found) < 2 or found[-1][0] - found[0][0] < _LOOK_NS:
            came = self._more()
            now_ns = time.monotonic_ns()
            found += [(now_ns, jpeg) for jpeg in came]
            if self._has_ended and len(found) < 2:
                raise LibavError(SNAPSHOT if found else "what came is no media that is known")
            if self._has_ended or (now_ns > deadline_ns and len(found) > 1):
                break
            if now_ns > deadline_ns + round(self._timeout_s * NS):
                raise LibavError(f"silent for {self._timeout_s:g} s")
        return found

    def _more(self) -> list[bytes]:
        try:
            data = self._answer.read1(_PIECE)
        except TimeoutError:
            raise LibavError(f"silent for {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError):
            raise LibavError("the connection broke off") from None
        self._has_ended = not data
        return self._splitter.feed(data)

    def batches(self, indexes: Sequence[int]) -> Iterator[list[Demuxed]]:
        """What came together, with the time when it did."""
        early, self._early = self._early, []
        zero_ns = early[0][0]
        yield [Demuxed(0, jpeg, at_ns - zero_ns, None, 0, True) for at_ns, jpeg in early]
        while not self._has_ended:
            came = self._more()
            at_ns = time.monotonic_ns() - zero_ns
            if came:
                yield [Demuxed(0, jpeg, at_ns, None, 0, True) for jpeg in came]

    def rewind(self) -> None:
        raise LibavError("a camera does not go back to the beginning")

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


class Splitter:
    """Bytes in, whole JPEGs out. Pure."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = -1  # behind what was looked at of a JPEG that begins at 0; -1: none has begun
        self._between = 0

    def feed(self, data: bytes) -> list[bytes]:
        """
        Raises:
            LibavError: what comes is no JPEGs.
        """
        self._data += data
        found = []
        while self._begin() and (end := self._end()) is not None:
            found.append(bytes(self._data[:end]))
            del self._data[:end]
            self._at = -1
        if len(self._data) > _MOST_BYTES or self._between > _MOST_BETWEEN:
            raise LibavError("what came is no media that is known")
        return found

    def _begin(self) -> bool:
        if self._at >= 0:
            return True
        begin = self._data.find(b"\xff\xd8\xff")
        skipped = begin if begin >= 0 else max(0, len(self._data) - 2)
        self._between = 0 if begin >= 0 else self._between + skipped
        del self._data[:skipped]
        if begin >= 0:
            self._at = 2
        return begin >= 0

    def _end(self) -> int | None:
        """Behind the last marker; None: it has not come."""
        data = self._data
        while True:
            at = data.find(b"\xff", self._at)
            if at < 0 or at + 1 >= len(data):
                self._at = len(data) if at < 0 else at
                return None
            marker = data[at + 1]
            if marker == 0xD9:
                return at + 2
            if marker == 0xFF:  # filling
                self._at = at + 1
            elif marker in _ALONE or marker == 0:
                self._at = at + 2
            elif at + 4 > len(data) or (after := at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")) > len(data):
                self._at = at
                return None
            else:
                self._at = after


def _asked(parts: SplitResult, timeout_s: float) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """
    Raises:
        LibavError: there is no connection, or no answer of the right kind.
    """
    login = Login()
    target = request_target(parts)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user:
        login.scheme = "basic"
    try:
        for _ in range(3):
            connection = connection_to(parts, timeout_s)
            try:
                headers = {"Accept": "*/*", "User-Agent": "msrecd"}
                if signature := login.header("GET", target, user, password):
                    headers["Authorization"] = signature.partition(": ")[2]
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                if answer.status == 200:
                    return connection, answer
                known = login.learn(answer.headers.get_all("WWW-Authenticate", []))
            except BaseException:
                connection.close()
                raise
            connection.close()
            if answer.status != 401 or not known or not user:
                break
    except (OSError, http.client.HTTPException, ValueError, Unsuited):
        raise LibavError("the connection failed: check the address and the network") from None
    raise LibavError(f"it refused the request ({answer.status})")
