"""The index of finished chunks of one medium: SQLite in the state folder, a cache of the manifests.

Nothing is true because it stands here: when it is missing or damaged it is built again from the manifests. One row a
chunk; sums are kept by triggers, so that no question costs more with a million chunks than with a thousand.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msrecd.clock import MS
from msrecd.errors import StorageError
from msrecd.statefolder import has_schema
from msrecd.storage.retention import ChunkRef

log = logging.getLogger(__name__)

VERSION = 4
_BATCH = 256
_BUILD_BATCH = 2000
_TABLES = """
CREATE TABLE chunk (
  ord INTEGER PRIMARY KEY AUTOINCREMENT, recording_id TEXT NOT NULL, recorder TEXT NOT NULL, seq INTEGER NOT NULL,
  file TEXT NOT NULL, bytes INTEGER NOT NULL, started_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL,
  trusted INTEGER NOT NULL, protected INTEGER NOT NULL DEFAULT 0,
  boot_id TEXT NOT NULL DEFAULT '', proven INTEGER NOT NULL DEFAULT 0, UNIQUE (recording_id, seq));
CREATE TABLE recording (
  recording_id TEXT PRIMARY KEY, recorder TEXT NOT NULL, manifest TEXT NOT NULL,
  started_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL, sent_lines INTEGER NOT NULL DEFAULT 0,
  has_unsent INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX recording_unsent ON recording (recording_id) WHERE has_unsent = 1;
CREATE INDEX recording_ended ON recording (ended_ns);
CREATE INDEX recording_recorder ON recording (recorder, recording_id);
CREATE TABLE folder (name TEXT PRIMARY KEY, changed_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE total (recorder TEXT PRIMARY KEY, bytes INTEGER NOT NULL, chunks INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER chunk_removed AFTER DELETE ON chunk BEGIN
  UPDATE total SET bytes = bytes - OLD.bytes, chunks = chunks - (OLD.seq > 0) WHERE recorder = OLD.recorder; END;
"""
# What is done for many chunks at once in half the time: left out while the index is built.
_FOR_EACH_CHUNK = {
    "INDEX chunk_oldest": "ON chunk (protected, ord)",
    "INDEX chunk_recorder": "ON chunk (recorder, protected, ord)",
    "INDEX chunk_aged": "ON chunk (protected, trusted, ended_ns)",
    "INDEX chunk_recorder_aged": "ON chunk (recorder, protected, trusted, ended_ns)",
    "INDEX chunk_unproven": "ON chunk (ord) WHERE proven = 0",
    "INDEX chunk_untrusted": "ON chunk (ord) WHERE trusted = 0",
    "TRIGGER chunk_added": """AFTER INSERT ON chunk BEGIN
  INSERT INTO total VALUES (NEW.recorder, NEW.bytes, NEW.seq > 0)
  ON CONFLICT (recorder) DO UPDATE SET bytes = bytes + NEW.bytes, chunks = chunks + (NEW.seq > 0); END""",
}
_SCHEMA = _TABLES + "".join(f"CREATE {name} {what};\n" for name, what in _FOR_EACH_CHUNK.items())
_BYTES = "CAST(total(bytes) AS INTEGER)"  # sum() fails where manifests claim more than a number holds
_TOTALS = f"INSERT OR REPLACE INTO total SELECT recorder, {_BYTES}, sum(seq > 0) FROM chunk GROUP BY recorder"
_COLUMNS = "recording_id, recorder, seq, file, bytes, started_ns, ended_ns, trusted, protected, boot_id, proven"
_INSERT_AT = f"INSERT OR IGNORE INTO chunk (ord, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PROVEN = " AND proven = 1"
_LOOSE = " AND protected = 0"
_SNAPSHOTS = (-(1 << 31), -1)
_UPSERT = (
    "INSERT INTO recording (recording_id, recorder, manifest, started_ns, ended_ns) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (recording_id) DO UPDATE SET"
    " started_ns = min(started_ns, excluded.started_ns), ended_ns = max(ended_ns, excluded.ended_ns)"
)


class Index:
    """Any thread, one at a time inside; several processes may share the file.

    Raises:
        StorageError: from every method, when SQLite fails.
    """

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        """Open (None: in memory). `is_fresh` says that it is empty and wants to be built."""
        self._path = path
        self._lock = threading.RLock()
        self.is_fresh = False
        if read_only:
            self._db = self._connect(f"{path.absolute().as_uri()}?mode=ro" if path else ":memory:")
            try:
                self._check()
            except BaseException:
                self._db.close()
                raise
            return
        try:
            self._db = self._connect(str(path or ":memory:"))
            self._prepare()
        except (sqlite3.DatabaseError, StorageError) as exc:
            if path is None:
                raise
            if _is_of_the_disk(exc):
                raise StorageError(f"{path}: {exc}", "index") from exc
            log.warning("the index is damaged and will be built again: %s", exc)
            self._start_over(path)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, chunk: ChunkRef, manifest: str) -> None:
        """Add or replace a chunk."""
        self.add_all([(chunk, manifest)])

    def add_all(self, chunks: Iterable[tuple[ChunkRef, str]]) -> None:
        """Add many in one transaction, in the order of recording."""
        with self._lock, _errors(), self._db:
            for chunk, manifest in chunks:
                self._db.execute(
                    "DELETE FROM chunk WHERE recording_id = ? AND seq = ?", (chunk.recording_id, chunk.seq)
                )
                (last,) = self._db.execute("SELECT coalesce(max(ord), 0) FROM chunk").fetchone()
                self._db.execute(_INSERT_AT, (max(last + 1, _order_of(chunk)), *_row(chunk)))
                self._db.execute(
                    _UPSERT, (chunk.recording_id, chunk.recorder, manifest, chunk.started_ns, chunk.ended_ns)
                )

    def build(self, chunks: Iterable[tuple[ChunkRef, str]]) -> int:
        """Fill an empty index from chunks in any order, a batch of them in memory at a time; how many there are.

        Their order is that of their beginnings; what is added later comes behind them.

        Raises:
            StorageError: it fails; it is then not complete, and `is_fresh` still.
        """
        with self._lock, _errors():
            self._db.execute("PRAGMA synchronous = OFF")  # synced as a whole, before anybody uses it
            for name in _FOR_EACH_CHUNK:
                self._db.execute(f"DROP {name}")
        batch: list[tuple[ChunkRef, str]] = []
        for pair in chunks:
            batch.append(pair)
            if len(batch) >= _BUILD_BATCH:
                self._put(batch)
                batch.clear()
        self._put(batch)
        with self._lock, _errors(), self._db:
            self._db.execute(_TOTALS)
            for name, what in _FOR_EACH_CHUNK.items():
                self._db.execute(f"CREATE {name} {what}")
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        with self._lock, _errors():
            self._db.execute("PRAGMA synchronous = NORMAL")
        self.is_fresh = False
        return self.totals()[1]

    def _put(self, chunks: list[tuple[ChunkRef, str]]) -> None:
        recordings: dict[str, tuple[str, str, str, int, int]] = {}
        with self._lock, _errors(), self._db:
            rows = [(_order_of(chunk), *_row(chunk)) for chunk, _ in chunks]
            if self._db.executemany(_INSERT_AT, rows).rowcount < len(rows):
                for chunk, _ in chunks:
                    self._insert_somewhere(_order_of(chunk), _row(chunk))
            for chunk, manifest in chunks:
                *_, begun, ended = recordings.get(chunk.recording_id, (chunk.started_ns, chunk.ended_ns))
                span = min(begun, chunk.started_ns), max(ended, chunk.ended_ns)
                recordings[chunk.recording_id] = (chunk.recording_id, chunk.recorder, manifest, *span)
            self._db.executemany(_UPSERT, recordings.values())

    def _insert_somewhere(self, key: int, row: Sequence[object]) -> None:
        """One whose place may be another's, which began in the same millisecond; nothing if it is there already."""
        while not self._db.execute(
            "SELECT 1 FROM chunk WHERE recording_id = ? AND seq = ?", (row[0], row[2])
        ).fetchone():
            self._db.execute(_INSERT_AT, (key, *row))
            key += 1

    def insert(self, chunks: Iterable[tuple[ChunkRef, str]]) -> None:
        """Add chunks that were recorded earlier, each at the place of its beginning."""
        self._put(list(chunks))

    def has_chunk(self, recording_id: str, seq: int) -> bool:
        return bool(self._all("SELECT 1 FROM chunk WHERE recording_id = ? AND seq = ?", (recording_id, seq)))

    def has_seen(self, folder: str, changed_ns: int) -> bool:
        """Whether a folder was looked into when it was last changed at this time."""
        return bool(self._all("SELECT 1 FROM folder WHERE name = ? AND changed_ns = ?", (folder, changed_ns)))

    def see(self, folder: str, changed_ns: int) -> None:
        with self._lock, _errors(), self._db:
            self._db.execute("INSERT OR REPLACE INTO folder VALUES (?, ?)", (folder, changed_ns))

    def remove(self, recording_id: str, seq: int) -> bool:
        """Forget a chunk, and that its folder was looked into; whether it was the last of its recording.

        A copy that is played back can have the time of the folder as it was when it was last looked into.
        """
        key = (recording_id, seq)
        with self._lock, _errors(), self._db:
            known = "SELECT file FROM chunk WHERE recording_id = ? AND seq = ?"
            for (file,) in self._db.execute(known, key).fetchall():
                self._db.execute("DELETE FROM folder WHERE name = ?", (str(file).rpartition("/")[0],))
            self._db.execute("DELETE FROM chunk WHERE recording_id = ? AND seq = ?", key)
            left = self._db.execute("SELECT 1 FROM chunk WHERE recording_id = ? LIMIT 1", (recording_id,)).fetchone()
            return left is None

    def remove_recording(self, recording_id: str) -> None:
        with self._lock, _errors(), self._db:
            self._db.execute("DELETE FROM recording WHERE recording_id = ?", (recording_id,))

    def protect(self, recording_id: str, ranges: Sequence[tuple[int, int]]) -> None:
        """Protect these inclusive ranges of seq of a recording, all its snapshots with them, and nothing else of it."""
        with self._lock, _errors(), self._db:
            self._db.execute("UPDATE chunk SET protected = 0 WHERE recording_id = ?", (recording_id,))
            self._db.executemany(
                "UPDATE chunk SET protected = 1 WHERE recording_id = ? AND seq BETWEEN ? AND ?",
                [(recording_id, low, high) for low, high in (*ranges, *([_SNAPSHOTS] if ranges else []))],
            )

    def protected_bytes(self) -> int:
        return int(self._all(f"SELECT {_BYTES} FROM chunk WHERE protected = 1")[0][0])

    def loose_bytes(self, recording_id: str, low: int, high: int) -> int:
        """Bytes of a recording's chunks in a range of seq that are not protected."""
        sql = f"SELECT {_BYTES} FROM chunk WHERE recording_id = ? AND seq BETWEEN ? AND ? AND protected = 0"
        return int(self._all(sql, (recording_id, low, high))[0][0])

    def seqs(self, recording_id: str, low: int = 1, high: int = 1 << 31) -> tuple[int, int, int, int]:
        """The first and last seq (0: there is none), number and bytes of a recording's chunks in a range of seq."""
        sql = f"SELECT coalesce(min(seq), 0), coalesce(max(seq), 0), count(*), {_BYTES} FROM chunk"
        row = self._all(f"{sql} WHERE recording_id = ? AND seq BETWEEN ? AND ?", (recording_id, low, high))[0]
        return int(row[0]), int(row[1]), int(row[2]), int(row[3])

    def seqs_between(self, recorder: str, from_ns: int, to_ns: int) -> list[tuple[str, int, int]]:
        """(recording_id, first seq, last seq) of the chunks of a recorder that touch a time range."""
        rows = self._all(
            "SELECT c.recording_id, min(c.seq), max(c.seq) FROM recording r JOIN chunk c USING (recording_id)"
            " WHERE r.recorder = ? AND r.ended_ns >= ? AND r.started_ns <= ? AND c.ended_ns >= ? AND c.started_ns <= ?"
            " AND c.seq > 0 GROUP BY c.recording_id ORDER BY c.recording_id",
            (recorder, from_ns, to_ns, from_ns, to_ns),
        )
        return [(str(row[0]), int(row[1]), int(row[2])) for row in rows]

    def has_recording(self, recording_id: str) -> bool:
        return bool(self._all("SELECT 1 FROM recording WHERE recording_id = ?", (recording_id,)))

    def manifest_of(self, recording_id: str) -> str | None:
        rows = self._all("SELECT manifest FROM recording WHERE recording_id = ?", (recording_id,))
        return str(rows[0][0]) if rows else None

    def last_recording_id(self, recorder: str, below: str) -> str | None:
        """The greatest recording id of a recorder that sorts before `below`."""
        rows = self._all(
            "SELECT max(recording_id) FROM recording WHERE recorder = ? AND recording_id < ?", (recorder, below)
        )
        return rows[0][0] if rows and rows[0][0] is not None else None

    def recordings(self, since_ns: int | None, until_ns: int | None, recorder: str | None) -> list[tuple[str, str]]:
        """(recording_id, manifest) of those that touch a time range, in order of their beginning."""
        low, high = since_ns or -(1 << 62), until_ns if until_ns is not None else 1 << 62
        sql = "SELECT recording_id, manifest FROM recording WHERE ended_ns >= ? AND started_ns <= ?"
        values: tuple[object, ...] = (low, high)
        if recorder is not None:
            sql, values = sql + " AND recorder = ?", (*values, recorder)
        return [(str(r[0]), str(r[1])) for r in self._all(sql + " ORDER BY started_ns, recording_id", values)]

    def count_between(self, recorder: str | None, from_ns: int | None, to_ns: int | None) -> int:
        """How many chunks touch a time range, of one recorder or of all."""
        low, high = from_ns if from_ns is not None else -(1 << 62), to_ns if to_ns is not None else 1 << 62
        of, values = ("", ()) if recorder is None else (" AND r.recorder = ?", (recorder,))
        rows = self._all(
            "SELECT count(*) FROM recording r JOIN chunk c USING (recording_id)"
            f" WHERE r.ended_ns >= ? AND r.started_ns <= ? AND c.ended_ns >= ? AND c.started_ns <= ?{of}",
            (low, high, low, high, *values),
        )
        return int(rows[0][0])

    def newest_recordings(self, recorder: str | None, limit: int) -> list[tuple[str, str, int, int]]:
        """(recording_id, recorder, beginning, end) of those that began last, the newest first."""
        where, values = ("", ()) if recorder is None else (" WHERE recorder = ?", (recorder,))
        rows = self._all(
            f"SELECT recording_id, recorder, started_ns, ended_ns FROM recording{where}"
            " ORDER BY started_ns DESC, recording_id DESC LIMIT ?",
            (*values, limit),
        )
        return [(str(row[0]), str(row[1]), int(row[2]), int(row[3])) for row in rows]

    def correct(self, correction: Callable[[str, int], int | None]) -> int:
        """Replace untrusted times by what `correction(boot_id, utc_ns)` knows; how many chunks."""
        count = 0
        last = 0
        while rows := self._all(
            "SELECT ord, recording_id, boot_id, started_ns, ended_ns FROM chunk WHERE trusted = 0 AND ord > ?"
            " ORDER BY ord LIMIT ?",
            (last, _BATCH),
        ):
            last = rows[-1][0]
            with self._lock, _errors(), self._db:
                for key, recording_id, boot_id, started_ns, ended_ns in rows:
                    corrected = correction(boot_id, started_ns)
                    if corrected is None:
                        continue
                    count += 1
                    end_ns = corrected + ended_ns - started_ns
                    self._db.execute(
                        "UPDATE chunk SET started_ns = ?, ended_ns = ?, trusted = 1 WHERE ord = ?",
                        (corrected, end_ns, key),
                    )
                    self._db.execute(
                        "UPDATE recording SET (started_ns, ended_ns) = (SELECT min(started_ns), max(ended_ns)"
                        " FROM chunk WHERE chunk.recording_id = recording.recording_id) WHERE recording_id = ?",
                        (recording_id,),
                    )
        return count

    # --- off-load: a column says what is proven, one of the recording how many of its manifest's lines are stored ---

    def unproven(self, count: int, recording_id: str | None = None) -> list[ChunkRef]:
        """The oldest files that no store has proven, of all recordings or of one."""
        where, values = ("", ()) if recording_id is None else (" AND recording_id = ?", (recording_id,))
        sql = f"SELECT {_COLUMNS} FROM chunk WHERE proven = 0{where} ORDER BY ord LIMIT ?"
        rows = self._all(sql, (*values, count))
        with _errors():
            return [_chunk(row) for row in rows]

    def unproven_totals(self) -> tuple[int, int, int | None]:
        """Number and bytes of what no store has proven, and when the oldest of it began."""
        sql = f"SELECT count(*), {_BYTES}, min(started_ns) FROM chunk WHERE proven = 0"
        row = self._all(sql)[0]
        return int(row[0]), int(row[1]), None if row[2] is None else int(row[2])

    def prove(self, recording_id: str, seq: int) -> None:
        """A store has proven a file; a line of its manifest says so, and is not stored yet."""
        with self._lock, _errors(), self._db:
            self._db.execute("UPDATE chunk SET proven = 1 WHERE recording_id = ? AND seq = ?", (recording_id, seq))
            self._db.execute("UPDATE recording SET has_unsent = 1 WHERE recording_id = ?", (recording_id,))

    def prove_all(self, recording_id: str, seqs: Iterable[int]) -> None:
        """A store has proven these, and their lines are stored."""
        with self._lock, _errors(), self._db:
            self._db.executemany(
                "UPDATE chunk SET proven = 1 WHERE recording_id = ? AND seq = ?", [(recording_id, seq) for seq in seqs]
            )

    def sent_lines(self, recording_id: str) -> int:
        rows = self._all("SELECT sent_lines FROM recording WHERE recording_id = ?", (recording_id,))
        return int(rows[0][0]) if rows else 0

    def note_lines(self, recording_id: str, *, sent: int | None = None, has_unsent: bool | None = None) -> None:
        """How many lines of a manifest are stored, and whether there are others; None: as before."""
        with self._lock, _errors(), self._db:
            self._db.execute(
                "UPDATE recording SET sent_lines = coalesce(?, sent_lines), has_unsent = coalesce(?, has_unsent)"
                " WHERE recording_id = ?",
                (sent, has_unsent, recording_id),
            )

    def recordings_with_unsent(self, count: int) -> list[str]:
        """Recordings whose manifests have lines that no store has."""
        rows = self._all("SELECT recording_id FROM recording WHERE has_unsent = 1 LIMIT ?", (count,))
        return [str(row[0]) for row in rows]

    # --- retention.ChunkView ---

    def total_bytes(self, recorder: str | None) -> int:
        return self.totals(recorder)[0]

    def totals(self, recorder: str | None = None) -> tuple[int, int]:
        """Bytes and number of finished chunks."""
        where, values = ("", ()) if recorder is None else (" WHERE recorder = ?", (recorder,))
        row = self._all(f"SELECT {_BYTES}, coalesce(sum(chunks), 0) FROM total{where}", values)[0]
        return int(row[0]), int(row[1])

    def recorders(self) -> list[str]:
        """Those of which there are chunks."""
        return [str(row[0]) for row in self._all("SELECT recorder FROM total WHERE chunks > 0 ORDER BY recorder")]

    def last_sizes(self, recorder: str, count: int) -> list[int]:
        """Bytes of the last chunks of a recorder that are not protected, the oldest first."""
        rows = self._all(
            "SELECT bytes FROM chunk WHERE recorder = ? AND protected = 0 AND seq > 0 ORDER BY ord DESC LIMIT ?",
            (recorder, count),
        )
        return [int(row[0]) for row in reversed(rows)]

    def oldest(
        self, recorder: str | None, *, proven_only: bool = False, with_protected: bool = False
    ) -> Iterator[ChunkRef]:
        condition = _PROVEN if proven_only else ""
        return self._page("ord", recorder, condition + ("" if with_protected else _LOOSE))

    def aged(
        self, recorder: str | None, before_ns: int, *, proven_only: bool = False, with_protected: bool = False
    ) -> Iterator[ChunkRef]:
        condition = f" AND trusted = 1 AND ended_ns < {int(before_ns)}" + (_PROVEN if proven_only else "")
        return self._page("ended_ns", recorder, condition + ("" if with_protected else _LOOSE))

    def _page(self, key: str, recorder: str | None, condition: str) -> Iterator[ChunkRef]:
        values: tuple[object, ...] = ()
        if recorder is not None:
            condition, values = f"{condition} AND recorder = ?", (recorder,)
        last = (-(1 << 62), 0)
        while True:
            rows = self._all(
                f"SELECT {_COLUMNS}, {key}, ord FROM chunk WHERE ({key}, ord) > (?, ?){condition}"
                f" ORDER BY {key}, ord LIMIT {_BATCH}",
                (*last, *values),
            )
            with _errors():
                chunks = [_chunk(row) for row in rows]
            yield from chunks
            if len(rows) < _BATCH:
                return
            last = (rows[-1][-2], rows[-1][-1])

    def _all(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _errors():
            return self._db.execute(sql, values).fetchall()

    @staticmethod
    def _connect(target: str) -> sqlite3.Connection:
        try:
            return sqlite3.connect(target, timeout=10.0, check_same_thread=False, uri=target.startswith("file:"))
        except sqlite3.Error as exc:
            raise StorageError(f"the index cannot be opened: {exc}") from exc

    def _check(self) -> None:
        with _errors():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version != VERSION or not has_schema(self._db, _SCHEMA):
                raise StorageError("the index is of another version")

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            self.is_fresh = True
        elif version != VERSION or not has_schema(self._db, _SCHEMA):
            raise StorageError("the index is of another version")
        self._db.execute("SELECT count(*) FROM total").fetchone()
        self._db.execute("SELECT * FROM chunk ORDER BY ord LIMIT 1").fetchone()

    def _start_over(self, path: Path) -> None:
        if hasattr(self, "_db"):
            self._db.close()
        try:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._db = self._connect(str(path))
            self._prepare()
        except (OSError, sqlite3.Error) as exc:
            raise StorageError(f"the index {path} can be neither read nor written: {exc}") from exc


class _errors:  # noqa: N801  # used as a context manager only
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise StorageError(f"the index fails: {error}", "index") from error


def _is_of_the_disk(exc: Exception) -> bool:
    """Whether the file system refuses, which says nothing about the index. (Low byte: SQLite's primary codes.)"""
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _order_of(chunk: ChunkRef) -> int:
    """A key that sorts by the beginning, to the millisecond, and is most likely nobody else's."""
    return (max(0, chunk.started_ns) // MS << 20) | (zlib.crc32(chunk.file.encode()) & 0xFFFFF)


def _row(chunk: ChunkRef) -> tuple[object, ...]:
    return (
        *(chunk.recording_id, chunk.recorder, chunk.seq, chunk.file, chunk.bytes),
        *(chunk.started_ns, chunk.ended_ns, chunk.trusted, chunk.protected, chunk.boot_id, chunk.proven),
    )


def _chunk(row: tuple[Any, ...]) -> ChunkRef:
    """
    Raises:
        sqlite3.DataError: a value is none that was written here.
    """
    texts, numbers = (row[0], row[1], row[3], row[9]), (row[2], row[4], row[5], row[6], row[10])
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
        raise sqlite3.DataError("a value of a wrong type")
    return ChunkRef(
        recording_id=row[0],
        recorder=row[1],
        seq=row[2],
        file=row[3],
        bytes=row[4],
        started_ns=row[5],
        ended_ns=row[6],
        trusted=bool(row[7]),
        protected=bool(row[8]),
        boot_id=row[9],
        proven=bool(row[10]),
    )
