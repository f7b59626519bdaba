"""`msrecd recordings recover`: finish, or only show, what a crash left unfinished."""

from __future__ import annotations

import argparse
import logging

from msrecd.cli.errors import Exit
from msrecd.cli.output import print_json
from msrecd.cli.recordings.access import configuration, store_of
from msrecd.errors import StorageError
from msrecd.storage.recovery import Unfinished
from msrecd.storage.store import Store
from msrecd.vocabulary.units import format_size


def run(args: argparse.Namespace) -> int:
    """0: done. 1: a daemon records here, or something could not be recovered."""
    config = configuration(args.config)
    logging.basicConfig(level=logging.ERROR, format="msrecd: %(message)s")
    with store_of(config) as store:
        try:
            if args.dry_run:
                return _print_plan(store.unfinished(), as_json=args.json)
            return _recover(store, as_json=args.json)
        except StorageError as exc:
            if exc.code != "locked":
                raise
            raise StorageError(
                f"a daemon uses {store.path}; it recovers by itself when it starts, so there is nothing to do",
                "locked",
            ) from exc


def _recover(store: Store, *, as_json: bool) -> int:
    lines = store.open(everywhere=True)
    lost = store.lost
    store.close()
    failed = store.unfinished()
    if as_json:
        print_json({"recovered": [dict(line) for line in lines], "lost": [entry.file for entry in lost]})
    else:
        for line in lines:
            print(f"{line['file']}: recovered, {line['duration_s']:.1f} s; about {line['lost_s']:g} s are lost")
        for entry in lost:
            print(f"{entry.file}.part: held not one whole fragment and is deleted")
        if not lines and not lost:
            print("nothing to recover")
    for unfinished in failed:
        logging.error("%s.part cannot be recovered", unfinished.file)
    return Exit.FAILED if failed else Exit.OK


def _print_plan(found: list[Unfinished], *, as_json: bool) -> int:
    if as_json:
        print_json(
            [
                {"file": u.file, "bytes": u.bytes, "kept_bytes": u.kept_bytes, "duration_s": round(u.duration_s, 3)}
                for u in found
            ]
        )
        return Exit.OK
    for u in found:
        if u.kept_bytes:
            cut = f", cut by {format_size(u.bytes - u.kept_bytes)}" if u.bytes > u.kept_bytes else ""
            print(f"{u.file}: would be recovered, {u.duration_s:.1f} s{cut}")
        else:
            print(f"{u.file}.part: holds not one whole fragment and would be deleted")
    if not found:
        print("nothing to recover")
    return Exit.OK
