"""Which containers and codecs can be recorded, and which are taken for a stream. Pure but for asking the build."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msrecd.codecs.g711 import G711
from msrecd.flow.units import Kind
from msrecd.vocabulary.formats import (
    CONTAINERS,
    DEFAULT_TYPES,
    PASSTHROUGH_ONLY,
    Container,
    MimeType,
    codec_of,
    parse_mime_type,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a recorder writes: the container and one codec per kind (None: the stream has no such track)."""

    essence: str
    container: Container
    video: str | None
    audio: str | None

    @property
    def extension(self) -> str:
        return self.container.extension if self.video else self.container.audio_extension


_ADVICE: Mapping[str, str] = dict.fromkeys(
    G711, '; "pcm" in Matroska or WAV keeps each of its samples, and without a codec of sound it is encoded'
)


class Unsupported(Exception):
    """The type cannot be recorded; the message says why."""


@functools.cache
def can_encode(codec: str) -> bool:
    """Whether this libav build encodes the codec and we use it for that."""
    from msrecd import libav

    return codec not in PASSTHROUGH_ONLY and libav.encoder_for(codec) is not None


def check_type(text: str, *, can_provide: Callable[[str], bool] = can_encode) -> MimeType | None:
    """Parse and check a type against containers and codecs; None for the empty string (anything goes).

    https://w3c.github.io/mediacapture-record/#dom-mediarecorder-istypesupported, with our decision C2: the answer is
    the truth for every codec, also for those outside of the specification's list.

    Raises:
        Unsupported: with the reason.
    """
    if text == "":
        return None
    mime = parse_mime_type(text)
    if mime is None:
        raise Unsupported(f"{text!r} is not a MIME type")
    container = CONTAINERS.get(mime.essence)
    if container is None:
        raise Unsupported(f"{mime.essence} cannot be recorded; known are {', '.join(sorted(CONTAINERS))}")
    kinds: set[Kind] = set()
    for identifier in mime.codecs:
        known = codec_of(identifier)
        if known is None:
            raise Unsupported(f"codec {identifier!r} is not known")
        codec, kind = known
        if kind in kinds:
            raise Unsupported(f"{text!r} names more than one {kind} codec")
        kinds.add(kind)
        if codec not in (container.video if kind == "video" else container.audio):
            raise Unsupported(f"{mime.essence} cannot hold {identifier}{_ADVICE.get(codec, '')}")
        if kind == "video" and mime.top_level == "audio":
            raise Unsupported(f"{mime.essence} cannot hold video")
        if not can_provide(codec):
            raise Unsupported(f"this libav build cannot encode {codec}")
    return mime


def is_type_supported(text: str) -> bool:
    """MediaRecorder.isTypeSupported without a stream."""
    try:
        check_type(text)
    except Unsupported:
        return False
    return True


def select(text: str, kinds: frozenset[Kind], native: Mapping[Kind, str | None]) -> Selection:
    """Complete a type for the tracks at hand: what it names, else what the source already delivers, else the best.

    Args:
        text: the constrained type, "" for none.
        kinds: of the live tracks.
        native: the codec each kind's source already delivers, None for raw sources.

    Raises:
        Unsupported: the tracks cannot be recorded so.
    """
    natives = {codec for codec in native.values() if codec}
    mime = check_type(text, can_provide=lambda codec: can_encode(codec) or codec in natives)
    if mime is None:
        mime = MimeType(DEFAULT_TYPES["video" if "video" in kinds else "audio"])
        if native.get("video") in ("vp8",):
            mime = MimeType("video/webm")
    container = CONTAINERS[mime.essence]
    if "video" in kinds and (mime.top_level == "audio" or not container.video):
        raise Unsupported(f"{mime.essence} cannot hold the stream's video track")
    named: dict[Kind, str] = {}
    for identifier in mime.codecs:
        known = codec_of(identifier)
        if known is not None:
            named[known[1]] = known[0]

    def choose(kind: Kind) -> str | None:
        if kind not in kinds:
            return None
        allowed = container.video if kind == "video" else container.audio
        if kind in named:
            return named[kind]
        own = native.get(kind)
        if own in allowed:
            return own
        for codec in allowed:
            if can_encode(codec):
                return codec
        raise Unsupported(f"no {kind} codec of this libav build fits into {mime.essence}")

    return Selection(essence=mime.essence, container=container, video=choose("video"), audio=choose("audio"))


def full_type(selection: Selection, codec_strings: Mapping[Kind, str]) -> str:
    """The type with the codecs really written: `video/mp4;codecs=avc1.640028,mp4a.40.2`."""
    order: tuple[Kind, Kind] = ("video", "audio")
    codecs = ",".join(codec_strings[kind] for kind in order if kind in codec_strings)
    return f"{selection.essence};codecs={codecs}" if codecs else selection.essence
