"""Files go to a store: bit-exact, once, proven, whatever breaks; rotation waits where it has to."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from offloading import Bench, MakeStore, close_clients, record, target
from s3server import StandIn

from msrecd.cli.recordings.verify import run as verify_command
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.errors import ConfigError, StorageError
from msrecd.offload.pace import parse_window
from msrecd.offload.proof import verify_store
from msrecd.offload.sender import Listener, Sender
from msrecd.offload.target import Refused, StoreError, Target, Unfit, Unreachable
from msrecd.storage.janitor import Janitor
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts
from msrecd.storage.verify import verify
from msrecd.vocabulary.backoff import BackOff
from msrecd.vocabulary.times import parse_utc

# How many chunks, ends of the program or of the store, and what part of the answers is wrong. The long version:
# MSRECD_OFFLOAD=10000,200,0.05
CHUNKS, KILLS, WRONG = os.environ.get("MSRECD_OFFLOAD", "60,12,0.05").split(",")


@pytest.mark.promise("offload-keys", "proof-of-offload", "store-is-proven-alone")
def test_all_arrives_with_its_proof_and_the_store_alone_proves_it(make_store: MakeStore, endpoint: str) -> None:
    store = make_store()
    ids = [record(store, 3), record(store, 2)]
    shot = store.add_snapshot("cam0", b"\xff\xd8 frame", taken_ns=SYSTEM_CLOCK.monotonic_ns(), recording=None)
    client = target(endpoint)
    bench = Bench(store, client)
    bench.turns()
    assert bench.failed == []
    assert [(facts["seq"], facts["snapshot"], facts["proof"]) for facts in bench.proven] == [
        *((seq, None, "put") for seq in (1, 2, 3, 1, 2)),
        (None, 1, "put"),
    ]
    assert {facts["recording_id"] for facts in bench.proven} == {*ids, shot.recording_id}
    there = {key: client.get(key) for key in list(client.keys())}
    for path in store.path.rglob("*"):
        file = path.relative_to(store.path).as_posix()
        if path.suffix in (".wav", ".jpg"):
            assert there.pop(file) == path.read_bytes()
        elif path.suffix == ".jsonl":
            lines = [there.pop(f"{file}.{number:06d}") for number in range(1, path.read_bytes().count(b"\n") + 1)]
            assert b"".join(line + b"\n" for line in lines) == path.read_bytes()
    assert there == {}
    verdict = verify_store(client)
    assert (verdict.is_proven, verdict.findings, verdict.manifests) == (True, (), 3)
    assert (verdict.chunks, verdict.snapshots) == (5, 1)
    assert store.outgoing.backlog().files == 0


@pytest.mark.promise("downloaded-copy")
def test_a_downloaded_copy_is_proven_like_any_other(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store()
    record(store, 3)
    with StandIn() as server:
        Bench(store, target(server.endpoint)).turns()
        for key, data in server.objects.items():
            path = tmp_path / "copy" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    assert verify(tmp_path / "copy").findings == ()
    assert verify(tmp_path / "copy").is_proven
    piece = sorted((tmp_path / "copy").rglob("*.jsonl.*"))[1]
    piece.unlink()
    assert not verify(tmp_path / "copy").is_proven, "a line is missing"


@pytest.mark.promise("downloaded-copy", "deleted-is-not-missing", "verify-a-copy-of-the-store")
def test_what_the_device_deleted_after_its_proof_is_missing_in_a_copy_of_the_store(
    make_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the device the deletion excuses it, in the store nothing does."""
    store = make_store()
    record(store, 4)
    with StandIn() as server:
        bench = Bench(store, target(server.endpoint))
        bench.turns()
        store.limits = Limits(max_total_bytes=5000)
        deleted = {gone.file for gone in store.rotate()}
        assert len(deleted) == 2
        bench.turns()  # the lines that say so
        objects = dict(server.objects)
    verify_folder = partial(verify_command, argparse.Namespace(folder=tmp_path / "copy", store=False, json=True))
    for key, data in objects.items():
        path = tmp_path / "copy" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert verify_folder() == 0
    assert json.loads(capsys.readouterr().out)["chunks"] == 4
    chunks = sorted((tmp_path / "copy").rglob("*.wav"))
    for chunk in chunks[1:3]:  # one that the device has deleted, and one that it has
        chunk.unlink()
    assert verify_folder() == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["proven"], told["chunks"]) == (False, 2)
    assert [(finding["fault"], Path(finding["file"]).name) for finding in told["findings"]] == [
        ("missing", chunk.name) for chunk in chunks[1:3]
    ]
    store.close()
    assert verify(store.path).findings == ()
    assert verify(store.path).chunks == 2


