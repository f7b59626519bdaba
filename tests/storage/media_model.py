"""A model of the media: any story of sticks that are swapped, copied, restored and mounted late, and of two machines.

Two machines record through the real store into one path. What lies there changes under them: other media, copies of
one another, an older state of themselves, the bare mount point. Their states get lost, or are copies of each other, so
numbers of boots repeat. After every step each medium is compared with what was recorded onto it: nothing of it may be
deleted, corrected, renumbered or finished by what is known of another.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import storage_media
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from msrecd.clock import NS
from msrecd.clock.wall import ReadOnlyWallTime, WallTime
from msrecd.errors import StorageError
from msrecd.storage import checks, layout, medium
from msrecd.storage.catalog import open_catalog
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, OpenChunk, Recording, Store
from msrecd.storage.verify import Fault, verify

RECORDERS = ("cam0", "cam1")
BOXES = st.sampled_from(["a", "b"])
HEAD = 2000  # bytes of a chunk
DAY_S = 86_400
WAKES_UP_AT_NS = 1_700_000_000 * NS
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """`content`: its hash; `boot`: of an untrusted clock, the boot id; started, ended: in truth."""

    owner: str
    bytes: int
    content: str
    boot: str
    number: int
    started_ns: int
    ended_ns: int


@dataclass(kw_only=True)
class Folder:
    """A medium as the model knows it. left: what a crash, or a copy of a running recording, left; when it began, and in
    which boot. taken: files that a person has moved away. numbers: those of boots, by the boot ids that used them.
    is_older: it was made from a copy.
    """

    file_system: str
    point: str
    chunks: dict[str, Chunk] = field(default_factory=dict)
    left: dict[str, tuple[int, str]] = field(default_factory=dict)
    protected: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    numbers: dict[str, set[int]] = field(default_factory=dict)
    is_older: bool = False


class BoxClock:
    """The clocks of a machine; what time it really is, is the model's."""

    def __init__(self, truth: SimpleNamespace) -> None:
        self.truth = truth
        self.booted_ns = 0
        self.error_ns = 0

    def monotonic_ns(self) -> int:
        return self.truth.now_ns - self.booted_ns

    def realtime_ns(self) -> int:
        return self.truth.now_ns + self.error_ns

    def wait_until(self, deadline_ns: int, stop: object) -> bool:
        raise NotImplementedError


@dataclass(kw_only=True)
class Box:
    """A machine. last: the medium its state remembers at the path; trusted_boots: those its state has an offset of."""

    name: str
    state: Path
    clock: BoxClock
    boot_id: str = ""
    synchronized: bool = False
    walltime: WallTime | None = None
    store: Store | None = None
    limits: Limits = field(default_factory=Limits)
    recordings: dict[str, Recording] = field(default_factory=dict)
    chunks: dict[str, OpenChunk] = field(default_factory=dict)
    places: dict[str, tuple[str, str]] = field(default_factory=dict)  # recorder -> medium and file of its open chunk
    began_ns: dict[str, int] = field(default_factory=dict)
    trusted_boots: set[str] = field(default_factory=set)
    last: str = ""


