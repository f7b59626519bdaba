"""RTSP over one TCP connection: what is asked of a camera until it sends, to keep it sending, and at the end.

What is not usual (another codec, another transport, an answer that means something else) is `Unsuited`: libav opens it
then. The rules: RFC 2326, RFC 2617 and 7616 (Digest), RFC 4566 (descriptions), RFC 6184, 7798, 3640 (parameters).
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from msrecd.clock import NS
from msrecd.inputs.rtp import Track

_MAX_DESCRIPTION = 16 << 10
_MAX_ANSWER = 64 << 10
_USUAL_TIMEOUT_S = 60
_PIECE = 1 << 16
_MAX_FACT = 4096  # characters
_MAX_INFOS = 16
_CODECS = {"H264": "h264", "H265": "hevc", "MPEG4-GENERIC": "aac", "PCMU": "pcm_mulaw", "PCMA": "pcm_alaw"}
_STATIC = {0: "PCMU/8000", 8: "PCMA/8000"}
_AAC_HBR = {"mode": "aac-hbr", "sizelength": "13", "indexlength": "3", "indexdeltalength": "3"}
_PLAIN = re.compile(r"[\x20-\x7e]{0,1000}")


class Unsuited(Exception):
    """Not for this client."""


class Refused(Exception):
    """The camera wants another user name or password."""


def is_plain(text: object) -> bool:
    """Whether something can stand in a line of a request."""
    return isinstance(text, str) and _PLAIN.fullmatch(text) is not None


@dataclass(slots=True)
class Login:
    """How requests are signed. What comes from the camera is in it, the password is not."""

    scheme: str = ""  # "", "basic" or "digest"
    realm: str = ""
    nonce: str = ""
    opaque: str = ""
    algorithm: str = ""
    qop: str = ""
    count: int = 0

    def learn(self, challenges: Sequence[str]) -> bool:
        """Take what a 401 says; False: nothing that is known.

        Raises:
            Unsuited: a way of signing that is not known here.
        """
        for challenge in sorted(challenges, key=lambda text: not text.lower().startswith("digest")):
            scheme, _, rest = challenge.partition(" ")
            found = {name.lower(): quoted or bare for name, quoted, bare in re.findall(_PARAMETER, rest)}
            values = [found.get(name, "") for name in ("realm", "nonce", "opaque", "algorithm")]
            if not all(map(is_plain, values)):
                raise Unsuited
            if scheme.lower() == "basic":
                self.scheme = "basic"
                return True
            if scheme.lower() == "digest" and values[3].upper() in ("", "MD5", "SHA-256"):
                qop = "auth" if "auth" in re.split(r"[\s,]+", found.get("qop", "")) else ""
                if found.get("qop") and not qop:
                    continue
                self.scheme, self.qop, self.count = "digest", qop, 0
                self.realm, self.nonce, self.opaque, self.algorithm = values
                return True
        return False

    def header(self, method: str, uri: str, user: str, password: str) -> str:
        if self.scheme == "basic":
            return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        if self.scheme != "digest":
            return ""

        import hashlib  # with its library, which most cameras make no use of

        def digest(text: str) -> str:
            name = "sha256" if self.algorithm.upper() == "SHA-256" else "md5"
            return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

        ours, theirs = digest(f"{user}:{self.realm}:{password}"), digest(f"{method}:{uri}")
        more = ""
        if self.qop:
            self.count += 1
            number, own = f"{self.count:08x}", os.urandom(8).hex()
            more = f', qop=auth, nc={number}, cnonce="{own}"'
            answer = digest(f"{ours}:{self.nonce}:{number}:{own}:auth:{theirs}")
        else:
            answer = digest(f"{ours}:{self.nonce}:{theirs}")
        if self.opaque:
            more += f', opaque="{self.opaque}"'
        if self.algorithm:
            more += f", algorithm={self.algorithm}"
        return (
            f'Authorization: Digest username="{user}", realm="{self.realm}", nonce="{self.nonce}", uri="{uri}", '
            f'response="{answer}"{more}'
        )


_PARAMETER = r'([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))'


class Requests:
    """Writes the requests of one session. The URL may hold a user and a password, which go into signatures alone."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.user, self.password = unquote(parts.username or ""), unquote(parts.password or "")
        self.host, self.port = parts.hostname or "", parts.port or 554
        self.url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        self.control = self.url  # of the session
        self.session = ""
        self.login = Login()
        self.number = 0
        self.keep_alive = "OPTIONS"

    def write(self, method: str, url: str = "", *headers: str) -> bytes:
        self.number += 1
        uri = url or self.control
        lines = [f"{method} {uri} RTSP/1.0", f"CSeq: {self.number}", "User-Agent: msrecd", *headers]
        if self.session:
            lines.append(f"Session: {self.session}")
        if signature := self.login.header(method, uri, self.user, self.password):
            lines.append(signature)
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""

    def get(self, name: str) -> str:
        return self.headers.get(name, [""])[0]


