"""Events on disk until the broker has them: in order, bounded, across outages, restarts and kills.

The database belongs to one thread. The loop hands events over and is called when there is something to send;
it never waits for a disk. An event is on disk before it is sent, so that its number cannot be given twice.
When the disk refuses (full, read-only), events are kept in memory, sent from there, and written as soon as it works
again.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.control.bus import Mark
from msrecd.control.messages import encode
from msrecd.statefolder import has_schema, report_unwritable

log = logging.getLogger(__name__)

# A little above the 10 000 events and 10 MiB that are promised, so that those around them do not push them out.
EVENT_LIMIT = 12_000
BYTES_LIMIT = 16 * 1024 * 1024
HANDOVER_LIMIT = 4_000
DELETE_DELAY_S = 1.0
RETRY_S = 5.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS mark (
  topic TEXT NOT NULL, form INTEGER NOT NULL, recording_id TEXT NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY (topic, form));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledEvent:
    """One event, ready to send. `payload` is encoded and holds the event_id."""

    seq: int
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStatus:
    """How full the spool is. `dropped` counts since the spool was made, over restarts."""

    events: int = 0
    bytes: int = 0
    dropped: int = 0
    durable: bool = True


class Marks:
    """The last chunk of each recorder whose event was spooled: kept with the events, so that a kill loses none.

    A chunk that was finished, but whose event was not on the disk yet, stands in its manifest behind the mark. Ids of
    recordings sort within one form only: by time, or by boot.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[str, bool], Mark] = {}

    def load(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Rows of topic, recording_id and seq; what is known already and greater stays."""
        for topic, recording_id, seq in rows:
            self._raise(topic, (recording_id, seq))

    def note(self, topic: str, payload: Mapping[str, object]) -> None:
        """Take what an event says of its recording."""
        recording_id, seq = payload.get("recording_id"), payload.get("seq", 0)
        if isinstance(recording_id, str) and isinstance(seq, int):
            self._raise(topic, (recording_id, seq))

    def rows(self) -> Iterator[tuple[str, int, str, int]]:
        """Topic, form, recording_id, seq: what is to be kept."""
        for (topic, form), (recording_id, seq) in self._marks.items():
            yield topic, int(form), recording_id, seq

    def of(self, prefix: str) -> dict[str, list[Mark]]:
        """What stands behind `prefix` in each topic below it, with its marks."""
        found: dict[str, list[Mark]] = {}
        for (topic, _), mark in self._marks.items():
            if topic.startswith(prefix):
                found.setdefault(topic.removeprefix(prefix), []).append(mark)
        return found

    def _raise(self, topic: str, mark: Mark) -> None:
        key = (topic, mark[0].startswith("boot"))
        self._marks[key] = max(mark, self._marks.get(key, mark))


class SpoolStore:
    """The database and its rules. For one thread; everything here may block.

    Its own errors are kept inside: what cannot be written stays in memory and is tried again by `flush`.
    """

    def __init__(
        self,
        path: Path,
        prefix: str,
        *,
        clock: Clock = SYSTEM_CLOCK,
        event_limit: int | None = None,
        bytes_limit: int | None = None,
    ) -> None:
        """`prefix` is what stands before the number in an event_id: `<device>/<boot counter>`."""
        self._path = path
        self._prefix = prefix
        self._clock = clock
        self._event_limit = EVENT_LIMIT if event_limit is None else event_limit
        self._bytes_limit = BYTES_LIMIT if bytes_limit is None else bytes_limit
        self._db: sqlite3.Connection | None = None
        self._sizes: dict[int, int] = {}  # seq -> bytes of all events, oldest first
        self._bytes = 0
        self._unwritten: dict[int, SpooledEvent] = {}
        self._undeleted: set[int] = set()
        self.marks = Marks()
        self._next_seq = 1
        self._dropped = 0
        self._failing = False
        self._open()

    @property
    def status(self) -> SpoolStatus:
        return SpoolStatus(events=len(self._sizes), bytes=self._bytes, dropped=self._dropped, durable=not self._failing)

    @property
    def dirty(self) -> bool:
        """Whether something is in memory only."""
        return bool(self._unwritten or self._undeleted)

    def append(self, events: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        """Give each event its number and keep it; the oldest go when there are too many. Call `flush` after it."""
        for topic, payload in events:
            seq = self._next_seq
            try:
                body = encode({**payload, "event_id": f"{self._prefix}/{seq:06d}"})
            except (TypeError, ValueError):
                log.exception("an event for %s cannot be written as JSON and is dropped", topic)
                self._dropped += 1
                continue
            self._next_seq += 1
            self.marks.note(topic, payload)
            self._unwritten[seq] = SpooledEvent(seq=seq, topic=topic, payload=body)
            self._sizes[seq] = len(topic) + len(body)
            self._bytes += self._sizes[seq]
            while len(self._sizes) > self._event_limit or (self._bytes > self._bytes_limit and len(self._sizes) > 1):
                self._remove(next(iter(self._sizes)))
                self._dropped += 1

    def delete(self, seqs: Iterable[int]) -> None:
        """Forget events that the broker has. Call `flush` after it, soon."""
        for seq in seqs:
            if seq in self._sizes:
                self._remove(seq)

    def fetch(
        self, limit: int, *, without: Collection[int] = (), skip_topics: Collection[str] = ()
    ) -> list[SpooledEvent]:
        """The oldest events, in order, without those given."""
        if limit <= 0 or not self._sizes:
            return []
        found: list[SpooledEvent] = []
        hidden = self._undeleted.union(without)
        if self._db is not None and len(self._unwritten) < len(self._sizes):
            try:
                for seq, topic, payload in self._db.execute("SELECT seq, topic, payload FROM event ORDER BY seq"):
                    if seq in hidden or topic in skip_topics:
                        continue
                    found.append(SpooledEvent(seq=seq, topic=topic, payload=bytes(payload)))
                    if len(found) >= limit:
                        return found
            except sqlite3.Error as exc:
                self._failed(exc)
        for event in self._unwritten.values():
            if event.seq not in hidden and event.topic not in skip_topics:
                found.append(event)
                if len(found) >= limit:
                    break
        return found

    def flush(self) -> bool:
        """Write what is in memory only; whether that worked."""
        if not self.dirty:
            return True
        if self._db is None:
            self._open()
            if self._db is None:
                return False
        try:
            with self._db:
                self._db.executemany("DELETE FROM event WHERE seq = ?", [(seq,) for seq in self._undeleted])
                self._db.executemany(
                    "INSERT OR REPLACE INTO event VALUES (?, ?, ?)",
                    [(event.seq, event.topic, event.payload) for event in self._unwritten.values()],
                )
                self._db.executemany(
                    "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                    [("next_seq", self._next_seq), ("dropped", self._dropped)],
                )
                # With the events, so that a kill leaves both or neither.
                self._db.executemany("INSERT OR REPLACE INTO mark VALUES (?, ?, ?, ?)", self.marks.rows())
        except sqlite3.Error as exc:
            self._failed(exc)
            return False
        self._undeleted.clear()
        self._unwritten.clear()
        if self._failing:
            self._failing = False
            log.warning("the event spool %s can be written again", self._path)
        return True

    def close(self) -> None:
        """Write the rest and close; an error is logged."""
        self.flush()
        if self._unwritten:
            log.error("%d events could not be written to %s and are lost", len(self._unwritten), self._path)
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _remove(self, seq: int) -> None:
        self._bytes -= self._sizes.pop(seq)
        if self._unwritten.pop(seq, None) is None:
            self._undeleted.add(seq)

    def _failed(self, exc: sqlite3.Error) -> None:
        if not self._failing:
            self._failing = True
            log.info("the event spool %s cannot be used (%s): events are kept in memory meanwhile", self._path, exc)
            report_unwritable(self._path.parent, "the event spool", exc)
            # A kill now could give the numbers of unwritten events a second time; numbers from the date cannot.
            self._next_seq = max(self._next_seq, self._clock.realtime_ns() // NS)

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._load()
        except sqlite3.DatabaseError as exc:
            self._close_quietly()
            if isinstance(exc, sqlite3.OperationalError):
                self._failed(exc)
                return
            self._start_over(exc)
        except OSError as exc:
            self._failed(sqlite3.OperationalError(str(exc)))

    def _load(self) -> None:
        self._path.touch(mode=0o600, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=1.0, check_same_thread=False)
        self._db = db
        db.execute("PRAGMA journal_mode = WAL")
        # FULL: an event is about a finished file, and must outlive a power cut as the file does.
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
        if not has_schema(db, _SCHEMA):
            raise sqlite3.DatabaseError("tables of another kind in it")
        memory = dict(self._sizes)
        rows = db.execute("SELECT seq, length(topic) + length(payload) FROM event ORDER BY seq").fetchall()
        marks = db.execute("SELECT topic, recording_id, seq FROM mark").fetchall()
        meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
        numbers = [*(number for row in rows for number in row), *(seq for _, _, seq in marks), *meta.values()]
        texts = [text for topic, recording_id, _ in marks for text in (topic, recording_id)]
        # SQLite keeps any type in any column: what lies on a card may be damaged and a database all the same.
        if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers) or not all(
            isinstance(text, str) for text in texts
        ):
            raise sqlite3.DatabaseError("values of another type in it")
        self._sizes = {seq: size for seq, size in rows if seq not in self._undeleted}
        self._sizes.update({seq: size for seq, size in memory.items() if seq in self._unwritten})
        self._bytes = sum(self._sizes.values())
        self.marks.load(marks)
        last = rows[-1][0] if rows else 0
        self._next_seq = max(self._next_seq, meta.get("next_seq", 1), last + 1)
        self._dropped = max(self._dropped, meta.get("dropped", 0))

    def _start_over(self, exc: sqlite3.Error) -> None:
        """Put an unreadable database aside and begin a new one, with numbers that were never given."""
        aside = self._path.with_suffix(".damaged")
        log.error("the event spool %s is damaged (%s): it is put aside as %s", self._path, exc, aside.name)
        self._next_seq = max(self._next_seq, self._clock.realtime_ns() // NS)
        try:
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._load()
        except (OSError, sqlite3.Error) as again:
            self._close_quietly()
            self._failed(sqlite3.OperationalError(str(again)))

    def _close_quietly(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


class Spool:
    """The store behind its thread. `append`, `acknowledge`, `request` and `close` are called on the loop.

    `on_change` is called in the spool's thread after events were written or the status changed: hand it on.
    """

    def __init__(self, path: Path, prefix: str, on_change: Callable[[], None], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = path
        self._prefix = prefix
        self._clock = clock
        self._on_change = on_change
        self._condition = threading.Condition()
        self._incoming: deque[tuple[str, Mapping[str, object]]] = deque()
        self._in_hand = 0  # taken from there and not in the status yet
        self._acknowledged: list[int] = []
        self._requests: deque[Callable[[SpoolStore], None]] = deque()
        self._stop = False
        self._lost_in_handover = 0
        self._status = SpoolStatus()
        self._thread = threading.Thread(target=self._work, name="mqtt spool", daemon=True)

    @property
    def status(self) -> SpoolStatus:
        """How full it is, with what waits to be handed over. From any thread."""
        with self._condition:
            waiting = len(self._incoming) + self._in_hand
            status = self._status
            return SpoolStatus(
                events=status.events + waiting,
                bytes=status.bytes,
                dropped=status.dropped + self._lost_in_handover,
                durable=status.durable,
            )

    def start(self) -> None:
        """Open the database, in the spool's thread."""
        self._thread.start()

    def append(self, topic: str, payload: Mapping[str, object]) -> None:
        """Hand an event over; returns at once. If the disk stalls for long, the oldest of these is dropped."""
        with self._condition:
            if len(self._incoming) >= HANDOVER_LIMIT:
                self._incoming.popleft()
                self._lost_in_handover += 1
            self._incoming.append((topic, payload))
            self._condition.notify()

    def acknowledge(self, seq: int) -> None:
        """The broker has this event: it may be deleted."""
        with self._condition:
            self._acknowledged.append(seq)
            self._condition.notify()

    def request(
        self,
        limit: int,
        without: Collection[int],
        skip_topics: Collection[str],
        answer: Callable[[list[SpooledEvent]], None],
    ) -> None:
        """Ask for the oldest events; `answer` is called in the spool's thread."""
        hidden, skipped = frozenset(without), frozenset(skip_topics)
        self._ask(lambda store: answer(store.fetch(limit, without=hidden, skip_topics=skipped)))

    def request_marks(self, prefix: str, answer: Callable[[Mapping[str, list[Mark]]], None]) -> None:
        """Ask how far the events below `prefix` have come; `answer` is called in the spool's thread."""
        self._ask(lambda store: answer(store.marks.of(prefix)))

    def close(self, timeout_s: float) -> bool:
        """Write everything and end the thread; whether that worked in time. Blocks."""
        with self._condition:
            self._stop = True
            self._condition.notify()
        if not self._thread.is_alive() and self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.error("the event spool %s did not finish writing within %.0f s", self._path, timeout_s)
            return False
        return True

    def _ask(self, question: Callable[[SpoolStore], None]) -> None:
        with self._condition:
            self._requests.append(question)
            self._condition.notify()

    def _work(self) -> None:
        store = SpoolStore(self._path, self._prefix, clock=self._clock)
        self._publish_status(store)
        self._on_change()
        delete_at_ns: int | None = None
        retry_at_ns = 0
        while True:
            with self._condition:
                wait_s = self._wait_s(store, delete_at_ns, retry_at_ns)
                if not (self._incoming or self._acknowledged or self._requests or self._stop):
                    self._condition.wait(wait_s)
                incoming, self._incoming = self._incoming, deque()
                self._in_hand = len(incoming)
                acknowledged, self._acknowledged = self._acknowledged, []
                requests, self._requests = self._requests, deque()
                stop = self._stop
            now_ns = self._clock.monotonic_ns()
            store.delete(acknowledged)
            store.append(incoming)
            if acknowledged and delete_at_ns is None:
                # Deletions wait a moment for company: each write costs the card one sync. A kill meanwhile sends
                # an event twice, with the same event_id.
                delete_at_ns = now_ns + int(DELETE_DELAY_S * NS)
            due = bool(incoming) or (delete_at_ns is not None and now_ns >= delete_at_ns)
            if now_ns >= retry_at_ns and (due or not store.status.durable) and not stop:
                if store.flush():
                    delete_at_ns = None
                else:
                    retry_at_ns = now_ns + int(RETRY_S * NS)
            self._publish_status(store)
            for question in requests:
                question(store)
            if incoming:
                self._on_change()
            if stop:
                store.close()
                self._publish_status(store)
                return

    def _wait_s(self, store: SpoolStore, delete_at_ns: int | None, retry_at_ns: int) -> float | None:
        if not store.dirty:
            return None
        now_ns = self._clock.monotonic_ns()
        return max(0.01, (max(delete_at_ns or 0, retry_at_ns) - now_ns) / NS)

    def _publish_status(self, store: SpoolStore) -> None:
        with self._condition:
            self._status = store.status
            self._in_hand = 0
