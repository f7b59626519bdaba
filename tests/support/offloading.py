"""Made-up chunks to send, and clients to send them with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from s3server import BUCKET, KEYS

from msrecd.clock import SYSTEM_CLOCK
from msrecd.offload.s3 import S3Settings, S3Store
from msrecd.offload.sender import Listener, Sender
from msrecd.offload.target import Target
from msrecd.storage.store import ChunkFacts, Store
from msrecd.vocabulary.backoff import BackOff

MakeStore = Callable[..., Store]
_clients: list[S3Store] = []


def record(store: Store, chunks: int, *, size: int = 2000, recorder: str = "cam0") -> str:
    """A recording of so many chunks that differ; its id."""
    recording = store.begin(recorder, "audio/wav")
    for number in range(chunks):
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([os.urandom(size)])
        chunk.finish(ChunkFacts(final=number == chunks - 1, duration_s=1.0, tracks={}))
    return recording.recording_id


def target(endpoint: str, *, prefix: str = "pi/", bucket: str = BUCKET, rate: int | None = None) -> S3Store:
    """A client of a store."""
    settings = S3Settings(endpoint=endpoint, bucket=bucket, prefix=prefix, region="us-east-1")
    client = S3Store(settings, KEYS, rate=rate)
    _clients.append(client)
    return client


def close_clients() -> None:
    """As at the end of a program."""
    while _clients:
        _clients.pop().close()


class Bench:
    """A sender whose turns the test takes."""

    def __init__(self, store: Store, client: Target, **more: Any) -> None:
        self.proven: list[Mapping[str, Any]] = []
        self.failed: list[str] = []
        self.now_s = 1000.0
        self.codes: list[str] = []

        def failed(code: str, message: str) -> None:
            self.codes.append(code)
            self.failed.append(message)

        listener = Listener(proven=lambda _, facts: self.proven.append(facts), failed=failed)
        self.sender = Sender(
            store.outgoing,
            lambda: client,
            listener,
            monotonic_s=lambda: self.now_s,
            back_off=BackOff(0.001, 0.002),
            **more,
        )

    def turns(self, most: int = 100_000) -> None:
        """Until there is nothing left to do, without waiting."""
        for _ in range(most):
            if self.sender.turn() and self.sender.health()["state"] in ("idle", "closed"):
                return
        raise AssertionError(self.sender.health())
