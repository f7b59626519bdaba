"""Fuzzing: what is spoiled may end the processes that read it, never the program, and never keep it waiting.

A minute in the ordinary run, spread over the parts; `make fuzz` takes an hour (MSRECD_FUZZ_S). MSRECD_FUZZ_SEED repeats
one. MQTT is fuzzed by tests/system/test_fuzz_broker.py and tests/control/test_control_commands.py; `make fuzz` runs
them longer.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import storage_media

from msrecd.mqtt.spool import SpoolStore
from tests.fuzz.rtp_server import PAYLOADS, RtpFuzzer
from tests.fuzz.seeds import FORMATS, made, spoiled
from tests.storage.test_store import make_store, record

ROOT = Path(__file__).parents[2]
PARTS = 6
SECONDS = float(os.environ.get("MSRECD_FUZZ_S", "60")) / PARTS
IS_LONG = SECONDS > 60
SEED = int(os.environ.get("MSRECD_FUZZ_SEED", str(int(time.time())) if IS_LONG else "1"))  # short ones repeat
MEMORY_MIB = 300
LYING_MIB = 800  # four at once, each of which may encode the largest frames of a board with 512 MiB
ANSWER_S = 120.0
AS_IN_THE_UNIT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
}  # systemd/msrecd.service
TYPES = {
    "passing": ("video/x-matroska", "video/mp4"),
    "decoded": ("video/webm;codecs=vp8,opus", "video/x-matroska;codecs=mjpeg,flac"),
}
UNFINISHED = {"mp4": "video/mp4", "webm": "video/webm", "ogg": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav"}
SOUND_TYPES = {"passing": ("audio/x-matroska", "audio/mp4"), "decoded": ("audio/ogg;codecs=opus", "audio/flac")}


class Player:
    """`player.py` as a child, with its memory watched. Use as a context manager."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.peak_mib = self.peak_child_mib = 0
        self._waiting: dict[int, tuple[float, str]] = {}
        self._condition = threading.Condition()
        self._faults: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.player"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}"} | AS_IN_THE_UNIT,
        )  # fmt: skip

    def __enter__(self) -> Player:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                facts = json.loads(line)
                with self._condition:
                    _, name = self._waiting.pop(facts["n"])
                    self.counts[facts["outcome"]] += 1
                    self.counts["bytes"] += facts["bytes"]
                    self.counts["deaths of processes"] += facts["deaths"]
                    if facts["outcome"] in ("hang", "exception") or facts["internal"]:
                        self._faults.append(f"{name}: {facts}")
                    self._condition.notify_all()
        except ValueError:
            return  # closed

    def give(self, number: int, url: str, mime_type: str, name: str) -> None:
        """Play one; waits while 16 are under way.

        Raises:
            AssertionError: one hangs or had an unforeseen end, or the program is gone or too large.
        """
        with self._condition:
            assert self._condition.wait_for(lambda: len(self._waiting) < 16 or self._is_gone, ANSWER_S), self._words()
            self._check()
            self._waiting[number] = (time.monotonic(), name)
        task = {"n": number, "url": url, "type": mime_type, "seconds": 1.2}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        self._weigh()

    def finish(self) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: not self._waiting or self._is_gone, ANSWER_S), self._words()
            self._check()

    @property
    def _is_gone(self) -> bool:
        return self._process.poll() is not None

    def _words(self) -> str:
        return f"seed {SEED}: no answer to {[name for _, name in self._waiting.values()]}"

    def _check(self) -> None:
        assert not self._is_gone, f"seed {SEED}: the program ended with {self._process.returncode}; {self._words()}"
        assert not self._faults, f"seed {SEED}: {self._faults[0]}"
        late = [name for begun, name in self._waiting.values() if time.monotonic() - begun > ANSWER_S]
        assert not late, f"seed {SEED}: no answer for {ANSWER_S:g} s: {late}"
        assert self.peak_mib < MEMORY_MIB, f"seed {SEED}: {self.peak_mib} MiB"
        # A process that reads or decodes: what it may take, and what it shares with its parent.
        assert self.peak_child_mib < 900, f"seed {SEED}: {self.peak_child_mib} MiB in a process that reads"

    def _weigh(self) -> None:
        self.peak_mib = max(self.peak_mib, _rss_mib(self._process.pid))
        for pid in _descendants(self._process.pid):
            self.peak_child_mib = max(self.peak_child_mib, _rss_mib(pid))


