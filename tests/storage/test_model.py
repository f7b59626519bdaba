"""Names go both ways; and the models (storage_model.py, media_model.py) find no story that goes wrong."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_model import MediaModel
from storage_model import StorageModel

from msrecd.clock import MS, NS
from msrecd.clock.wall import Stamp
from msrecd.storage import layout
from msrecd.vocabulary.names import NAME_PATTERN

YEAR_NS = 365 * 86_400 * NS
NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)
STAMPS = st.builds(
    Stamp,
    monotonic_ns=st.integers(0, 10**12 * MS - 1),
    utc_ns=st.integers(0, 200 * YEAR_NS),
    boot=st.integers(1, 99_999),
    trusted=st.booleans(),
)


@given(NAMES, STAMPS, st.integers(0, 0xFFFF), st.integers(1, 999_999_999), st.sampled_from(layout.EXTENSIONS))
def test_what_is_named_is_read_back(name: str, stamp: Stamp, suffix: int, seq: int, extension: str) -> None:
    recording_id = layout.make_recording_id(name, stamp, suffix)
    parsed = layout.parse_recording_id(recording_id)
    assert parsed is not None
    assert (parsed.text, parsed.recorder, parsed.suffix) == (recording_id, name, f"{suffix:04x}")
    chunk = layout.parse_chunk_name(layout.chunk_name(recording_id, seq, extension))
    assert chunk is not None
    assert (chunk.recording_id, chunk.recorder, chunk.seq, chunk.extension) == (recording_id, name, seq, extension)
    for file in (layout.chunk_name(recording_id, seq, extension), layout.manifest_name(recording_id)):
        path = f"{name}/{layout.day_folder(stamp)}/{file}"
        assert layout.split_file(path) == (name, layout.day_folder(stamp), file)


@given(st.text() | st.from_regex(r"[a-z0-9-./]{0,12}(/[0-9a-z]{1,8}){0,4}/[-0-9TZa-z.]+"))
def test_no_other_text_leads_anywhere(text: str) -> None:
    split = layout.split_file(text)
    if split is not None:
        assert "/".join(split) == text
        assert not {"", ".", ".."} & set(text.split("/"))
        assert NAME_PATTERN.match(split[0])


@given(NAMES, st.lists(STAMPS, min_size=2, max_size=6), st.integers(0, 0xFFFF))
def test_names_of_one_form_sort_in_the_order_of_time(name: str, stamps: list[Stamp], draw: int) -> None:
    for trusted in (True, False):
        own = [s for s in stamps if s.trusted == trusted and s.boot < 10_000]
        key = (lambda s: s.utc_ns // NS) if trusted else (lambda s: (s.boot, s.monotonic_ns // MS))
        ordered = sorted({key(s): s for s in own}.items())
        names = [layout.make_recording_id(name, stamp, draw) for _, stamp in ordered]
        assert names == sorted(names)


EXAMPLES = os.environ.get("MSRECD_MODEL_EXAMPLES")
LONGEST_S = max(300, 3 * int(EXAMPLES or 0))  # some 0.1 s each on an idle machine

StorageModel.TestCase.settings = settings(
    max_examples=int(EXAMPLES or 25),
    stateful_step_count=30,
    deadline=None,
    derandomize=EXAMPLES is None,  # the same stories each time; `make faults` draws new ones
    suppress_health_check=list(HealthCheck),
)
TestStorageModel = pytest.mark.timeout(LONGEST_S)(
    pytest.mark.promise("only-own-chunks-go", "limits-hold", "taken-by-hand", "names-go-on")(StorageModel.TestCase)
)

MediaModel.TestCase.settings = settings(
    max_examples=int(EXAMPLES or 15),
    stateful_step_count=30,
    deadline=None,
    derandomize=EXAMPLES is None,  # the same stories each time; `make faults` draws new ones
    suppress_health_check=list(HealthCheck),
)
TestMediaModel = pytest.mark.timeout(LONGEST_S)(
    pytest.mark.promise(
        "another-medium",
        "medium-is-back",
        "nothing-is-mounted",
        "copied-medium",
        "two-daemons-one-folder",
        "chunks-come-back",
        "state-is-lost",
        "correction-of-one-boot",
        "unknown-times-are-not-old",
    )(MediaModel.TestCase)
)
