"""Made-up chunks to send, and clients to send them with."""

from __future__ import annotations

import os
from collections.abc import Callable

from s3server import BUCKET, KEYS

from msrecd.clock import SYSTEM_CLOCK
from msrecd.offload.s3 import S3Settings, S3Store
from msrecd.storage.store import ChunkFacts, Store

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
