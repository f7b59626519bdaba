"""What the address of an input says: a file or a network stream, how it is opened, and how it may be shown. Pure.

A URL's user information and query may hold secrets. `shown` has neither, and is the only form that goes into logs,
states, events and errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

Transport = Literal["auto", "tcp", "udp"]

TRANSPORTS = ("auto", "tcp", "udp")
TRACKS = ("audio", "video")
REDIRECTS = ("same-host", "any")
STREAMING_SCHEMES = ("rtsp", "rtsps", "rtmp", "srt", "udp")  # live by their nature
NETWORK_SCHEMES = (*STREAMING_SCHEMES, "http", "https")
SCHEMES = ("file", *NETWORK_SCHEMES)

_SECRET = re.compile(r"((?:pass(?:word|wd)?|pwd|token|secret|key)=)[^&;/]*", re.IGNORECASE)
_BAD_PLACE = "the URL has no valid host and port (1 to 65535); in a password write / as %2F and @ as %40"
_INSTEAD = {"rtp": ". Write udp: for MPEG-TS in RTP, and the camera's rtsp: URL for other RTP"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """How an input is opened.

    transport: of RTSP; "auto" is TCP, then UDP when the camera refuses TCP.
    tracks: kinds that are wanted; empty: all.
    timeout_s: silence of a network input that counts as its end.
    user, password_file: take the place of a URL's user information; the file's first line is the password.
    redirects: of HTTP (with what an HLS playlist names), RTSP and RTMP; "same-host" follows none to another host.
    """

    transport: Transport = "auto"
    tracks: tuple[str, ...] = ()
    timeout_s: float = 10.0
    user: str | None = None
    password_file: str | None = None
    redirects: Literal["same-host", "any"] = "same-host"

    @classmethod
    def of(cls, options: Mapping[str, object]) -> SourceOptions:
        """The options of a MediaElement: transport, tracks, timeout (or "10s"), user, password_file, redirects.

        Raises:
            TypeError: one that is not known, or is not of its type.
        """
        values = dict(options)
        transport = values.pop("transport", "auto")
        tracks = values.pop("tracks", ())
        timeout = values.pop("timeout", 10.0)
        user, password_file = values.pop("user", None), values.pop("password_file", None)
        redirects = values.pop("redirects", "same-host")
        if values:
            raise TypeError(f"unknown option {sorted(map(str, values))[0]!r}; known are {', '.join(_OPTIONS)}")
        if transport not in TRANSPORTS:
            raise TypeError(f"transport must be one of {', '.join(TRANSPORTS)}")
        if redirects not in REDIRECTS:
            raise TypeError(f"redirects must be one of {', '.join(REDIRECTS)}")
        if isinstance(tracks, str) or not isinstance(tracks, Sequence) or any(kind not in TRACKS for kind in tracks):
            raise TypeError("tracks must be a list of audio and video")
        if isinstance(timeout, str):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", timeout)
            timeout = float(match[1]) * {"ms": 0.001, "s": 1, "m": 60}[match[2]] if match else None
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 600:
            raise TypeError("timeout must be a number of seconds, or a text like 10s, of at most 10 minutes")
        for name, value in (("user", user), ("password_file", password_file)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str")
        return cls(
            transport=transport,  # type: ignore[arg-type]
            tracks=tuple(tracks),
            timeout_s=float(timeout),
            user=user,  # type: ignore[arg-type]
            password_file=password_file,  # type: ignore[arg-type]
            redirects=redirects,  # type: ignore[arg-type]
        )


DEFAULT_OPTIONS = SourceOptions()
_OPTIONS = ("transport", "tracks", "timeout", "user", "password_file", "redirects")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A checked address.

    opened: what libav opens: an absolute path, or a URL with its user information. Secret.
    shown: for people.
    """

    scheme: str
    opened: str
    shown: str

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    @property
    def is_file(self) -> bool:
        return self.scheme == "file"

    @property
    def is_streaming(self) -> bool:
        """Live by its scheme; HTTP may be either, which its answer tells."""
        return self.scheme in STREAMING_SCHEMES


def parse(location: str, user: str | None = None, password: str | None = None) -> Address:
    """The address of a path or URL; `user` and `password` take the place of its user information.

    Raises:
        ValueError: a scheme that cannot be played, a URL without a host, a `file:` URL of another machine. The message
            has no secret in it.
    """
    match = _SCHEME.match(location)
    if match is None or ("://" not in location and match[0].lower() != "file:"):
        return Address(scheme="file", opened=location, shown=location)
    scheme = match[0][:-1].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"cannot play {scheme}: URLs; known are {', '.join(SCHEMES)}{_INSTEAD.get(scheme, '')}")
    try:
        parts = urlsplit(location)
        host, port = parts.hostname, parts.port
    except ValueError:  # its message may hold a part of a password
        raise ValueError(_BAD_PLACE) from None
    if scheme == "file":
        return _file(parts)
    if scheme == "udp" and port is None:
        raise ValueError("the udp: URL names no port; write udp://@:5004, or udp://@239.0.0.1:5004 for a multicast")
    if port == 0:
        raise ValueError(_BAD_PLACE)
    if not host and not (scheme == "udp" and port):
        raise ValueError(f"the {scheme}: URL names no host")
    if any(char.isspace() or ord(char) < 32 for char in location):
        raise ValueError("the URL has white space in it")
    return Address(scheme=scheme, opened=_opened(parts, user, password), shown=shown(location))


def _file(parts: SplitResult) -> Address:
    """https://www.rfc-editor.org/rfc/rfc8089: file:/x, file:///x, file://localhost/x."""
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(f"file: URLs name files of this machine, not of {parts.netloc.rpartition('@')[2]}")
    path = unquote(parts.path)
    if not path.startswith("/"):
        raise ValueError("a file: URL has an absolute path")
    if "\0" in path:
        raise ValueError("a file's name has no zero byte")
    return Address(scheme="file", opened=path, shown=path)


def _opened(parts: SplitResult, user: str | None, password: str | None) -> str:
    place = parts.netloc.rpartition("@")[2]
    if user is None:
        user = None if parts.username is None else unquote(parts.username)
        if password is None and parts.password is not None:
            password = unquote(parts.password)
    if user is not None:
        secret = "" if password is None else f":{quote(password, safe='')}"
        place = f"{quote(user, safe='')}{secret}@{place}"
    return urlunsplit((parts.scheme.lower(), place, parts.path, parts.query, ""))


def shown(location: str) -> str:
    """The address for people: without user information, query and fragment, and without `password=` in its path."""
    match = _SCHEME.match(location)
    if match is None or "://" not in location:
        return location
    scheme, rest = location.split("://", 1)
    place, slash, path = rest.partition("/")
    place = re.split(r"[?#]", place.rpartition("@")[2])[0]
    # A password may hold a "/": then the "@" stands in what looks like the path.
    if "@" in path.split("?")[0] and ":" in place and not place.rpartition(":")[2].isdigit():
        place, slash, path = path.rpartition("@")[2].partition("/")
    path = _SECRET.sub(r"\1…", re.split(r"[?#]", path)[0])
    return f"{scheme.lower()}://{place}{slash}{path}"


def check(url: str) -> str | None:
    """What is wrong with a `source.url` of a configuration; None if nothing is."""
    if not url:
        return "is empty"
    try:
        parse(url)
    except ValueError as exc:
        return str(exc)
    return None
