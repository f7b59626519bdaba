"""AlsaSource on a PCM that behaves in ways which a simulated card of alsa-lib cannot be made to show."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import msrecd
from msrecd.clock import MS, NS
from msrecd.devices.alsa import source as alsa_source
from msrecd.devices.alsa.source import AlsaSource, PcmGone
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.units import AudioBlock, AudioFormat

RATE = 48000
Step = Callable[["Script"], tuple[int, bytes]]


class Script:
    """A PCM that does one step per read and then has nothing more; its clock goes on by what a step says."""

    format = AudioFormat(sample_rate=RATE, channels=1)
    period_samples = 1024
    buffer_samples = 32768

    def __init__(self, steps: list[Step]) -> None:
        self.now_ns = 1000 * NS
        self.steps = steps
        self.xrun = False
        self.avail = 0
        self.closed = threading.Event()
        self.hurry_ns = 0

    def is_overrun(self) -> bool:
        return self.xrun

    def read(self) -> tuple[int, bytes]:
        return self.steps.pop(0)(self) if self.steps else (0, b"")

    def timestamp(self) -> tuple[int, int]:
        return self.now_ns, self.avail

    def close(self) -> None:
        self.closed.set()

    # as the clock

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        if not self.steps:
            self.now_ns += self.hurry_ns
            return stop.wait(0.001)
        self.now_ns = max(self.now_ns, deadline_ns)
        return stop.is_set()


def samples(count: int, *, after_s: float = 0.0, xrun: bool = False) -> Step:
    def step(pcm: Script) -> tuple[int, bytes]:
        pcm.now_ns += round((after_s + count / RATE) * NS)
        pcm.xrun = xrun
        return count, bytes(2 * count)

    return step


def nothing(pcm: Script) -> tuple[int, bytes]:
    return 0, b""


def overrun_of_011(pcm: Script) -> tuple[int, bytes]:
    return -32, b""


def overrun_of_010(pcm: Script) -> tuple[int, bytes]:
    """The card is started again without a word; only the state before the read told."""
    pcm.xrun = False
    return 0, b""


def fails(exc: Exception) -> Step:
    def step(pcm: Script) -> tuple[int, bytes]:
        raise exc

    return step


class Watcher:
    def __init__(self, steps: list[Step], *, hurry_ns: int = 0) -> None:
        self.pcm = Script([self._go, *steps])
        self.pcm.hurry_ns = hurry_ns
        self._may_go = threading.Event()
        self.blocks: list[AudioBlock] = []
        self.feed_ended: list[BaseException | None] = []
        self.ended: list[BaseException | None] = []
        self.muted: list[bool] = []
        self.done = threading.Event()
        self.source = AlsaSource(self.pcm, label="mic", clock=self.pcm)
        self.source.on_ended = self._on_ended
        self.source.on_muted = self.muted.append
        self.source.raw().add(self)
        self._may_go.set()

    def _go(self, pcm: Script) -> tuple[int, bytes]:
        assert self._may_go.wait(10)
        return 0, b""

    def put(self, unit: AudioBlock) -> None:
        self.blocks.append(unit)

    def end(self, error: BaseException | None) -> None:
        self.feed_ended.append(error)

    def _on_ended(self, error: BaseException | None) -> None:
        assert self.pcm.closed.is_set()  # it may be opened again at once
        self.ended.append(error)
        self.done.set()

    def run_dry(self) -> None:
        deadline = time.monotonic() + 10
        while self.pcm.steps and time.monotonic() < deadline:
            time.sleep(0.001)
        assert not self.pcm.steps

    def close(self) -> None:
        self.source.close()
        assert self.pcm.closed.wait(5)


def test_small_reads_become_blocks() -> None:
    watch = Watcher([samples(1), samples(500), nothing, samples(470), samples(1024)])
    watch.run_dry()
    watch.close()
    assert [block.samples for block in watch.blocks] == [971, 1024]
    assert all(len(block.data) == 2 * block.samples for block in watch.blocks)
    assert watch.feed_ended == [None]
    assert watch.ended == []


def assert_length_is_exact(blocks: list[AudioBlock]) -> None:
    first, second = blocks
    silent_ns = second.pts_ns - first.pts_ns - first.samples * NS // RATE
    assert silent_ns > NS
    assert abs(second.lost_before - silent_ns * RATE / NS) < 2


def overrun_is_counted_once(steps: list[Step]) -> None:
    watch = Watcher([samples(1024), *steps])
    watch.run_dry()
    watch.close()
    assert watch.source.stats.xruns == 1
    assert [block.lost_before > 0 for block in watch.blocks] == [False, True]
    assert watch.source.stats.lost_samples == watch.blocks[1].lost_before
    assert_length_is_exact(watch.blocks)


def test_overrun_as_011_tells_it() -> None:
    overrun_is_counted_once([overrun_of_011, nothing, samples(1024, after_s=1)])


def test_overrun_as_010_hides_it() -> None:
    first = samples(1024, xrun=True)  # the state shows it before the next read
    watch = Watcher([first, overrun_of_010, nothing, samples(1024, after_s=1)])
    watch.run_dry()
    watch.close()
    assert watch.source.stats.xruns == 1
    assert_length_is_exact(watch.blocks)


def test_overrun_between_the_look_and_the_read_is_counted_once() -> None:
    def both(pcm: Script) -> tuple[int, bytes]:
        pcm.xrun = True
        return -32, b""

    overrun_is_counted_once([both, overrun_of_010, samples(1024, after_s=1)])


def test_what_was_read_before_the_overrun_is_delivered_before_it() -> None:
    watch = Watcher([samples(1024), samples(300), overrun_of_011, samples(1024, after_s=1)])
    watch.run_dry()
    watch.close()
    assert [block.samples for block in watch.blocks] == [1024, 300, 1024]
    assert [block.lost_before > 0 for block in watch.blocks] == [False, False, True]


def test_unplugged() -> None:
    watch = Watcher([samples(1024), fails(PcmGone("No such device"))])
    assert watch.done.wait(5)
    watch.close()
    assert watch.ended == [None]
    assert watch.feed_ended == [None]
    assert not watch.source.is_running


def test_a_failure_is_handed_on_once() -> None:
    watch = Watcher([samples(1024), fails(NotReadableError("reading hw:1 failed: Input/output error"))])
    assert watch.done.wait(5)
    watch.close()
    assert len(watch.ended) == 1
    assert isinstance(watch.ended[0], NotReadableError)
    assert watch.feed_ended == watch.ended


def test_a_surprise_ends_the_source_too() -> None:
    watch = Watcher([fails(ZeroDivisionError("surprise"))])
    assert watch.done.wait(5)
    watch.close()
    assert isinstance(watch.ended[0], ZeroDivisionError)


@pytest.mark.promise("microphone-ladder")
def test_silence_for_ten_seconds_is_a_failure() -> None:
    watch = Watcher([samples(1024)], hurry_ns=100 * MS)
    assert watch.done.wait(10)
    watch.close()
    assert watch.muted == [True]
    assert isinstance(watch.ended[0], NotReadableError)
    assert "mic gave no samples for 10 s" in str(watch.ended[0])


def test_a_stop_of_the_whole_process_is_no_failure_of_the_microphone() -> None:
    def stopped(pcm: Script) -> tuple[int, bytes]:
        pcm.now_ns += 60 * NS
        return -32, b""

    watch = Watcher([samples(1024), stopped, nothing, samples(1024)])
    watch.run_dry()
    watch.close()
    assert watch.muted == []
    assert watch.ended == []
    assert_length_is_exact(watch.blocks)


def test_close_gives_up_on_a_driver_that_does_not_return() -> None:
    release = threading.Event()

    def stuck(pcm: Script) -> tuple[int, bytes]:
        release.wait(20)
        return 0, b""

    watch = Watcher([stuck])
    deadline = time.monotonic() + 5
    while watch.pcm.steps and time.monotonic() < deadline:
        time.sleep(0.001)
    began = time.monotonic()
    watch.source.close()
    took = time.monotonic() - began
    release.set()
    assert watch.pcm.closed.wait(5)
    assert alsa_source.CLOSE_TIMEOUT_S <= took < alsa_source.CLOSE_TIMEOUT_S + 1
    assert watch.ended == []


@pytest.mark.promise("digital-silence")
@pytest.mark.promise("silence-is-recorded")
def test_digital_silence_for_a_minute_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    def loud(pcm: Script) -> tuple[int, bytes]:
        return samples(1024)(pcm)[0], b"\1\0" * 1024

    minute = [samples(1024)] * (62 * RATE // 1024)
    pcm = Script([*minute, *minute, loud, *minute])
    source = AlsaSource(pcm, label="mic", clock=pcm)
    told: list[bool] = []
    news = threading.Event()

    def on_silence(is_silent: bool) -> None:
        told.append(is_silent)
        if len(told) == 3:
            news.set()

    source.on_silence = on_silence
    try:
        assert news.wait(30)
    finally:
        source.close()
    assert told == [True, False, True]
    assert caplog.text.count("gives digital silence for 60 s: look at its mixer and its wires") == 2


@pytest.mark.promise("quiet-is-not-silent")
def test_a_quiet_room_is_no_digital_silence(caplog: pytest.LogCaptureFixture) -> None:
    def quiet(pcm: Script) -> tuple[int, bytes]:
        return samples(1024)(pcm)[0], bytes(1000) + b"\1\0" + bytes(1046)

    pcm = Script([quiet] * (65 * RATE // 1024))
    source = AlsaSource(pcm, label="mic", clock=pcm)
    deadline = time.monotonic() + 30
    while pcm.steps and time.monotonic() < deadline:
        time.sleep(0.01)
    source.close()
    assert not pcm.steps
    assert "silence" not in caplog.text


@pytest.mark.promise("no-mixer-is-changed")
def test_no_mixer_is_opened() -> None:
    """What changes a gain without being asked spoils a measurement."""
    for path in Path(msrecd.__file__).parent.rglob("*.py"):
        assert not re.search(r"Mixer\(|[\"']a(mixer|lsactl)[\"']", path.read_text()), path