def _rss_mib(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except (OSError, IndexError):
        return 0


def _descendants(pid: int) -> list[int]:
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    except OSError:
        return found
    return found


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A few in the short run, for making all takes half a minute."""
    names = None if IS_LONG else random.Random(SEED).sample(list(FORMATS), 12)
    found = made(tmp_path_factory.mktemp("seeds"), names)
    if not found:
        pytest.skip("there is no ffmpeg here to make seeds with")
    if IS_LONG:
        assert len(found) >= 40, f"only {len(found)} formats: {sorted(set(FORMATS) - set(found))} are missing"
    return found


@pytest.fixture
def player() -> Iterator[Player]:
    with Player() as running:
        yield running


def report(name: str, counts: Counter[str] | dict[str, Any], **more: object) -> None:
    print(f"\nfuzz {name}: {json.dumps(dict(counts) | more)}")


def until_time_is_up(seconds: float = SECONDS) -> Iterator[int]:
    ends, number = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        yield number
        number += 1


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("how", ["passing", "decoded"])
def test_files(tmp_path: Path, seeds: dict[str, bytes], player: Player, how: str) -> None:
    """Demultiplexing and recording of forty formats, passed through or encoded again."""
    names = sorted(seeds)
    used = set()
    for number in until_time_is_up():
        chance = random.Random(f"{SEED}/{how}/{number}")
        name = names[number % len(names)]
        used.add(name)
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(spoiled(seeds[name], chance, seeds[chance.choice(names)]))
        types = SOUND_TYPES if "v" not in FORMATS[name][0] else TYPES
        player.give(number, str(path), chance.choice(types[how]), path.name)
        (tmp_path / f"{number - 64}-{names[(number - 64) % len(names)]}").unlink(missing_ok=True)
    player.finish()
    report(f"files, {how}", player.counts, formats=len(used), peak_mib=player.peak_mib, child_mib=player.peak_child_mib)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_rtsp(player: Player) -> None:
    """RTSP and RTP with more than thirty payload types."""
    with RtpFuzzer() as server:
        for number in until_time_is_up():
            mime_type = TYPES["passing" if number % 3 else "decoded"][0]
            url = f"rtsp://127.0.0.1:{server.port}/{SEED % 1_000_000 * 1_000_000 + number}"
            player.give(number, url, mime_type, url)
        player.finish()
    encodings = {encoding for _, encoding, _, _ in PAYLOADS}
    assert len(encodings) >= 30
    report("rtsp", player.counts, payloads=len(encodings), peak_mib=player.peak_mib, child_mib=player.peak_child_mib)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_the_card(tmp_path: Path) -> None:
    """Unfinished chunks of all containers, manifests, index, spool, state, configuration."""
    pristine = tmp_path / "pristine"
    store = make_store(pristine)
    store.open()
    record(store, 3)
    for kind, mime_type in (
        ("mp4", "video/mp4"),
        ("webm", "video/webm"),
        ("ogg", "audio/ogg"),
        ("flac", "audio/flac"),
        ("wav", "audio/wav"),
    ):
        recording = store.begin(f"rec-{kind}", mime_type)
        chunk = recording.open_chunk(started_ns=store.clock.monotonic_ns())
        chunk.write([storage_media.make(kind)])
    spool = SpoolStore(pristine / "state" / "mqtt-events.sqlite3", "device/1")
    spool.append([("event/recorder/cam0", {"event_type": "chunk", "event_id": str(n)}) for n in range(50)])
    spool.close()
    (pristine / "msrecd.toml").write_bytes((ROOT / "config" / "msrecd.toml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.spoiled_card", str(tmp_path), str(SECONDS), str(SEED)], cwd=ROOT, text=True,
        capture_output=True, timeout=SECONDS + 240, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    store.close()
    assert done.returncode == 0, f"seed {SEED}: {done.stderr[-3000:]}"
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["rounds"] > 3
    assert counts["peak MiB"] < MEMORY_MIB
    report("card", counts)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_the_bytes_that_processes_send() -> None:
    """The frames that reading and decoding processes send, spoiled: refused in one way only."""
    from msrecd.inputs import wire
    from msrecd.libav.values import Demuxed, StreamInfo

    info = StreamInfo(
        index=0,
        kind="video",
        codec="h264",
        extradata=b"x" * 40,
        header=b"nut/multimedia container\0" * 4,
        width=64,
        height=64,
    )
    described = wire.description(wire.Description(streams=(info,), is_live=True, times="rtp"))
    batch = wire.packets([Demuxed(0, b"data" * 9, 1, 2, 3, True), Demuxed(0, b"", None, None, 0, False)])
    frames: list[tuple[bytes, Callable[[bytes], object]]] = [
        (described[wire.HEADER.size :], wire.read_description),
        (b"".join(batch)[wire.HEADER.size :], lambda body: wire.read_packets(body, {0})),
    ]
    counts: Counter[str] = Counter()
    for number in until_time_is_up():
        for body, read in frames:
            for part in range(50):
                chance = random.Random(f"{SEED}/{number}/{part}")
                try:
                    read(spoiled(body, chance))
                    counts["taken"] += 1
                except wire.WireError:
                    counts["refused"] += 1
    report("processes", counts)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.promise("wire-is-checked")
def test_processes_that_lie(tmp_path: Path, seeds: dict[str, bytes]) -> None:
    """Descriptions, packets, frames and sound that a process makes up, recorded by the whole media stack."""
    for name in sorted(seeds)[:: 1 if IS_LONG else 3]:
        (tmp_path / name).write_bytes(seeds[name])
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.lying", str(tmp_path), str(SECONDS), str(SEED)], cwd=ROOT, text=True,
        capture_output=True, timeout=SECONDS + 240, check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}"} | AS_IN_THE_UNIT,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {SEED}: {done.returncode} {done.stderr[-3000:]}"
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["recorded"]
    assert counts["refused"]
    assert not counts["slow"]
    assert counts["peak MiB"] < LYING_MIB, f"seed {SEED}: {counts}"
    report("processes that lie", counts)