def read_answer(head: bytes) -> Answer | None:
    """The status line and the headers of an answer; None when it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    match = re.match(r"RTSP/\d\.\d (\d{3})", first)
    if match is None:
        return None
    headers: dict[str, list[str]] = {}
    for line in lines[:100]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), []).append(value.strip())
    return Answer(int(match[1]), headers)


_ENTRY = re.compile(r"(?:^|,)\s*url\s*=\s*", re.IGNORECASE)
_ENTRY_FACTS = re.compile(r"[\s;:]+(?:ssrc|seq|rtptime)\s*=", re.IGNORECASE)
_RTP_TIME = re.compile(r"(?:^|[\s;:])rtptime\s*=\s*(\d{1,10})(?!\d)", re.IGNORECASE)


def read_rtp_info(values: Sequence[str], controls: Sequence[str]) -> list[int | None]:
    """The times of RTP at the beginning of what is played, for streams with these addresses; None for all of them where
    one is not told.

    RFC 2326, 12.33, and RFC 7826, 18.45. Addresses may be whole or relative, of another host, and have commas and
    semicolons in them; where they fit no stream, the order counts.
    """
    found: list[tuple[str, int | None]] = []
    for value in values[:_MAX_INFOS]:
        ends = [*_ENTRY.finditer(value[:_MAX_FACT])][:_MAX_INFOS]
        for entry, following in zip(ends, [*ends[1:], None], strict=False):
            text = value[entry.end() : following.start() if following else _MAX_FACT]
            if text.startswith('"'):
                url, _, facts = text[1:].partition('"')
            else:
                split = _ENTRY_FACTS.search(text)
                url, facts = (text[: split.start()], text[split.start() :]) if split else (text, "")
            time_of_rtp = _RTP_TIME.search(facts)
            stamp = int(time_of_rtp[1]) if time_of_rtp else -1
            found.append((url.strip(), stamp if 0 <= stamp < 1 << 32 else None))
    by_name = {_last_part(url): stamp for url, stamp in found}
    names = [_last_part(control) for control in controls]
    if len(by_name) == len(found) and len(set(names)) == len(names) and all(name in by_name for name in names):
        stamps = [by_name[name] for name in names]
    elif len(found) == len(controls):
        stamps = [stamp for _, stamp in found]
    else:
        stamps = [None]
    return [None] * len(controls) if None in stamps else stamps


def _last_part(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Media:
    """A stream of a description that is taken. parameters: of its encoding (fmtp)."""

    track: Track
    control: str
    parameters: str
    channels: int

    @property
    def kind(self) -> str:
        return "video" if self.track.codec in ("h264", "hevc") else "audio"


_REQUEST_FACTS: dict[str, type] = {
    "user": str, "password": str, "control": str, "session": str, "number": int, "keep_alive": str,
}  # fmt: skip
_OF_THE_USER = ("user", "password")


def _checked(name: str, value: Any, kind: type) -> Any:
    """
    Raises:
        ValueError: it is not of this kind, or out of bounds.
    """
    if type(value) is not kind:
        raise ValueError(name)
    if isinstance(value, int) and not 0 <= value < 1 << 31:
        raise ValueError(name)
    if isinstance(value, str) and (len(value) > _MAX_FACT or not (value.isprintable() or name in _OF_THE_USER)):
        raise ValueError(name)
    return value


class Playing:
    """A camera that plays, over the connection that it was asked on. Waits for nothing; belongs to one thread.

    `facts` and `of` carry it to another process, together with the connection.
    """

    def __init__(self, connection: socket.socket, requests: Requests, session_s: int) -> None:
        self.socket, self.requests, self.session_s = connection, requests, session_s
        self.is_over = False

    def facts(self) -> dict[str, Any]:
        requests = self.requests
        return {
            "session_s": self.session_s,
            "login": asdict(requests.login),
            **{name: getattr(requests, name) for name in _REQUEST_FACTS},
        }

    @classmethod
    def of(cls, connection: socket.socket, facts: dict[str, Any]) -> Playing:
        """
        Raises:
            ValueError, KeyError, TypeError: the facts are none.
        """
        requests = Requests("rtsp://")
        login = Login(**facts["login"])
        for name, kind in _REQUEST_FACTS.items():
            setattr(requests, name, _checked(name, facts[name], kind))
        for name, one in asdict(login).items():
            _checked(name, one, int if name == "count" else str)
        requests.login = login
        return cls(connection, requests, _checked("session_s", facts["session_s"], int))

    def waiting(self) -> bytes:
        """What has come, b"" for nothing; `is_over` when nothing will.

        Raises:
            OSError: the connection broke off.
        """
        if self.socket.gettimeout() != 0:
            self.socket.setblocking(False)
        try:
            data = self.socket.recv(_PIECE)
        except BlockingIOError:
            return b""
        self.is_over = not data
        return data

    def keep_alive(self) -> None:
        """Tell the camera that this client is still there; the answer comes between the packets."""
        self._send(self.requests.write(self.requests.keep_alive))

    def read_messages(self, messages: Sequence[bytes]) -> bool:
        """What came between the packets. True: the camera wants the last request again, signed anew."""
        for head in messages:
            answer = read_answer(head)
            if answer is None:
                self._refuse(head)
            elif answer.status == 401:
                with contextlib.suppress(Unsuited):
                    login = self.requests.login
                    before = login.nonce
                    return login.learn(answer.headers.get("www-authenticate", [])) and login.nonce != before
        return False

    def _refuse(self, head: bytes) -> None:
        """A request of the camera's, which nobody here serves."""
        number = re.search(rb"(?im)^cseq:\s*(\d{1,10})\s*$", head)
        if number is not None:
            self._send(b"RTSP/1.0 501 Not Implemented\r\nCSeq: " + number[1] + b"\r\n\r\n")

    def _send(self, message: bytes) -> None:
        """
        Raises:
            OSError: the camera has taken none of the last requests, or has gone.
        """
        self.socket.setblocking(False)
        if self.socket.send(message) < len(message):
            raise TimeoutError(errno.ETIMEDOUT, "it takes no request")

    def end(self) -> None:
        """Free the camera's session, and end the connection for all who hold it."""
        with contextlib.suppress(OSError):
            self._send(self.requests.write("TEARDOWN"))
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Session(Playing):
    """A camera that is asked to play. Its constructor and `more` wait.

    Raises:
        Unsuited: libav should open it.
        Refused: its user name or password is wrong.
        OSError: no connection, or no answer in time.
    """

    def __init__(self, url: str, *, timeout_s: float, kinds: Sequence[str] = ()) -> None:
        requests = Requests(url)
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._buffer = b""
        connection = socket.create_connection((requests.host, requests.port), timeout_s)
        super().__init__(connection, requests, _USUAL_TIMEOUT_S)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(kinds)
        except BaseException:
            self.socket.close()
            raise

    def _begin(self, kinds: Sequence[str]) -> None:
        requests = self.requests
        answer = self._ask("OPTIONS", requests.url)
        if "GET_PARAMETER" in answer.get("public"):
            requests.keep_alive = "GET_PARAMETER"
        answer = self._ask("DESCRIBE", requests.url, "Accept: application/sdp")
        base = answer.get("content-base") or answer.get("content-location") or requests.url
        if not is_plain(base) or not base.lower().startswith("rtsp://"):
            base = requests.url
        requests.control = base
        try:
            lines = [line.strip() for line in answer.body.decode().splitlines()]
        except UnicodeDecodeError:
            raise Unsuited from None
        wanted = self._wanted(lines, base, kinds)
        for number, one in enumerate(wanted):
            self._set_up(number, one)
        answer = self._ask("PLAY", "", "Range: npt=0.000-")
        begins = read_rtp_info(answer.headers.get("rtp-info", []), [one.control for one in wanted])
        self.media = tuple(
            replace(one, track=replace(one.track, zero_stamp=stamp)) for one, stamp in zip(wanted, begins, strict=True)
        )

    def _set_up(self, number: int, one: Media) -> None:
        transport = f"Transport: RTP/AVP/TCP;unicast;interleaved={2 * number}-{2 * number + 1}"
        answer = self._ask("SETUP", one.control, transport)
        match = re.search(r"interleaved=(\d+)-(\d+)", answer.get("transport"))
        if match is None or (int(match[1]), int(match[2])) != (one.track.channel, one.track.reports):
            raise Unsuited
        session, *parameters = answer.get("session").split(";")
        if not is_plain(session):
            raise Unsuited
        self.requests.session = session.strip()
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "timeout" and value.strip().isdigit():
                self.session_s = max(5, min(3600, int(value.strip()[:5])))

    def _wanted(self, lines: Sequence[str], base: str, kinds: Sequence[str]) -> list[Media]:
        """
        Raises:
            Unsuited: something in it is for libav.
        """
        parts: list[list[str]] = []
        for line in lines:
            if line.startswith("m="):
                parts.append([line])
            elif parts:
                parts[-1].append(line)
            elif line.startswith("a=control:rtsp://") and is_plain(line):
                self.requests.control = line.removeprefix("a=control:")
        found: list[Media] = []
        for part in parts[:32]:
            words = part[0].removeprefix("m=").split()
            if words[0] not in ("video", "audio") or (kinds and words[0] not in kinds):
                continue
            if len(words) != 4 or words[2] != "RTP/AVP" or not words[3].isdigit():
                raise Unsuited
            found.append(_stream_of(words[0], int(words[3][:3]), part, base, len(found)))
        names = [one.kind for one in found]
        if not found or len(set(names)) != len(names) or len({one.track.payload_type for one in found}) != len(found):
            raise Unsuited
        return found

    def _ask(self, method: str, url: str, *headers: str) -> Answer:
        for _ in range(3):
            self.socket.sendall(self.requests.write(method, url, *headers))
            answer = self._answer()
            if answer.status == 401:
                login = self.requests.login
                before = (login.scheme, login.nonce)
                known = login.learn(answer.headers.get("www-authenticate", []))
                if not self.requests.user or not known or before == (login.scheme, login.nonce):
                    raise Refused
                continue
            break
        if answer.status != 200:
            if answer.status == 401:
                raise Refused
            raise Unsuited
        return answer

    def _answer(self) -> Answer:
        """The next answer; what is sent before the one to PLAY is kept."""
        media = b""
        while True:
            if self._buffer[:1] == b"$":
                if len(self._buffer) >= 4 and len(self._buffer) >= (
                    size := 4 + int.from_bytes(self._buffer[2:4], "big")
                ):
                    media, self._buffer = media + self._buffer[:size], self._buffer[size:]
                    continue
            elif (end := self._buffer.find(b"\r\n\r\n")) >= 0:
                answer = read_answer(self._buffer[:end])
                if answer is None:
                    raise Unsuited
                length = answer.get("content-length") or "0"
                if not length.isdigit() or int(length[:9]) > _MAX_DESCRIPTION:
                    raise Unsuited
                stop = end + 4 + int(length)
                if len(self._buffer) >= stop:
                    answer.body = self._buffer[end + 4 : stop]
                    self._buffer = media + self._buffer[stop:]
                    return answer
            if len(self._buffer) + len(media) > _MAX_ANSWER * 4:
                raise Unsuited
            self._buffer += self._received(self._deadline)

    def _received(self, deadline: float) -> bytes:
        self.socket.settimeout(max(0.01, deadline - time.monotonic()))
        data = self.socket.recv(_PIECE)
        if not data:
            raise ConnectionResetError(104, "it closed the connection")
        return data

    def more(self) -> bytes:
        """What is sent next.

        Raises:
            OSError: it ends, or nothing comes in time.
        """
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        return self._received(time.monotonic() + self._timeout_s)

    @property
    def rest(self) -> bytes:
        """What has come and was not asked for yet."""
        return self._buffer

    def waiting(self) -> bytes:
        return self.more() if self._buffer else super().waiting()


