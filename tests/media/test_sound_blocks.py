"""SoundBlocks: pieces of PCM that join become one block; nothing is lost or moved."""

from __future__ import annotations

import numpy as np
import pytest

from msrecd.clock import MS, NS
from msrecd.flow.units import AudioBlock, AudioFormat
from msrecd.media.soundblocks import SoundBlocks

FORMAT = AudioFormat(sample_rate=48_000, channels=2)
PIECE = 1024  # samples, as containers have them
PIECE_NS = PIECE * NS / FORMAT.sample_rate


def piece(number: int) -> bytes:
    return np.full((PIECE, 2), number, "<i2").tobytes()


def start_ns(number: int) -> int:
    """As a container tells it that counts in milliseconds."""
    return round(number * PIECE_NS / MS) * MS


@pytest.fixture
def given() -> list[AudioBlock]:
    return []


def test_a_batch_becomes_one_block(given: list[AudioBlock]) -> None:
    blocks = SoundBlocks(FORMAT, given.append)
    for number in range(10):
        blocks.add(start_ns(number), piece(number))
    assert not given
    blocks.give()
    (block,) = given
    assert block.pts_ns == 0
    assert block.samples == 10 * PIECE
    assert block.data == b"".join(map(piece, range(10)))
    blocks.give()
    assert len(given) == 1, "nothing is given twice"


def test_much_is_given_without_being_told_to(given: list[AudioBlock]) -> None:
    blocks = SoundBlocks(FORMAT, given.append)
    for number in range(100):
        blocks.add(start_ns(number), piece(number))
    blocks.give()
    assert b"".join(block.data for block in given) == b"".join(map(piece, range(100)))
    assert max(block.samples for block in given) <= 0.33 * FORMAT.sample_rate
    at = 0
    for block in given:
        assert abs(block.pts_ns - at * NS / FORMAT.sample_rate) <= MS
        at += block.samples


def test_what_does_not_join_is_a_block_of_its_own(given: list[AudioBlock]) -> None:
    blocks = SoundBlocks(FORMAT, given.append)
    blocks.add(start_ns(0), piece(0))
    blocks.add(start_ns(1), piece(1))
    blocks.add(start_ns(2) + 5 * MS, piece(2))  # a hole
    blocks.add(start_ns(2) + 10 * MS, piece(3))  # over what is there
    blocks.give()
    assert [block.samples for block in given] == [2 * PIECE, PIECE, PIECE]
    assert [block.pts_ns for block in given] == [0, start_ns(2) + 5 * MS, start_ns(2) + 10 * MS]


def test_nothing_makes_no_block_and_what_nobody_wants_is_forgotten(given: list[AudioBlock]) -> None:
    blocks = SoundBlocks(FORMAT, given.append)
    blocks.add(0, b"")
    blocks.give()
    blocks.add(0, piece(0))
    blocks.forget()
    blocks.give()
    assert not given
