"""Spoiled MP4, Matroska, MPEG-TS and RTSP against `msrecd record`, a command of its own for each of them.

Half a minute in the ordinary run; MSRECD_FUZZ_COMMAND_S=1800 for the acceptance figure, MSRECD_FUZZ_SEED repeats one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.rtp_server import RtpFuzzer
from tests.fuzz.seeds import made, spoiled
from tests.inputs.cameras import RtspCamera, Server, clip

SECONDS = float(os.environ.get("MSRECD_FUZZ_COMMAND_S", "30"))
SEED = int(os.environ.get("MSRECD_FUZZ_SEED", str(int(time.time())) if SECONDS > 60 else "1"))  # short ones repeat
FILES = (
    "h264-aac.mp4", "fragmented.mp4", "hevc.mp4", "mpeg4.mp4", "h264-opus.mkv", "b-frames.mkv", "flac.mka",
    "h264-aac.ts", "hevc-ac3.ts", "latm.ts",
)  # fmt: skip
AT_ONCE = 4
HANGS_S = 90.0  # far beyond the time-out of an input, and what a busy machine adds
MEMORY_MIB = 300


class SpoilingCamera(Server):
    """An ordinary RTSP camera with sound, behind a connection that changes some bytes of what it sends."""

    def __init__(self, camera: RtspCamera) -> None:
        super().__init__()
        self._camera = camera

    def serve(self, connection: socket.socket) -> None:
        chance = random.Random(f"{SEED}/{self.connections}")
        with socket.create_connection(("127.0.0.1", self._camera.port)) as inner:
            threading.Thread(target=self._requests, args=(connection, inner), daemon=True).start()
            while data := inner.recv(65536):
                is_media = data[:1] == b"$"
                if chance.random() < (0.2 if is_media else 0.1):
                    data = spoiled(data, chance)
                connection.sendall(data)

    @staticmethod
    def _requests(connection: socket.socket, inner: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                inner.sendall(data)
        with contextlib.suppress(OSError):
            inner.shutdown(socket.SHUT_RDWR)


class Commands:
    """Runs them, and remembers how they ended."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.peak_mib = self.peak_reader_mib = 0
        self.longest_s = 0.0

    def run(self, what: str, url: str, out: Path) -> None:
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "msrecd", "record", "--source", url, "--duration", "1s", str(out)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        words: list[str] = []
        listening = threading.Thread(target=lambda: words.append(process.stderr.read()))  # type: ignore[union-attr]
        listening.start()
        while process.poll() is None and time.monotonic() - begun < HANGS_S:
            self.peak_mib = max(self.peak_mib, _rss_mib(process.pid))
            self.peak_reader_mib = max([self.peak_reader_mib, *map(_rss_mib, _descendants(process.pid))])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        hangs = process.poll() is None
        if hangs:
            process.kill()
        code = process.wait()
        listening.join(10)
        assert process.stderr is not None
        process.stderr.close()
        said = "".join(words)
        self.longest_s = max(self.longest_s, time.monotonic() - begun)
        kind = what.rsplit(".", 1)[-1]
        self.counts[f"{kind}: {'recorded' if code == 0 else 'refused'}"] += 1
        self.counts["deaths of reading processes"] += said.count("no other input is concerned")
        if hangs or code not in (0, 1, 2) or "Traceback" in said or "internal error" in said:
            self.faults.append(f"seed {SEED}: {what}: {'hangs' if hangs else code}: {said[-1500:]}")
        out.unlink(missing_ok=True)
        out.with_name(out.name + ".part").unlink(missing_ok=True)


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


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_the_command_survives(tmp_path: Path) -> None:
    seeds = made(tmp_path, FILES)
    if len(seeds) < len(FILES) - 2:
        pytest.skip("this ffmpeg cannot make the seeds (apt install ffmpeg)")
    commands = Commands()
    ends = time.monotonic() + SECONDS
    numbers = iter(range(1 << 30))
    lock = threading.Lock()

    def work() -> None:
        while time.monotonic() < ends and not commands.faults:
            with lock:
                number = next(numbers)
            chance = random.Random(f"{SEED}/{number}")
            out = tmp_path / f"{number}.{chance.choice(('mp4', 'mkv', 'webm'))}"
            if number % 4 == 3:
                rtsp = fuzzer.port if number % 8 == 3 else spoiling.port
                commands.run(f"{number}.rtsp", f"rtsp://127.0.0.1:{rtsp}/{SEED % 1_000_000 * 1_000_000 + number}", out)
                continue
            name = chance.choice(FILES)
            if name not in seeds:
                continue
            path = tmp_path / f"in{number}-{name}"
            path.write_bytes(spoiled(seeds[name], chance, seeds[chance.choice(list(seeds))]))
            commands.run(path.name, str(path), out.with_suffix(".mka") if name == "flac.mka" else out)
            if not commands.faults:
                path.unlink()

    with (
        RtpFuzzer() as fuzzer,
        RtspCamera(clip()) as camera,
        SpoilingCamera(camera) as spoiling,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        for done in [threads.submit(work) for _ in range(AT_ONCE)]:
            done.result()
    facts: dict[str, Any] = {
        "peak MiB": commands.peak_mib, "of a reading process": commands.peak_reader_mib,
        "longest s": round(commands.longest_s, 1), "seed": SEED,
    }  # fmt: skip
    print(f"\nmsrecd record: {json.dumps(dict(sorted(commands.counts.items())) | facts)}")
    assert not commands.faults, commands.faults[0]
    assert commands.peak_mib < MEMORY_MIB
    assert sum(commands.counts.values()) > 5