@pytest.mark.promise("verify-store", "store-is-proven-alone")
def test_the_store_proves_what_is_wrong_in_it(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 3)
    with StandIn() as server:
        client = target(server.endpoint)
        Bench(store, client).turns()
        chunks = sorted(key for key in server.objects if key.endswith(".wav"))
        server.objects[chunks[0]] = b"x" * len(server.objects[chunks[0]])
        del server.objects[chunks[1]]
        faults = {str(finding.fault) for finding in verify_store(client).findings}
    assert faults == {"altered", "missing"}


def test_an_index_that_is_built_again_knows_what_is_proven(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store()
    record(store, 3)
    with StandIn() as server:
        Bench(store, target(server.endpoint)).turns()
        store.close()
        for path in (tmp_path / "state").rglob("index.sqlite*"):
            path.unlink()
        store = make_store()
        assert store.outgoing.backlog().files == 0
        before, server.allows_get = len(server.puts), True
        Bench(store, target(server.endpoint)).turns()
        assert len(server.puts) == before, "nothing is stored twice"


@pytest.mark.promise("proven-only-is-deleted")
def test_rotation_waits_for_the_proof(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 2)
    store.require_proof(True)
    store.limits = Limits(max_total_bytes=1, min_free_bytes=0)
    assert store.rotate() == []
    with pytest.raises(StorageError, match=r"wait for the store of \[offload\]") as refused:
        store.require_room()
    assert refused.value.code == "no_space"
    with StandIn() as server:
        bench = Bench(store, target(server.endpoint))
        bench.sender.turn()
        assert [deleted.seq for deleted in store.rotate()] == [1], "only what is proven"
        bench.turns()
        assert [deleted.seq for deleted in store.rotate()] == [2]
    assert store.deleted_unproven == 0


@pytest.mark.parametrize("is_urgent", [True, False])
def test_a_store_is_tried_every_few_seconds_while_a_recorder_waits_for_proof(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, is_urgent: bool
) -> None:
    monkeypatch.setattr("msrecd.offload.sender.LOOK_S", 0.05)
    store = make_store()
    record(store, 2)
    store.require_proof(True)
    if is_urgent:
        store.limits = Limits(max_total_bytes=1, min_free_bytes=0)
    with contextlib.suppress(StorageError):
        store.require_room()
    assert store.lacks_proof == is_urgent
    tries = threading.Semaphore(0)

    def connect() -> Target:
        tries.release()
        raise ConfigError("the store has no keys")

    listener = Listener(proven=lambda *_: None, failed=lambda *_: None)
    sender = Sender(store.outgoing, connect, listener, back_off=BackOff(300, 300), is_urgent=lambda: store.lacks_proof)
    sender.start()
    try:
        assert tries.acquire(timeout=60)
        if not is_urgent:  # from when it is, also in the middle of a long wait
            assert not tries.acquire(timeout=0.5)
            store.limits = Limits(max_total_bytes=1, min_free_bytes=0)
            with pytest.raises(StorageError):
                store.require_room()
        assert all(tries.acquire(timeout=60) for _ in range(3))
    finally:
        sender.stop(60)


@pytest.mark.effect("state-health: deleted_unproven")
@pytest.mark.promise("deleted-unproven")
def test_without_it_rotation_goes_on_and_counts(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 2)
    store.require_proof(False)
    store.limits = Limits(max_total_bytes=1, min_free_bytes=0)
    assert len(store.rotate()) == 2
    assert store.deleted_unproven == 2


@pytest.mark.promise("rotation-waits-for-sending")
def test_what_is_being_sent_is_not_rotated(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 2)
    store.limits = Limits(max_total_bytes=1, min_free_bytes=0)
    taken: list[list[int]] = []
    with StandIn() as server:

        def rotate(method: str, key: str, number: int) -> None:
            if key.endswith(".wav") and not taken:
                taken.append([deleted.seq for deleted in store.rotate()])

        server.fault = rotate
        bench = Bench(store, target(server.endpoint))
        bench.sender.turn()
    assert taken == [[2]], "the first one is leased"
    assert [facts["seq"] for facts in bench.proven] == [1]


@pytest.mark.promise("store-that-refuses")
def test_nothing_is_overwritten_and_a_person_is_told_once_an_hour(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 2)
    first = store.outgoing.next()
    assert first is not None
    with StandIn() as server:
        server.objects["pi/" + first.file] = b"somebody else's"
        bench = Bench(store, target(server.endpoint))
        bench.turns()
        assert server.objects["pi/" + first.file] == b"somebody else's"
        assert [facts["seq"] for facts in bench.proven] == [2], "the others are sent"
        assert len(bench.failed) == 1
        assert first.file in bench.failed[0]
        bench.turns()
        assert len(bench.failed) == 1
        bench.now_s += 3601
        bench.turns()
        assert len(bench.failed) == 2


@pytest.mark.promise("file-that-is-not-what-was-recorded")
def test_a_file_that_is_not_what_was_recorded_is_not_sent(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 1)
    file = store.outgoing.next()
    assert file is not None
    path = store.path / file.file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with StandIn() as server:
        bench = Bench(store, target(server.endpoint))
        bench.turns()
        assert not any(key.endswith(".wav") for key in server.objects)
    assert bench.proven == []
    assert "not what was recorded" in bench.failed[0]


@pytest.mark.promise("right-to-put-alone")
def test_with_the_right_to_put_alone_a_lost_answer_is_said(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 1)
    with StandIn() as server:
        server.allows_get = False
        server.fault = lambda method, key, number: "lost" if number == 1 else None
        bench = Bench(store, target(server.endpoint))
        bench.turns()
        assert "s3:GetObject" in bench.failed[0]
        assert bench.proven == []
        server.allows_get = True
        bench.now_s += 3601
        bench.turns()
    assert [facts["proof"] for facts in bench.proven] == ["head"]


@pytest.mark.promise("half-an-answer")
def test_half_an_answer_is_none(make_store: MakeStore) -> None:
    """A head that breaks off has no hash, and is not of an object that has none; a body that does is no content."""
    store = make_store()
    record(store, 2)
    heads = itertools.count()
    with StandIn() as server:
        server.fault = lambda method, key, number: (
            "lost" if number == 1 else "torn" if method == "HEAD" and not next(heads) else None
        )
        bench = Bench(store, target(server.endpoint))
        bench.turns()
        assert next(heads) >= 2
        assert (bench.failed, [facts["proof"] for facts in bench.proven]) == ([], ["head", "put"])
        server.fault = lambda method, key, number: "cut"
        with pytest.raises(Unreachable, match="IncompleteRead"):
            target(server.endpoint).get(bench.proven[0]["file"])


@pytest.mark.promise("half-an-answer")
def test_a_store_that_answers_with_another_hash_has_proven_nothing(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 1)
    with StandIn() as server:
        server.fault = lambda method, key, number: "other" if number == 1 else None
        bench = Bench(store, target(server.endpoint))
        bench.sender.turn()
        assert bench.proven == []
        assert "another SHA-256" in bench.sender.health()["error"]
        bench.turns()
    assert [facts["proof"] for facts in bench.proven] == ["head"]


@pytest.mark.promise("bad-line-gets-on")
def test_many_lines_arrive_though_each_third_request_fails(make_store: MakeStore) -> None:
    """Each try goes on where the last one stopped, and waits no longer than the first."""
    store = make_store()
    record(store, 30)
    with StandIn() as server:
        bench = Bench(store, target(server.endpoint))
        bench.turns()
        store.limits = Limits(max_total_bytes=3000)
        assert len(store.rotate()) == 29
        sent, failures = server.requests, 0
        server.fault = lambda method, key, number: "busy" if number % 3 == 0 else None
        while (health := bench.sender.health()["state"]) != "idle" or server.requests == sent:
            bench.sender.turn()
            failures += health == "failing"
            assert failures < 100
            assert bench.sender._back_off.next_s() <= 0.004, "that of the first try"
            bench.sender._back_off.reset()
    assert server.requests - sent < 2 * 30


@pytest.mark.promise("offload-keys")
def test_how_a_recording_ended_is_sent_before_rotation_takes_its_manifest(make_store: MakeStore) -> None:
    """Also while there is always another file to send, so that nothing is ever left for later."""
    store = make_store()
    recording = store.begin("cam0", "audio/wav")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([b"x" * 2000])
    chunk.finish(ChunkFacts(final=True, duration_s=1.0, tracks={}))
    recording.end_line(ended_ns=SYSTEM_CLOCK.monotonic_ns(), lost_s=2.0, gaps=[])
    recording.close()
    record(store, 1)
    with StandIn() as server:
        bench = Bench(store, target(server.endpoint))
        bench.sender.turn()
        assert [facts["recording_id"] for facts in bench.proven] == [recording.recording_id]
        store.limits = Limits(max_total_bytes=2500, min_free_bytes=0)
        assert len(store.rotate()) == 1
        bench.turns()
        lines = [json.loads(data) for key, data in server.objects.items() if f"{recording.recording_id}.jsonl" in key]
    assert any(line.get("lost_s") == 2.0 for line in lines), lines


@pytest.mark.promise("bad-line-gets-on")
def test_a_file_whose_lines_break_off_is_not_sent_again(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 2)
    asked: list[str] = []

    def fault(method: str, key: str, number: int) -> str | None:
        asked.append(key.rpartition(".")[2])
        return "busy" if key.endswith(".000001") and asked.count("000001") < 5 else None

    with StandIn() as server:
        server.fault = fault
        bench = Bench(store, target(server.endpoint))
        bench.turns()
    assert (asked.count("000001"), asked.count("wav")) == (5, 2)
    assert [facts["proof"] for facts in bench.proven] == ["put", "put"]


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("flip", Unreachable, "XAmzContentSHA256Mismatch"),
        ("drop", Unreachable, "127.0.0.1"),
        ("busy", Unreachable, "SlowDown"),
        ("full", Refused, "QuotaExceeded"),
        ("bucket", Refused, "NoSuchBucket"),
        ("short", Unfit, "shorter"),
    ],
)
def test_answers_and_what_they_mean(what: str, error: type[StoreError], words: str) -> None:
    data = b"data" * 1000
    with StandIn() as server:
        server.fault = lambda method, key, number: what if what in ("flip", "drop", "busy") else None
        server.room = 10 if what == "full" else None
        client = target(server.endpoint, bucket="other" if what == "bucket" else "bucket")
        body = io.BytesIO(data[: 100 if what == "short" else len(data)])
        with pytest.raises(error, match=words):
            client.put("k", body, size=len(data), sha256=hashlib.sha256(data).hexdigest(), mime_type="audio/wav")
        client.close()
        assert not server.objects


