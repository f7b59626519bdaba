"""`msrecd recordings protect` and `unprotect`."""

from __future__ import annotations

import argparse

from msrecd.cli.errors import Exit, UsageError
from msrecd.cli.recordings.access import configuration, store_of
from msrecd.storage.layout import parse_recording_id


def run(args: argparse.Namespace) -> int:
    if parse_recording_id(args.recording_id) is None:
        raise UsageError(f'"{args.recording_id}" is no recording id; `msrecd recordings list` shows them')
    config = configuration(args.config)
    with store_of(config) as store:
        store.open_beside()
        if args.action == "protect":
            store.protect(args.recording_id)
        else:
            store.unprotect(args.recording_id)
    print(f"{args.recording_id}: {'protected' if args.action == 'protect' else 'not protected'}")
    return Exit.OK
