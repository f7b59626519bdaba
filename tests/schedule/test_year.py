"""A year in the field on a clock that is moved: what was recorded is what was planned less what was reported, to the
second.

Real: the conductor, the planner, the rules of commands and triggers, the windows of the off-load, the trust in the wall
clock with its history on a disk, the plan of the retention, the spool of events on a disk. Modelled: time, the wall
clock's errors and what the kernel says of it; the recorder, which starts and stops at once and cuts a chunk each hour,
with a snapshot beside each; what its trigger finds; the disk, which is a number of bytes; the broker, and the store of
the off-load with its windows, which take what they are given or do not. A power cut costs the model recorder up to
three seconds, as it may cost the real one, and is reported like there, as `lost_s`; that the real one keeps to it,
writes what it should and finds its devices again is tested elsewhere, with real files and processes.

One year in the ordinary run; `MSRECD_YEARS=20` for more of them.

The judge knows the windows from the naive oracle, which walks over the minutes of the year, and the incidents from the
list of what happened. It does not ask the planner.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from list_view import ListView
from model_recorder import Model, ModelUnit, TestClock
from schedule_oracle import Rule, open_minutes

from msrecd.clock import NS
from msrecd.clock.wall import WallTime, read_history
from msrecd.config.model import Config
from msrecd.config.recorder_model import Recorder, Schedule
from msrecd.config.trigger_keys import Trigger
from msrecd.control import conductor as scheduler
from msrecd.mqtt.spool import SpoolStore
from msrecd.offload.pace import may_send, parse_window
from msrecd.schedule.planner import EARLIEST_PLAUSIBLE, WAIT_FOR_CLOCK_S
from msrecd.storage.retention import ChunkRef, Limits, Situation, plan

Span = tuple[int, int]

YEARS = int(os.environ.get("MSRECD_YEARS", "1"))
DAYS = 365
MINUTE, HOUR, DAY = 60 * NS, 3600 * NS, 86_400 * NS
FIRST = date(2027, 3, 1)
BEGIN = datetime(2027, 3, 1, tzinfo=UTC)
BYTES_A_SECOND = 500_000
SNAPSHOT_BYTES = 300_000
OFFLOAD_WINDOWS = [parse_window("22:00-05:00")]
OFFLOAD_BYTES_A_SECOND = 2_000_000
HOLD_S, MAX_PER_HOUR = 10.0, 10
CAPACITY = 64_000_000_000
LIMITS = Limits(max_total_bytes=40_000_000_000, min_free_bytes=2_000_000_000)
RULES = [
    {"start": "30 6 * * mon-fri", "stop": "11:15"},
    {"start": "23:00", "stop": "01:30"},
    {"start": "0 */6 * * *", "duration_s": 1200.0},
    {"start": "02:30", "duration_s": 3600.0},  # an hour that one night does not have and another has twice
]
ZONE = "Europe/Berlin"


# --- sets of spans ---------------------------------------------------------------------------------------------------


def union(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for begin, end in sorted(spans):
        if begin >= end:
            continue
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def minus(spans: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    left = union(spans)
    for low, high in union(holes):
        left = [
            piece
            for begin, end in left
            for piece in ((begin, min(end, low)), (max(begin, high), end))
            if piece[0] < piece[1]
        ]
    return left


def within(spans: Iterable[Span], begin: int, end: int) -> list[Span]:
    return [(max(a, begin), min(b, end)) for a, b in spans if max(a, begin) < min(b, end)]


def length_s(spans: Iterable[Span]) -> float:
    return sum(end - begin for begin, end in spans) / NS


def test_the_judges_arithmetic() -> None:
    assert union([(5, 7), (1, 2), (2, 3), (6, 9)]) == [(1, 3), (5, 9)]
    assert minus([(0, 10)], [(2, 3), (5, 20)]) == [(0, 2), (3, 5)]
    assert within([(0, 4), (8, 9)], 3, 9) == [(3, 4), (8, 9)]


# --- what happens ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Incident:
    """Something at `at_ns` of true time; `value` is ns of clock error, or of media."""

    at_ns: int
    kind: str
    value: int = 0


def incidents(rng: random.Random) -> list[Incident]:
    """A bad year. No day has more than one kind of trouble with clock or commands, so that they can be judged."""
    found: list[Incident] = []
    for day in range(2, DAYS - 2):
        at = day * DAY + rng.randrange(2 * 3600, 20 * 3600) * NS
        kind = rng.choice(["power", "step", "hand", "", "", ""])
        if kind == "power":
            off_s = rng.choice([5, 60, 900, rng.randrange(3 * 3600)])
            up = at + (off_s + 20) * NS
            found += [Incident(at, "off", rng.randrange(3 * NS)), Incident(up, "on", at - up)]
            if rng.random() < 0.2:
                found[-1] = Incident(up, "on", -(BEGIN - datetime(1970, 1, 2, tzinfo=UTC)).days * DAY - up)
            found.append(Incident(up + rng.choice([4, 100, 299, 301, 4000, 9000]) * NS, "trusted"))
        elif kind == "step":
            back = at + rng.randrange(60, 7200) * NS
            found += [Incident(at, "step", rng.randrange(-1200, 1200) * NS), Incident(back, "step", 0)]
        elif kind == "hand" and not found_near(found, at):
            found += [Incident(at, rng.choice(["hand stop", "hand start"]))]
        elif kind == "" and rng.random() < 0.3:  # something moves: once for some time, or again and again
            times = rng.choice([1, 1, 1, 40])
            for number in range(times):
                lasts = rng.randrange(1, 3600 if times == 1 else 20) * NS
                found += [Incident(at + 30 * number * NS, "found"), Incident(at + 30 * number * NS + lasts, "lost")]
        for name, chance, longest_s in (
            ("unplugged", 0.1, 5 * 3600),
            ("full", 0.05, 4 * 3600),
            ("offline", 0.2, 90_000),
            ("away", 0.1, 10 * 3600),
        ):
            if rng.random() < chance:
                at = day * DAY + rng.randrange(86_400) * NS
                found += [Incident(at, name), Incident(at + rng.randrange(1, longest_s) * NS, f"not {name}")]
    return sorted(found)


def found_near(found: list[Incident], at: int) -> bool:
    return any(abs(incident.at_ns - at) < 2 * DAY and incident.kind in ("off", "on", "step") for incident in found)


@dataclass
class Disk:
    """The books of the disk and of the broker: real plan of the retention, real spool."""

    spool: SpoolStore
    path: Path
    kept: list[ChunkRef] = field(default_factory=list)
    foreign_bytes: int = 0
    written: int = 0
    deleted: int = 0
    delivered: list[int] = field(default_factory=list)
    most_bytes: int = 0
    is_online: bool = True
    snapshots: int = 0
    store: dict[str, int] = field(default_factory=dict)  # files that the store has proven, and their bytes
    is_away: bool = False  # the store
    waiting: deque[ChunkRef] = field(default_factory=deque)
    sent_bytes: int = 0  # of the first of those
    sent_ns: int = 0

    def finish(self, spans: list[Span], now_ns: int) -> None:
        """Chunks of an hour at most; each is announced."""
        for begin, end in spans:
            for start in range(begin, end, HOUR):
                stop = min(start + HOUR, end)
                self.written += 1
                self.snapshots += 1
                for seq, size in (
                    (self.written, (stop - start) * BYTES_A_SECOND // NS),
                    (-self.written, SNAPSHOT_BYTES),
                ):
                    file = ChunkRef(
                        recording_id=f"{begin}", recorder="cam0", seq=seq, file=f"{seq}", bytes=size,
                        started_ns=start, ended_ns=stop, trusted=True,
                    )  # fmt: skip
                    self.kept.append(file)
                    self.waiting.append(file)
                self.spool.append([("event/recorder/cam0", {"event_type": "chunk", "seq": self.written})])
                self.rotate(now_ns)
        self.spool.flush()
        self.deliver()

    def send(self, now_ns: int) -> None:
        """What the store has got since the last time: in the windows, the oldest first, each file once."""
        while self.sent_ns + 10 * MINUTE <= now_ns:
            self.sent_ns += 10 * MINUTE
            shows = (BEGIN + timedelta(seconds=self.sent_ns // NS)).time()
            room = 600 * OFFLOAD_BYTES_A_SECOND if may_send(OFFLOAD_WINDOWS, shows) and not self.is_away else 0
            while room and self.waiting:
                file = self.waiting[0]
                sent = min(room, file.bytes - self.sent_bytes)
                room, self.sent_bytes = room - sent, self.sent_bytes + sent
                if self.sent_bytes == file.bytes:
                    assert file.file not in self.store
                    self.store[file.file] = file.bytes
                    self.waiting.popleft()
                    self.sent_bytes = 0

    def rotate(self, now_ns: int) -> bool:
        """Delete what the limits say, of what the store has; whether there is room then."""
        self.send(now_ns)
        situation = Situation(age_now_ns=now_ns, free_bytes=self.free_bytes, requires_proof=True)
        self.kept = [chunk if chunk.proven else replace(chunk, proven=chunk.file in self.store) for chunk in self.kept]
        gone = {planned.chunk.file for planned in plan(ListView(self.kept), LIMITS, {}, situation)}
        assert gone <= self.store.keys(), "deleted before the store had it"
        assert [chunk.file for chunk in self.kept[: len(gone)]] == [c.file for c in self.kept if c.file in gone]
        self.kept = self.kept[len(gone) :]
        self.deleted += len(gone)
        self.most_bytes = max(self.most_bytes, sum(chunk.bytes for chunk in self.kept))
        return self.free_bytes >= (LIMITS.min_free_bytes or 0)

    @property
    def free_bytes(self) -> int:
        return CAPACITY - self.foreign_bytes - sum(chunk.bytes for chunk in self.kept)

    def deliver(self) -> None:
        while self.is_online and (events := self.spool.fetch(50)):
            self.delivered += [json.loads(event.payload)["seq"] for event in events]
            self.spool.delete([event.seq for event in events])

    def restart(self) -> None:
        """After a power cut: what was flushed is there again."""
        self.spool.flush()
        self.spool.close()
        self.spool = SpoolStore(self.path, "year/0001")


@dataclass
class Machine:
    """What a boot brings: its id, a wall clock that nobody has set yet, and what the kernel says of it."""

    folder: Path
    clock: TestClock
    is_synchronized: bool = True
    boots: int = 0

    def boot(self) -> WallTime:
        self.boots += 1
        (self.folder / "boot_id").write_text(f"{self.boots:08x}\n")
        return WallTime(
            self.folder / "state",
            clock=self.clock,
            marker=self.folder / "no-marker",
            boot_id_path=self.folder / "boot_id",
            kernel=lambda: self.is_synchronized,
        )


@dataclass
class Books:
    """What the model recorder recorded and what it reported to be missing, in true time."""

    recorded: list[Span] = field(default_factory=list)
    gaps: dict[str, list[Span]] = field(default_factory=dict)
    open: dict[str, int] = field(default_factory=dict)  # reason -> since

    def settle(self, unit: ModelUnit, now_ns: int, disk: Disk) -> None:
        """Take over what the unit has finished, less what was missing meanwhile."""
        for begin, end, _ in unit.spans:
            missing = self.missing(begin, end, now_ns)
            for reason, spans in missing.items():
                self.gaps.setdefault(reason, []).extend(spans)
            real = minus([(begin, end)], [span for spans in missing.values() for span in spans])
            self.recorded += real
            disk.finish(real, now_ns)
        unit.spans.clear()

    def missing(self, begin: int, end: int, now_ns: int) -> dict[str, list[Span]]:
        past = {reason: list(spans) for reason, spans in self._past.items()}
        for reason, since in self.open.items():
            past.setdefault(reason, []).append((since, now_ns))
        return {reason: within(spans, begin, end) for reason, spans in past.items()}

    def begin(self, reason: str, now_ns: int) -> None:
        self.open.setdefault(reason, now_ns)

    def end(self, reason: str, now_ns: int) -> None:
        since = self.open.pop(reason, None)
        if since is not None:
            self._past.setdefault(reason, []).append((since, now_ns))

    _past: dict[str, list[Span]] = field(default_factory=dict)


@dataclass
class World:
    """What truly was, for the judge: spans of power, of each error of the clock, of what was done by hand."""

    pieces: list[tuple[int, int, int, bool]] = field(default_factory=list)  # begin, end, error, usable
    off: list[Span] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    started: list[Span] = field(default_factory=list)
    found: list[Span] = field(default_factory=list)  # by the trigger, until it was over
    clock_events: list[int] = field(default_factory=list)


def judge_windows() -> list[Span]:
    """In ns since BEGIN of what the wall clock shows in UTC, by the oracle."""
    rules = [Rule(timezone=ZONE, **rule) for rule in RULES]  # type: ignore[arg-type]
    minutes = open_minutes(rules, FIRST, DAYS)
    return union((i * MINUTE, (i + 1) * MINUTE) for i, is_open in enumerate(minutes) if is_open)


async def live(
    model: Model, machine: Machine, disk: Disk, books: Books, happenings: list[Incident], rng: random.Random
) -> World:
    """Let the year pass."""
    world = World()
    unit, clock = model.unit(), model.clock
    powered, believed, began, since = True, True, 0, 0

    def usable(now: int) -> bool:
        """A clock that was believed once in this boot is believed; another one when it has been waited for."""
        waited = now - began >= WAIT_FOR_CLOCK_S * NS
        return powered and (believed or (waited and clock.shows() >= EARLIEST_PLAUSIBLE))

    def piece() -> None:
        """The clock or the power is about to change: note down what held since the last time."""
        nonlocal since
        middle = began + round(WAIT_FOR_CLOCK_S * NS)
        for a, b in ((since, min(middle, clock.now_ns)), (max(since, middle), clock.now_ns)):
            if a < b and powered:
                world.pieces.append((a, b, clock.error_ns, usable(a)))
        since = clock.now_ns

    for happening in [*happenings, Incident(DAYS * DAY, "end")]:
        if powered:
            await model.pass_until(happening.at_ns, lambda: books.settle(unit, clock.now_ns, disk))
        clock.now_ns = now = happening.at_ns
        kind = happening.kind
        if kind in ("off", "on", "trusted", "step"):
            piece()
            world.clock_events.append(now)
        if kind == "off":
            powered = False
            if unit.is_wanted:
                assert unit.wanted_since_ns is not None
                lost = max(unit.wanted_since_ns, now - happening.value)
                books.gaps.setdefault("lost_s", []).append((lost, now))
                await unit.stop("power cut")
                begin, _, cause = unit.spans.pop()
                unit.spans.append((begin, lost, cause))
            world.off.append((now, now))
        elif kind == "on":
            powered, believed, began = True, False, now
            world.off[-1] = (world.off[-1][0], now)
            clock.error_ns, machine.is_synchronized = happening.value, False
            books.settle(unit, now, disk)
            disk.restart()
            model.walltime = machine.boot()
            model.boot()
        elif kind == "trusted":
            clock.error_ns, machine.is_synchronized, believed = 0, True, True
        elif kind == "step":  # by hand, which ends the kernel's word, or back by whoever keeps the clock
            clock.error_ns, machine.is_synchronized = happening.value, happening.value == 0
        elif kind == "hand stop" and powered:
            await model.conductor.stop("cam0", "mqtt")
            world.stopped.append(now)
        elif kind == "hand start" and powered:
            await model.conductor.start("cam0", "mqtt", 5400.0)
            world.started.append((now, now + 5400 * NS))
        elif kind == "found" and powered:
            model.conductor.found("cam0", 0)
            world.found.append((now, now))
        elif kind == "lost" and powered:
            model.conductor.lost("cam0", 0)
            world.found[-1] = (world.found[-1][0], now)
        elif kind in ("away", "not away"):
            disk.send(now)
            disk.is_away = kind == "away"
        elif kind in ("unplugged", "not unplugged"):
            (books.end if kind.startswith("not") else books.begin)("device_missing", now)
        elif kind in ("full", "not full"):
            disk.foreign_bytes = 0 if kind.startswith("not") else CAPACITY - 1_000_000_000
            (books.end if disk.rotate(now) else books.begin)("no_space", now)
        elif kind in ("offline", "not offline"):
            disk.is_online = kind.startswith("not")
            disk.deliver()
        if kind in ("trusted", "step"):
            clock.now_ns += rng.randrange(NS)  # the conductor's own slice of sleep
        if powered:
            await model.conductor.look()
            books.settle(unit, clock.now_ns, disk)
    piece()
    await unit.stop("end")
    books.settle(unit, clock.now_ns, disk)
    return world


def judge_triggers(found: list[Span], open_already: list[Span]) -> tuple[list[Span], int]:
    """What they begin or extend, at most so many beginnings an hour; how many began nothing."""
    spans: list[Span] = []
    begun: list[int] = []
    limited = 0
    for at, over in found:
        if not any(a <= at < b for a, b in (*open_already, *spans[-1:])):
            begun = [one for one in begun if at - one < HOUR]
            if len(begun) >= MAX_PER_HOUR:
                limited += 1
                continue
            begun.append(at)
        spans.append((at, over + round(HOLD_S * NS)))
    return spans, limited


@pytest.mark.slow
@pytest.mark.parametrize("key", range(2027, 2027 + YEARS))
def test_a_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: int) -> None:
    # Between two looks nothing changes here unseen; looking every 30 s is for clocks that nobody tells of.
    monkeypatch.setattr(scheduler, "_LONGEST_S", 21_600.0)
    rng = random.Random(key)
    happenings = incidents(rng)
    schedules = tuple(Schedule(timezone=ZONE, **rule) for rule in RULES)  # type: ignore[arg-type]
    trigger = Trigger(kind="motion", hold_s=HOLD_S, max_per_hour=MAX_PER_HOUR)
    config = Config(recorders=(Recorder(name="cam0", video=True, schedules=schedules, triggers=(trigger,)),))
    machine = Machine(tmp_path, TestClock(BEGIN))
    model = Model(config, machine.clock, machine.boot())
    disk = Disk(SpoolStore(tmp_path / "spool.sqlite3", "year/0001"), tmp_path / "spool.sqlite3")
    books = Books()
    world = asyncio.run(live(model, machine, disk, books, happenings, rng))

    windows = judge_windows()
    planned: list[Span] = []
    for begin, end, error, usable in world.pieces:
        if usable:  # the windows as the clock of the device showed them
            shown = within(windows, begin + error, end + error)
            planned += [(a - error, b - error) for a, b in shown]
    held = [(at, b) for at in world.stopped for a, b in windows if a <= at < b]
    by_others = union([*minus(planned, held), *minus(world.started, world.off)])
    by_triggers, limited = judge_triggers(world.found, by_others)
    assert minus(by_triggers, by_others)
    assert limited
    wanted = union([*by_others, *by_triggers])
    reported = union(span for spans in books.gaps.values() for span in spans)
    expected = minus(wanted, reported)
    recorded = union(books.recorded)

    wrong = minus(expected, recorded) + minus(recorded, expected)
    late = [(at, at + NS) for at in world.clock_events]  # it may take a second to see that the clock was set
    assert length_s(minus(wrong, late)) < 0.05 * (len(happenings) + 3 * DAYS), sorted(minus(wrong, late))[:5]
    assert all(b - a < NS for a, b in minus(wrong, late)), sorted(minus(wrong, late))[:5]
    assert abs(length_s(expected) - length_s(recorded)) <= len(world.clock_events)
    quiet = {day for day in range(DAYS) if not any(at // DAY in (day - 1, day) for at in world.clock_events)}
    assert len(quiet) > 80
    for day in quiet:  # to the second
        assert round(length_s(within(recorded, day * DAY, (day + 1) * DAY))) == round(
            length_s(within(expected, day * DAY, (day + 1) * DAY))
        )
    for reason in ("lost_s", "device_missing", "no_space"):
        assert length_s(books.gaps[reason]) > 0, reason
    assert world.stopped
    assert world.started
    history = [mapping.trusted for mapping in read_history(tmp_path / "state")]
    assert {True, False} == set(history)
    assert len(history) > machine.boots > 20

    assert disk.written + disk.snapshots == disk.deleted + len(disk.kept)
    disk.is_away = False
    disk.send(DAYS * DAY + 3 * DAY)
    assert not disk.waiting
    assert len(disk.store) == disk.written + disk.snapshots
    assert sum(disk.store.values()) == pytest.approx(
        length_s(recorded) * BYTES_A_SECOND + disk.snapshots * SNAPSHOT_BYTES, rel=1e-6
    )
    assert disk.most_bytes <= (LIMITS.max_total_bytes or 0)
    disk.is_online = True
    disk.deliver()
    assert disk.delivered == list(range(1, disk.written + 1)), "events lost, doubled or out of order"
    disk.spool.close()
    print(
        f"{DAYS} days, {len(happenings)} incidents: planned {length_s(wanted):.0f} s, "
        + ", ".join(f"{reason} {length_s(union(spans)):.0f} s" for reason, spans in sorted(books.gaps.items()))
        + f", recorded {length_s(recorded):.0f} s, of it by triggers alone "
        f"{length_s(minus(by_triggers, by_others)):.0f} s ({len(world.found)} found, {limited} beyond max_per_hour); "
        f"{disk.written} chunks and as many snapshots, all in the store, {disk.deleted} deleted"
    )
