"""Every container, codec and property in, every output type out: judged by ffprobe and by what can be decoded.

What comes out has the number of frames, the length and the properties of what went in, as ffprobe names them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pyav import IS_OLD, needs_colours

import msrecd

pytestmark = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="there is no ffprobe here (apt install ffmpeg)")

_FRAMES = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2"]
_TONE = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=2"]
_X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25"]
_X265 = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:pools=1", "-g", "25"]
_VP9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]
_BARS = ["-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]

# Name -> (arguments of ffmpeg, types that it is recorded to, what ffprobe must say of the stream).
INPUTS: dict[str, tuple[list[str], tuple[str, ...], dict[str, dict[str, object]]]] = {
    "h264-aac.mp4": ([*_FRAMES, *_TONE, *_X264, "-c:a", "aac"], ("mp4", "mkv"), {"video": {"codec_name": "h264"}}),
    "b-frames.mkv": ([*_FRAMES, *_X264, "-bf", "3", "-preset", "fast"], ("mp4", "mkv"), {}),
    "hevc.mp4": ([*_FRAMES, *_X265, "-tag:v", "hvc1"], ("mp4", "mkv"), {"video": {"codec_name": "hevc"}}),
    "vp9-opus.webm": (
        [*_FRAMES, *_TONE, *_VP9, "-c:a", "libopus"], ("webm", "mkv", "mp4"), {"video": {"codec_name": "vp9"}},
    ),
    "adts.ts": ([*_FRAMES, *_TONE, *_X264, "-c:a", "aac"], ("mp4", "mkv"), {"audio": {"codec_name": "aac"}}),
    "latm.ts": ([*_TONE, "-c:a", "aac", "-mpegts_flags", "+latm"], ("m4a", "mka"), {}),
    "mpeg2-mp2.ts": ([*_FRAMES, *_TONE, "-c:v", "mpeg2video", "-c:a", "mp2"], ("mp4", "webm"), {}),
    "mjpeg-pcm.avi": (
        [*_FRAMES, *_TONE, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le"], ("mkv", "mp4"), {},
    ),
    "h264-aac.flv": (
        [*_FRAMES, *_TONE, *_X264, "-c:a", "aac", "-ar", "44100"], ("mp4", "mkv"), {"audio": {"sample_rate": "44100"}},
    ),
    "raw.h264": ([*_FRAMES, *_X264], ("mp4", "mkv"), {}),
    "wide.mp4": (
        [*_FRAMES, "-vf", "setsar=16/11", *_X264], ("mp4", "mkv", "webm"), {"video": {"sample_aspect_ratio": "16:11"}},
    ),
    "full-range.mp4": (
        [*_FRAMES, *_X264, *_BARS], ("mp4", "mkv"),
        {"video": {"color_range": "pc", "color_space": "bt709", "color_primaries": "bt709", "color_transfer": "bt709"}},
    ),
    "cover.m4a": ([*_TONE, "-c:a", "aac"], ("m4a", "mka", "ogg"), {}),
    "surround.mp4": (
        ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=2", "-ac", "6", "-c:a", "aac"],
        ("m4a", "mka"), {"audio": {"channels": 6}},
    ),
    "deep.flac": (
        [*_TONE, "-sample_fmt", "s32", "-c:a", "flac"], ("flac", "mka"), {"audio": {"bits_per_raw_sample": "24"}},
    ),
    "deep.wav": ([*_TONE, "-c:a", "pcm_s24le"], ("wav", "flac"), {}),
    "opus.ogg": ([*_TONE, "-c:a", "libopus"], ("ogg", "webma", "mka"), {"audio": {"codec_name": "opus"}}),
    "mp3.mp3": ([*_TONE, "-c:a", "libmp3lame"], ("m4a", "ogg"), {}),
    "g711.wav": ([*_TONE, "-ar", "8000", "-c:a", "pcm_mulaw"], ("m4a", "wav"), {}),
    "edit-list.mp4": ([*_FRAMES, *_TONE, *_X264, "-bf", "2", "-c:a", "aac"], ("mp4", "mkv"), {}),
}  # fmt: skip
TYPES = {
    "mp4": ("video/mp4", "mp4"), "mkv": ("video/x-matroska", "mkv"), "webm": ("video/webm", "webm"),
    "m4a": ("audio/mp4", "m4a"), "mka": ("audio/x-matroska", "mka"), "webma": ("audio/webm", "webm"),
    "ogg": ("audio/ogg", "ogg"), "flac": ("audio/flac", "flac"), "wav": ("audio/wav", "wav"),
}  # fmt: skip


def _made(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        done = subprocess.run(
            ["ffmpeg", "-v", "error", "-y", *INPUTS[name][0], str(path)], capture_output=True, timeout=120, check=False
        )
        if done.returncode:
            pytest.skip(f"this ffmpeg cannot make {name}: {done.stderr.decode(errors='replace')[-200:]}")
    return path


async def _record(source: Path, outs: Mapping[Path, str]) -> None:
    """All types at once, from one element."""
    element = msrecd.MediaElement(source)
    stream = element.capture_stream()
    with contextlib.ExitStack() as files:
        recorders = []
        for path, mime_type in outs.items():
            recorder = msrecd.MediaRecorder(stream, {"mime_type": mime_type})
            file = files.enter_context(path.open("wb"))
            recorder.ondataavailable = lambda event, file=file: file.write(bytes(event.data))
            recorder.start(500)
            recorders.append(recorder)
        await element.play()
        async with asyncio.timeout(120):
            for recorder in recorders:
                await recorder.stopped
    element.close()


def _probe(path: Path) -> dict[str, dict[str, Any]]:
    """The streams by kind, with the length of their packets in seconds."""
    said = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_packets", "-of", "json", str(path)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    facts = json.loads(said.stdout)
    streams = {stream["codec_type"]: dict(stream) for stream in facts["streams"]}
    for stream in streams.values():
        own = [packet for packet in facts["packets"] if packet["stream_index"] == stream["index"]]
        times = [float(packet["pts_time"]) for packet in own if "pts_time" in packet]
        stream["length"] = max(times) - min(times) if times else None
    return streams


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[needs_colours] if name == "full-range.mp4" else []) for name in INPUTS]
)
def test_what_goes_in_comes_out(tmp_path: Path, name: str) -> None:
    _, outs, properties = INPUTS[name]
    if name.endswith(".flv") and IS_OLD:
        pytest.skip("FLV needs PyAV 15")
    source = _made(tmp_path, name)
    paths = {tmp_path / f"{out}.{TYPES[out][1]}": TYPES[out][0] for out in outs}
    asyncio.run(_record(source, paths))
    before = _probe(source)
    for path in paths:
        after = _probe(path)
        assert set(after) == set(before), path.name
        if "video" in before:
            assert int(after["video"]["nb_read_frames"]) == int(before["video"]["nb_read_frames"]) == 50, path.name
            assert (after["video"]["width"], after["video"]["height"]) == (320, 240)
        for kind, stream in after.items():
            assert abs(stream["length"] - 1.95) < 0.25, f"{path.name}: {stream['length']} s of {kind}"
            passes = stream["codec_name"] == before[kind]["codec_name"]
            for key, value in properties.get(kind, {}).items():
                if passes or not key.startswith(("codec", "color")):  # what is encoded again has the limited range
                    assert stream.get(key) == value, (path.name, kind, key)
        decoded = subprocess.run(
            ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"], capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        if path.suffix != ".wav":  # which says its length when the storage finishes it
            assert (decoded.returncode, decoded.stderr) == (0, ""), path.name
