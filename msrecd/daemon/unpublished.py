"""Chunks that are in the storage and of which nobody was told: a kill came between the file and its event."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from msrecd.daemon.archive import recovered_event
from msrecd.errors import StorageError
from msrecd.storage.since import is_of_boot, lines_since
from msrecd.storage.store import Store

log = logging.getLogger(__name__)


def untold_chunks(
    store: Store, told: Mapping[str, Sequence[tuple[str, int]]], recovered: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Mapping[str, Any]]]:
    """(recorder, manifest line) of every chunk behind the last one told, in the order of recording. Blocking.

    Args:
        told: by recorder, recording_id and seq of the last chunk told, one for each form of ids.
        recovered: lines that this start made; those of recorders of which nothing is known to be told.
    """
    found: list[tuple[str, Mapping[str, Any]]] = []
    for recorder, marks in told.items():
        for recording_id, seq in marks:
            try:
                found += [(recorder, line) for line in lines_since(store.root, recorder, recording_id, seq)]
            except (StorageError, OSError) as exc:
                log.warning("%s: what was not told before the last end cannot be read: %s", recorder, exc)
    known = {line["file"] for _, line in found}
    for recorder, line in map(recovered_event, recovered):
        forms = {is_of_boot(recording_id) for recording_id, _ in told.get(recorder, ())}
        if line["file"] not in known and is_of_boot(str(line["file"]).rpartition("/")[2]) not in forms:
            found.append((recorder, line))
    return found
