"""Wall time and how far it can be trusted.

A Raspberry Pi without a network wakes up hours or years off. Media is timed by CLOCK_MONOTONIC; this module says what
that is in UTC, whether to believe it, and, once the clock has been set, what the earlier moments of this boot were in
truth. Each step of the clock is appended to a file in the state directory, so that later programs can say it too.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.clock.synchronization import KernelClock
from msrecd.statefolder import report_unwritable
from msrecd.vocabulary.times import format_utc, parse_utc, within_reach

log = logging.getLogger(__name__)

SYNCHRONIZED_MARKER = Path("/run/systemd/timesync/synchronized")  # touched by timesyncd when it has set the clock
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STEP_NS = 2 * NS
_FAR_NS = 3600 * NS
_MAX_HISTORY_BYTES = 8 << 20
_MAX_NS = 1 << 62
_LONGEST_AGE_NS = 1e20  # longer ones are not worth telling apart, and the longest that can be written is infinite
_MAX_BOOT = 999_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A moment: on the monotonic clock of one boot, and what the wall clock makes of it.

    boot: the number that names of files have; boot_id: the kernel's, which says what boot that was.
    """

    monotonic_ns: int
    utc_ns: int
    boot: int
    trusted: bool
    boot_id: str = ""

    @property
    def clock(self) -> str:
        """The contract's word for manifests and events."""
        return "synchronized" if self.trusted else "unsynchronized"

    @property
    def text(self) -> str:
        return format_utc(self.utc_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockOffset:
    """From `monotonic_ns` on, UTC was monotonic + `offset_ns` in the boot with the kernel's id `boot_id`."""

    boot: int
    boot_id: str
    monotonic_ns: int
    offset_ns: int
    trusted: bool


class Corrections:
    """What is known of the clock in all boots: pure questions about recorded offsets.

    Boots are told apart by the kernel's boot id. Their numbers begin again when a state is lost, and every machine has
    a boot number 1.
    """

    def __init__(self, offsets: Sequence[ClockOffset] = ()) -> None:
        self._boots: dict[str, list[ClockOffset]] = {}
        for offset in offsets:
            self.add(offset)

    def add(self, offset: ClockOffset) -> None:
        self._boots.setdefault(offset.boot_id, []).append(offset)

    def offset_of(self, boot_id: str) -> int | None:
        """The first trusted offset of that boot: what holds for everything before it."""
        return next((m.offset_ns for m in self._boots.get(boot_id, ()) if m.trusted), None)

    def least_offset_of(self, boot_id: str) -> int | None:
        """The smallest trusted offset of that boot: by it nothing is older than by any other."""
        return min((m.offset_ns for m in self._boots.get(boot_id, ()) if m.trusted), default=None)

    def correct(self, boot_id: str, untrusted_utc_ns: int) -> int | None:
        """What an untrusted UTC time of that boot was in truth; None while that is unknown, or for another boot.

        The truth is the next trusted offset, and where none followed (the clock was set by hand) the last one before.
        """
        if self.offset_of(boot_id) is None:
            return None
        mappings = self._boots[boot_id]
        ends = [m.monotonic_ns for m in mappings[1:]] + [1 << 63]
        untrusted = [(m, end) for m, end in zip(mappings, ends, strict=True) if not m.trusted]
        if not untrusted:
            return None

        def distance(pair: tuple[ClockOffset, int]) -> int:
            """How far the moment lies outside of the time in which this mapping held; slewing needs some tolerance."""
            monotonic_ns = untrusted_utc_ns - pair[0].offset_ns
            return max(pair[0].monotonic_ns - monotonic_ns, monotonic_ns - pair[1], 0)

        nearest = min(untrusted, key=distance)
        if distance(nearest) > _FAR_NS:
            return None  # no clock of that boot said this time
        wrong = nearest[0]
        at = mappings.index(wrong)
        known = [m for m in mappings[at:] if m.trusted][:1] or [m for m in mappings[:at] if m.trusted][-1:]
        return untrusted_utc_ns - wrong.offset_ns + known[0].offset_ns


class WallTime:
    """The clock-trust model of this boot. Any thread may call any method.

    Trust, once given, lasts until the clock steps or the machine starts again: a clock that was set does not go wrong
    by hours by itself. After a step the service that keeps it has to vouch for it again; setting it by hand ends trust.
    """

    def __init__(
        self,
        state_path: Path,
        *,
        clock: Clock = SYSTEM_CLOCK,
        marker: Path = SYNCHRONIZED_MARKER,
        boot_id_path: Path = BOOT_ID,
        kernel: Callable[[], bool] | None = None,
        trusted: bool | None = None,
    ) -> None:
        """
        Args:
            state_path: keeps the boot counter and the clock's history; created when missing.
            marker: exists once timesyncd, or another service that knows, has set the clock.
            kernel: whether the kernel's clock is synchronised; None: ask the kernel.
            trusted: True or False instead of asking anybody (a test).
        """
        self._state_path = state_path
        self._clock = clock
        self._marker = marker
        self._kernel = kernel or KernelClock()
        self._override = trusted
        self._lock = threading.Lock()
        self.boot_id = _read_boot_id(boot_id_path)
        self.boot, self._can_write = _count_boot(state_path, self.boot_id)
        history = read_history(state_path)
        self.corrections = Corrections(history)
        self._last = next((m for m in reversed(history) if m.boot_id == self.boot_id), None)
        self._latched = self._last is not None and self._last.trusted and trusted is None
        self._marked_ns = _modified_ns(marker) if self._latched else None
        self.poll()

    @property
    def trusted(self) -> bool:
        """Whether the wall clock can be believed now."""
        self.poll()
        return self._last is not None and self._last.trusted

    @property
    def revision(self) -> int:
        """Grows with each recorded step: corrected times have to be computed again."""
        return sum(map(len, self.corrections._boots.values()))

    def poll(self) -> ClockOffset | None:
        """Look at the clock; call it every few seconds. Returns the new mapping when it stepped or became trusted."""
        with self._lock:
            monotonic_ns = self._clock.monotonic_ns()
            offset_ns = self._clock.realtime_ns() - monotonic_ns
            last = self._last
            if last is not None and abs(offset_ns - last.offset_ns) > STEP_NS:
                self._latched = False
            trusted = self._is_trusted()
            if last is not None and last.trusted == trusted and abs(offset_ns - last.offset_ns) <= STEP_NS:
                if abs(offset_ns - last.offset_ns) > MS:  # slewing: follow, without a line for each millisecond
                    self._last = _at(last, last.monotonic_ns, offset_ns)
                return None
            new = ClockOffset(
                boot=self.boot, boot_id=self.boot_id, monotonic_ns=monotonic_ns, offset_ns=offset_ns, trusted=trusted
            )
            self._last = new
            self.corrections.add(new)
            self._record(new)
        if last is not None:
            log.info(
                "the wall clock moved by %.3f s and is %s",
                (offset_ns - last.offset_ns) / NS,
                "trusted" if trusted else "not trusted",
            )
        return new

    def stamp(self, monotonic_ns: int | None = None) -> Stamp:
        """That moment (None: now) by the clock as it is now."""
        self.poll()
        at_ns = self._clock.monotonic_ns() if monotonic_ns is None else monotonic_ns
        last = self._last
        assert last is not None  # poll() saw to it
        return Stamp(
            monotonic_ns=at_ns,
            utc_ns=at_ns + last.offset_ns,
            boot=self.boot,
            trusted=last.trusted,
            boot_id=self.boot_id,
        )

    def raise_boot(self, number: int) -> None:
        """Give this boot a higher number: where recordings lie, lower ones have been used by other boots."""
        with self._lock:
            if number > self.boot:
                self.boot = number
                self._can_write = _keep_boot(self._state_path, number, self.boot_id) and self._can_write

    def now_ns(self) -> int:
        """UTC by the wall clock, trusted or not."""
        return self._clock.realtime_ns()

    def age_now_ns(self) -> int | None:
        """The UTC time by which a recording may be called old; None while the clock is not trusted.

        No step of the clock makes it go forward: of all that was believed in this boot it is the earliest.
        """
        if not self.trusted:
            return None
        offset_ns = self.corrections.least_offset_of(self.boot_id)
        now_ns = self.now_ns()
        return now_ns if offset_ns is None else min(now_ns, self._clock.monotonic_ns() + offset_ns)

    def _is_trusted(self) -> bool:
        if self._override is not None:
            return self._override
        if not self._latched:
            marked_ns = _modified_ns(self._marker)
            self._latched = marked_ns != self._marked_ns or self._kernel()  # a marker from before a step proves nothing
            self._marked_ns = marked_ns
        return self._latched

    def _record(self, mapping: ClockOffset) -> None:
        if not self._can_write:
            return
        line = {
            "boot": mapping.boot,
            "boot_id": mapping.boot_id,
            "monotonic_ns": mapping.monotonic_ns,
            "offset_ns": mapping.offset_ns,
            "trusted": mapping.trusted,
        }
        try:
            with _open_to_append(self._state_path / "clock.jsonl") as file:
                end = file.seek(0, os.SEEK_END)
                torn = b""
                if end:
                    file.seek(end - 1)
                    torn = b"" if file.read(1) == b"\n" else b"\n"
                file.write(torn + json.dumps(line).encode() + b"\n")
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as exc:
            report_unwritable(self._state_path, "the clock's history", exc)


class ReadOnlyWallTime(WallTime):
    """For commands beside a running daemon: the same answers, nothing counted and nothing written."""

    def __init__(self, state_path: Path, *, clock: Clock = SYSTEM_CLOCK, marker: Path = SYNCHRONIZED_MARKER) -> None:
        self._state_path = state_path
        self._clock = clock
        self._marker = marker
        self._kernel = KernelClock()
        self._override = None
        self._lock = threading.Lock()
        self._can_write = False
        self.boot_id = _read_boot_id(BOOT_ID)
        self.boot = _read_counter(state_path)[0]
        history = read_history(state_path)
        self.corrections = Corrections(history)
        self._last = next((m for m in reversed(history) if m.boot_id == self.boot_id), None)
        self._latched = self._last is not None and self._last.trusted
        self._marked_ns = _modified_ns(marker) if self._latched else None


def read_history(state_path: Path) -> list[ClockOffset]:
    """All recorded offsets in order; torn or foreign lines are passed over."""
    try:
        lines = _read(state_path / "clock.jsonl").splitlines()
    except OSError:
        return []
    mappings = []
    for line in lines:
        try:
            values = json.loads(line)
            offset = ClockOffset(
                boot=int(values["boot"]),
                boot_id=str(values["boot_id"]),
                monotonic_ns=int(values["monotonic_ns"]),
                offset_ns=int(values["offset_ns"]),
                trusted=bool(values["trusted"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        if abs(offset.monotonic_ns) < _MAX_NS and abs(offset.offset_ns) < _MAX_NS:
            mappings.append(offset)
    return mappings


def _open_to_append(path: Path) -> BinaryIO:
    """A regular file of the state, for reading and appending; no link is followed.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o640), "ab+")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.ELOOP, "not a regular file", str(path))
    return file


def _read(path: Path) -> bytes:
    """The last part of a regular file of the state.

    Raises:
        OSError: it is none, or cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ELOOP, "not a regular file", str(path))
        file.seek(max(0, status.st_size - _MAX_HISTORY_BYTES))
        return file.read(_MAX_HISTORY_BYTES)


def _at(mapping: ClockOffset, monotonic_ns: int, offset_ns: int) -> ClockOffset:
    return ClockOffset(
        boot=mapping.boot,
        boot_id=mapping.boot_id,
        monotonic_ns=monotonic_ns,
        offset_ns=offset_ns,
        trusted=mapping.trusted,
    )


def _modified_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _read_boot_id(path: Path) -> str:
    """The kernel's, or one for this process alone where the kernel does not say."""
    try:
        return path.read_text().strip()
    except OSError:
        return str(uuid.uuid4())


def _read_counter(state_path: Path) -> tuple[int, str]:
    """The counter of the last boot that was counted, and that boot's id."""
    try:
        values = json.loads(_read(state_path / "boot.json"))
        boot, boot_id = int(values["boot"]), str(values["boot_id"])
        if not 0 <= boot <= _MAX_BOOT:
            raise ValueError("boot")
        return boot, boot_id
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        # A lost counter must not go back, or names would repeat: what the history knows still holds.
        history = read_history(state_path)
        last = max(history, key=lambda offset: offset.boot, default=None)
        return (last.boot, last.boot_id) if last is not None and 0 <= last.boot <= _MAX_BOOT else (0, "")


def _count_boot(state_path: Path, boot_id: str) -> tuple[int, bool]:
    """This boot's number, counted once per boot id; False when it could not be kept."""
    boot, last_id = _read_counter(state_path)
    if boot and last_id == boot_id:
        return boot, True
    return boot + 1, _keep_boot(state_path, boot + 1, boot_id)


def _keep_boot(state_path: Path, boot: int, boot_id: str) -> bool:
    """Write down the number of this boot; whether that worked, which is logged."""
    try:
        state_path.mkdir(mode=0o750, parents=True, exist_ok=True)
        temporary = state_path / "boot.json.tmp"
        with temporary.open("w") as file:
            json.dump({"boot": boot, "boot_id": boot_id}, file)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(state_path / "boot.json")
            os.fsync(file.fileno())  # FAT notes length and place under the new name only then
        folder = os.open(state_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        report_unwritable(state_path, "the boot counter", exc)
        return False
    return True


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_moment(text: str, now_ns: int) -> int:
    """A moment as people type it: RFC 3339, a date, `now`, or an age such as `2h` or `7d`.

    Raises:
        ValueError: it is none of these.
    """
    if text == "now":
        return now_ns
    if match := _DURATION.fullmatch(text.removesuffix(" ago")):
        factor = {"ms": MS, "s": NS, "m": 60 * NS, "h": 3600 * NS, "d": 86400 * NS}[match[2]]
        return within_reach(now_ns - round(min(float(match[1]) * factor, _LONGEST_AGE_NS)))
    try:
        return parse_utc(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write 2026-05-01T06:30:00Z, 2026-05-01, now or 2h") from None
