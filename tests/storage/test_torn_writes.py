"""Power cuts with torn writes: what a medium may hold when only the flushed is certain, on ext4 and on FAT32.

Each write that gets to the medium is noted, and each flush: by dm-log-writes, or where the kernel has none by QEMU's
storage daemon below a loop device. From that log a medium is made as a cut may leave it: all up to a flush; of what was
written between it and the next one, each write whole, in part (single sectors of 512 bytes), or not at all. It is
mounted as at a boot (FAT32 is checked first, as there), recovered and judged.

One thing is not torn: the superblock of ext4, 1024 bytes that ext4 writes in place when it is mounted and unmounted and
trusts to get there at once. Without a half of it no ext4 can be mounted, whoever wrote what into it, and `e2fsck -p`
does not mend that.

Needs root and either of the two; FAT32 needs a kernel with vfat: `make torn-test` brings one in a virtual machine.
`MSRECD_CUTS=N`: how many media are made of each file system.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import mmap
import os
import random
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import fault_table
import pytest
import storage_media
from test_kills_and_cuts import edges_of
from test_store import make_store

from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, Store
from msrecd.storage.verify import verify

CUTS = int(os.environ.get("MSRECD_CUTS", "40"))
IMAGE_BYTES, MARKS_BYTES, LOG_BYTES = 48 << 20, 1 << 20, 512 << 20
SYNC_INTERVAL_S, TIMESLICE_S = 0.5, 0.25
STEP = 2000  # bytes of a write, which is a timeslice
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512
SUPERBLOCK = range(1024, 2048)
_DM_TARGET_MSG = 0xC138FD0E


def run(*command: str, codes: Sequence[int] = (0,)) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def has_log_writes() -> bool:
    if shutil.which("dmsetup") is None:
        return False
    with contextlib.suppress(RuntimeError, OSError):
        run("modprobe", "dm-log-writes")
    try:
        return "log-writes" in run("dmsetup", "targets")
    except RuntimeError:
        return False


def has_storage_daemon() -> bool:
    return shutil.which("qemu-storage-daemon") is not None and Path("/dev/fuse").exists()


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not (has_storage_daemon() or has_log_writes()),
    reason="needs root, and dm-log-writes or qemu-storage-daemon with FUSE",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One of the log: a write, a flush or a mark."""

    flags: int
    at: int
    data: bytes


