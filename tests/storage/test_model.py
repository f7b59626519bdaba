"""Any sequence of recording, clock steps, deletions and crashes, against a simple account of what must be there.

No sequence makes the storage delete a protected, open, foreign or (untrusted clock) aged chunk, or exceed a limit by
more than one chunk; and names go both ways.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import storage_media
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_store import make_store

from msrecd.clock import MS, NS
from msrecd.errors import StorageError
from msrecd.storage import layout
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, OpenChunk, Recording, Store
from msrecd.storage.verify import verify
from msrecd.walltime import Stamp, WallTime

YEAR_NS = 365 * 86_400 * NS
NAMES = st.from_regex(layout.RECORDER, fullmatch=True)
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
        assert layout.RECORDER.match(split[0])


@given(NAMES, st.lists(STAMPS, min_size=2, max_size=6), st.integers(0, 0xFFFF))
def test_names_of_one_form_sort_in_the_order_of_time(name: str, stamps: list[Stamp], draw: int) -> None:
    for trusted in (True, False):
        own = [s for s in stamps if s.trusted == trusted and s.boot < 10_000]
        key = (lambda s: s.utc_ns // NS) if trusted else (lambda s: (s.boot, s.monotonic_ns // MS))
        ordered = sorted({key(s): s for s in own}.items())
        names = [layout.make_recording_id(name, stamp, draw) for _, stamp in ordered]
        assert names == sorted(names)


class SettableClock:
    def __init__(self) -> None:
        self.now_ns = 1000 * NS
        self.offset_ns = 1_800_000_000 * NS

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns + self.offset_ns

    def wait_until(self, deadline_ns: int, stop: object) -> bool:
        raise NotImplementedError


class StorageModel(RuleBasedStateMachine):
    """`expected`: chunks that must be there, unless rotation took them for a reason that holds."""

    LIMIT_CHUNKS = 4

    @initialize(trusted=st.booleans(), later=st.booleans(), protected=st.booleans())
    def begin(self, trusted: bool, later: bool, protected: bool) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="model-"))
        self.media = storage_media.make("wav")[:2000]
        self.size = len(self.media)
        self.clock = SettableClock()
        self.trusted = trusted
        self.boots = 0
        self.expected: dict[str, str] = {}  # file -> recording id
        self.ended_ns: dict[str, int] = {}  # of chunks that were made with a trusted clock
        self.untrusted: set[str] = set()
        self.protected: set[str] = set()
        self.foreign: list[Path] = []
        self.recording: Recording | None = None
        self.chunk: OpenChunk | None = None
        self.limits = Limits(min_free_bytes=0)
        self.start()
        self.record_a_chunk(final=True)  # every story begins with something that may go wrongly
        self.record_a_chunk(final=True)
        if protected:
            owner = next(iter(self.expected.values()))
            self.store.protect(owner)
            self.protected.add(owner)
        self.reboot(trusted=later)

    def start(self) -> None:
        self.boots += 1
        boot_id = self.base / "boot_id"
        boot_id.write_text(str(self.boots))
        self.walltime = WallTime(self.base / "state", clock=self.clock, trusted=self.trusted, boot_id_path=boot_id)
        self.store: Store = make_store(self.base, limits=self.limits, walltime=self.walltime, clock=self.clock)
        for line in self.store.open():
            self.note(line)

    def note(self, line: dict) -> None:
        file = str(line["file"])
        self.expected[file] = Path(file).name.rsplit("-", 1)[0]
        if line["clock"] == "synchronized":
            self.ended_ns[file] = self.clock.realtime_ns()
        else:
            self.untrusted.add(file)

    @property
    def root(self) -> Path:
        return self.base / "recordings"

    @precondition(lambda self: self.chunk is None)
    @rule()
    def open_chunk(self) -> None:
        self.recording = self.recording or self.store.begin("cam0", "audio/wav")
        before = set(self.expected)
        with contextlib.suppress(StorageError):  # all may be protected
            self.chunk = self.recording.open_chunk(started_ns=self.clock.now_ns)
        self.account_for(before)

    @precondition(lambda self: self.chunk is None)
    @rule(final=st.booleans())
    def record_a_chunk(self, final: bool) -> None:
        self.open_chunk()
        if self.chunk is not None:
            self.write()
            self.finish(final, known=True)

    @precondition(lambda self: self.chunk is not None)
    @rule()
    def write(self) -> None:
        assert self.chunk is not None
        if self.recording is not None and self.recording.open_bytes < self.size:
            self.chunk.write([self.media])
        self.clock.now_ns += NS // 4

    @precondition(lambda self: self.chunk is not None)
    @rule(final=st.booleans(), known=st.booleans())
    def finish(self, final: bool, known: bool) -> None:
        assert self.chunk is not None
        facts = ChunkFacts(final=final, duration_s=0.02, tracks={}) if known else ChunkFacts(final=final)
        try:
            if self.recording is not None and self.recording.open_bytes:
                self.note(self.chunk.finish(facts))
            else:
                self.chunk.abandon()
        finally:
            self.chunk = None
        if final and self.recording is not None:
            self.recording.close()
            self.recording = None

    @precondition(lambda self: self.chunk is not None)
    @rule(late=st.booleans())
    def leave_unfinished(self, late: bool) -> None:
        assert self.chunk is not None
        self.chunk.abandon()
        self.chunk = None
        if late:
            for line in self.store.finish_leftovers():
                self.note(line)

    @rule(trusted=st.booleans())
    def reboot(self, trusted: bool) -> None:
        """What an untrusted boot recorded stays untrusted in a boot that can trust its clock."""
        self.trusted = trusted
        self.crash()

    @rule()
    def crash(self) -> None:
        if self.chunk is not None:
            self.chunk._file.close()  # as the kernel does
        self.chunk = self.recording = None
        self.store.close()
        self.start()

    @rule(torn=st.integers(1, 400))
    @precondition(lambda self: self.chunk is not None and self.recording.open_bytes)
    def power_cut(self, torn: int) -> None:
        assert self.chunk is not None
        os.truncate(self.chunk.path, max(0, self.chunk.path.stat().st_size - torn))
        self.crash()

    @rule()
    def lose_the_index(self) -> None:
        self.store.close()
        if self.chunk is not None:
            self.chunk._file.close()
        self.chunk = self.recording = None
        (self.base / "state" / "index.sqlite").unlink()
        self.start()

    @rule(seconds=st.sampled_from([-40_000_000, -90_000, -3600, -1, 1, 3600, 90_000, 400_000_000]))
    def step_the_clock(self, seconds: int) -> None:
        if not self.trusted or abs(seconds) <= 3600:  # a trusted clock is slewed, or steps by little
            self.clock.offset_ns += seconds * NS
        self.walltime.poll()

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), keep=st.booleans())
    def protect(self, data: st.DataObject, keep: bool) -> None:
        recording_id = data.draw(st.sampled_from(sorted(set(self.expected.values()))))
        with contextlib.suppress(StorageError):
            (self.store.protect if keep else self.store.unprotect)(recording_id)
            (self.protected.add if keep else self.protected.discard)(recording_id)

    @rule()
    def put_something_foreign(self) -> None:
        folder = next((p for p in (self.root / "cam0").rglob("*") if p.is_dir()), self.root)
        self.foreign.append(folder / f"holiday-{len(self.foreign)}.wav")
        self.foreign[-1].write_bytes(bytes(5000))

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def somebody_deletes(self, data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(sorted(self.expected)))
        (self.root / file).unlink(missing_ok=True)
        self.forget(file)

    @rule(total=st.none() | st.integers(0, 6), age=st.sampled_from([None, 0.0, 0.0, 60.0, 100_000.0]))
    def rotate(self, total: int | None, age: float | None) -> None:
        self.limits = Limits(
            max_total_bytes=None if total is None else total * self.size, max_age_s=age, min_free_bytes=0
        )
        self.store.limits = self.limits
        before = set(self.expected)
        self.store.rotate()
        self.account_for(before)
        limit = self.limits.max_total_bytes
        loose = [file for file, owner in self.expected.items() if owner not in self.protected]
        if limit is not None and loose:
            taken = sum((self.root / file).stat().st_size for file in self.expected)
            assert taken + (self.recording.open_bytes if self.recording else 0) <= limit

    def forget(self, file: str) -> None:
        self.expected.pop(file, None)
        self.ended_ns.pop(file, None)
        self.untrusted.discard(file)

    def account_for(self, before: set[str]) -> None:
        """What went since then went for a reason that holds."""
        reasons = {}
        for path in self.root.rglob("*.jsonl"):
            for line in map(json.loads, path.read_text().splitlines()):
                if "deleted" in line:
                    reasons[(path.stem, line["deleted"])] = line["reason"]
        for file in sorted(before):
            if (self.root / file).exists():
                continue
            owner = self.expected[file]
            assert owner not in self.protected, f"{file} was protected"
            seq = int(Path(file).stem.rsplit("-", 1)[1])
            reason = reasons.get((owner, seq))  # None: its manifest went with its last chunk
            if reason == "max_age" or (reason is None and self.limits.max_total_bytes is None):
                assert self.trusted
                assert file not in self.untrusted
                assert self.limits.max_age_s is not None
            self.forget(file)

    @invariant()
    def all_is_there(self) -> None:
        if not hasattr(self, "store"):
            return
        for file in self.expected:
            assert (self.root / file).is_file(), f"{file} went without a reason"
        for path in self.foreign:
            assert path.exists(), f"{path} was not ours"
        if self.chunk is not None:
            assert self.chunk.path.exists()
        ours = {str(p.relative_to(self.root)) for p in self.root.rglob("*.wav") if not p.name.startswith("holiday")}
        assert ours == set(self.expected)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.crash()
            assert not list(self.root.rglob("*.part"))
            faults = {finding.fault for finding in verify(self.root).findings}
            assert faults <= {"missing", "unlisted"}, faults  # what the rules took away or put there themselves
        finally:
            self.store.close()
            shutil.rmtree(self.base, ignore_errors=True)


StorageModel.TestCase.settings = settings(
    max_examples=int(os.environ.get("MSRECD_MODEL_EXAMPLES", "12")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStorageModel = pytest.mark.timeout(300)(StorageModel.TestCase)


@pytest.mark.parametrize("protected", [True, False])
def test_a_story_that_must_delete_nothing(protected: bool) -> None:
    """What an untrusted boot recorded is not aged by a boot that trusts its clock; a limit takes no protected chunk."""
    model = StorageModel()
    model.begin(trusted=False, later=True, protected=protected)
    try:
        before = set(model.expected)
        model.rotate(total=None, age=0.0)
        assert set(model.expected) == before
        model.rotate(total=0, age=None)
        assert len(model.expected) == (1 if protected else 0)
        model.all_is_there()
    finally:
        model.teardown()
