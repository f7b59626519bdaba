"""Chunks that are in the storage and whose events were not published: a kill came between the file and its event."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from msrecd.daemon.archive import recovered_event
from msrecd.errors import StorageError
from msrecd.storage.since import is_of_boot, lines_since
from msrecd.storage.store import Store

log = logging.getLogger(__name__)


def unpublished_chunks(
    store: Store, published: Mapping[str, Sequence[tuple[str, int]]], recovered: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Mapping[str, Any]]]:
    """(recorder, manifest line) of every chunk behind the last one published, in the order of recording. Blocking.

    Args:
        published: by recorder, recording_id and seq of the last chunk published, one for each form of ids.
        recovered: lines that this start made; those of recorders of which nothing is known to be published.
    """
    found: list[tuple[str, Mapping[str, Any]]] = []
    for recorder, marks in published.items():
        for recording_id, seq in marks:
            try:
                found += [(recorder, line) for line in lines_since(store.root, recorder, recording_id, seq)]
            except (StorageError, OSError) as exc:
                log.warning("%s: the chunks not yet published cannot be read; their events are lost: %s", recorder, exc)
    known = {line["file"] for _, line in found}
    for recorder, line in map(recovered_event, recovered):
        forms = {is_of_boot(recording_id) for recording_id, _ in published.get(recorder, ())}
        if line["file"] not in known and is_of_boot(str(line["file"]).rpartition("/")[2]) not in forms:
            found.append((recorder, line))
    return found
