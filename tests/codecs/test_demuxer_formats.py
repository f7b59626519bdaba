"""Opening a file: by the format its name tells, and by what it is where the name lies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from msrecd import libav


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10:duration=1"),
            *("-c:v", "libx264", "-pix_fmt", "yuv420p", str(path)),
        ],
        check=True,
        timeout=60,
    )
    return path


@pytest.mark.parametrize("name", ["film.mp4", "FILM.MP4", "film.mov", "film.mkv", "film.webm", "film.bin", "film"])
def test_a_file_is_what_it_is_whatever_its_name(tmp_path: Path, film: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(film.read_bytes())
    demuxer = libav.Demuxer(str(path))
    try:
        (stream,) = demuxer.streams
        assert (stream.codec, stream.width, stream.height) == ("h264", 160, 120)
        assert len(list(demuxer.packets([stream.index]))) == 10
    finally:
        demuxer.close()


@pytest.mark.parametrize("name", ["nothing.mp4", "nothing.mkv", "nothing.bin"])
def test_what_is_no_media_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no film" * 100)
    with pytest.raises(libav.LibavError, match="no media"):
        libav.Demuxer(str(tmp_path / name))
