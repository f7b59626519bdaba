"""Joining real chunks: no frame and no sample lost or doubled, gaps kept, nothing encoded again."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import judge
import pytest
from recording import Log, Scene, key_frame_indexes, run

from msrecd.media.recorder import MediaRecorder
from msrecd.muxing.finish import finish
from msrecd.muxing.join import Joined, Joiner, JoinError, container_for
from msrecd.muxing.seams import NS, Piece

TYPES = {
    "mp4": ("av", "video/mp4"),
    "mkv": ("av", "video/x-matroska;codecs=h264,aac"),
    "webm": ("av", "video/webm;codecs=vp8,opus"),
    "m4a": ("a", "audio/mp4"),
    "wav": ("a", "audio/wav"),
    "flac": ("a", "audio/flac"),
}
WALL_NS = 1_780_000_000 * NS
START_S = 0.05  # encoders swing in, which the phase of a tone shows


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Piece]]:
    """For every type the chunks of one recording, all of the same six seconds."""
    folder = tmp_path_factory.mktemp("chunks")

    async def record() -> dict[str, Log]:
        logs = {}
        with Scene("av", signal="tone") as scene, Scene("a", signal="tone") as sound:
            for name, (kinds, mime_type) in TYPES.items():
                stream = scene.stream if kinds == "av" else sound.stream
                recorder = MediaRecorder(stream, {"mime_type": mime_type, "chunk_duration": 1000})
                logs[name] = Log(recorder)
                recorder.start(500)
            for log in logs.values():
                await log.until("start")
            await asyncio.sleep(6.5)
            for log in logs.values():
                log.recorder.stop()
            for log in logs.values():
                await log.until("stop")
        return logs

    return {name: pieces_of(folder, name, log) for name, log in run(record()).items()}


def pieces_of(folder: Path, name: str, log: Log) -> list[Piece]:
    pieces = []
    for data, info in zip(log.chunks, log.infos, strict=True):
        path = folder / f"{name}-{info.chunk:04d}.{name}"
        path.write_bytes(data)
        pieces.append(
            Piece(
                path=path,
                recording_id=name,
                seq=info.chunk,
                started_ns=WALL_NS + info.started_ns,
                ended_ns=WALL_NS + info.ended_ns,
                duration_ns=round(info.duration_s * NS),
                bytes=len(data),
            )
        )
    return pieces


def join(pieces: list[Piece], out: Path, **options: Any) -> Joined:
    with out.open("wb") as file:
        return Joiner(pieces, container_for(out), file.write, **options).run()


def assert_clean(path: Path) -> None:
    """ffprobe and a full decode by ffmpeg have nothing to complain of."""
    if shutil.which("ffprobe") is None or shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    for command in (
        ["ffprobe", "-v", "warning", "-show_packets", "-of", "compact", str(path)],
        ["ffmpeg", "-v", "warning", "-nostdin", "-i", str(path), "-f", "null", "-"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        complaints = [line for line in done.stderr.splitlines() if not line.startswith("Guessed Channel Layout")]
        assert (done.returncode, complaints) == (0, [])


def assert_steady(found: judge.Judged) -> None:
    """One tone without a jump of its phase and without a hole in its time stamps."""
    assert found.audio_gaps == []
    skip = round(START_S * found.sample_rate)
    assert judge.phase_jumps(found.samples[skip:-skip], found.sample_rate, 440) == []


@pytest.mark.parametrize(
    ("name", "suffix"), [("mp4", "mp4"), ("mp4", "mkv"), ("mkv", "mkv"), ("mkv", "mp4"), ("webm", "webm")]
)
@pytest.mark.promise("export-joins")
def test_pictures_and_sound_go_on_over_all_chunks(
    recorded: dict[str, list[Piece]], name: str, suffix: str, tmp_path: Path
) -> None:
    pieces = recorded[name]
    assert len(pieces) >= 5
    out = tmp_path / f"out.{suffix}"
    joined = join(pieces, out)
    found = judge.read_chunk(out)
    parts = [judge.read_chunk(piece.path) for piece in pieces]
    judge.assert_consecutive(found.numbers)
    assert found.numbers == [number for part in parts for number in part.numbers]
    assert joined.frames == len(found.numbers)
    assert_steady(found)
    assert abs(len(found.samples) - joined.samples) <= 2048
    steps = [b - a for a, b in zip(found.times, found.times[1:], strict=False)]
    assert max(steps) < 1.5 / 30
    assert min(steps) > 0.5 / 30
    assert found.times[-1] - found.times[0] == pytest.approx((len(found.times) - 1) / 30, abs=0.05)
    assert_clean(out)


@pytest.mark.parametrize(("name", "suffix"), [("m4a", "m4a"), ("wav", "mka"), ("flac", "mka")])
@pytest.mark.promise("export-joins")
def test_sound_alone_joins_to_the_sample(
    recorded: dict[str, list[Piece]], name: str, suffix: str, tmp_path: Path
) -> None:
    pieces = recorded[name]
    assert len(pieces) >= 5
    out = tmp_path / f"out.{suffix}"
    joined = join(pieces, out)
    found = judge.read_chunk(out)
    assert_steady(found)
    assert joined.frames == 0
    assert len(found.samples) == joined.samples
    assert_clean(out)


def test_finished_flac_chunks_join_although_each_knows_its_own_length_and_sum(
    recorded: dict[str, list[Piece]], tmp_path: Path
) -> None:
    finished = []
    for piece in recorded["flac"][:3]:
        copy = tmp_path / piece.path.name
        copy.write_bytes(piece.path.read_bytes())
        with copy.open("r+b") as file:
            finish(file.fileno(), copy.stat().st_size, ".flac")
        finished.append(replace(piece, path=copy))
    assert len({one.path.read_bytes()[:42] for one in finished}) > 1, "nothing tells these apart"
    joined = join(finished, tmp_path / "out.mka")
    assert len(judge.read_chunk(tmp_path / "out.mka").samples) == joined.samples


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.promise("export-keeps-gaps")
def test_a_gap_keeps_its_length(recorded: dict[str, list[Piece]], suffix: str, tmp_path: Path) -> None:
    pieces = recorded["mp4"]
    left_out = pieces[2]
    out = tmp_path / f"out.{suffix}"
    join([piece for piece in pieces if piece is not left_out], out)
    found = judge.read_chunk(out)
    steps = [(b - a, at) for at, (a, b) in enumerate(zip(found.times, found.times[1:], strict=False))]
    hole_s, at = max(steps)
    missing = len(judge.read_chunk(left_out.path).numbers)
    assert found.numbers[at + 1] - found.numbers[at] == missing + 1
    # What lies between by the clock, and the last picture's own time.
    assert hole_s == pytest.approx((missing + 1) / 30, abs=0.03)
    ((_, silence_s),) = found.audio_gaps
    assert silence_s == pytest.approx(missing / 30, abs=0.05)
    assert_clean(out)


def test_a_gap_between_recordings_keeps_its_length(recorded: dict[str, list[Piece]], tmp_path: Path) -> None:
    first, second = recorded["mp4"][0], recorded["mp4"][1]
    later = Piece(
        path=second.path,
        recording_id="another",
        seq=1,
        started_ns=first.ended_ns + 90 * NS,
        ended_ns=first.ended_ns + 91 * NS,
        duration_ns=second.duration_ns,
        bytes=second.bytes,
    )
    out = tmp_path / "out.mp4"
    joined = join([first, later], out)
    found = judge.read_chunk(out)
    ((_, silence_s),) = found.audio_gaps
    assert silence_s == pytest.approx(90, abs=0.05)
    assert joined.duration_s == pytest.approx((first.duration_ns + second.duration_ns) / NS + 90, abs=0.05)


def test_a_range_begins_with_the_key_frame_before_and_ends_in_time(
    recorded: dict[str, list[Piece]], tmp_path: Path
) -> None:
    pieces = recorded["mp4"]
    out = tmp_path / "out.mp4"
    from_ns = pieces[1].started_ns + 400_000_000
    to_ns = pieces[3].started_ns + 500_000_000
    join(pieces[1:4], out, from_ns=from_ns, to_ns=to_ns)
    found = judge.read_chunk(out)
    chunk = judge.read_chunk(pieces[1].path)
    judge.assert_consecutive(found.numbers)
    key_frames = [index for index in key_frame_indexes(pieces[1].path.read_bytes()) if chunk.times[index] < 0.4]
    assert found.numbers[0] == chunk.numbers[key_frames[-1]]
    from_s = chunk.times[key_frames[-1]]
    to_s = (to_ns - pieces[1].started_ns) / NS
    assert len(found.numbers) == pytest.approx((to_s - from_s) * 30, abs=2)
    assert found.times[0] == 0
    assert found.audio_start < 0.03


def test_sound_alone_begins_where_it_was_asked(recorded: dict[str, list[Piece]], tmp_path: Path) -> None:
    pieces = recorded["m4a"]
    joined = join(pieces[:3], tmp_path / "out.m4a", from_ns=pieces[0].started_ns + NS // 2, to_ns=pieces[2].started_ns)
    first_two_s = (pieces[0].duration_ns + pieces[1].duration_ns) / NS
    assert joined.duration_s == pytest.approx(first_two_s - 0.5, abs=0.05)


def said_length_s(data: bytes) -> float:
    """The length that the head of a file says, before anything of its media."""
    if data[4:8] == b"ftyp":
        at, scale_at = data.index(b"mehd") + 8, data.index(b"mvhd") + 16
        assert at < data.index(b"moof")
        return int.from_bytes(data[at : at + 8], "big") / int.from_bytes(data[scale_at : scale_at + 4], "big")
    at = data.index(b"\x44\x89\x88")  # Duration, a float of 8 bytes, in the milliseconds that libav counts
    assert at < data.index(b"\x1f\x43\xb6\x75"), "behind the first cluster"
    ticks: float = struct.unpack_from(">d", data, at + 3)[0]
    return ticks / 1000


@pytest.mark.promise("page-export-length")
@pytest.mark.parametrize(
    ("name", "suffix"),
    [("mp4", "mp4"), ("mp4", "mkv"), ("webm", "webm"), ("m4a", "m4a"), ("wav", "mka"), ("flac", "mka")],
)
@pytest.mark.parametrize("kind", ["whole", "range", "gap"])
def test_the_head_says_how_long_the_file_becomes(
    recorded: dict[str, list[Piece]], name: str, suffix: str, kind: str, tmp_path: Path
) -> None:
    pieces, options = recorded[name], {}
    if kind == "range":
        begin_ns, end_ns = pieces[1].started_ns + 400_000_000, pieces[3].started_ns + 500_000_000
        pieces, options = pieces[1:4], {"from_ns": begin_ns, "to_ns": end_ns}
    elif kind == "gap":
        pieces = [*pieces[:2], *pieces[3:]]
    out = tmp_path / f"out.{suffix}"
    joined = join(pieces, out, **options)
    # What was recorded beside other tests has late frames at its cuts, and how long the last one stands is not known.
    assert said_length_s(out.read_bytes()) == pytest.approx(joined.duration_s, abs=0.25)
    assert joined.duration_s > 1


def test_the_contents_of_an_mp4_name_its_fragments(recorded: dict[str, list[Piece]], tmp_path: Path) -> None:
    """Although its head is longer than libav knows."""
    join(recorded["mp4"], tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    at = data.index(b"tfra") + 4
    (count,) = struct.unpack_from(">I", data, at + 12)
    rows = [struct.unpack_from(">QQ", data, at + 16 + n * 19) for n in range(count)]
    assert len(rows) >= 3
    assert all(data[place + 4 : place + 8] == b"moof" for _, place in rows)
    assert [time for time, _ in rows] == sorted({time for time, _ in rows})


def test_chunks_of_another_form_are_named(recorded: dict[str, list[Piece]], tmp_path: Path) -> None:
    pieces = [recorded["mp4"][0], recorded["webm"][1]]
    with pytest.raises(JoinError, match=r"webm-0002.*is vp8 of 160x96, but what is before it is h264 of 160x96"):
        join(pieces, tmp_path / "out.mkv")
    with pytest.raises(JoinError, match="other tracks"):
        join([recorded["mp4"][0], recorded["m4a"][1]], tmp_path / "out.mkv")
    with pytest.raises(JoinError, match=r"cannot hold h264; write to \.mp4 or \.mkv$"):
        join(recorded["mp4"], tmp_path / "out.webm")


def test_a_broken_chunk_is_named(recorded: dict[str, list[Piece]], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing of the kind" * 100)
    piece = recorded["mp4"][0]
    bad = Piece(
        path=broken, recording_id="x", seq=1, started_ns=piece.ended_ns, ended_ns=piece.ended_ns, duration_ns=1, bytes=1
    )
    with pytest.raises(JoinError, match=r"broken\.mp4 cannot be read"):
        join([piece, bad], tmp_path / "out.mp4")


def test_a_failing_disk_is_not_swallowed(recorded: dict[str, list[Piece]]) -> None:
    def fail(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Joiner(recorded["mp4"], container_for(Path("x.mp4")), fail).run()


def test_progress_goes_to_the_end(recorded: dict[str, list[Piece]], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    join(recorded["mp4"], tmp_path / "out.mp4", progress=lambda done, total: seen.append((done, total)))
    total = sum(piece.bytes for piece in recorded["mp4"])
    assert all(known == total for _, known in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] > 0.8 * total


def test_an_unknown_extension_is_an_error() -> None:
    with pytest.raises(JoinError, match=r"\.mp4, \.m4a, \.webm, \.mkv, \.mka"):
        container_for(Path("x.avi"))