@pytest.mark.effect("state-health: backlog_bytes", "state-health: error")
def test_a_refusal_names_no_secret_and_health_says_it(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 1)
    with StandIn() as server:
        server.room = 10
        bench = Bench(store, target(server.endpoint))
        bench.sender.turn()
        health = bench.sender.health()
        assert (health["state"], health["backlog_files"], health["backlog_bytes"]) == ("failing", 1, 2000)
        assert "QuotaExceeded" in health["error"]
        assert "secret" not in str(health) + str(bench.failed)
        server.room = None
        bench.turns()
        assert bench.sender.health()["error"] is None


def test_nothing_is_sent_outside_of_the_windows(make_store: MakeStore) -> None:
    store = make_store()
    record(store, 1)
    with StandIn() as server:
        at = [datetime(2026, 6, 1, 12, 0, tzinfo=UTC)]
        bench = Bench(store, target(server.endpoint), windows=[parse_window("22:00-05:00")], local_now=lambda: at[0])
        bench.turns()
        assert (bench.sender.health()["state"], server.requests) == ("closed", 0)
        at[0] = datetime(2026, 6, 1, 22, 0, tzinfo=UTC)
        bench.turns()
        assert len(bench.proven) == 1


@pytest.mark.promise("windows-are-local-time")
def test_a_window_over_midnight_and_a_clock_that_jumps_within_it(make_store: MakeStore) -> None:
    """Before each file the clock is asked; what is not sent when the window closes is sent when it opens again."""
    store = make_store()
    record(store, 6)
    clock = iter(
        [
            *(datetime(2026, 6, 1, 23, 59, 59, tzinfo=UTC), datetime(2026, 6, 2, 0, 0, 0, tzinfo=UTC)),
            datetime(2026, 6, 2, 12, 0, tzinfo=UTC),  # set to noon
            datetime(2026, 6, 2, 4, 59, 59, tzinfo=UTC),  # and back
            datetime(2026, 6, 2, 5, 0, 0, tzinfo=UTC),
            datetime(1970, 1, 1, 21, 59, tzinfo=UTC),  # a clock that was never set
            datetime(1970, 1, 1, 22, 0, tzinfo=UTC),
        ]
    )
    states = []
    with StandIn() as server:
        window = parse_window("22:00-05:00")
        bench = Bench(store, target(server.endpoint), windows=[window], local_now=lambda: next(clock))
        for _ in range(7):
            before = len(bench.proven)
            bench.sender.turn()
            states.append((bench.sender.health()["state"], len(bench.proven) - before))
    open_, closed = ("sending", 1), ("closed", 0)
    assert states == [open_, open_, closed, open_, closed, closed, open_]


