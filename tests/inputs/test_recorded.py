"""What lies on a card is read in a process of its own: chunks for exports and thumbnails, FLAC that is completed."""

from __future__ import annotations

import os
import re
import select
import signal
from pathlib import Path

import pytest
import storage_media

from msrecd import libav
from msrecd.inputs.flac import facts_of_flac
from msrecd.inputs.recorded import RecordedFile
from msrecd.libav.values import LibavError
from msrecd.web.thumbnails import first_frame

ROOT = Path(__file__).parents[2]


def test_a_chunk_is_read_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(storage_media.make("mp4"))
    directly = libav.Demuxer(str(path))
    indexes = [info.index for info in directly.streams]
    expected = [(packet.stream, packet.dts_ns, bytes(packet.data)) for packet in directly.packets(indexes)]
    directly.close()
    source = RecordedFile(path)
    try:
        for kept in (4 << 20, 1000, 0):  # all of it, the begin, nothing
            source._kept_bytes, RecordedFile.KEPT_BYTES = (1 << 40 if kept < 4 << 20 else 0), kept
            next(source.packets(indexes[-1:]))
            found = [(packet.stream, packet.dts_ns, bytes(packet.data)) for packet in source.packets(indexes)]
            assert found == expected
    finally:
        source.close()


@pytest.mark.parametrize("content", [b"", b"\xff" * 5000, b"\0\0\0\x18ftypisom" + bytes(12) + b"\xff\xff\xff\xffmoov"])
def test_what_is_no_chunk_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(LibavError):
        first_frame(tmp_path / "x.mp4")


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_chunk_that_ends_what_reads_it_is_an_error(tmp_path: Path, is_gone: bool) -> None:
    (tmp_path / "x.mp4").write_bytes(storage_media.make("mp4"))
    source = RecordedFile(tmp_path / "x.mp4")
    process = source._reader._process
    signal.pidfd_send_signal(process.pidfd, signal.SIGSEGV)
    if is_gone:  # what is asked for finds nobody
        assert select.select([process.pidfd], [], [], 30)[0]
    with pytest.raises(LibavError, match="SIGSEGV"):
        list(source.packets([info.index for info in source.streams]))
    source.close()


@pytest.mark.parametrize("is_foreign", [False, True])
def test_what_flac_says_of_itself(tmp_path: Path, is_foreign: bool) -> None:
    path = tmp_path / "x.flac"
    path.write_bytes(storage_media.make("flac"))
    with path.open("rb") as file:
        position = os.lseek(file.fileno(), 7, os.SEEK_SET)
        assert facts_of_flac(file.fileno(), is_foreign=is_foreign) == libav.flac_facts(file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == position
    path.write_bytes(b"fLaC" + bytes(200))
    with path.open("rb") as file, pytest.raises(LibavError):
        facts_of_flac(file.fileno(), is_foreign=is_foreign)


def test_the_program_itself_demuxes_nothing() -> None:
    """libav reads files and streams in the processes of inputs/helper.py, and nowhere else."""
    uses = {
        str(path.relative_to(ROOT / "msrecd"))
        for path in (ROOT / "msrecd").rglob("*.py")
        if re.search(r"\bDemuxer\(|flac_facts\(", path.read_text())
    }
    assert uses == {"inputs/helper.py", "inputs/decoder.py", "inputs/flac.py", "libav/decoders.py"}
