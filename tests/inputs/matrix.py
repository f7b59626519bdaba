"""The inputs of the matrix: each container with each codec that it takes, and with each property that has to survive.

Frames carry their number (the virtual camera's cells), so that what comes out can be counted.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av

from msrecd.devices.virtual.testframe import TestFrame

SIZE, RATE, FRAMES = (320, 240), 25, 50
RAW = "numbered.yuv"  # replaced by its path
NUMBERED = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "320x240", "-framerate", "25", "-i", RAW]
TONE = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=2"]
VIDEO = {
    "h264": ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25"],
    "hevc": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:pools=1", "-g", "25"],
    "vp8": ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M"],
    "vp9": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M"],
    "av1": ["-c:v", "libsvtav1", "-preset", "12"],
    "mpeg4": ["-c:v", "mpeg4", "-q:v", "3"],
    "mpeg2": ["-c:v", "mpeg2video", "-q:v", "3"],
    "mjpeg": ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "3"],
    "prores": ["-c:v", "prores_ks"],
}
SOUND = {
    "aac": ["-c:a", "aac"], "mp3": ["-c:a", "libmp3lame"], "mp2": ["-c:a", "mp2"], "ac3": ["-c:a", "ac3"],
    "opus": ["-c:a", "libopus"], "vorbis": ["-c:a", "libvorbis"], "alac": ["-c:a", "alac"],
    "flac": ["-c:a", "flac", "-sample_fmt", "s16", "-strict", "-2"], "flac24": ["-c:a", "flac", "-sample_fmt", "s32"],
    "s16": ["-c:a", "pcm_s16le"], "s24": ["-c:a", "pcm_s24le"], "s24be": ["-c:a", "pcm_s24be"],
    "f32": ["-c:a", "pcm_f32le"], "ulaw": ["-c:a", "pcm_mulaw", "-ar", "8000"],
    "alaw": ["-c:a", "pcm_alaw", "-ar", "8000"], "latm": ["-c:a", "aac", "-mpegts_flags", "+latm"],
}  # fmt: skip
VIDEO_IN = {
    "mp4": ("h264", "hevc", "vp9", "av1", "mpeg4"), "mov": ("h264", "mjpeg", "prores"),
    "mkv": ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2", "mjpeg"), "webm": ("vp8", "vp9", "av1"),
    "ts": ("h264", "hevc", "mpeg2"), "flv": ("h264",), "avi": ("h264", "mpeg4", "mjpeg"), "nut": ("h264", "mpeg4"),
    "ivf": ("vp8", "vp9"), "h264": ("h264",), "h265": ("hevc",), "mpg": ("mpeg2",),
}  # fmt: skip
SOUND_IN = {
    "m4a": ("aac", "mp3", "ac3", "opus", "flac", "alac"),
    "mka": ("aac", "mp3", "ac3", "opus", "vorbis", "flac", "flac24", "s16", "s24"),
    "ogg": ("opus", "vorbis", "flac"), "ts": ("aac", "latm", "mp2", "ac3"), "aac": ("aac",), "flac": ("flac", "flac24"),
    "loas": ("latm",), "wav": ("s16", "s24", "f32", "ulaw", "alaw"), "mp3": ("mp3",), "aiff": ("s24be",),
    "caf": ("s16", "alac"),
    "avi": ("mp3", "s16"), "nut": ("vorbis", "s16"), "flv": ("aac", "mp3"), "mpg": ("mp2",),
}  # fmt: skip
# Property -> arguments of ffmpeg; codecs and containers that can say it.
OF_VIDEO: dict[str, tuple[list[str], tuple[str, ...], tuple[str, ...]]] = {
    "b-frames": (
        ["-bf", "2"], ("h264", "mpeg4", "mpeg2"), ("mp4", "mov", "mkv", "ts", "flv", "nut", "h264", "avi", "mpg"),
    ),
    "wide": (["-vf", "setsar=16/11"], ("h264", "hevc", "vp9", "mpeg4"), ("mp4", "mov", "mkv", "ts", "webm")),
    "full-range": (
        ["-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"],
        ("h264", "hevc"), ("mp4", "mov", "mkv", "ts", "flv"),
    ),
    "turned": ([], ("h264", "hevc", "mpeg4"), ("mp4", "mov")),
    "cut": ([], ("h264",), ("mp4", "mov")),  # an edit list that hides what is before half a second
    "late": ([], ("h264",), ("mp4", "mov")),  # one that begins with a pause of half a second
}  # fmt: skip
LAYOUTS = {"stereo": 2, "3.0": 3, "4.0": 4, "5.1": 6, "7.1": 8}
OF_SOUND: dict[str, tuple[list[str], tuple[str, ...], tuple[str, ...]]] = {
    **{
        layout: (["-ac", str(count), "-channel_layout", layout], ("aac", "flac", "s16"), ("m4a", "mka", "flac", "wav"))
        for layout, count in LAYOUTS.items()
    },
    "44k": (["-ar", "44100"], ("aac", "mp3", "flac", "s16"), ("m4a", "mka", "flac", "wav", "ts", "mp3")),
    "cover": ([], ("aac", "mp3", "flac"), ("m4a", "mp3", "flac")),
    "he-aac": ([], ("aac",), ("m4a", "mka")),
    "cut": ([], ("aac", "alac", "opus"), ("m4a",)),  # an edit list that hides what is before half a second
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One input. `properties`: what ffprobe must say of its stream, and of what comes out."""

    name: str
    arguments: list[str]
    kind: str
    what: str = ""
    properties: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


