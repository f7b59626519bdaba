"""In which pieces sound comes to its encoder: all of it, in order, none much longer or shorter than the others."""

from __future__ import annotations

import pytest

from msrecd.codecs.audio import AudioEncoding
from msrecd.codecs.soundline import Run
from msrecd.flow.encoded import EncodingRequest
from msrecd.flow.feed import Feed
from msrecd.flow.units import AudioFormat

FORMAT = AudioFormat(sample_rate=48_000, channels=1)


class Encoder:
    """Keeps what it is given."""

    sample_rate, follows_times, behind_ns = FORMAT.sample_rate, False, 0.0

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def encode(self, pcm: bytes, first_sample: int, *, at_ns: int) -> list[object]:
        assert first_sample * FORMAT.frame_bytes == sum(map(len, self.pieces)), "they join"
        self.pieces.append(pcm)
        return []


@pytest.fixture(params=[("opus", 4), ("aac", 12), ("pcm_s16le", 50)], ids=lambda known: known[0])
def encoding(request: pytest.FixtureRequest) -> tuple[AudioEncoding, Encoder, int]:
    """(encoding, its encoder, nominal samples of a piece)."""
    codec, pieces_a_second = request.param
    wanted = EncodingRequest(
        kind="audio", codec=codec, bit_rate=64_000, sample_rate=FORMAT.sample_rate, channels=FORMAT.channels
    )
    made, encoder = AudioEncoding(Feed(), FORMAT, wanted, name="pieces"), Encoder()
    made._encoder = encoder  # type: ignore[assignment]
    return made, encoder, FORMAT.sample_rate // pieces_a_second


@pytest.mark.parametrize("samples", [1, 960, 11_264, 11_520, 12_000, 12_288, 24_000, 100_001])
def test_all_of_a_run_comes_in_even_pieces(encoding: tuple[AudioEncoding, Encoder, int], samples: int) -> None:
    made, encoder, nominal = encoding
    pcm = bytes(number % 251 for number in range(samples * FORMAT.frame_bytes))
    made._give([Run(samples, pcm)])
    assert b"".join(encoder.pieces) == pcm
    lengths = [len(piece) // FORMAT.frame_bytes for piece in encoder.pieces]
    assert max(lengths) <= 1.5 * nominal
    assert max(lengths) - min(lengths) < len(lengths), "a short rest would cost as much as a whole piece"


def test_silence_and_nothing(encoding: tuple[AudioEncoding, Encoder, int]) -> None:
    made, encoder, _ = encoding
    made._give([Run(0, b""), Run(5000, None), Run(0, None)])
    assert b"".join(encoder.pieces) == bytes(5000 * FORMAT.frame_bytes)
