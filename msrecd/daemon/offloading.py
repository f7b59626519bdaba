"""The daemon's off-load: a sender on the store of `[offload]`, and what is published of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msrecd.config.offload_table import Offload
from msrecd.control.publisher import Publisher
from msrecd.offload.awscredentials import read_credentials
from msrecd.offload.metered import MeteredLink
from msrecd.offload.pace import parse_window
from msrecd.offload.rclone import RcloneTarget
from msrecd.offload.rcloneconfig import RcloneSettings
from msrecd.offload.s3 import S3Settings, S3Store
from msrecd.offload.sender import Listener, Sender
from msrecd.offload.target import Target
from msrecd.storage.store import Store


def s3_settings(offload: Offload) -> S3Settings:
    """The store as the configuration names it."""
    return S3Settings(
        endpoint=offload.endpoint,
        bucket=offload.bucket,
        prefix=offload.prefix,
        region=offload.region,
        ca_file=offload.ca_file,
    )


def rclone_settings(offload: Offload) -> RcloneSettings:
    """The store as the configuration names it."""
    return RcloneSettings(
        remote=offload.remote,
        config_file=offload.config_file or Path(),
        prefix=offload.prefix,
        ca_file=offload.ca_file,
        rate=offload.max_rate_bytes,
    )


def target_of(offload: Offload, recordings: Path) -> Target:
    """
    Raises:
        ConfigError: there are no keys.
    """
    if offload.kind == "rclone":
        return RcloneTarget(rclone_settings(offload), recordings)
    credentials = read_credentials(offload.credentials_file or Path())
    return S3Store(s3_settings(offload), credentials, rate=offload.max_rate_bytes)


class Offloading:
    """Lives on the loop; the sender has a thread of its own."""

    def __init__(self, offload: Offload, store: Store, publisher: Publisher) -> None:
        loop = asyncio.get_running_loop()

        def on_loop(call: Callable[[], None]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(call)

        def proven(recorder: str, facts: Mapping[str, Any]) -> None:
            on_loop(lambda: publisher.offloaded(recorder, facts))

        def failed(code: str, message: str) -> None:
            on_loop(lambda: publisher.report_error(code, message, logged=True))

        self._store = store
        self._sender = Sender(
            store.outgoing,
            lambda: target_of(offload, store.path),
            Listener(proven=proven, failed=failed),
            windows=tuple(map(parse_window, offload.windows)),
            is_urgent=lambda: store.lacks_proof,
            is_metered=MeteredLink() if offload.metered == "pause" else lambda: False,
        )
        self._sender.start()

    def poke(self) -> None:
        """A file has been finished."""
        self._sender.poke()

    def health(self) -> dict[str, Any]:
        return self._sender.health() | {"deleted_unproven": self._store.deleted_unproven}

    async def stop(self, timeout_s: float = 5.0) -> None:
        """End it; what is being sent is sent again by the next start."""
        await asyncio.to_thread(self._sender.stop, timeout_s)
