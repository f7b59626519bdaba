"""Keys that say how a recorder encodes and cuts, as they are seen in the files of a running daemon."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import pytest
from config_text import camera, microphone
from daemon import DaemonFor


def packets(path: Path, kind: str) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(**{kind: 0}) if packet.size]


@pytest.mark.effect(
    "config: recorder.audio_bits_per_second", "config: recorder.audio_bitrate_mode", "config: recorder.mime_type"
)
def test_the_bit_rate_of_sound(daemon_for: DaemonFor) -> None:
    """Opus at a constant rate has packets of one size: 20 ms of it at 64 kbit/s are 160 bytes (RFC 6716, 2.1.8)."""
    made = {
        "constant": {"audio_bits_per_second": 64_000, "audio_bitrate_mode": "constant"},
        "half": {"audio_bits_per_second": 32_000, "audio_bitrate_mode": "constant"},
        "variable": {"audio_bits_per_second": 64_000},
    }
    recorders = "".join(
        microphone(name, mime_type="audio/ogg;codecs=opus", chunk_duration="2s", autostart=True, **keys)
        for name, keys in made.items()
    )
    with daemon_for(recorders) as daemon:
        files = {name: daemon.wait_for_chunks(1, recorder=name)[0] for name in made}
    assert {path.suffix for path in files.values()} == {".ogg"}
    sizes = {name: {packet.size for packet in packets(path, "audio")} for name, path in files.items()}
    assert sizes["constant"] == {160}
    assert sizes["half"] == {80}
    assert len(sizes["variable"]) > 3  # the signal beeps, and is silent between


@pytest.mark.effect("config: recorder.video_bits_per_second", "config: recorder.video_key_frame_interval_duration")
def test_the_bit_rate_and_the_key_frames_of_video(daemon_for: DaemonFor) -> None:
    made: dict[str, dict[str, object]] = {
        "low": {"video_bits_per_second": 40_000},
        "high": {"video_bits_per_second": 900_000},
        "keyed": {"video_key_frame_interval_duration": "500ms"},
    }
    recorders = "".join(camera(name, autostart=True, **keys) for name, keys in made.items())
    with daemon_for(recorders) as daemon:
        found = {name: packets(daemon.wait_for_chunks(1, recorder=name)[0], "video") for name in made}
    rates = {name: sum(packet.size for packet in one) / len(one) for name, one in found.items()}  # bytes a frame
    assert rates["high"] > 1.5 * rates["low"], rates
    assert rates["low"] < 1.5 * 40_000 / 8 / 30, rates
    keys = [packet.pts * packet.time_base for packet in found["keyed"] if packet.is_keyframe]
    assert len(keys) >= 3
    assert all(after - before <= 0.55 for before, after in itertools.pairwise(keys)), keys


@pytest.mark.effect("config: recorder.timeslice")
def test_the_pieces_in_which_media_is_written(daemon_for: DaemonFor) -> None:
    recorders = camera("coarse", timeslice="2s", chunk_duration="4s", autostart=True) + camera(
        "fine", timeslice="200ms", chunk_duration="4s", autostart=True
    )
    with daemon_for(recorders) as daemon:
        files = {name: daemon.wait_for_chunks(1, recorder=name)[0] for name in ("coarse", "fine")}
        fragments = {name: path.read_bytes().count(b"moof") for name, path in files.items()}
    assert fragments["fine"] > 2 * fragments["coarse"], fragments