@pytest.mark.promise("windows-are-local-time")
@pytest.mark.parametrize(("month", "day", "minutes"), [(3, 29, 0), (3, 30, 60), (10, 25, 120)])
def test_a_window_in_the_hour_that_comes_not_at_all_or_twice(month: int, day: int, minutes: int) -> None:
    window, zone = parse_window("02:00-03:00"), ZoneInfo("Europe/Berlin")
    midnight = datetime(2026, month, day, tzinfo=zone).timestamp()
    moments = (datetime.fromtimestamp(midnight + 60 * minute, zone) for minute in range(6 * 60))
    assert sum(window.holds(moment.time()) for moment in moments) == minutes


@pytest.mark.promise("offload-with-proof")
@pytest.mark.timeout(300 if int(CHUNKS) < 1000 else 3600)
def test_all_arrives_through_kills_and_wrong_answers(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Program and store end at any moment, answers are wrong or lost, rotation wants everything at once."""
    chunks, kills, wrong = int(CHUNKS), int(KILLS), float(WRONG)
    rng = random.Random(7)
    store = make_store()
    for begun in range(0, chunks, 100):
        record(store, min(100, chunks - begun), size=rng.randrange(200, 4000))
    sent = {path.relative_to(store.path).as_posix(): path.read_bytes() for path in store.path.rglob("*.wav")}
    assert len(sent) == chunks
    delete = Janitor._delete
    server = StandIn()

    def deletes_proven(janitor: Janitor, chunk: Any, reason: str) -> bool:
        assert server.objects.get("pi/" + chunk.file) == sent[chunk.file], f"{chunk.file} is not in the store"
        return delete(janitor, chunk, reason)

    monkeypatch.setattr(Janitor, "_delete", deletes_proven)

    def fault(method: str, key: str, number: int) -> str | None:
        return rng.choice(("drop", "lost", "flip", "busy")) if rng.random() < wrong else None

    class Killed(BaseException):
        """The program ends here; nothing of it is run any more."""

    faults = Counter[str]()
    for life in range(kills + 1):
        server.fault = fault
        bench = Bench(store, target(server.endpoint))
        turns = 10**9 if life == kills else rng.randrange(1, 2 * max(1, chunks // max(1, kills)))
        moment = rng.choice(("put", "prove", "note", "between"))
        dies_at = rng.randrange(turns) if life < kills else -1
        for turn in range(turns):
            store.limits = Limits(max_total_bytes=1, min_free_bytes=0)
            if turn == dies_at:
                with monkeypatch.context() as patch:
                    where = {"put": "lines", "prove": "prove", "note": "note_line"}.get(moment)
                    if where is not None:
                        patch.setattr(store.outgoing, where, _raises(Killed()))
                    try:
                        bench.sender.turn()
                    except Killed:
                        faults[moment] += 1
                break
            bench.sender.turn()
            if rng.random() < 0.2:
                store.require_proof(True)
                store.rotate()
            health = bench.sender.health()
            if life == kills and health["state"] == "idle" and not health["backlog_files"]:
                break
        if life < kills:
            close_clients()
            store.close()  # what a kill leaves is what was synced: each line is
            if life % 7 == 3:
                for path in (tmp_path / "state").rglob("index.sqlite*"):
                    path.unlink()
            if life % 3 == 1:  # the store, too, is killed; what it has stored it has
                objects, puts = server.objects, server.puts
                port = server.port
                server.close()
                server = StandIn(port)
                server.objects, server.puts = objects, puts
            store = make_store()
    server.fault = lambda *_: None
    client = target(server.endpoint)
    assert {key.removeprefix("pi/"): data for key, data in server.objects.items() if key.endswith(".wav")} == sent
    assert max(Counter(server.puts).values()) == 1, "nothing is stored twice"
    verdict = verify_store(client)
    assert (verdict.is_proven, verdict.chunks) == (True, chunks), verdict.findings[:5]
    assert sum(faults.values()) > 0
    print(f"{chunks} chunks, {kills} ends, {server.requests} requests since the last end of the store, {dict(faults)}")
    server.close()


def _raises(error: BaseException) -> Any:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


@pytest.mark.effect(
    "state-health: sent_bytes", "state-health: rate_bps", "state-health: hours_to_clear", "state-health: oldest"
)
def test_health_says_how_fast_it_is_and_how_long_the_rest_takes(make_store: MakeStore) -> None:
    store = make_store()
    begun_ns = time.time_ns()
    record(store, 3)
    with StandIn() as server:
        bench = Bench(store, target(server.endpoint))
        looks = itertools.count(step=1000)
        bench.sender._monotonic_s = lambda: float(next(looks))  # as if a thousand seconds passed between two looks
        while bench.sender.health()["sent_files"] < 1:
            bench.sender.turn()
        health = bench.sender.health()
    assert (health["sent_files"], health["sent_bytes"]) == (1, 2000)
    assert health["rate_bps"] == 8 * 2000 / 1000
    assert health["hours_to_clear"] == pytest.approx(health["backlog_bytes"] / 2 / 3600, abs=0.05) != 0
    assert abs(parse_utc(health["oldest"]) - begun_ns) < 60 * NS
