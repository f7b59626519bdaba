"""Chunk boundaries: no picture lost or twice, and a tone that runs through them without a jump.

What `export` makes of the chunks is decoded from end to end; the phase at the seams is held against the phase
everywhere else, which is the codec's own noise. `MSRECD_SEAMS=100` for the acceptance figure (`make fidelity`).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from judge import Judged, assert_consecutive, phase_steps, read_chunk
from simulated_recording import START_NS, Camera, Microphone, SimulatedRecording, steady

from msrecd.devices.virtual.testsound import TONE_HZ, Signal
from msrecd.muxing.facts import ChunkInfo
from msrecd.muxing.join import Joiner, container_for
from msrecd.muxing.seams import Piece
from msrecd.vocabulary.formats import CONTAINERS

SEAMS = int(os.environ.get("MSRECD_SEAMS", "6"))
CHUNK_S = 1.0
RATE = 48_000
ONE_SAMPLE = 2 * np.pi * TONE_HZ / RATE
FORMS = [
    ("video/mp4", "h264", "aac"),
    ("video/mp4", "h264", "opus"),
    ("video/webm", "vp8", "opus"),
    ("video/x-matroska", "h264", "flac"),
    ("audio/flac", None, "flac"),
]


def record(folder: Path, mime_type: str, video: str | None, audio: str, ppm: float) -> list[tuple[ChunkInfo, Path]]:
    """Chunks of a tone and of numbered pictures, as files."""
    microphone = Microphone(
        sample_rate=RATE, channels=2, ppm=steady(ppm), signal=Signal.TONE, block_ms=20, jitter_ns=200_000
    )
    camera = Camera(frame_rate=None) if video is None else Camera(frame_rate=15, width=128, height=64, codec=video)
    recording = SimulatedRecording(
        microphone, camera, mime_type=mime_type, audio=audio, chunk_s=CHUNK_S, bit_rate=128_000
    )
    chunks = []
    extension = CONTAINERS[mime_type].extension
    for info, data in recording.run(CHUNK_S * (SEAMS + 1)):
        path = folder / f"{info.chunk:04d}{extension}"
        path.write_bytes(data)
        chunks.append((info, path))
    return chunks


def joined(chunks: list[tuple[ChunkInfo, Path]], target: Path) -> Judged:
    """The chunks as `export` joins them."""
    pieces = [
        Piece(
            path=path,
            recording_id="tone",
            seq=info.chunk,
            started_ns=info.started_ns,
            ended_ns=info.ended_ns,
            duration_ns=round(info.duration_s * 1e9),
            bytes=info.bytes,
        )
        for info, path in chunks
    ]
    with target.open("wb") as file:
        Joiner(pieces, container_for(target), file.write).run()
    return read_chunk(target)


@pytest.mark.slow
@pytest.mark.timeout(300 + 10 * SEAMS)
@pytest.mark.parametrize(("mime_type", "video", "audio"), FORMS, ids=[f"{a} in {m}" for m, _, a in FORMS])
@pytest.mark.promise("packets-in-one-chunk")
def test_a_tone_runs_through_all_seams(tmp_path: Path, mime_type: str, video: str | None, audio: str) -> None:
    ppm = 100.0
    chunks = record(tmp_path, mime_type, video, audio, ppm)
    assert len(chunks) > SEAMS
    units = [info.tracks[-1].units for info, _ in chunks]
    whole = joined(chunks, tmp_path / ("whole.mka" if video is None else "whole.mkv"))
    assert whole.audio_gaps == []
    if video is not None:
        assert_consecutive(whole.numbers)
        assert whole.numbers[0] == 0
        assert len(whole.numbers) == sum(info.tracks[0].units for info, _ in chunks)
    # Every sample once: as many as were written, and as long as the recording was.
    priming = 2048 if audio == "aac" else 1024  # of the first and the last frame a decoder may keep some
    assert len(whole.samples) == pytest.approx(sum(units), abs=priming)

    heard_hz = TONE_HZ * (1 + (ppm * 1e-6 if audio != "flac" else 0))  # FLAC keeps the card's samples
    at, steps = phase_steps(whole.samples, RATE, heard_hz)
    settled = (at > RATE // 2) & (at < len(whole.samples) - RATE // 10)
    seams = np.cumsum(units)[:-1]
    near = np.zeros(len(at), dtype=bool)
    for seam in seams:
        near |= np.abs(at - seam) < RATE // 20
    at_seams, elsewhere = np.abs(steps[near & settled]).max(), np.abs(steps[~near & settled]).max()
    print(f"{audio} in {mime_type}: {len(seams)} seams, phase {at_seams:.5f} rad there, {elsewhere:.5f} elsewhere")
    assert at_seams < max(1.25 * elsewhere, 0.001)
    assert at_seams < ONE_SAMPLE / 2


@pytest.mark.parametrize(("mime_type", "video", "audio"), FORMS, ids=[f"{a} in {m}" for m, _, a in FORMS])
@pytest.mark.promise("chunk-alone-in-sync")
def test_each_chunk_alone_begins_in_sync(tmp_path: Path, mime_type: str, video: str | None, audio: str) -> None:
    """The tone's phase in a chunk that is played alone is that of the recording at this moment."""
    ppm = 0.0
    origin: float | None = None
    for info, path in record(tmp_path, mime_type, video, audio, ppm)[:6]:
        alone = read_chunk(path)
        # Where the container numbers on (FLAC, sound alone) the chunk's zero is its first sample.
        start_s = (info.started_ns - START_NS) / 1e9 + (alone.audio_start if video is not None else 0.0)
        part = alone.samples[4 * 2048 : 4 * 2048 + RATE // 2, 0]
        times = start_s + (4 * 2048 + np.arange(len(part))) / RATE
        phase = float(np.angle((part * np.exp(-2j * np.pi * TONE_HZ * times)).sum()))
        origin = phase if origin is None else origin
        off_ms = 1000 * float(np.angle(np.exp(1j * (phase - origin)))) / (2 * np.pi * TONE_HZ)
        assert abs(off_ms) < 0.6, f"{path.name} begins {off_ms:+.3f} ms off"  # Matroska counts milliseconds
