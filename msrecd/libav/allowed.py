"""What libav may open, and with which options: it knows some 350 demuxers, and most have never seen a hostile file."""

from __future__ import annotations

from pathlib import Path

import av

from msrecd.libav.common import MAX_PIXELS
from msrecd.libav.values import LibavError
from msrecd.vocabulary.formats import CONTAINER_OF_SUFFIX

# Suffix -> libav's demuxer, where the header of the file describes all streams.
_DESCRIBED_BY_HEADER: dict[str, str] = {".mov": "mov"} | {
    suffix: one.demuxer for suffix, one in CONTAINER_OF_SUFFIX.items() if one.demuxer is not None
}
_FILE_FORMATS = (
    "mov,matroska,webm,mpegts,mpeg,avi,flv,h264,hevc,obu,ivf,m4v,mjpeg,nut,wav,w64,flac,ogg,mp3,aac,loas,ac3,eac3,"
    "aiff,caf,amr,yuv4mpegpipe"
)
# Their streams show up while packets are read, which PyAV before 15 answers with a free() of what is not its own.
_LATE_STREAMS = ("flv", "live_flv", "mpeg")
_KNOWS_LATE_STREAMS = int(av.__version__.partition(".")[0]) >= 15
_LATE_SUFFIXES = (".flv", ".f4v", ".mpg", ".mpeg", ".vob")
_FORMATS = {
    "file": _FILE_FORMATS,
    "http": f"{_FILE_FORMATS},mpjpeg,hls,image2pipe,jpeg_pipe",
    "rtsp": "rtsp,sdp,rtp",
    "rtmp": "flv,live_flv",
    "srt": "mpegts",
    "udp": "mpegts,rtp,sdp",
}
_PROTOCOLS = {
    "file": "file,pipe",
    "http": "http,https,tls,tcp,crypto,data",
    "rtsp": "rtsp,rtsps,rtp,srtp,tcp,udp,tls,http",
    "rtmp": "rtmp,tcp",
    "srt": "srt",
    "udp": "udp,rtp",
}
_DECODERS = (
    "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,mjpeg,mpeg1video,mpeg2video,mpeg4,h263,rawvideo,prores,"
    "aac,aac_fixed,aac_latm,opus,libopus,flac,vorbis,mp3,mp3float,mp2,mp2float,ac3,eac3,alac,amrnb,amrwb,"
    "g722,adpcm_g722,g726,adpcm_g726,g726le,adpcm_g726le,"
    "pcm_alaw,pcm_mulaw,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_u8,pcm_s8,pcm_f32le,pcm_f32be"
)


def refuse_unreadable(url: str, scheme: str) -> None:
    """
    Raises:
        LibavError: this machine's libav cannot read it, or must not try.
    """
    suffix = Path(url).suffix.lower()
    if not _KNOWS_LATE_STREAMS and (scheme == "rtmp" or suffix in _LATE_SUFFIXES):
        raise LibavError(f"RTMP, FLV and MPEG-PS need PyAV 15 or later; this machine has {av.__version__}")
    if scheme == "file" and not Path(url).is_file():
        raise LibavError("is no regular file")
    if scheme == "file" and suffix == ".sdp":
        raise LibavError("it describes a stream of RTP and is none; use the rtsp: URL of the camera")


def format_of_header(path: str) -> str | None:
    """libav's demuxer of a file whose header describes all its streams; None if it may take more than that."""
    return _DESCRIBED_BY_HEADER.get(Path(path).suffix.lower())


def raw_format(path: str) -> str | None:
    """libav takes a raw stream for something else when it is short; its name says what it is."""
    return {".h264": "h264", ".264": "h264", ".h265": "hevc", ".265": "hevc", ".hevc": "hevc"}.get(
        Path(path).suffix.lower()
    )


def options_for(scheme: str, timeout_s: float, transport: str) -> dict[str, str]:
    family = {"https": "http", "rtsps": "rtsp"}.get(scheme, scheme)
    microseconds = str(int(timeout_s * 1e6))
    formats = _FORMATS.get(family, "").split(",")
    options = {
        "format_whitelist": ",".join(name for name in formats if _KNOWS_LATE_STREAMS or name not in _LATE_STREAMS),
        "protocol_whitelist": _PROTOCOLS.get(family, ""),
        "codec_whitelist": _DECODERS,
        "max_pixels": str(MAX_PIXELS),
    }
    if family == "file":
        return options
    options["analyzeduration"] = "500000"  # the same facts as with libav's 5 s, and a second earlier
    if family == "rtsp":
        options["timeout"] = microseconds
        options["rtsp_transport"] = transport
        options["allowed_media_types"] = "video+audio"
    elif family == "udp":
        options |= {"timeout": microseconds, "fifo_size": "28672", "overrun_nonfatal": "1"}
    else:
        options["rw_timeout"] = microseconds
    if family == "http":
        options["formatprobesize"] = str(128 << 10)  # of JPEGs alone libav reads as much as this before it believes it
        options["follow"] = "1"
        options["max_redirects"] = "0"  # inputs/redirects.py follows them, where they may be followed
    return options
