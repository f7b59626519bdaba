"""A model of the storage: any story of recordings, clocks, deletions and crashes, against a simple account of them.

The machine drives the real store (planner, janitor, index, journal, recovery) in a folder of its own; simulated are the
clocks, the boots and how much is free. After every step it looks at the folder: what went must have gone for a reason
that holds, what is there must be what was recorded, and no limit is exceeded for longer than one chunk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import storage_media
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_store import make_store

from msrecd.clock import NS
from msrecd.clock.wall import WallTime
from msrecd.errors import StorageError
from msrecd.storage.janitor import LEAST_ROOM_BYTES
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, OpenChunk, Recording, Store
from msrecd.storage.verify import Fault, verify

RECORDERS = ("cam0", "cam1")
UNIT = 1000  # bytes of a write; a chunk is begun with HEAD bytes
HEAD = 2000
MAX_CHUNK = 4000
CAPACITY_CHUNKS = 5
DAY_S = 86_400
_MEMORY = Path("/dev/shm")  # thousands of syncs


class SettableClock:
    """Monotonic time since a boot, and a wall clock that may say anything."""

    def __init__(self) -> None:
        self.now_ns = 1000 * NS
        self.offset_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns + self.offset_ns

    def wait_until(self, deadline_ns: int, stop: object) -> bool:
        raise NotImplementedError


@dataclass(kw_only=True)
class Known:
    """A finished chunk as the model knows it: `ended_ns` by the wall clock then; `boot`: its clock was not trusted."""

    owner: str
    recorder: str
    bytes: int
    order: int
    ended_ns: int
    boot: int | None


class StorageModel(RuleBasedStateMachine):
    """`known`: chunks that must be there, unless rotation took them for a reason that holds."""

    @initialize(
        synchronized=st.booleans(),
        old=st.integers(2, 3),
        protected=st.booleans(),
        own=st.none() | st.integers(1, 4),
        recording=st.booleans(),
    )
    def begin(self, synchronized: bool, old: int, protected: bool, own: int | None, recording: bool) -> None:
        """Every story begins with something that may go wrongly."""
        self.base = Path(tempfile.mkdtemp(prefix="model-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
        self.media = storage_media.make("wav")[:HEAD]
        self.clock = SettableClock()
        self.truth_ns = 1_800_000_000 * NS  # what the monotonic clock's 0 is in truth
        self.clock.offset_ns = self.truth_ns if synchronized else 0
        self.kernel = synchronized
        self.boots = 0
        self.corrected_boots: set[int] = set()
        self.least_offset_ns: int | None = None
        self.known: dict[str, Known] = {}
        self.taken: set[str] = set()  # by hand
        self.protected: set[str] = set()
        self.foreign: dict[Path, bytes] = {}
        self.recordings: dict[str, Recording] = {}
        self.chunks: dict[str, OpenChunk] = {}
        self.written: dict[str, int] = {}
        self.began_ns: dict[str, int] = {}
        self.left: list[Path] = []  # parts whose finishing was given up for now
        self.order_is_known = True
        self.stepped = False
        self.limits = Limits(min_free_bytes=0)
        self.own = {} if own is None else {"cam0": Limits(max_total_bytes=own * HEAD)}
        self.start()
        for _ in range(old):
            self.record_a_chunk("cam0", writes=1, final=True, known=True)
        if protected:
            self.keep(next(iter(self.known.values())).owner, keep=True)
        if recording:
            self.open("cam0")

    # --- the machine around the storage ------------------------------------------------------------------------------

    def start(self) -> None:
        if not hasattr(self, "walltime"):
            self.boot()
        self.store: Store = make_store(
            self.base, limits=self.limits, recorder_limits=self.own, walltime=self.walltime, clock=self.clock
        )
        self.store.root.status = self.status  # type: ignore[method-assign]
        for line in self.store.open():
            self.note(line)
        self.left.clear()
        assert not list(self.root.rglob("*.wav.part")), "recovery left something unfinished"
        self.store.rotate()  # as the daemon does
        self.judge()

    def boot(self) -> None:
        self.boots += 1
        boot_id = self.base / "boot_id"
        boot_id.write_text(str(self.boots))
        self.walltime = WallTime(
            self.base / "state",
            clock=self.clock,
            kernel=lambda: self.kernel,
            marker=self.base / "none",
            boot_id_path=boot_id,
        )
        self.least_offset_ns = None
        self.look_at_the_clock()

    def look_at_the_clock(self) -> None:
        """What the program does every few seconds; and what it may believe from now on."""
        self.walltime.poll()
        if self.kernel:
            self.corrected_boots.add(self.boots)
            offset_ns = self.clock.offset_ns
            self.least_offset_ns = offset_ns if self.least_offset_ns is None else min(self.least_offset_ns, offset_ns)

    def status(self) -> os.statvfs_result:
        free = LEAST_ROOM_BYTES + CAPACITY_CHUNKS * MAX_CHUNK - self.used()
        return SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=1 << 30)  # type: ignore[return-value]

    @property
    def root(self) -> Path:
        return self.base / "recordings"

    def used(self) -> int:
        """Bytes of everything that is ours."""
        return sum(e.bytes for file, e in self.known.items() if (self.root / file).exists()) + self.open_bytes()

    def open_bytes(self, recorder: str | None = None) -> int:
        parts = [chunk.path for name, chunk in self.chunks.items() if recorder in (None, name)]
        parts += [path for path in self.left if recorder in (None, path.relative_to(self.root).parts[0])]
        return sum(path.stat().st_size for path in parts if path.exists())

    def note(self, line: dict) -> None:
        file = str(line["file"])
        recorder = file.partition("/")[0]
        trusted = line["clock"] == "synchronized"
        assert file not in self.known, f"{file} was there before"
        owner = Path(file).name.rsplit("-", 1)[0]
        if not line["recovered"] and not self.left:  # what is finished late aside
            for other in (entry.owner for entry in self.present().values() if entry.recorder == recorder):
                assert other <= owner or not self.must_sort(other, owner), f"{owner} sorts before the older {other}"
        boot = None if trusted else int(owner[4:8]) if owner.startswith("boot") else self.boots
        self.known[file] = Known(
            owner=owner,
            recorder=recorder,
            bytes=(self.root / file).stat().st_size,
            order=1 + max((entry.order for entry in self.known.values()), default=0),
            ended_ns=self.began_ns[file],
            boot=boot,
        )

    def must_sort(self, older: str, newer: str) -> bool:
        """Names of one form do, as long as the clock did not go back by days since the older was drawn."""
        if older.startswith("boot") or newer.startswith("boot"):
            return older.startswith("boot") == newer.startswith("boot")
        owners = [entry.owner for entry in self.known.values() if entry.recorder == older.split("-")[1]]
        since = [owner for owner in owners[owners.index(older) :] if not owner.startswith("boot")]
        begun = datetime.fromisoformat(older[:16])
        return all(begun - datetime.fromisoformat(owner[:16]) < timedelta(days=1) for owner in (*since, newer))

    # --- recording ---------------------------------------------------------------------------------------------------

    def idle(self) -> list[str]:
        return [name for name in RECORDERS if name not in self.chunks]

    @precondition(lambda self: self.idle())
    @rule(data=st.data())
    def open_chunk(self, data: st.DataObject) -> None:
        self.open(data.draw(st.sampled_from(self.idle())))

    def open(self, recorder: str) -> None:
        recording = self.recordings.get(recorder) or self.store.begin(recorder, "audio/wav")
        self.recordings[recorder] = recording
        with contextlib.suppress(StorageError):  # all may be protected
            self.chunks[recorder] = recording.open_chunk(started_ns=self.clock.now_ns)
            self.written[recorder] = 0
            file = self.chunks[recorder].path.relative_to(self.root).with_suffix("")
            self.began_ns[str(file)] = self.clock.realtime_ns()
        self.judge()
        if recorder in self.chunks:
            self.write(recorder)

    @precondition(lambda self: self.idle())
    @rule(data=st.data(), writes=st.integers(1, 3), final=st.booleans(), known=st.booleans())
    def record(self, data: st.DataObject, writes: int, final: bool, known: bool) -> None:
        self.record_a_chunk(data.draw(st.sampled_from(self.idle())), writes=writes, final=final, known=known)

    def record_a_chunk(self, recorder: str, *, writes: int, final: bool, known: bool) -> None:
        self.open(recorder)
        if recorder in self.chunks:
            for _ in range(writes - 1):
                self.write(recorder)
            self.end_chunk(recorder, final=final, known=known)

    @precondition(lambda self: self.chunks)
    @rule(data=st.data())
    def write_more(self, data: st.DataObject) -> None:
        self.write(data.draw(st.sampled_from(sorted(self.chunks))))

    def write(self, recorder: str) -> None:
        if self.written[recorder] < MAX_CHUNK:
            data = self.media if not self.written[recorder] else bytes(UNIT)
            self.chunks[recorder].write([data])
            self.written[recorder] += len(data)
        self.clock.now_ns += NS // 4

    @precondition(lambda self: self.chunks)
    @rule(data=st.data(), final=st.booleans(), known=st.booleans())
    def finish(self, data: st.DataObject, final: bool, known: bool) -> None:
        self.end_chunk(data.draw(st.sampled_from(sorted(self.chunks))), final=final, known=known)

    def end_chunk(self, recorder: str, *, final: bool, known: bool) -> None:
        facts = ChunkFacts(final=final, duration_s=0.02, tracks={}) if known else ChunkFacts(final=final)
        self.note(self.chunks.pop(recorder).finish(facts))
        if final:
            self.recordings.pop(recorder).close()

    @precondition(lambda self: self.chunks)
    @rule(data=st.data())
    def leave_unfinished(self, data: st.DataObject) -> None:
        chunk = self.chunks.pop(data.draw(st.sampled_from(sorted(self.chunks))))
        self.left.append(chunk.path)
        chunk.abandon()
        self.rotate()

    @rule()
    def finish_what_was_left(self) -> None:
        for line in self.store.finish_unfinished():
            self.note(line)
        self.left.clear()

    # --- faults ------------------------------------------------------------------------------------------------------

    @rule()
    def crash(self) -> None:
        for chunk in self.chunks.values():
            chunk._file.close()  # as the kernel does
        self.chunks.clear()
        self.recordings.clear()
        self.store.close()
        self.start()

    @rule(torn=st.integers(1, 400), synchronized=st.booleans(), off_s=st.sampled_from([0, -DAY_S, -400 * DAY_S, 90]))
    def power_cut(self, torn: int, synchronized: bool, off_s: int) -> None:
        """The last bytes of what was open did not get to the disk; the next boot may or may not know the time."""
        for chunk in self.chunks.values():
            os.truncate(chunk.path, max(HEAD // 2, chunk.path.stat().st_size - torn))
        self.truth_ns += self.clock.now_ns + 3600 * NS
        self.clock.now_ns = 20 * NS
        self.clock.offset_ns = self.truth_ns + (0 if synchronized else off_s * NS)
        self.kernel = synchronized
        self.store.close()  # the index with its mapping of the clock
        for chunk in self.chunks.values():
            chunk._file.close()
        self.chunks.clear()
        self.recordings.clear()
        self.boot()
        self.start()

    @rule()
    def lose_the_index(self) -> None:
        self.order_is_known = self.order_is_known and not self.stepped and self.boots == 1
        self.store.close()
        next((self.base / "state").rglob("index.sqlite")).unlink()
        self.store = None  # type: ignore[assignment]
        for chunk in self.chunks.values():
            chunk._file.close()
        self.chunks.clear()
        self.recordings.clear()
        self.start()

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def somebody_deletes(self, data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(sorted(self.present())))
        (self.root / file).unlink()
        self.taken.add(file)

    @rule(kind=st.sampled_from(["note", "chunk", "part", "folder"]))
    def put_something_foreign(self, kind: str) -> None:
        """Also what looks like ours: a chunk that no manifest knows, in the folder of a recorder."""
        folder = next((p for p in sorted((self.root / "cam0").rglob("*")) if p.is_dir()), self.root)
        number = len(self.foreign)
        name = {
            "note": f"holiday-{number}.wav",
            "chunk": f"20200101T000000Z-cam0-{number:04x}-0001.wav",
            "part": f"holiday-{number}.wav.part~",
            "folder": f"keep-{number}/readme",
        }[kind]
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(50))
        self.foreign[path] = bytes(50)

    # --- the clock ---------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 60, 3600, DAY_S]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now_ns += seconds * NS
        self.look_at_the_clock()

    @rule(seconds=st.sampled_from([-400 * DAY_S, -90_000, -3600, -1, 1, 3600, 90_000, 400 * DAY_S]))
    def somebody_sets_the_clock(self, seconds: int) -> None:
        """The kernel does not vouch for it any more then."""
        self.stepped = True
        self.clock.offset_ns += seconds * NS
        if abs(seconds) > 2:
            self.kernel = False
        self.look_at_the_clock()

    @rule()
    def the_clock_is_set_right(self) -> None:
        self.stepped = True
        self.clock.offset_ns = self.truth_ns
        self.kernel = True
        self.look_at_the_clock()

    @precondition(lambda self: self.kernel)
    @rule(seconds=st.sampled_from([-3600, 3600, 400 * DAY_S]))
    def a_server_lies(self, seconds: int) -> None:
        """A step that the kernel vouches for."""
        self.stepped = True
        self.clock.offset_ns += seconds * NS
        self.look_at_the_clock()
        for recorder in self.idle():
            self.record_a_chunk(recorder, writes=1, final=True, known=True)

    # --- retention ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.present())
    @rule(data=st.data(), keep=st.booleans())
    def protect(self, data: st.DataObject, keep: bool) -> None:
        self.keep(data.draw(st.sampled_from(sorted({self.known[file].owner for file in self.present()}))), keep=keep)

    def keep(self, recording_id: str, *, keep: bool) -> None:
        if keep:
            self.store.protections.protect(recording_id, whole=True)
        else:
            self.store.protections.unprotect(recording_id)
        (self.protected.add if keep else self.protected.discard)(recording_id)

    @rule(
        total=st.none() | st.integers(0, 6),
        age=st.sampled_from([None, 0.0, 0.0, 60.0, 100_000.0]),
        free=st.sampled_from([0, 0, 3, 6, 9]),
        own=st.none() | st.integers(0, 3),
        own_age=st.sampled_from([None, None, 30.0]),
    )
    def limit(self, total: int | None, age: float | None, free: int, own: int | None, own_age: float | None) -> None:
        """New limits, and a round of the janitor by them."""
        self.limits = Limits(
            max_total_bytes=None if total is None else total * HEAD,
            max_age_s=age,
            min_free_bytes=LEAST_ROOM_BYTES + free * HEAD if free else 0,
        )
        self.own = {"cam0": Limits(max_total_bytes=None if own is None else own * HEAD, max_age_s=own_age)}
        self.store.limits = self.limits
        self.store.limit_recorders(self.own)
        self.rotate()

    @rule()
    def rotate(self) -> None:
        self.store.rotate()
        self.judge()
        self.limits_hold()

    @rule()
    def a_command_prunes(self) -> None:
        """`msrecd recordings prune` beside the daemon."""
        beside = make_store(
            self.base, limits=self.limits, recorder_limits=self.own, walltime=self.walltime, clock=self.clock
        )
        beside.root.status = self.status  # type: ignore[method-assign]
        beside.open_beside()
        beside.rotate()
        beside.close()
        self.judge()

    # --- the judge ---------------------------------------------------------------------------------------------------

    def present(self) -> dict[str, Known]:
        """What must be there."""
        return {file: entry for file, entry in self.known.items() if file not in self.taken}

    def is_loose(self, entry: Known) -> bool:
        return entry.owner not in self.protected

    def limits_hold(self) -> None:
        """After a round of the janitor all limits hold, or nothing is left that may go."""
        loose = [entry for entry in self.present().values() if self.is_loose(entry)]
        own = [entry for entry in loose if entry.recorder == "cam0"]
        total, quota = self.limits.max_total_bytes, self.own.get("cam0", Limits()).max_total_bytes
        if total is not None and loose:
            assert self.used() <= total, f"{self.used()} bytes of {total}"
        if quota is not None and own:
            taken = sum(e.bytes for e in self.present().values() if e.recorder == "cam0") + self.open_bytes("cam0")
            assert taken <= quota, f"cam0 has {taken} bytes of {quota}"
        if loose and self.limits.min_free_bytes:
            assert self.status().f_bavail >= self.limits.min_free_bytes, "less is free than must be"
        for entry in loose:
            assert not self.is_aged(entry, slack_s=1), f"{entry} is too old and still there"

    def is_aged(self, entry: Known, *, slack_s: float = 0) -> bool:
        """Whether a chunk may go (slack_s=0) or must have gone by its age."""
        own = self.own.get("cam0", Limits()).max_age_s if entry.recorder == "cam0" else None
        limits = [age for age in (self.limits.max_age_s, own) if age is not None]
        if not limits or not self.kernel or self.least_offset_ns is None:
            return False
        now_ns = min(self.clock.offset_ns, self.least_offset_ns) + self.clock.now_ns
        if entry.boot is not None:  # by what its time was corrected is not told here
            return not slack_s and entry.boot in self.corrected_boots
        return now_ns - entry.ended_ns > (min(limits) + slack_s - 1) * NS

    def judge(self) -> None:
        """What went since the last look went for a reason that holds, and no more than necessary."""
        gone = {file: entry for file, entry in self.present().items() if not (self.root / file).exists()}
        if not gone:
            return
        for file, entry in gone.items():
            assert self.is_loose(entry), f"{file} was protected and is gone"
        by_limit = {file: entry for file, entry in gone.items() if not self.is_aged(entry)}
        for file in gone:
            del self.known[file]
        for file, entry in by_limit.items():
            assert self.is_excess(entry, list(gone.values())), f"{file} went without a reason ({entry})"

    def is_excess(self, entry: Known, gone: list[Known]) -> bool:
        """Whether with this chunk, and those that went after it, some limit would be exceeded."""
        later = [other for other in gone if other.order >= entry.order or not self.order_is_known]
        loose = [other for other in self.present().values() if self.is_loose(other)]
        older = [other for other in loose if other.order < entry.order and self.order_is_known]
        # What somebody took by hand is missed only when its turn comes; until then it is counted.
        ghosts = [other for file, other in self.known.items() if file in self.taken]
        quota = self.own.get(entry.recorder, Limits()).max_total_bytes
        if quota is not None and not any(other.recorder == entry.recorder for other in older):
            mine = [e.bytes for e in (*self.present().values(), *later, *ghosts) if e.recorder == entry.recorder]
            if sum(mine) + self.open_bytes(entry.recorder) > quota:
                return True
        if older:
            return False
        extra = sum(other.bytes for other in (*later, *ghosts))
        growth = len(self.recordings) * MAX_CHUNK  # room that what is being recorded still may need
        total = self.limits.max_total_bytes
        if total is not None and self.used() + extra + growth > total:
            return True
        free = self.limits.min_free_bytes
        return bool(free) and self.status().f_bavail - sum(other.bytes for other in later) - growth < free

    @invariant()
    def all_is_there(self) -> None:
        if not hasattr(self, "store"):
            return
        for file in self.present():
            assert (self.root / file).is_file(), f"{file} went without a reason"
        for path, content in self.foreign.items():
            assert path.exists(), f"{path} was not ours"
            assert path.read_bytes() == content
        for chunk in self.chunks.values():
            assert chunk.path.exists(), f"{chunk.path} was being written"
        ours = {str(p.relative_to(self.root)) for p in self.root.rglob("*.wav") if p not in self.foreign}
        assert ours == set(self.present())
        for recorder, recording in self.recordings.items():
            if any(entry.owner == recording.recording_id for entry in self.present().values()):
                assert (self.root / recording.manifest).exists(), f"{recorder} lost its manifest"

    @invariant()
    def no_limit_is_exceeded_by_more_than_the_open_chunks(self) -> None:
        if not hasattr(self, "store") or self.limits.max_total_bytes is None:
            return
        if any(self.is_loose(entry) for entry in self.present().values()):
            allowed = self.limits.max_total_bytes + MAX_CHUNK * len(RECORDERS)
            assert self.used() <= allowed, f"{self.used()} bytes where {allowed} are allowed"

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.crash()
            # What somebody took by hand may be counted until its turn comes.
            assert len(self.present()) <= self.store.index.totals()[1] <= len(self.known)
            self.all_is_there()
            findings = [
                f
                for f in verify(self.root).findings
                if f.is_failure and (f.fault is not Fault.UNLISTED or not self.is_foreign(f.file))
            ]
            wrong = [f.message for f in findings if f.fault is not Fault.MISSING or f.file not in self.taken]
            assert not wrong, wrong
            lines = [json.loads(raw) for p in self.root.rglob("*.jsonl") for raw in p.read_text().splitlines()]
            assert {line["file"] for line in lines if "file" in line} >= set(self.present())
        finally:
            self.store.close()
            shutil.rmtree(self.base, ignore_errors=True)

    def is_foreign(self, file: str) -> bool:
        return self.root / file in self.foreign