class MediaModel(RuleBasedStateMachine):
    @initialize(synchronized=st.booleans(), with_card=st.booleans(), protected=st.booleans())
    def begin(self, synchronized: bool, with_card: bool, protected: bool) -> None:
        """Every story begins with something that may go wrongly: a recording of an earlier boot."""
        self.base = Path(tempfile.mkdtemp(prefix="media-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
        self.path = self.base / "recordings"
        self.data = storage_media.make("wav")[:HEAD]
        self.truth = SimpleNamespace(now_ns=1_800_000_000 * NS)
        self.folders = {
            "card": Folder(file_system="fsid:c", point="/"),
            "one": Folder(file_system="fsid:1", point=str(self.path)),
            "two": Folder(file_system="fsid:2", point=str(self.path)),
            "fat": Folder(file_system="", point=str(self.path)),  # one that cannot be told from another
        }
        for name in self.folders:
            self.shelf(name).mkdir(parents=True)
        self.backups: list[Folder] = []
        self.boots = 0
        self.mounted = "card" if with_card else "one"
        self.shelf(self.mounted).rename(self.path)
        self.stack = contextlib.ExitStack()
        for patch in (
            mock.patch.object(checks, "mount_at", self.mount_at),
            mock.patch.object(checks, "file_system_id", self.file_system_at),
            mock.patch.object(medium, "_LOCK_TIMEOUT_S", 0.0),
        ):
            self.stack.enter_context(patch)
        self.boxes = {name: Box(name=name, state=self.base / name, clock=BoxClock(self.truth)) for name in "ab"}
        for box in self.boxes.values():
            self.boot(box, synchronized=synchronized)
        self.start(self.boxes["a"])
        self.record("a", "cam0", final=True)
        if protected:
            self.keep(self.boxes["a"], next(iter(self.here.chunks.values())).owner)
        self.time_passes(3600)
        self.power_cut("a", synchronized=synchronized)
        self.record("a", "cam0", final=False)

    # --- the world ---

    def shelf(self, name: str) -> Path:
        return self.base / "shelf" / name

    def folder_of(self, name: str) -> Path:
        return self.path if name == self.mounted else self.shelf(name)

    @property
    def here(self) -> Folder:
        return self.folders[self.mounted]

    def mount_at(self, _: Path) -> checks.Mount:
        return checks.Mount(point=self.here.point, kind="ext4", options=frozenset(), source=f"/dev/{self.mounted}")

    def file_system_at(self, *_: object) -> str:
        return self.here.file_system

    @rule(name=st.sampled_from(["card", "one", "two", "fat"]))
    def mount(self, name: str) -> None:
        """Also under running machines, and late: after the daemon has started on the bare mount point."""
        self.path.rename(self.shelf(self.mounted))
        self.mounted = name
        self.shelf(name).rename(self.path)

    @rule()
    def back_up(self) -> None:
        """Everything is copied away, also while it is recorded to."""
        shutil.copytree(self.path, self.base / "backups" / str(len(self.backups)))
        kept = copy.deepcopy(self.here)
        for box in self.boxes.values():
            for recorder, (name, file) in box.places.items():
                if name == self.mounted:
                    kept.left[file] = (box.began_ns[recorder], box.boot_id)
        self.backups.append(kept)

    @precondition(lambda self: self.backups)
    @rule(data=st.data(), name=st.sampled_from(["one", "two", "fat"]), is_image=st.booleans())
    def restore(self, data: st.DataObject, name: str, is_image: bool) -> None:
        """A copy of some medium is all that another one, or the same one, has from now on; or it is its very image."""
        if name == self.mounted or any(
            place == name for box in self.boxes.values() for place, _ in box.places.values()
        ):
            return
        number = data.draw(st.integers(0, len(self.backups) - 1))
        old = self.folders[name]
        if self.backups[number].point == "/":
            is_image = False  # a folder of the computer's own disk: a copy of it is files on another file system
        self.shelf(name).rename(self.base / f"old-{uuid.uuid4().hex}")
        shutil.copytree(self.base / "backups" / str(number), self.shelf(name))
        self.folders[name] = copy.deepcopy(self.backups[number])
        self.folders[name].point = old.point
        self.folders[name].is_older = True
        if not is_image:
            self.folders[name].file_system = old.file_system

    @rule()
    def take_chunks(self) -> None:
        """Files are moved to a laptop."""
        for file in set(list(self.here.chunks)[:2]) - self.here.taken:
            target = self.base / "laptop" / self.mounted / file
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.path / file).rename(target)
            self.here.taken.add(file)

    @rule()
    def bring_chunks_back(self) -> None:
        for file in sorted(self.here.taken):
            source = self.base / "laptop" / self.mounted / file
            if source.exists():
                (self.path / file).parent.mkdir(parents=True, exist_ok=True)
                source.rename(self.path / file)
                self.here.taken.discard(file)

    @rule(seconds=st.sampled_from([1, 3600, DAY_S, 40 * DAY_S]))
    def time_passes(self, seconds: int) -> None:
        self.truth.now_ns += seconds * NS

    # --- the machines ---

    def boot(self, box: Box, *, synchronized: bool) -> None:
        self.boots += 1
        box.boot_id = f"boot-{self.boots}"
        (self.base / f"{box.name}-boot-id").write_text(box.boot_id)
        box.clock.booted_ns = self.truth.now_ns - 20 * NS
        self.synchronize(box, is_right=synchronized)
        box.walltime = None

    def synchronize(self, box: Box, *, is_right: bool) -> None:
        box.synchronized = is_right
        # Without a network every boot begins at the same wrong time.
        box.clock.error_ns = 0 if is_right else WAKES_UP_AT_NS - box.clock.booted_ns

    @rule(name=BOXES)
    def clock_is_set(self, name: str) -> None:
        box = self.boxes[name]
        self.synchronize(box, is_right=True)
        if box.walltime is not None:
            box.walltime.poll()
            box.trusted_boots.add(box.boot_id)
        self.rotate(name)

    @rule(name=BOXES, synchronized=st.booleans())
    def power_cut(self, name: str, synchronized: bool) -> None:
        box = self.boxes[name]
        self.kill(box)
        self.truth.now_ns += 60 * NS
        self.boot(box, synchronized=synchronized)
        self.start(box)

    @rule(name=BOXES, how=st.sampled_from(["lost", "of the other one"]), synchronized=st.booleans())
    def other_card(self, name: str, how: str, synchronized: bool) -> None:
        """The card with the state is replaced by an empty one, or by a clone of the other machine's."""
        box, other = self.boxes[name], self.boxes["b" if name == "a" else "a"]
        self.kill(box)
        shutil.rmtree(box.state, ignore_errors=True)
        box.last, box.trusted_boots = "", set()
        if how != "lost" and other.state.exists():
            shutil.copytree(other.state, box.state)
            box.last, box.trusted_boots = other.last, set(other.trusted_boots)
        self.boot(box, synchronized=synchronized)
        self.start(box)

    @rule(name=BOXES)
    def stop(self, name: str) -> None:
        box = self.boxes[name]
        for recorder in list(box.chunks):
            self.end_chunk(box, recorder, final=True)
        for recording in box.recordings.values():
            recording.close()
        box.recordings.clear()
        self.close(box)

    def close(self, box: Box) -> None:
        if box.store is not None:
            box.store.close()
            box.store = None

    def kill(self, box: Box) -> None:
        for recorder, chunk in box.chunks.items():
            name, file = box.places[recorder]
            self.folders[name].left[file] = (box.began_ns[recorder], box.boot_id)
            chunk._file.close()  # as the kernel does
            os.close(chunk._root)
        box.chunks.clear()
        box.places.clear()
        box.recordings.clear()
        self.close(box)
        self.judge(None)

    @rule(name=BOXES)
    def start_again(self, name: str) -> None:
        box = self.boxes[name]
        self.kill(box)
        self.start(box)

    def start(self, box: Box) -> None:
        if box.walltime is None:
            box.walltime = WallTime(
                box.state,
                clock=box.clock,
                kernel=lambda: box.synchronized,
                marker=self.base / "none",
                boot_id_path=self.base / f"{box.name}-boot-id",
            )
        if box.synchronized:
            box.trusted_boots.add(box.boot_id)
        store = Store(
            self.path,
            box.state,
            limits=box.limits,
            recorder_limits={},
            sync_interval_s=0.5,
            walltime=box.walltime,
            clock=box.clock,
        )
        room = SimpleNamespace(f_bavail=1 << 40, f_frsize=1, f_blocks=1 << 41, f_files=1 << 20, f_favail=1 << 20)
        real = store.root.status
        store.root.status = lambda: real() and room  # type: ignore[method-assign]
        holder = self.holder()
        with self.acting(box):
            store.open()
            box.store = store
            assert holder is None, f"{box.name} records onto {self.mounted} beside {holder}"
        if box.store is not None:
            assert not (set(self.here.left) - self.live()), "a start left something unfinished"
            self.listing(box)

    def holder(self) -> str | None:
        """The machine that records onto what is mounted here."""
        return next((box.name for box in self.boxes.values() if self.is_on(box)), None)

    def is_on(self, box: Box) -> bool:
        """Whether a machine's store has what is mounted here."""
        if box.store is None or not box.store._current_id or (its := box.store.root._medium) is None:
            return False
        status = self.path.stat()
        return its.place == (status.st_dev, status.st_ino)

    @contextlib.contextmanager
    def acting(self, box: Box):  # type: ignore[no-untyped-def]
        """What a machine does to its store; that may be refused, and may cost others nothing."""
        is_stick = self.here.point != "/"
        try:
            yield
        except StorageError as exc:
            if exc.code not in ("locked", "missing_mount", "not_found", "no_space") or (
                exc.code == "missing_mount" and is_stick
            ):
                raise AssertionError(str(exc)) from exc
        else:
            if not is_stick and box.last:
                assert self.folders[box.last].point == "/", f"{box.name} records below the mount point of {box.last}"
        if self.is_on(box):
            box.last = self.mounted
        self.judge(box)

    # --- recording ---

    @precondition(lambda self: any(box.store for box in self.boxes.values()))
    @rule(name=BOXES, recorder=st.sampled_from(RECORDERS))
    def open_chunk(self, name: str, recorder: str) -> None:
        box = self.boxes[name]
        if box.store is None or recorder in box.chunks:
            return
        with self.acting(box):
            recording = box.recordings.get(recorder) or box.store.begin(recorder, "audio/wav")
            box.recordings[recorder] = recording
            chunk = recording.open_chunk(started_ns=box.clock.monotonic_ns())
            file = str(chunk.path.relative_to(self.path).with_suffix(""))
            assert (self.path / f"{file}.part").exists(), "a chunk was begun somewhere else"
            taken = {*self.here.chunks, *self.here.left, *self.live(box)}
            assert file not in taken, f"{file} was there before"
            box.chunks[recorder], box.places[recorder] = chunk, (self.mounted, file)
            box.began_ns[recorder] = self.truth.now_ns
            chunk.write([self.data])
            self.number(box, file)
        self.truth.now_ns += NS

    @rule(name=BOXES, recorder=st.sampled_from(RECORDERS), final=st.booleans())
    def record(self, name: str, recorder: str, final: bool) -> None:
        self.open_chunk(name, recorder)
        self.finish(name, recorder, final)

    def number(self, box: Box, file: str) -> None:
        """A boot has a number of its own on each medium, and one that comes later a higher one."""
        match = layout.parse_chunk_name(Path(file).name)
        assert match is not None
        if match.recording_id.startswith("boot"):
            number = int(match.recording_id[4:8])
            own = self.here.numbers.setdefault(box.boot_id, set())
            others = {n for boot, numbers in self.here.numbers.items() if boot != box.boot_id for n in numbers}
            assert number not in others, f"{file}: the number of another boot"
            assert own or number > max(others, default=0), f"{file}: sorts before boot {max(others)}"
            own.add(number)

    @rule(name=BOXES, recorder=st.sampled_from(RECORDERS), final=st.booleans())
    def finish(self, name: str, recorder: str, final: bool) -> None:
        box = self.boxes[name]
        if recorder in box.chunks:
            self.end_chunk(box, recorder, final=final)

    def end_chunk(self, box: Box, recorder: str, *, final: bool) -> None:
        place, file = box.places.pop(recorder)
        line = box.chunks.pop(recorder).finish(ChunkFacts(final=final, duration_s=0.02, tracks={}))
        assert line["file"] == file, "it was renumbered"
        self.folders[place].left[file] = (box.began_ns[recorder], box.boot_id)
        self.judge(None)
        assert file in self.folders[place].chunks
        if final:
            box.recordings.pop(recorder).close()

    @rule(name=BOXES, total=st.none() | st.integers(0, 4), age=st.sampled_from([None, None, 3600.0, 10.0 * DAY_S]))
    def limit(self, name: str, total: int | None, age: float | None) -> None:
        box = self.boxes[name]
        box.limits = Limits(max_total_bytes=None if total is None else total * HEAD, max_age_s=age)
        if box.store is not None:
            box.store.limits = box.limits
        self.rotate(name)

    @rule(name=BOXES)
    def rotate(self, name: str) -> None:
        """What the daemon does every minute."""
        box = self.boxes[name]
        if box.store is not None:
            with self.acting(box):
                box.store.rotate()
            box.store.finish_unfinished()
            self.judge(box)
            if self.is_on(box):
                self.listing(box, is_complete=False)  # what is brought back is noticed within ten minutes

    @rule(name=BOXES)
    def recover(self, name: str) -> None:
        """`msrecd recordings recover` from the other machine, or beside the daemon."""
        box = self.boxes[name]
        beside = self.beside(box)
        if self.holder() is not None:
            with contextlib.suppress(StorageError):
                beside.unfinished()
                raise AssertionError("recover began beside a daemon that records here")
        self.judge(None)

    @precondition(lambda self: self.here.chunks)
    @rule(data=st.data(), name=BOXES)
    def protect(self, data: st.DataObject, name: str) -> None:
        box = self.boxes[name]
        if box.store is None:
            return
        owner = data.draw(st.sampled_from(sorted({chunk.owner for chunk in self.here.chunks.values()})))
        self.keep(box, owner)

    def keep(self, box: Box, owner: str) -> None:
        assert box.store is not None
        with self.acting(box):
            box.store.root.check()
            if box.store.index.has_recording(owner):
                box.store.protections.protect(owner, whole=True)
                self.here.protected.add(owner)

    def beside(self, box: Box) -> Store:
        return Store(
            self.path,
            box.state,
            limits=box.limits,
            recorder_limits={},
            sync_interval_s=0.5,
            walltime=ReadOnlyWallTime(box.state, clock=box.clock),
            clock=box.clock,
        )

    # --- the judge ---

    def live(self, but: Box | None = None) -> set[str]:
        """Files of what is mounted that are being written."""
        return {
            file
            for box in self.boxes.values()
            for name, file in box.places.values()
            if name == self.mounted and box is not but
        }

    def judge(self, box: Box | None) -> None:
        """Compare every medium with the account; `box` may have deleted from the one that is mounted, by its limits."""
        for name, folder in self.folders.items():
            root = self.folder_of(name)
            found = {str(path.relative_to(root)): path for path in root.rglob("*.wav")}
            parts = {str(path.relative_to(root))[: -len(".part")] for path in root.rglob("*.wav.part")}
            live = {file for b in self.boxes.values() for place, file in b.places.values() if place == name}
            assert live <= parts, f"{name}: {live - parts} were being written"
            for file, path in found.items():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                if file not in folder.chunks:
                    assert file in folder.left, f"{name}: {file} appeared"
                    assert file not in live, f"{name}: {file} was finished while it was being written"
                    folder.chunks[file] = self.account(file, path, content, *folder.left.pop(file))
                assert folder.chunks[file].content == content, f"{name}: {file} was changed"
            lost = set(folder.left) - parts - set(found)
            assert not lost, f"{name}: what was left is gone: {lost}"
            gone = set(folder.chunks) - set(found) - folder.taken
            assert not gone or (box is not None and name == self.mounted), f"{name}: {gone} went"
            if gone and box is not None:
                self.require_reasons(box, folder, gone)

    def account(self, file: str, path: Path, content: str, started_ns: int, boot_id: str) -> Chunk:
        owner = Path(file).name.rsplit("-", 1)[0]
        return Chunk(
            owner=owner,
            bytes=path.stat().st_size,
            content=content,
            boot=boot_id,
            number=len(content),
            started_ns=started_ns,
            ended_ns=self.truth.now_ns,
        )

    def require_reasons(self, box: Box, folder: Folder, gone: set[str]) -> None:
        total, age_s = box.limits.max_total_bytes, box.limits.max_age_s
        before = sum(chunk.bytes for chunk in folder.chunks.values()) + HEAD * (1 + len(self.live()))
        for file in sorted(gone):
            chunk = folder.chunks.pop(file)
            assert chunk.owner not in folder.protected, f"{file} was protected"
            is_excess = total is not None and before > total
            is_known = box.synchronized and (not chunk.owner.startswith("boot") or chunk.boot in box.trusted_boots)
            age = (self.truth.now_ns - chunk.started_ns) / NS
            is_old = age_s is not None and is_known and age > age_s - 10
            assert is_excess or is_old, f"{file} went without a reason: {chunk}"
        if total is not None and age_s is None:
            left = sum(chunk.bytes for chunk in folder.chunks.values())
            assert left >= min(total, before) - HEAD * (3 + len(self.live())), "more went than had to"

    def listing(self, box: Box, *, is_complete: bool = True) -> None:
        """All that is there is listed, with times that are true, or said to be unknown."""
        assert box.store is not None
        try:
            catalog = open_catalog(self.path, box.state, ReadOnlyWallTime(box.state, clock=box.clock).corrections)
        except StorageError as exc:
            if exc.code != "missing_mount" or self.here.point != "/":
                raise
            return  # the machine's last medium is a mounted one: below its mount point nothing is listed, nor recorded
        try:
            chunks = [chunk for entry in catalog.recordings() for chunk in entry.chunks]
        finally:
            catalog.close()
        listed, there = {chunk.file for chunk in chunks if chunk.exists}, set(self.here.chunks) - self.here.taken
        assert listed == there if is_complete else listed <= there, listed ^ there
        for chunk in chunks:
            known = self.here.chunks.get(chunk.file)
            if known is None:
                continue
            if chunk.clock == "synchronized" or chunk.corrected:
                assert abs(chunk.started_ns - known.started_ns) < 5 * NS, f"{chunk.file} was corrected by another boot"

    def teardown(self) -> None:
        if not hasattr(self, "boxes"):
            return
        try:
            for box in self.boxes.values():
                self.kill(box)
            for name, folder in self.folders.items():
                findings = [f for f in verify(self.folder_of(name)).findings if f.is_failure]
                known = set(folder.taken)
                if folder.is_older:  # a recording goes on behind what came after the copy was made: the hole is named
                    known |= {f.file for f in findings if "#" in f.file}
                wrong = [f.message for f in findings if f.fault is not Fault.MISSING or f.file not in known]
                wrong = [text for text in wrong if not any(file in text for file in folder.left)]
                assert not wrong, (name, wrong)
        finally:
            for box in self.boxes.values():
                self.close(box)
            self.stack.close()
            shutil.rmtree(self.base, ignore_errors=True)