@dataclass(kw_only=True)
class Told:
    """What the recorder knew to be done when it left a mark: finished chunks, and bytes of the open one.

    gone: chunks that rotation had deleted by then; it may have been about it at the mark before.
    """

    finished: dict[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    part: str = ""
    written: int = 0


class MediaClock:
    """Each write is one timeslice of media, however long it takes."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns + 1_800_000_000 * 10**9

    def wait_until(self, deadline_ns: int, stop: object) -> bool:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A block device, the file with the log of its writes, and a way to put a number into that log."""

    device: Path
    log: Path
    mark: Callable[[int], None]


@contextlib.contextmanager
def logged_medium(folder: Path) -> Iterator[Medium]:
    for name, size in (("image", IMAGE_BYTES + MARKS_BYTES), ("log", LOG_BYTES)):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    with logged_by_kernel(folder) if has_log_writes() else logged_by_qemu(folder) as medium:
        yield medium


@contextlib.contextmanager
def logged_by_kernel(folder: Path) -> Iterator[Medium]:
    name = f"msrecd-torn-{os.getpid()}"
    loops = [run("losetup", "--find", "--show", str(folder / path)).strip() for path in ("image", "log")]
    try:
        run("dmsetup", "create", name, "--table", f"0 {IMAGE_BYTES // SECTOR} log-writes {loops[0]} {loops[1]}")
        run("dmsetup", "mknodes", name)
        try:
            yield Medium(
                device=Path("/dev/mapper") / name,
                log=folder / "log",
                mark=lambda number: send_message(name, f"mark {number}"),
            )
        finally:
            run("dmsetup", "remove", "--retry", name)
    finally:
        for loop in loops:
            run("losetup", "--detach", loop)


@contextlib.contextmanager
def logged_by_qemu(folder: Path) -> Iterator[Medium]:
    """A mark is a write behind the file system: it stands in the log in its turn."""
    shown = folder / "shown"
    shown.touch()
    daemon = subprocess.Popen(
        [
            "qemu-storage-daemon",
            *("--blockdev", f"driver=file,node-name=image,filename={folder / 'image'}"),
            *("--blockdev", f"driver=file,node-name=log,filename={folder / 'log'}"),
            *("--blockdev", "driver=blklogwrites,node-name=logged,file=image,log=log,log-sector-size=512"),
            *("--export", f"fuse,id=shown,node-name=logged,mountpoint={shown},writable=on"),
        ],
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 20
        while shown.stat().st_size == 0:
            if daemon.poll() is not None:
                assert daemon.stderr is not None
                pytest.skip(f"qemu-storage-daemon: {daemon.stderr.read().decode().strip()}")
            assert time.monotonic() < deadline, "qemu-storage-daemon shows nothing"
            time.sleep(0.02)
        size = str(IMAGE_BYTES)
        loop = run("losetup", "--find", "--show", "--sizelimit", size, str(shown)).strip()
        fd = os.open(shown, os.O_WRONLY | os.O_DIRECT)
        page = mmap.mmap(-1, 4096)  # aligned, as O_DIRECT wants it

        def mark(number: int) -> None:
            page[:8] = number.to_bytes(8, "little")
            os.pwrite(fd, page, IMAGE_BYTES)

        try:
            yield Medium(device=Path(loop), log=folder / "log", mark=mark)
        finally:
            os.close(fd)
            run("losetup", "--detach", loop)
    finally:
        daemon.terminate()
        daemon.communicate(timeout=20)


def send_message(device: str, text: str) -> None:
    """What `dmsetup message DEVICE 0 TEXT` does, without a program for each (struct dm_ioctl, dm_target_msg)."""
    size = 512
    head = struct.pack("<3I7IQ128s136s", 4, 0, 0, size, 312, 0, 0, 0, 0, 0, 0, device.encode(), b"")[:312]
    request = bytearray(head.ljust(312, b"\0") + struct.pack("<Q", 0) + text.encode()).ljust(size, b"\0")
    with Path("/dev/mapper/control").open("rb", buffering=0) as control:
        fcntl.ioctl(control, _DM_TARGET_MSG, request)


def make_file_system(kind: str, device: Path) -> None:
    if kind == "ext4":
        run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", str(device))
    else:
        run("mkfs.vfat", "-F", "32", "-s", "1", str(device))


def record_on(medium: Medium, point: Path, media: bytes) -> list[Told]:
    """Three recordings of three chunks, of which rotation leaves five; a mark after each thing that was told done."""
    told = [Told()]

    def tell(**changes: object) -> None:
        last = told[-1]
        known = {"finished": dict(last.finished), "gone": last.gone, "part": last.part, "written": last.written}
        told.append(Told(**known | changes))
        medium.mark(len(told) - 1)

    clock = MediaClock()
    store = open_store(point, clock)
    store.limits = limits_for(media)
    for _ in range(3):
        recording = store.begin("cam0", "video/mp4")
        for number in range(3):
            chunk = recording.open_chunk(started_ns=clock.now_ns)
            part = str(chunk.path.relative_to(point))
            gone = frozenset(file for file in told[-1].finished if not (point / file).exists())
            tell(finished={k: v for k, v in told[-1].finished.items() if k not in gone}, gone=told[-1].gone | gone)
            for at in range(0, len(media), STEP):
                chunk.write([media[at : at + STEP]])
                clock.now_ns += round(TIMESLICE_S * 10**9)
                tell(part=part, written=min(len(media), at + STEP))
            line = chunk.finish(ChunkFacts(final=number == 2, duration_s=2.0, tracks={}))
            finished = {**told[-1].finished, f"recordings/{line['file']}": line["sha256"]}
            tell(finished=finished, part="", written=0)
    store.close()
    return told


def limits_for(media: bytes) -> Limits:
    return Limits(max_total_bytes=5 * len(media) + 100, min_free_bytes=0)


def open_store(point: Path, clock: MediaClock | None = None) -> Store:
    store = make_store(point, clock=clock or MediaClock())
    store.recordings.sync_interval_s = SYNC_INTERVAL_S
    assert store.open() == [] or clock is None
    return store


def read_log(path: Path) -> list[Entry]:
    entries = []
    with path.open("rb") as file:
        magic, version, count, size = struct.unpack("<QQQI", file.read(28))
        assert (magic, version) == (MAGIC, 1)
        file.seek(size)
        for _ in range(count):
            header = file.read(size)
            sector, sectors, flags, length = struct.unpack_from("<QQQQ", header)
            data = header[32 : 32 + length].rstrip(b"\0") if flags & MARK else b""
            if not flags & (MARK | DISCARD):
                data = file.read(sectors * size)
            if data and sector * size >= IMAGE_BYTES:  # a mark of ours
                flags, data = MARK, str(int.from_bytes(data[:8], "little")).encode()
            entries.append(Entry(flags=flags, at=sector * size, data=data))
    return entries


@dataclass(kw_only=True)
class Span:
    """What may or may not have got to the medium at one time, and what was told at its end at the latest."""

    open: list[Entry]
    told: int


def spans_of(entries: list[Entry]) -> list[Span]:
    """The log lists writes when a flush makes them certain; one with FUA is certain when it is done."""
    spans: list[Span] = []
    open_: list[Entry] = []
    told = 0
    for entry in entries:
        if entry.flags & MARK:
            told = int(entry.data) if entry.data.isdigit() else told  # the kernel leaves one at the end
        elif entry.flags & (FLUSH | FUA):
            spans.append(Span(open=open_, told=told))
            open_ = [entry] if entry.data else []
            if entry.flags & FUA:
                spans.append(Span(open=open_, told=told))
                open_ = []
        elif entry.data:
            open_.append(entry)
    spans.append(Span(open=open_, told=told))
    return spans


def tear(rng: random.Random, image: bytearray, entries: list[Entry], *, whole: range = range(0)) -> None:
    """Apply what may have got to the medium: in any order, in whole, in part, or not.

    Args:
        whole: bytes of the medium that get there together or not at all.
    """
    for entry in rng.sample(entries, len(entries)):
        fate = rng.random()
        if fate < 0.4:
            image[entry.at : entry.at + len(entry.data)] = entry.data
        elif fate < 0.7:
            together = rng.random() < 0.5
            for offset in range(0, len(entry.data), SECTOR):
                if together if entry.at + offset in whole else rng.random() < 0.5:
                    image[entry.at + offset : entry.at + offset + SECTOR] = entry.data[offset : offset + SECTOR]


@dataclass(kw_only=True)
class Verdict:
    harmed: list[str]
    loss_s: float
    tail_is_right: bool
    is_clean: bool


@functools.cache
def fragment_ends() -> set[int]:
    return edges_of(storage_media.make("mp4"), "mp4")


def new_image(folder: Path, content: bytes) -> Path:
    """A file of its own for each medium: while anything has the loop device of the one before open, as a program that
    looks for a free one does, `mount` would take that device again, with what it still holds of the old content."""
    number, path = tempfile.mkstemp(prefix="cut-", dir=folder)
    os.close(number)
    image = Path(path)
    image.write_bytes(content)
    return image


def boot_and_judge(kind: str, folder: Path, content: bytes, told: Told, going: frozenset[str], media: bytes) -> Verdict:
    """
    Args:
        going: chunks that rotation may have been deleting.
    """
    image, point = new_image(folder, content), folder / "point"
    if kind == "vfat":
        run("fsck.vfat", "-a", "-w", str(image), codes=(0, 1))
    point.mkdir(exist_ok=True)
    run("mount", "-t", kind, "-o", "loop", str(image), str(point))
    try:
        store = open_store(point)
        store.close()
        root = point / "recordings"
        harmed = [
            file
            for file, digest in told.finished.items()
            if not (file in going and not (point / file).exists())
            if not (point / file).is_file() or hashlib.sha256((point / file).read_bytes()).hexdigest() != digest
        ]
        harmed += [
            finding.message
            for finding in verify(root).findings
            if finding.is_failure and f"recordings/{finding.file}" not in harmed
        ]
        loss_s, tail_is_right = 0.0, True
        if told.written:
            path = point / told.part.removesuffix(".part")
            kept = path.read_bytes() if path.is_file() else b""
            due = max((edge for edge in fragment_ends() if edge <= told.written), default=0)
            certain = max(0, due - round((SYNC_INTERVAL_S / TIMESLICE_S + 1) * STEP))
            if kept[:certain] != media[: min(certain, len(kept))]:
                harmed.append(f"{path.name} holds what was never written")
            tail_is_right = media.startswith(kept)
            loss_s = max(0, due - len(kept)) / STEP * TIMESLICE_S
    finally:
        run("umount", str(point))
    if kind == "ext4":
        is_clean = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False).returncode == 0
    else:
        is_clean = subprocess.run(["fsck.vfat", "-n", image], capture_output=True, check=False).returncode == 0
    image.unlink()
    return Verdict(harmed=harmed, loss_s=loss_s, tail_is_right=tail_is_right, is_clean=is_clean)


def test_a_medium_has_nothing_of_the_one_before_whose_device_is_still_open(quick_path: Path) -> None:
    point = quick_path / "point"
    point.mkdir()
    contents = []
    for name in ("first", "second"):
        made = new_image(quick_path, bytes(8 << 20))
        make_file_system("ext4", made)
        run("mount", "-t", "ext4", "-o", "loop", str(made), str(point))
        (point / name).touch()
        run("umount", str(point))
        contents.append(made.read_bytes())
    run("mount", "-t", "ext4", "-o", "loop", str(new_image(quick_path, contents[0])), str(point))
    held = os.open(run("findmnt", "-no", "SOURCE", str(point)).strip(), os.O_RDONLY)
    try:
        run("umount", str(point))
        run("mount", "-t", "ext4", "-o", "loop", str(new_image(quick_path, contents[1])), str(point))
        assert (point / "second").exists()
        assert not (point / "first").exists()
        run("umount", str(point))
    finally:
        os.close(held)


@pytest.mark.slow
@pytest.mark.timeout(600 + 20 * CUTS)  # an emulated processor is slow
@pytest.mark.parametrize("kind", ["ext4", "vfat"])
def test_a_power_cut_with_torn_writes(quick_path: Path, kind: str) -> None:
    media = storage_media.make("mp4")
    point = quick_path / "point"
    point.mkdir()
    with logged_medium(quick_path) as medium:
        make_file_system(kind, medium.device)
        medium.mark(0)
        try:
            run("mount", "-t", kind, str(medium.device), str(point))
        except RuntimeError as exc:
            pytest.skip(str(exc))
        try:
            told = record_on(medium, point, media)
        finally:
            run("umount", str(point))
    assert len(told[-1].gone) == 3  # a whole recording: power cuts while rotation deletes are among those to come
    spans = spans_of(read_log(quick_path / "log"))
    (quick_path / "log").unlink()
    made = next(number for number, span in enumerate(spans) if span.told)  # before that there is nothing to lose
    rng = random.Random(kind)
    chosen = sorted(rng.choices(range(made, len(spans)), k=CUTS))
    image = bytearray(IMAGE_BYTES)
    verdicts: list[tuple[int, Verdict]] = []
    for number, span in enumerate(spans):
        for _ in range(chosen.count(number)):
            torn = bytearray(image)
            going = told[min(span.told + 1, len(told) - 1)].gone
            tear(rng, torn, span.open, whole=SUPERBLOCK if kind == "ext4" else range(0))
            verdicts.append((number, boot_and_judge(kind, quick_path, bytes(torn), told[span.told], going, media)))
        for entry in span.open:
            image[entry.at : entry.at + len(entry.data)] = entry.data
    harmed = [(number, message) for number, verdict in verdicts for message in verdict.harmed]
    largest = max(verdict.loss_s for _, verdict in verdicts)
    unclean = sum(not verdict.is_clean for _, verdict in verdicts)
    wrong_tails = sum(not verdict.tail_is_right for _, verdict in verdicts)
    print(json.dumps({"kind": kind, "cuts": len(verdicts), "unclean": unclean, "wrong_tails": wrong_tails}))
    for number, message in harmed[:20]:
        print(f"after flush {number}: {message}")
    fault_table.row(
        f"power cut with torn writes, {kind} ({len(spans)} flushes)",
        cases=len(verdicts),
        harmed=len({number for number, _ in harmed}),
        loss=f"{largest:.2f} s",
        promise=f"{SYNC_INTERVAL_S + TIMESLICE_S:.2f} s",
    )
    assert not harmed
    assert not unclean
    # A length may get there before what was written: behind its last sync a recovered chunk can hold rubbish. FAT
    # orders nothing; ext4 only what is newly allocated, when its journal is committed between a write and the sync.
    assert wrong_tails <= len(verdicts) // 8
    assert largest <= SYNC_INTERVAL_S + TIMESLICE_S
