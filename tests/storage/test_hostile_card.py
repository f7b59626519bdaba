"""What lies on a card is data: nothing of it stops a start, a rotation, a list or a proof."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import sqlite3
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import storage_media
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_store import index_of, make_store, record

from msrecd.clock import NS
from msrecd.clock.wall import Corrections, WallTime, read_history
from msrecd.mqtt.spool import SpoolStore
from msrecd.storage import files, fragments, manifest
from msrecd.storage.catalog import open_catalog
from msrecd.storage.index import Index
from msrecd.storage.journal import Journal
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts
from msrecd.storage.verify import Fault, verify
from msrecd.vocabulary.times import parse_utc


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's address is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def make_device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    try:
        os.mknod(path, 0o20644, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no devices may be made here")


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "a pipe": make_pipe,
    "a socket": make_socket,
    "a device": make_device,
    "a folder": lambda path: path.mkdir(),
}
special = pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL.keys())


@special
def test_nothing_but_a_regular_file_is_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd")
    with files.closing_fd(files.open_root(tmp_path)) as folder:
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT):
            with pytest.raises(OSError, match="not a regular file"):
                files.open_file(folder, "odd", flags)


@special
@pytest.mark.parametrize("suffix", ["mp4", "jsonl"])
def test_a_special_file_in_a_copy_is_a_finding(tmp_path: Path, make: Callable[[Path], None], suffix: str) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 3)
    store.close()
    path = sorted((tmp_path / "recordings").rglob(f"*.{suffix}"))[-1]
    path.unlink()
    make(path)
    verdict = verify(tmp_path / "recordings")
    assert not verdict.is_proven
    relative = path.relative_to(tmp_path / "recordings").as_posix()
    assert any(finding.is_failure for finding in verdict.findings if suffix == "jsonl" or finding.file == relative)


@special
def test_special_files_do_not_stop_a_start_a_rotation_or_a_list(tmp_path: Path, make: Callable[[Path], None]) -> None:
    store = make_store(tmp_path)
    store.open()
    (line, *_) = record(store, 3)
    store.close()
    root = tmp_path / "recordings"
    folder = (root / line["file"]).parent
    stem = "20260101T000000Z-cam0-0001"
    make(folder / f"{stem}.jsonl")
    make(folder / f"{stem}-0001.mp4.part")
    make(folder / f"{stem}-0002.mp4")
    make(root / "cam1")
    shutil.rmtree(tmp_path / "state")
    store = make_store(tmp_path, limits=Limits(max_total_bytes=1))
    store.open(everywhere=True)
    assert store.index.totals()[1] == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "limits", Limits())
        catalog = open_catalog(root, tmp_path / "state", Corrections())
        assert sum(len(entry.chunks) for entry in catalog.recordings()) == 3
        catalog.close()
    store.limits = Limits(max_total_bytes=1)
    assert len(store.rotate()) == 3
    store.close()
    assert os.path.lexists(folder / f"{stem}-0002.mp4")


def test_a_folder_that_may_not_be_read_affects_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recordings" / "photos").mkdir(parents=True)
    real = files.open_folder

    def open_folder(root: int, relative: str, *, create: bool = False) -> int:
        if relative.startswith("photos"):
            raise PermissionError(13, "Permission denied", relative)
        return real(root, relative, create=create)

    monkeypatch.setattr(files, "open_folder", open_folder)
    store = make_store(tmp_path)
    assert store.open(everywhere=True) == []
    record(store, 2)
    assert store.rotate() == []
    store.close()
    index_of(tmp_path).unlink()
    store = make_store(tmp_path)
    store.open()
    assert store.index.totals()[1] == 2
    store.close()
    verdict = verify(tmp_path / "recordings")
    assert verdict.is_proven
    assert [(finding.fault, finding.file) for finding in verdict.findings] == [(Fault.UNREADABLE, "photos")]


ODD = [None, True, "x", -1, 1.5, 1 << 70, float("1e300"), [], {}, [[]], "\x1b[2J", "\ud800", "x" * 3000]
LINE: dict[str, Any] = {
    "seq": 1,
    "file": "cam0/2026/11/29/20261129T120000Z-cam0-1a2b-0001.mp4",
    "bytes": 1000,
    "sha256": "0" * 64,
    "mime_type": "video/mp4",
    "started": "2026-11-29T12:00:00.000Z",
    "ended": "2026-11-29T12:00:01.000Z",
    "duration_s": 1.0,
    "clock": "synchronized",
    "final": True,
    "recovered": False,
    "lost_s": 0.0,
    "tracks": {"video": {"frames": 1, "dropped": 0}},
    "gaps": [{"at_s": 0.5, "duration_s": 0.25, "reason": "x"}],
}


def encode(values: dict[str, Any], prev: str = "") -> bytes:
    """As manifest_lines.encode_line, which refuses some of these."""
    import hashlib

    line = json.dumps({**values, "prev": prev}, separators=(",", ":")).encode()
    return line[:-1] + b',"line_sha256":"%b"}' % hashlib.sha256(line).hexdigest().encode()


def odd_lines() -> list[bytes]:
    lines = []
    for name in LINE:
        lines += [encode({**LINE, name: value}) for value in ODD if type(value) is not type(LINE[name])]
    for place in ("at_s", "duration_s", "reason"):
        for value in ODD:
            lines.append(encode({**LINE, "gaps": [{**LINE["gaps"][0], place: value}]}))
    for value in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 100_000):
        lines.append(encode(LINE).replace(b'"duration_s":1.0', b'"duration_s":' + value))
    for time in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "tomorrow", "2026-11-29", ""):
        lines.append(encode({**LINE, "started": time}))
    lines += [b"\xff\xfe", b"{}", b"[]", b"null", b'"', b"{" * 50_000, b" " * (10 << 20), b"\x00"]
    lines += [encode({"deleted": value, "at": "x", "reason": "x"}) for value in ODD]
    lines += [encode({"after": value, "ended": "x", "lost_s": 0, "gaps": []}) for value in ODD]
    return lines


def test_one_odd_line_of_a_manifest_is_skipped_and_reported_and_the_rest_is_there(tmp_path: Path) -> None:
    """Whatever is odd about it: list, index and proof go on with the others."""
    good = encode({**LINE, "seq": 2, "file": LINE["file"].replace("0001.mp4", "0002.mp4")})
    for line in odd_lines():
        contents = manifest.read(line + b"\n" + good + b"\n")
        assert [chunk["seq"] for chunk in contents.chunks][-1:] == [2], line[:200]
        for chunk in contents.chunks:  # what is let through can be used by everybody
            assert str(chunk).isprintable()
            json.dumps(chunk, allow_nan=False).encode()


def test_odd_lines_stop_neither_a_start_nor_a_list_nor_a_rotation(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 2)
    store.close()
    root = tmp_path / "recordings"
    folder = root / "cam0" / "2026" / "11" / "29"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "20261129T120000Z-cam0-1a2b-0001.mp4").write_bytes(bytes(1000))
    (folder / "20261129T120000Z-cam0-1a2b.jsonl").write_bytes(b"\n".join(odd_lines()) + b"\n")
    shutil.rmtree(tmp_path / "state")
    store = make_store(tmp_path)
    store.open()
    catalog = open_catalog(root, tmp_path / "state", Corrections())
    assert sum(len(entry.chunks) for entry in catalog.recordings()) >= 2
    assert any("skipped line" in problem for problem in catalog.problems)
    catalog.close()
    assert not verify(root).is_proven
    store.limits = Limits(max_total_bytes=1)
    store.rotate()
    store.close()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(list(LINE.values())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*LINE, "prev", "deleted", "after", "snapshot", "offloaded", "kind", "boot_id", "line_sha256"]),
        VALUES,
    ),
    st.binary(),
)
def test_no_line_raises_in_those_who_read_it(values: dict[str, Any], rubbish: bytes) -> None:
    data = json.dumps({**LINE, "prev": "", **values}).encode() + b"\n" + rubbish
    contents = manifest.read(data)
    for line in contents.chunks:
        assert line["seq"] >= 1
        assert 0 <= line["bytes"] < 1 << 63
        assert abs(parse_utc(line["started"])) < 1 << 63
    manifest.live_chunks(contents)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(storage_media.FORMATS)), st.data())
def test_a_damaged_file_is_scanned_to_an_end(extension: str, data: st.DataObject) -> None:
    """Any bytes changed, put in or taken out: no error, and figures that can be written down."""
    media = bytearray(storage_media.make(extension)[:60_000])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(media)))
        piece = data.draw(st.binary(max_size=12) | st.sampled_from([b"\xff" * 8, b"\x7f" + b"\xff" * 7, bytes(8)]))
        media[at : at + data.draw(st.sampled_from([0, len(piece)]))] = piece
    found = fragments.scan(io.BytesIO(media), len(media), extension)
    assert 0 <= found.cut <= len(media)
    assert 0 <= found.duration_s <= 1e8
    json.dumps(found.manifest_tracks(), allow_nan=False)


@pytest.mark.parametrize("extension", ["mp4", "mkv", "ogg", "flac", "wav"])
@pytest.mark.parametrize(
    "piece", [b"\xff\xf8", b"\xff", b"\x00", b"\x00\x00\x00\x08free", b"data\x00\x00\x00\x00", b"\xec\x80"]
)
def test_a_file_that_repeats_something_is_scanned_in_seconds(extension: str, piece: bytes) -> None:
    media = storage_media.make(extension)
    media = media[: len(media) // 2] + piece * ((2 << 20) // len(piece))
    fragments.scan(io.BytesIO(media), len(media), extension)


ENTRY = {"seq": 1, "file": "", "mime_type": "", "started_ns": 1, "trusted": True}
ODD_JOURNALS: list[dict[str, Any]] = [
    {"chunks": "x"},
    {"chunks": [1]},
    {"chunks": [{}]},
    {"recorder": 5},
    {"manifest": []},
    {"manifest": "/etc/passwd"},
    {"manifest": "../../x"},
    *({"chunks": [{**ENTRY, name: value}]} for name in ENTRY for value in ODD),
]


def test_an_odd_journal_is_skipped(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    chunk = store.begin("cam0", "video/mp4").open_chunk(started_ns=store.clock.monotonic_ns())
    chunk.write([storage_media.make("mp4")])
    chunk._file.close()
    store.close()
    (path,) = (tmp_path / "recordings" / ".msrecd" / "open").iterdir()
    good = json.loads(path.read_text())
    for values in ODD_JOURNALS:
        path.write_text(json.dumps({**good, **values}))
        with files.closing_fd(files.open_root(tmp_path / "recordings")) as root:
            assert list(Journal().read_all(root)) == [], values
    store = make_store(tmp_path)
    (line,) = store.open()  # its folder is looked at all the same
    store.close()
    assert line["recovered"]


def test_an_odd_history_of_the_clock_is_passed_over(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    good = {"boot": 1, "boot_id": "a", "monotonic_ns": 1, "offset_ns": 2, "trusted": True}
    lines = [json.dumps({**good, name: value}) for name in good for value in ODD]
    lines += ["[" * 100_000, "9" * 5000, json.dumps(good).replace("2", "1e400"), "\x00", ""]
    (state / "clock.jsonl").write_text("\n".join([*lines, json.dumps(good)]), errors="replace")
    assert read_history(state)[-1].offset_ns == 2
    for text in ("[" * 100_000, '{"boot": 1e400, "boot_id": ""}', '{"boot": -5, "boot_id": ""}', "null", "9" * 5000):
        (state / "boot.json").write_text(text)
        assert 1 <= WallTime(state).boot <= 1_000_000
    (state / "boot.json").unlink()
    (state / "clock.jsonl").unlink()
    os.mkfifo(state / "boot.json")
    os.mkfifo(state / "clock.jsonl")
    assert read_history(state) == []


@pytest.mark.promise("torn-line-is-cut")
def test_a_torn_end_of_any_length_is_cut_and_the_chain_goes_on(tmp_path: Path) -> None:
    with files.closing_fd(files.open_root(tmp_path)) as folder:
        manifest.append(folder, "m.jsonl", LINE)
        with (tmp_path / "m.jsonl").open("ab") as file:
            file.write(b"x" * (9 << 20) + b"\n" + b"y" * (9 << 20))
        manifest.append(folder, "m.jsonl", {**LINE, "seq": 2})
        contents = manifest.read_at(folder, "m.jsonl")
    assert [line["seq"] for line in contents.chunks] == [1, 2]
    assert (contents.unreadable, contents.broken, contents.torn) == ((2,), (), False)


def test_the_end_of_a_recording_without_a_chunk_is_a_line_of_its_own(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    begun_ns = store.clock.monotonic_ns()
    chunk = recording.open_chunk(started_ns=begun_ns)
    chunk.write([storage_media.make("mp4")])
    chunk.finish(ChunkFacts(final=False, duration_s=2.0, tracks={}))
    gap = {"at_s": 2.0, "duration_s": 7.5, "reason": "device_missing"}
    recording.end_line(ended_ns=begun_ns + 10 * NS, lost_s=7.5, gaps=[gap])
    recording.close()
    store.close()
    verdict = verify(tmp_path / "recordings")
    assert verdict.findings == ()
    catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", Corrections())
    (entry,) = catalog.recordings()
    catalog.close()
    assert [(found.duration_s, found.reason) for found in entry.gaps] == [(7.5, "device_missing")]
    with files.closing_fd(files.open_root(tmp_path / "recordings")) as root:
        assert Journal().recording_ids(root) == []


def test_a_copy_with_what_rotation_deleted_elsewhere_is_judged_too(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    lines = record(store, 3)
    shutil.copytree(tmp_path / "recordings", tmp_path / "copy")
    store.limits = Limits(max_total_bytes=lines[0]["bytes"] * 2, min_free_bytes=0)
    (deleted,) = store.rotate()
    store.close()
    (newer,) = (tmp_path / "recordings").rglob("*.jsonl")
    (older,) = (tmp_path / "copy").rglob("*.jsonl")
    older.write_bytes(newer.read_bytes())
    verdict = verify(tmp_path / "copy")
    assert verdict.is_proven
    assert verdict.chunks == 3
    chunk = tmp_path / "copy" / deleted.file
    chunk.write_bytes(bytes(chunk.stat().st_size))
    assert [(finding.fault, finding.file) for finding in verify(tmp_path / "copy").findings] == [
        (Fault.ALTERED, deleted.file)
    ]


def test_a_file_of_another_size_is_not_read(tmp_path: Path) -> None:
    """A hole of eight terabytes costs nothing."""
    store = make_store(tmp_path)
    store.open()
    lines = record(store, 2)
    store.close()
    os.truncate(tmp_path / "recordings" / lines[0]["file"], 8 << 40)
    (finding,) = verify(tmp_path / "recordings").findings
    assert (finding.fault, finding.file) == (Fault.ALTERED, lines[0]["file"])


def test_a_year_of_lines_takes_no_memory_at_a_start(tmp_path: Path) -> None:
    """A manifest is read line by line: four hundred thousand of them would fill a small board."""
    store = make_store(tmp_path)
    store.open()
    record(store, 1)
    store.close()
    (path,) = (tmp_path / "recordings").rglob("*-*.jsonl")
    first = json.loads(path.read_bytes().splitlines()[0])
    first.pop("line_sha256")
    previous, lines = first.pop("prev"), []
    for number in range(1, 10_001):
        name = first["file"].replace("-0001.", f"-{number:04d}.")
        lines.append(manifest.encode_line(first | {"seq": number, "file": name}, previous))
        previous = hashlib.sha256(lines[-1]).hexdigest()
    path.write_bytes(b"\n".join(lines) + b"\n")
    del lines
    shutil.rmtree(tmp_path / "state")
    again = make_store(tmp_path)
    tracemalloc.start()
    again.open(everywhere=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    again.close()
    assert peak < 12 << 20, f"{peak >> 20} MiB for 10 000 lines"


def test_sizes_that_no_number_holds_together_stop_no_start(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 3)
    store.close()
    (path,) = (tmp_path / "recordings").rglob("*-*.jsonl")
    previous, lines = "", []
    for line in path.read_bytes().splitlines():
        values = json.loads(line) | {"bytes": 1 << 62}
        del values["prev"], values["line_sha256"]
        lines.append(manifest.encode_line(values, previous))
        previous = hashlib.sha256(lines[-1]).hexdigest()
    path.write_bytes(b"\n".join(lines) + b"\n")
    shutil.rmtree(tmp_path / "state")
    again = make_store(tmp_path)
    again.open(everywhere=True)
    index = Index(index_of(tmp_path))
    assert index.totals()[1] == 3
    assert index.unproven_totals()[0] == index.seqs(path.stem)[2] == 3
    index.protect(path.stem, [(1, 3)])
    assert index.protected_bytes() > 1 << 60
    index.close()
    again.close()


ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT"


@pytest.mark.parametrize(
    "script",
    [
        f"DROP TABLE total; CREATE VIEW total AS {ENDLESS} 'cam0' AS recorder, n AS bytes, n AS chunks FROM t",
        f"CREATE TRIGGER more AFTER INSERT ON chunk BEGIN INSERT INTO total {ENDLESS} 'x' || n, n, n FROM t; END",
    ],
)
@pytest.mark.timeout(60)
def test_an_index_that_computes_for_ever_is_built_again(tmp_path: Path, script: str) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 2)
    store.close()
    with contextlib.closing(sqlite3.connect(index_of(tmp_path))) as database:
        database.executescript(script)
    again = make_store(tmp_path)
    again.open(everywhere=True)
    record(again, 1)
    again.close()
    with contextlib.closing(Index(index_of(tmp_path))) as index:
        assert index.totals()[1] == 3


@pytest.mark.timeout(60)
def test_a_spool_that_computes_for_ever_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "mqtt-events.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(f"CREATE VIEW event AS {ENDLESS} n AS seq, 'x' AS topic, x'00' AS payload FROM t")
    spool = SpoolStore(path, "device/1")
    spool.append([("event/recorder/cam0", {"event_type": "started"})])
    spool.close()
    assert path.with_suffix(".damaged").exists()


@special
def test_the_clocks_history_is_written_to_no_other_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    state = tmp_path / "state"
    state.mkdir()
    make(state / "clock.jsonl")
    other = tmp_path / "other"
    other.write_text("kept")
    if (state / "clock.jsonl").is_symlink():
        (state / "clock.jsonl").unlink()
        (state / "clock.jsonl").symlink_to(other)
    walltime = WallTime(state)
    walltime.poll()
    assert read_history(state) == []
    assert other.read_text() == "kept"
