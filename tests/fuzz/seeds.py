"""What fuzzing begins with: a second of frames and sound in forty formats, made by ffmpeg, and ways to spoil them."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

_FRAMES = ["-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=1"]
_TONE = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=1"]
_H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10"]
_HEVC = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:pools=1"]
_VP9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]
_VP8 = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"]
_AV1 = ["-c:v", "libsvtav1", "-preset", "12"]
_AMR = ["-ar", "8000", "-ac", "1"]

# Name -> arguments of ffmpeg, for frames (v), sound (a) or both; codecs that a build lacks are left out.
FORMATS: dict[str, tuple[str, Sequence[str]]] = {
    "h264-aac.mp4": ("va", [*_H264, "-c:a", "aac"]),
    "fragmented.mp4": ("va", [*_H264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"]),
    "hevc.mp4": ("v", _HEVC),
    "vp9-opus.mp4": ("va", [*_VP9, "-c:a", "libopus"]),
    "av1.mp4": ("v", _AV1),
    "mpeg4.mp4": ("v", ["-c:v", "mpeg4"]),
    "alac.m4a": ("a", ["-c:a", "alac"]),
    "mjpeg.mov": ("va", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le"]),
    "prores.mov": ("v", ["-c:v", "prores_ks"]),
    "h264-opus.mkv": ("va", [*_H264, "-c:a", "libopus"]),
    "b-frames.mkv": ("v", ["-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p"]),
    "flac.mka": ("a", ["-c:a", "flac"]),
    "pcm24.mka": ("a", ["-c:a", "pcm_s24le"]),
    "vorbis.mka": ("a", ["-c:a", "libvorbis"]),
    "vp8-opus.webm": ("va", [*_VP8, "-c:a", "libopus"]),
    "vp9.webm": ("v", _VP9),
    "h264-aac.ts": ("va", [*_H264, "-c:a", "aac"]),
    "hevc-ac3.ts": ("va", [*_HEVC, "-c:a", "ac3"]),
    "mpeg2-mp2.ts": ("va", ["-c:v", "mpeg2video", "-c:a", "mp2"]),
    "latm.ts": ("a", ["-c:a", "aac", "-mpegts_flags", "+latm"]),
    "mpeg2.mpg": ("va", ["-c:v", "mpeg2video", "-c:a", "mp2", "-f", "vob"]),
    "mpeg1.mpg": ("v", ["-c:v", "mpeg1video"]),
    "mpeg4-mp3.avi": ("va", ["-c:v", "mpeg4", "-c:a", "libmp3lame"]),
    "mjpeg.avi": ("va", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_mulaw"]),
    "raw.avi": ("v", ["-c:v", "rawvideo", "-pix_fmt", "yuv420p"]),
    "h264-aac.flv": ("va", [*_H264, "-c:a", "aac", "-ar", "44100"]),
    "raw.h264": ("v", _H264),
    "raw.hevc": ("v", _HEVC),
    "raw.m4v": ("v", ["-c:v", "mpeg4"]),
    "raw.mjpeg": ("v", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
    "av1.obu": ("v", _AV1),
    "vp8.ivf": ("v", _VP8),
    "h264-flac.nut": ("va", [*_H264, "-c:a", "flac"]),
    "pcm16.wav": ("a", ["-c:a", "pcm_s16le"]),
    "float.wav": ("a", ["-c:a", "pcm_f32le"]),
    "adpcm.wav": ("a", ["-c:a", "adpcm_g722", "-ar", "16000"]),
    "pcm24.w64": ("a", ["-c:a", "pcm_s24le"]),
    "sound.flac": ("a", ["-c:a", "flac"]),
    "vorbis.ogg": ("a", ["-c:a", "libvorbis"]),
    "opus.ogg": ("a", ["-c:a", "libopus"]),
    "sound.mp3": ("a", ["-c:a", "libmp3lame"]),
    "adts.aac": ("a", ["-c:a", "aac"]),
    "sound.ac3": ("a", ["-c:a", "ac3"]),
    "sound.eac3": ("a", ["-c:a", "eac3"]),
    "sound.aiff": ("a", ["-c:a", "pcm_s16be"]),
    "sound.caf": ("a", ["-c:a", "pcm_s16be"]),
    "frames.y4m": ("v", ["-pix_fmt", "yuv420p"]),
    "sound.amr": ("a", [*_AMR, "-c:a", "libopencore_amrnb"]),
}


def made(folder: Path, names: Sequence[str] | None = None) -> dict[str, bytes]:
    """The seeds, by name; those that this machine's ffmpeg can make."""
    if shutil.which("ffmpeg") is None:
        return {}
    seeds = {}
    for name in names or FORMATS:
        kinds, arguments = FORMATS[name]
        inputs = [*(_FRAMES if "v" in kinds else []), *(_TONE if "a" in kinds else [])]
        path = folder / name
        done = subprocess.run(
            ["ffmpeg", "-v", "error", "-y", *inputs, *arguments, str(path)],
            capture_output=True,
            timeout=120,
            check=False,
        )
        if done.returncode == 0 and path.stat().st_size:
            seeds[name] = path.read_bytes()
        path.unlink(missing_ok=True)
    return seeds


_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)


def spoiled(data: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """One to a hundred faults: bits, numbers at their bounds, pieces gone, doubled, moved or another file's."""
    made = bytearray(data)
    head = chance.random() < 0.5  # where the numbers are that say how much follows
    for _ in range(chance.choice((1, 1, 2, 4, 16, 100))):
        if len(made) < 8:
            break
        at = chance.randrange(min(len(made), 2000) if head else len(made))
        match chance.randrange(9):
            case 0 | 1:
                made[at] ^= 1 << chance.randrange(8)
            case 2:
                made[at] = chance.randrange(256)
            case 3 | 4:
                width, order = chance.choice((1, 2, 4, 8)), chance.choice("<>")
                number = chance.choice(_NUMBERS) & (1 << 8 * width) - 1
                piece = struct.pack(f"{order}{'BHxIxxxQ'[width - 1]}", number)
                made[at : at + width] = piece
            case 5:
                del made[at : at + chance.choice((1, 4, 100, 1000))]
            case 6:
                piece = bytes(made[at : at + chance.choice((4, 16, 188, 1000))])
                made[at:at] = piece * chance.choice((1, 2, 50))
            case 7:
                source = other or data
                begin = chance.randrange(len(source))
                piece = source[begin : begin + chance.choice((4, 64, 1000))]
                made[at : at + len(piece)] = piece
            case 8 if chance.random() < 0.1:
                del made[at:]
    return bytes(made[: 4 << 20])
