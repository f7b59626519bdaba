"""Proving what lies in a store, from the store alone: its listing, its own hashes, the manifest lines in it.

No media is downloaded where the store says the SHA-256 that it has checked itself, as S3 does; rclone reads back what
has none.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from msrecd.errors import StorageError
from msrecd.offload.target import Readable, StoreError
from msrecd.storage import layout
from msrecd.storage.verify import Verdict, Verification


def verify_store(store: Readable, *, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Compare all that lies below the prefix with the manifest lines there.

    Raises:
        StorageError: the store cannot be read.
    """
    try:
        return _OfStore(store, progress).run()
    except StoreError as exc:
        raise StorageError(exc.message, "store") from exc


class _OfStore(Verification):
    def __init__(self, store: Readable, progress: Callable[[int, int], None] | None) -> None:
        super().__init__(-1, progress)
        self._store = store

    def walk(self, relative: str) -> list[str]:
        """Everything of ours in the listing: chunks, snapshots, single lines of manifests."""
        return sorted(key for key in self._store.keys() if layout.is_ours(key.rpartition("/")[2]))  # noqa: SIM118

    def line_in(self, file: str) -> bytes:
        return self._store.get(file)

    def measured(self, place: str, sizes: AbstractSet[int]) -> tuple[int, str]:
        found = self._store.head(place)
        if found is None:
            raise FileNotFoundError(place)
        if not found[1]:
            raise OSError("the store has no SHA-256 of it")
        return found
