"""What follows the garbage collector: never inside it, where its thread may hold any lock."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import pytest
from leaks import until

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualMicrophone
from msrecd.flow.forgotten import WhenForgotten

DEADLINE_S = 20.0
# The collector finds what other tests of this process have left open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Owner:
    def __init__(self) -> None:
        self.itself = self  # a cycle: only the collector takes it


class CollectingLock:
    """A lock under which the collector runs each time, as any line of Python may let it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        assert self._lock.acquire(timeout=DEADLINE_S), "the thread that holds this lock waits for it"
        gc.collect()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_collector_that_runs_under_a_lock_waits_for_no_lock() -> None:
    lock, done = CollectingLock(), threading.Event()

    def action() -> None:
        with lock:
            done.set()

    WhenForgotten(Owner(), action)
    with lock:
        assert not done.is_set()
    assert done.wait(DEADLINE_S)


def test_a_graph_that_is_collected_while_another_one_begins_at_the_same_source() -> None:
    """The collector may run where the second graph's source node holds the lock of the sound's feed."""

    async def run() -> None:
        stream = await msrecd.MediaDevices(backends=[VirtualBackend([VirtualMicrophone("M")])]).get_user_media(
            {"audio": True}
        )
        [track] = stream.get_tracks()
        feed: Any = track._source.raw()
        for _ in range(5):
            context = msrecd.AudioContext()
            end = context.create_media_stream_destination()
            context.create_media_stream_source(stream).connect(end)
        del context, end
        feed._demand_lock = CollectingLock()
        context = msrecd.AudioContext()
        node = context.create_media_stream_source(stream)

        def only_the_last_one_listens() -> bool:
            gc.collect()  # the thread of a context holds it while it renders
            return len(feed._sinks) == 1

        await until(only_the_last_one_listens)
        assert node.media_stream is stream
        await context.close()
        track.stop()

    asyncio.run(run())


def test_an_action_comes_on_the_loop_if_that_is_open_and_else_all_the_same() -> None:
    where: list[threading.Thread] = []
    done = threading.Event()

    def action() -> None:
        where.append(threading.current_thread())
        done.set()

    async def run() -> None:
        WhenForgotten(Owner(), action, loop=asyncio.get_running_loop())
        gc.collect()
        await until(done.is_set)
        closed_with.append(WhenForgotten(owners[0], action, loop=asyncio.get_running_loop()))

    owners, closed_with = [Owner()], list[WhenForgotten[Owner]]()
    asyncio.run(run())
    assert where == [threading.main_thread()]
    done.clear()
    owners.clear()
    gc.collect()
    assert done.wait(DEADLINE_S)
    assert where[1] is not threading.main_thread()
    assert not closed_with[0].pending


def test_an_action_happens_once() -> None:
    calls: list[str] = []
    owner = Owner()
    first, second = (WhenForgotten(owner, partial(calls.append, name)) for name in ("first", "second"))
    assert first.owner() is owner
    first.now()
    first.now()
    assert second.cancel()
    assert not second.cancel()
    assert first.owner() is None
    assert not second.pending
    assert calls == ["first"]


def test_a_failing_action_ends_nothing(caplog: Any) -> None:
    done = threading.Event()
    WhenForgotten(Owner(), lambda: 1 / 0)
    gc.collect()
    WhenForgotten(Owner(), done.set)
    gc.collect()
    assert done.wait(DEADLINE_S)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    program = f"""
import gc, os, threading
from msrecd.flow.forgotten import WhenForgotten
WhenForgotten(threading.Event(), lambda: None)
child = os.fork()
if child == 0:
    done = threading.Event()
    WhenForgotten(threading.Event(), done.set)
    gc.collect()
    os._exit(0 if done.wait({DEADLINE_S}) else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=3 * DEADLINE_S, check=False).returncode == 0
