"""File formats: containers, the MIME types and suffixes that stand for them, and the codecs each may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A file format.

    muxer: libav's name.
    demuxer: libav's name, where the header of a file says enough to skip probing; None elsewhere.
    video, audio: libav's names of the codecs it may hold, best first.
    video_types, audio_types: the MIME types that stand for it; the first one is what we write.
    extension, audio_extension: with the dot; the second for files without video.
    is_single_track: it holds one audio track and cannot express a gap in it.
    """

    muxer: Literal["mp4", "webm", "matroska", "ogg", "flac", "wav"]
    demuxer: Literal["mov", "matroska"] | None = None
    video: tuple[str, ...] = ()
    audio: tuple[str, ...]
    video_types: tuple[str, ...] = ()
    audio_types: tuple[str, ...]
    extension: str
    audio_extension: str
    is_single_track: bool = False

    @property
    def extensions(self) -> tuple[str, ...]:
        """All suffixes of its files, each once."""
        return tuple(dict.fromkeys((self.extension, self.audio_extension)))


_CONTAINERS = (
    Container(
        muxer="mp4",
        demuxer="mov",
        video=("h264", "hevc", "av1", "vp9", "mjpeg"),
        audio=("aac", "opus", "flac"),
        video_types=("video/mp4",),
        audio_types=("audio/mp4",),
        extension=".mp4",
        audio_extension=".m4a",
    ),
    Container(
        muxer="webm",
        demuxer="matroska",
        video=("vp8", "vp9", "av1"),
        audio=("opus",),
        video_types=("video/webm",),
        audio_types=("audio/webm",),
        extension=".webm",
        audio_extension=".webm",
    ),
    Container(
        muxer="matroska",
        demuxer="matroska",
        video=("h264", "hevc", "vp8", "vp9", "av1", "mjpeg"),
        audio=("aac", "opus", "flac", "pcm_s16le"),
        video_types=("video/x-matroska", "video/matroska"),
        audio_types=("audio/x-matroska", "audio/matroska"),
        extension=".mkv",
        audio_extension=".mka",
    ),
    Container(
        muxer="ogg",
        audio=("opus", "flac"),
        audio_types=("audio/ogg",),
        extension=".ogg",
        audio_extension=".ogg",
        is_single_track=True,
    ),
    Container(
        muxer="flac",
        audio=("flac",),
        audio_types=("audio/flac", "audio/x-flac"),
        extension=".flac",
        audio_extension=".flac",
        is_single_track=True,
    ),
    Container(
        muxer="wav",
        audio=("pcm_s16le",),
        audio_types=("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
        extension=".wav",
        audio_extension=".wav",
        is_single_track=True,
    ),
)
# MIME type without parameters -> container.
CONTAINERS: Mapping[str, Container] = {
    essence: container for container in _CONTAINERS for essence in (*container.video_types, *container.audio_types)
}
# Suffix, with the dot -> container, and the MIME type of a finished file.
CONTAINER_OF_SUFFIX: Mapping[str, Container] = {
    suffix: container for container in _CONTAINERS for suffix in container.extensions
}
TYPE_OF_SUFFIX: Mapping[str, str] = {
    **{container.audio_extension: container.audio_types[0] for container in _CONTAINERS},
    **{container.extension: container.video_types[0] for container in _CONTAINERS if container.video_types},
}
SUFFIXES = tuple(CONTAINER_OF_SUFFIX)  # of chunks
TYPE_OF_FILE_NAME: Mapping[str, str] = {**TYPE_OF_SUFFIX, ".opus": "audio/ogg;codecs=opus"}  # of what a user names
DEFAULT_TYPES: Mapping[str, str] = {"video": "video/mp4", "audio": "audio/mp4"}

# Identifier of a codec string (before the first ".") -> libav's codec name and the kind of track.
_CODECS: Mapping[str, tuple[str, Literal["audio", "video"]]] = {
    "avc1": ("h264", "video"),
    "avc3": ("h264", "video"),
    "h264": ("h264", "video"),
    "hvc1": ("hevc", "video"),
    "hev1": ("hevc", "video"),
    "vp8": ("vp8", "video"),
    "vp08": ("vp8", "video"),
    "vp9": ("vp9", "video"),
    "vp09": ("vp9", "video"),
    "av1": ("av1", "video"),
    "av01": ("av1", "video"),
    "mjpeg": ("mjpeg", "video"),
    "mp4a": ("aac", "audio"),
    "aac": ("aac", "audio"),
    "opus": ("opus", "audio"),
    "flac": ("flac", "audio"),
    "pcm": ("pcm_s16le", "audio"),
    "1": ("pcm_s16le", "audio"),
    "pcm_mulaw": ("pcm_mulaw", "audio"),  # in no container: PyAV refuses G.711 for those that we write
    "pcm_alaw": ("pcm_alaw", "audio"),
}
# Only passed through: software encoding of these is too slow for the boards this runs on.
PASSTHROUGH_ONLY = frozenset({"hevc"})


@dataclass(frozen=True, slots=True)
class MimeType:
    """A parsed type; essence in lower case, codecs as written, without quotes and blanks."""

    essence: str
    codecs: tuple[str, ...] = ()

    @property
    def top_level(self) -> str:
        return self.essence.partition("/")[0]


def parse_mime_type(text: str) -> MimeType | None:
    """The parts of a MIME type with a codecs parameter; None for a text of another form.

    https://mimesniff.spec.whatwg.org/#parsing-a-mime-type, RFC 6381.
    """
    essence, *parameters = _split(text)
    type_, slash, subtype = essence.strip().partition("/")
    subtype = subtype.rstrip()
    if not slash or not _TOKEN.match(type_) or not _TOKEN.match(subtype):
        return None
    codecs: tuple[str, ...] | None = None
    for parameter in parameters:
        name, equals, value = parameter.strip().partition("=")
        if not equals or not _TOKEN.match(name) or name.lower() != "codecs" or codecs is not None:
            continue  # unknown and malformed parameters are ignored; the first of a name counts
        value = value.strip().strip('"')
        codecs = tuple(part.strip() for part in value.split(",") if part.strip())
    return MimeType(f"{type_}/{subtype}".lower(), codecs or ())


def codec_of(identifier: str) -> tuple[str, Literal["audio", "video"]] | None:
    """libav's codec name and the kind of track for a codec string; None for an unknown one."""
    text = identifier.lower()
    if text in ("mp4v.6c", "jpeg"):
        return "mjpeg", "video"
    return _CODECS.get(text.partition(".")[0])


def extension_for(mime_type: str) -> str:
    """The suffix, with the dot, of a file of this type.

    Raises:
        ValueError: the type stands for no container that we write.
    """
    mime = parse_mime_type(mime_type)
    container = CONTAINERS.get(mime.essence) if mime is not None else None
    if mime is None or container is None:
        raise ValueError(f"mime_type: no file format for {mime_type!r}")
    return container.extension if mime.top_level == "video" else container.audio_extension


def _split(text: str) -> list[str]:
    """Split at semicolons outside of quotes."""
    parts, quoted = [""], False
    for char in text:
        if char == '"':
            quoted = not quoted
        if char == ";" and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return parts