def _stream_of(kind: str, payload_type: int, part: Sequence[str], base: str, number: int) -> Media:
    """
    Raises:
        Unsuited: it is none of those that are known here.
    """
    mapped, parameters, control = _STATIC.get(payload_type, ""), "", ""
    for line in part:
        if line.startswith(f"a=rtpmap:{payload_type} "):
            mapped = line.partition(" ")[2].strip()
        elif line.startswith(f"a=fmtp:{payload_type} "):
            parameters = line.partition(" ")[2]
        elif line.startswith("a=control:"):
            control = line.removeprefix("a=control:").strip()
    name, _, rest = mapped.partition("/")
    rate = rest.partition("/")[0]
    codec = _CODECS.get(name.upper())
    if codec is None or (codec in ("h264", "hevc")) != (kind == "video") or not rate.isdigit():
        raise Unsuited
    clock_rate = int(rate[:7])
    found = {key.lower(): value for key, value in re.findall(r"([\w-]+)\s*=\s*([^;\s]*)", parameters)}
    if (
        not 0 < clock_rate <= 192_000
        or found.get("packetization-mode", "1") not in ("0", "1")
        or found.get("sprop-max-don-diff", "0") != "0"
        or (codec == "aac" and any(found.get(key, "").lower() != value for key, value in _AAC_HBR.items()))
        or (codec == "aac" and (found.get("constantsize") or found.get("auxiliarydatasizelength", "0") != "0"))
        or (codec.startswith("pcm") and rest.count("/") and rest.partition("/")[2] != "1")
        or not is_plain(control)
    ):
        raise Unsuited
    if not control or control == "*":
        control = base
    elif not control.lower().startswith("rtsp://"):
        control = base + ("" if base.endswith("/") else "/") + control
    track = Track(
        stream=number, codec=codec, channel=2 * number, reports=2 * number + 1, payload_type=payload_type,
        clock_rate=clock_rate, unit_ns=1024 * NS // clock_rate if codec == "aac" else 0,
    )  # fmt: skip
    channels = rest.partition("/")[2]
    return Media(track, control, parameters, int(channels[:2]) if channels.isdigit() else 1)
