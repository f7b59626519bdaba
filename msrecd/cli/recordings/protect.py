"""`msrecd recordings protect` and `unprotect`."""

from __future__ import annotations

import argparse
import re

from msrecd.cli.errors import Exit, UsageError
from msrecd.cli.output import note, print_line
from msrecd.cli.recordings.access import configuration, known_recorder, moment, store_of
from msrecd.storage.layout import parse_recording_id
from msrecd.storage.protection import Protection
from msrecd.storage.store import Store
from msrecd.vocabulary.units import format_size

_CHUNKS = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


def run(args: argparse.Namespace) -> int:
    """0: what was named is protected, or is not any more."""
    config = configuration(args.config)
    chunks = _chunks(args.chunks)
    range_ns: tuple[int, int] | None = None
    recording_id: str = args.recording_id or ""
    if args.action == "protect" and args.recorder is not None:
        if args.recording_id is not None or chunks is not None or args.whole:
            raise UsageError("--recorder takes --from and --to, and no RECORDING_ID, --chunks or --whole")
        from_ns, to_ns = moment(args.since, "--from"), moment(args.until, "--to")
        if from_ns is None or to_ns is None or from_ns >= to_ns:
            raise UsageError("--recorder needs --from, and --to, which is later")
        known_recorder(config, args.recorder)
        range_ns = from_ns, to_ns
    elif args.recording_id is None:
        raise UsageError("RECORDING_ID is missing; `msrecd recordings list` shows them")
    elif parse_recording_id(args.recording_id) is None:
        raise UsageError(f'"{args.recording_id}" is no recording id; `msrecd recordings list` shows them')
    elif args.action == "protect" and (args.since is not None or args.until is not None):
        raise UsageError("--from and --to go with --recorder")
    with store_of(config) as store:
        store.open_beside()
        if args.action == "unprotect":
            store.protections.unprotect(recording_id, chunks=chunks)
            print_line(f"{recording_id}: not protected" + (f", chunks {args.chunks}" if chunks else ""))
            return Exit.OK
        if range_ns is not None:
            done = store.protections.protect_range(args.recorder, *range_ns)
        else:
            done = store.protections.protect(recording_id, chunks=chunks, whole=args.whole)
        _report(store, done)
    return Exit.OK


def _chunks(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _CHUNKS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match is not None else (0, 0)
    if not 1 <= first <= last:
        raise UsageError(f'--chunks: "{text}" is no range of chunks; write 3-7 or 3')
    return first, last


def _report(store: Store, done: Protection) -> None:
    for recording_id in done.recording_ids:
        print_line(f"{recording_id}: protected")
    limit = store.limits.max_total_bytes
    if done.is_endless and store.limits.max_protected_bytes is not None:
        most = format_size(store.limits.max_protected_bytes)
        note(
            "the recording is running and what is to come of it is protected too, until max_protected ="
            f" {most} is reached; what comes then goes by the limits"
        )
    elif done.is_endless:
        what = f"max_total = {format_size(limit)} is full of it" if limit is not None else "the disk is full"
        note(
            "the recording is running and all that is to come of it is protected too: nothing of it will be deleted,"
            f" and when {what}, recording stops with no_space"
        )
    elif limit is not None and 2 * store.index.protected_bytes() > limit:
        note(f"more than half of max_total = {format_size(limit)} is protected; the rest is what recordings have left")
