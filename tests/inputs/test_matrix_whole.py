"""The whole matrix: each container with each codec and property in, every type out (MSRECD_MATRIX=1; some minutes).

Judged by ffprobe, by the numbers in the decoded frames, and by the length of the sound. `test_matrix.py` has the few of
them that every run looks at.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from judge import read_chunk
from pyav import IS_OLD

import msrecd
from tests.inputs.matrix import Entry, entries, make

IS_WHOLE = "MSRECD_MATRIX" in os.environ
SHORT = (
    "h264-turned.mp4", "h264-cut.mp4", "h264-late.mp4", "grows.ts", "aac-he-aac.mka", "aac-7.1.m4a", "flac-3.0.mka",
    "mp3-cover.mp3", "h264-b-frames.avi", "latm-sound.ts",
)  # fmt: skip
OUTS = {
    "video": {"mp4": "video/mp4", "mkv": "video/x-matroska", "webm": "video/webm"},
    "audio": {
        "m4a": "audio/mp4", "mka": "audio/x-matroska", "webm": "audio/webm", "ogg": "audio/ogg", "flac": "audio/flac",
        "wav": "audio/wav",
    },
}  # fmt: skip
CHOSEN = [entry for entry in entries() if IS_WHOLE or entry.name in SHORT]


async def _record(source: Path, folder: Path, outs: dict[str, str]) -> dict[str, list[Path]]:
    """Each type, all from one element; a file for each chunk. An error of one is left to its files."""
    element = msrecd.MediaElement(source)
    stream = element.capture_stream()
    blobs: dict[Path, list[bytes]] = defaultdict(list)
    recorders = []
    for suffix, mime_type in outs.items():
        recorder = msrecd.MediaRecorder(stream, {"mime_type": mime_type})

        def keep(event: msrecd.BlobEvent, suffix: str = suffix) -> None:
            blobs[folder / f"out-{event.chunk}.{suffix}"].append(bytes(event.data))

        recorder.ondataavailable = keep
        recorder.start(500)
        recorders.append(recorder)
    await element.play()
    async with asyncio.timeout(120):
        for recorder in recorders:
            await recorder.stopped
    element.close()
    found: dict[str, list[Path]] = defaultdict(list)
    for path, data in sorted(blobs.items()):
        path.write_bytes(b"".join(data))
        if path.stat().st_size:
            found[path.suffix[1:]].append(path)
    return found


def _streams(path: Path) -> dict[str, dict[str, Any]]:
    said = subprocess.run(
        ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)], capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    return {
        stream["codec_type"]: stream
        for stream in json.loads(said.stdout)["streams"]
        if not stream["disposition"]["attached_pic"]
    }


def _samples_s(path: Path) -> tuple[float, int]:
    """Seconds of sound that can be decoded, and its channels."""
    (stream,) = [stream for kind, stream in _streams(path).items() if kind == "audio"]
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-f", "s16le", "-"], capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    return len(done.stdout) / 2 / stream["channels"] / int(stream["sample_rate"]), stream["channels"]


def _numbers_of(source: Path) -> list[int]:
    if source.suffix in (".h264", ".h265", ".avi"):  # whose frames have no times, or those of decoding
        return list(range(50))
    return read_chunk(source).numbers


def _turn(stream: dict[str, Any]) -> int:
    return next((int(side["rotation"]) for side in stream.get("side_data_list", ()) if "rotation" in side), 0)


@pytest.mark.slow
@pytest.mark.skipif("not __import__('shutil').which('ffprobe')", reason="there is no ffprobe here (apt install ffmpeg)")
@pytest.mark.parametrize("entry", CHOSEN, ids=str)
def test_what_goes_in_comes_out(tmp_path: Path, entry: Entry) -> None:
    if IS_OLD and (entry.what == "full-range" or entry.name.endswith((".flv", ".mpg"))):
        pytest.skip("needs PyAV 15")
    try:
        source = make(entry, tmp_path)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"this ffmpeg cannot make {entry.name}: {exc.stderr.decode(errors='replace')[-200:]}")
    before = _streams(source)
    found = asyncio.run(_record(source, tmp_path, OUTS[entry.kind]))
    missing = set(OUTS[entry.kind]) - set(found)
    assert missing <= ({"webm", "ogg"} if entry.what == "4.0" else set()), "Opus knows four channels in a square alone"
    numbers = _numbers_of(source) if entry.kind == "video" else []
    for suffix, paths in found.items():
        after = _streams(paths[0])
        if entry.kind == "audio":
            _judge_sound(entry, suffix, paths, before["audio"], after)
            continue
        assert set(after) == set(before), suffix
        shown = [number for path in paths for number in read_chunk(path).numbers]
        assert shown == numbers, suffix
        _judge_frames(entry, suffix, before["video"], after["video"])


def _judge_frames(entry: Entry, suffix: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    passes = before["codec_name"] == after["codec_name"]
    if entry.what == "turned":
        assert _turn(after) == _turn(before) or (after["width"], after["height"]) == (240, 320), suffix
    for key in entry.properties:
        value = before[key]
        if passes or not key.startswith("color"):
            assert after.get(key) == value, (suffix, key)
        elif key == "color_range":
            assert after.get(key) in (None, "unknown", "tv"), (suffix, key)


def _judge_sound(
    entry: Entry, suffix: str, paths: list[Path], before: dict[str, Any], after: dict[str, dict[str, Any]]
) -> None:
    assert set(after) == {"audio"}, suffix
    seconds, channels = _samples_s(paths[0])
    padding_s = 2 * 1024 / int(after["audio"]["sample_rate"])  # frames of the codec, at both ends
    assert abs(seconds - (1.5 if entry.what == "cut" else 2.0)) < 0.1 + padding_s, (suffix, seconds)
    most = 2 if suffix == "webm" and before["channels"] not in (1, 2, 3, 4, 6, 8) else before["channels"]
    assert channels == most, suffix
    for key, value in entry.properties.items():
        if key == "sample_rate" and after["audio"]["codec_name"] == "opus":
            value = "48000"
        if key == "bits_per_raw_sample" and after["audio"]["codec_name"] not in ("flac", "pcm_s24le"):
            continue
        if key == "bits_per_raw_sample" and after["audio"]["codec_name"] == "pcm_s24le":
            key, value = "bits_per_sample", 24
        assert after["audio"].get(key) == value, (suffix, key, after["audio"].get(key))