_SAID: dict[str, dict[str, object]] = {
    "wide": {"sample_aspect_ratio": "16:11"},
    "full-range": {
        "color_range": "pc", "color_space": "bt709", "color_primaries": "bt709", "color_transfer": "bt709",
    },
    "44k": {"sample_rate": "44100"},
    **{layout: {"channels": count} for layout, count in LAYOUTS.items()},
}  # fmt: skip


def entries() -> Iterator[Entry]:
    """All of them."""
    for container, codecs in VIDEO_IN.items():
        for codec in codecs:
            plain = [*NUMBERED, *VIDEO[codec]]
            yield Entry(f"{codec}.{container}", plain, "video")
            for what, (arguments, codecs_with, containers) in OF_VIDEO.items():
                if codec in codecs_with and container in containers:
                    said = _SAID.get(what, {})
                    yield Entry(f"{codec}-{what}.{container}", [*plain, *arguments], "video", what, said)
    for container, codecs in SOUND_IN.items():
        for codec in codecs:
            plain = [*TONE, *SOUND[codec]]
            bits: dict[str, object] = {"bits_per_raw_sample": "24"} if "24" in codec else {}
            yield Entry(f"{codec}-sound.{container}", plain, "audio", "", bits)
            for what, (arguments, codecs_with, containers) in OF_SOUND.items():
                if codec in codecs_with and container in containers:
                    said = _SAID.get(what, {})
                    yield Entry(f"{codec}-{what}.{container}", [*plain, *arguments], "audio", what, said)
    yield Entry("grows.ts", [], "video", "grows")


def make(entry: Entry, folder: Path) -> Path:
    """
    Raises:
        subprocess.CalledProcessError: this ffmpeg cannot make it.
    """
    raw = folder / RAW
    if not raw.exists():
        painted = TestFrame(*SIZE)
        raw.write_bytes(b"".join(painted.paint(number, flash=False) for number in range(FRAMES)))
    path = folder / entry.name
    before = path.with_stem(f"before-{path.stem}")
    arguments = [str(raw) if word == RAW else word for word in entry.arguments]
    if entry.what == "turned":
        _run(*arguments, before)
        _run("-i", before, "-c", "copy", "-metadata:s:v", "rotate=90", path)
    elif entry.what == "cut":
        _run(*arguments, before)
        _run("-ss", "0.5", "-i", before, "-c", "copy", path)
    elif entry.what == "late":
        _run(*arguments, before)
        _run(
            "-itsoffset", "0.5", "-i", before, *TONE, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", path
        )
    elif entry.what == "cover":
        cover = folder / "cover.jpg"
        _run("-f", "lavfi", "-i", "testsrc2=size=64x64", "-frames:v", "1", cover)
        _run(
            *TONE, "-i", cover, "-map", "0", "-map", "1", *arguments[len(TONE) :], "-c:v", "copy", "-disposition:v",
            "attached_pic", path,
        )  # fmt: skip
    elif entry.what == "he-aac":
        _run(*arguments, "-ar", "24000", before)
        _call_it_he_aac(before, path)
    elif entry.what == "grows":
        _grows(raw, folder, path)
    else:
        _run(*arguments, path)
    return path


def _grows(raw: Path, folder: Path, path: Path) -> None:
    """A size that changes in the middle, as a camera's does that gets another setting."""
    units = b""
    for number, size in enumerate(("320x240", "640x480")):
        part = folder / f"part{number}.h264"
        source = [str(raw) if word == RAW else word for word in NUMBERED]
        _run(
            *source, "-vf", f"trim=start_frame={number * 25}:end_frame={number * 25 + 25},scale={size}:flags=neighbor",
            *VIDEO["h264"], part,
        )  # fmt: skip
        units += part.read_bytes()
    (folder / "both.h264").write_bytes(units)
    _run("-r", "25", "-i", folder / "both.h264", "-c", "copy", path)


def _call_it_he_aac(source: Path, path: Path) -> None:
    """The same packets with an AudioSpecificConfig that announces SBR (ISO/IEC 14496-3, 1.6.2.1): the decoder doubles
    the rate. No free encoder makes the real thing."""
    bits = "00101" + "0110" + "0001" + "0011" + "00010" + "000" + "0000000"  # SBR, 24 kHz, mono, 48 kHz, LC
    config = int(bits, 2).to_bytes(4, "big")
    with (
        av.open(str(source)) as before,
        av.open(str(path), "w", format="mp4" if path.suffix == ".m4a" else None) as after,
    ):
        stream = after.add_stream_from_template(before.streams.audio[0])
        stream.codec_context.extradata = config
        for packet in before.demux(audio=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)


def _run(*arguments: str | Path) -> None:
    words = [*map(str, arguments)]
    if words[-1].endswith(".m4a"):
        words.insert(-1, "-f")
        words.insert(-1, "mp4")  # ffmpeg's own m4a takes less
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *words], check=True, timeout=120, capture_output=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
