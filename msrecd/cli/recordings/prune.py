"""`msrecd recordings prune`: delete, or only show, what the limits of the configuration do not allow."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from msrecd.cli.errors import Exit
from msrecd.cli.output import note, print_json, print_table
from msrecd.cli.recordings.access import configuration, store_of
from msrecd.storage.store import Store
from msrecd.vocabulary.units import counted, format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    file: str
    bytes: int
    reason: str


def run(args: argparse.Namespace) -> int:
    """0: done, also when there was nothing to do. 1: something that should go could not be deleted."""
    config = configuration(args.config)
    logging.basicConfig(level=logging.WARNING, format="msrecd: %(message)s")
    with store_of(config) as store:
        store.open_beside()
        items = _planned(store) if args.dry_run else _rotated(store)
        left = [] if args.dry_run else _planned(store)
        notes = [*_kept(store), *([] if args.dry_run else _missing_room(store))]
    if args.json:
        print_json([{"file": item.file, "bytes": item.bytes, "reason": item.reason} for item in items])
    elif not items:
        print("nothing to delete" if notes else "nothing to delete: the limits hold")
    else:
        print_table(("FILE", "SIZE", "REASON"), [(i.file, format_size(i.bytes), i.reason) for i in items], right=(1,))
        total = format_size(sum(item.bytes for item in items))
        print(f"{counted(len(items), 'file')}, {total} {'would be deleted' if args.dry_run else 'deleted'}")
    for text in notes:
        note(text)
    return Exit.FAILED if left else Exit.OK


def _planned(store: Store) -> list[_Item]:
    return [_Item(file=p.chunk.file, bytes=p.chunk.bytes, reason=str(p.reason)) for p in store.plan()]


def _kept(store: Store) -> Iterator[str]:
    """Why what the limits would take, too, is left."""
    chunks = [planned.chunk for planned in store.kept()]
    protected = [chunk for chunk in chunks if chunk.protected]
    unproven = [chunk for chunk in chunks if not chunk.protected]
    for kept, reason in (
        (protected, "left, being protected (`msrecd recordings unprotect` changes that)"),
        (unproven, 'left to wait for the store of [offload], as offload.delete = "proven"'),
    ):
        if kept:
            size = format_size(sum(chunk.bytes for chunk in kept))
            yield f"{counted(len(kept), 'more chunk')}, {size}, beyond the limits, {reason}"


def _missing_room(store: Store) -> Iterator[str]:
    """What of the limits does not hold all the same, and what to do."""
    problem = store.missing_room()
    if problem is not None:
        yield problem


def _rotated(store: Store) -> list[_Item]:
    return [_Item(file=d.file, bytes=d.bytes, reason=d.reason) for d in store.rotate()]
