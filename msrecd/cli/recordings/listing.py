"""`msrecd recordings list`: recordings, chunks and gaps."""

from __future__ import annotations

import argparse

from msrecd.cli.errors import Exit, UsageError
from msrecd.cli.output import note, print_json, print_table
from msrecd.cli.recordings.access import catalog_of, configuration, known_recorder, moment, open_recordings
from msrecd.clock import NS
from msrecd.storage.catalog import ChunkEntry, GapEntry, OffloadEntry, RecordingEntry
from msrecd.storage.medium import is_in_use
from msrecd.vocabulary.times import format_utc
from msrecd.vocabulary.units import counted, format_duration, format_size

_MAX_PROBLEMS = 20


def run(args: argparse.Namespace) -> int:
    since_ns, until_ns = moment(args.since, "--since"), moment(args.until, "--until")
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise UsageError("--since is later than --until")
    config = configuration(args.config)
    if args.recorder is not None:
        known_recorder(config, args.recorder)
    with catalog_of(config) as catalog:
        entries = catalog.recordings(recorder=args.recorder, since_ns=since_ns, until_ns=until_ns)
        is_indexed = catalog.is_indexed
        problems = list(catalog.problems)
    for problem in problems[:_MAX_PROBLEMS]:
        note(problem)
    if len(problems) > _MAX_PROBLEMS:
        note(f"{len(problems) - _MAX_PROBLEMS} more manifests with lines that had to be skipped")
    open_ = {recording.recording_id: recording for recording in open_recordings(config.storage.path)}
    is_running = is_in_use(config.storage.path)
    word = "recording" if is_running else "unfinished"
    if is_running and not is_indexed:
        note("the index cannot be read: the list is made from the manifests, and complete")
    if args.json:
        print_json([_to_json(entry, word if entry.recording_id in open_ else "finished") for entry in entries])
        return Exit.OK
    rows = [_row(entry, word if entry.recording_id in open_ else "") for entry in entries]
    if since_ns is None and until_ns is None:
        listed = {entry.recording_id for entry in entries}
        rows += [
            (name, "", "", 0, "", "", word)
            for name, recording in open_.items()
            if name not in listed and args.recorder in (None, recording.recorder)
        ]
    if not rows:
        print("nothing is recorded" + (" in this range" if since_ns is not None or until_ns is not None else ""))
        return Exit.OK
    print_table(("RECORDING", "STARTED", "ENDED", "CHUNKS", "LENGTH", "SIZE", ""), rows, right=(3, 4, 5))
    if args.chunks:
        print()
        chunks = [_chunk_row(chunk) for entry in entries for chunk in entry.chunks]
        print_table(("CHUNK", "STARTED", "LENGTH", "SIZE", ""), chunks, right=(2, 3))
    gaps = [(entry, gap) for entry in entries for gap in entry.gaps]
    if gaps:
        print()
        print_table(("GAP IN", "AT", "LENGTH", "REASON"), [_gap_row(*pair) for pair in gaps], right=(2,))
    return Exit.OK


def _row(entry: RecordingEntry, state: str) -> tuple[object, ...]:
    recovered = sum(chunk.recovered for chunk in entry.chunks)
    missing = sum(not chunk.exists for chunk in entry.chunks)
    notes = [
        state,
        _protected(entry),
        "times corrected" if any(chunk.corrected for chunk in entry.chunks) else _doubt(entry),
        f"{recovered} recovered" if recovered else "",
        f"{missing} missing" if missing else "",
        counted(len(entry.snapshots), "snapshot") if entry.snapshots else "",
    ]
    return (
        entry.recording_id,
        _time(entry.started_ns),
        _time(entry.ended_ns),
        len(entry.chunks),
        _length(sum(chunk.duration_s for chunk in entry.chunks)),
        format_size(entry.bytes),
        ", ".join(filter(None, notes)),
    )


def _protected(entry: RecordingEntry) -> str:
    count = sum(chunk.protected for chunk in entry.chunks)
    if count in (0, len(entry.chunks)):
        return "protected" if count else ""
    return f"{counted(count, 'chunk')} protected"


def _doubt(entry: RecordingEntry) -> str:
    doubtful = any(chunk.clock != "synchronized" and not chunk.corrected for chunk in entry.chunks)
    doubtful = doubtful or any(shot.is_doubtful for shot in entry.snapshots)
    return "clock not trusted" if doubtful else ""


def _chunk_row(chunk: ChunkEntry) -> tuple[object, ...]:
    notes = (
        f"recovered, {chunk.lost_s:g} s lost" if chunk.recovered else "",
        "" if chunk.exists else "missing",
    )
    return (
        chunk.file,
        _time(chunk.started_ns),
        _length(chunk.duration_s),
        format_size(chunk.bytes),
        ", ".join(filter(None, notes)),
    )


def _gap_row(entry: RecordingEntry, gap: GapEntry) -> tuple[object, ...]:
    return entry.recording_id, format_utc(gap.started_ns), f"{gap.duration_s:g} s", gap.reason


def _time(utc_ns: int) -> str:
    return format_utc(utc_ns // NS * NS).replace(".000Z", "Z")


def _length(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else format_duration(round(seconds))


def _offloaded(one: OffloadEntry | None) -> dict[str, str] | None:
    return None if one is None else {"at": one.at, "proof": one.proof, "store": one.store}


def _to_json(entry: RecordingEntry, state: str) -> dict[str, object]:
    protected = sum(chunk.protected for chunk in entry.chunks)
    return {
        "recording_id": entry.recording_id,
        "recorder": entry.recorder,
        "state": state,
        "started": format_utc(entry.started_ns),
        "ended": format_utc(entry.ended_ns),
        "duration_s": round(sum(chunk.duration_s for chunk in entry.chunks), 6),
        "bytes": entry.bytes,
        "protected": entry.protected and protected == len(entry.chunks),
        "protected_chunks": protected,
        "manifest": entry.manifest,
        "chunks": [
            {
                "seq": chunk.seq,
                "file": chunk.file,
                "bytes": chunk.bytes,
                "mime_type": chunk.mime_type,
                "started": format_utc(chunk.started_ns),
                "ended": format_utc(chunk.ended_ns),
                "duration_s": chunk.duration_s,
                "clock": chunk.clock,
                "corrected": chunk.corrected,
                "final": chunk.final,
                "recovered": chunk.recovered,
                "lost_s": chunk.lost_s,
                "missing": not chunk.exists,
                "protected": chunk.protected,
                "offloaded": _offloaded(chunk.offloaded),
            }
            for chunk in entry.chunks
        ],
        "snapshots": [
            {
                "snapshot": shot.number,
                "file": shot.file,
                "bytes": shot.bytes,
                "taken": format_utc(shot.taken_ns),
                "missing": not shot.exists,
                "offloaded": _offloaded(shot.offloaded),
            }
            for shot in entry.snapshots
        ],
        "gaps": [
            {"started": format_utc(gap.started_ns), "duration_s": gap.duration_s, "reason": gap.reason}
            for gap in entry.gaps
        ],
        "triggers": [
            {
                "kind": one.kind,
                "score": one.score,
                "started": format_utc(one.started_ns),
                "ended": format_utc(one.ended_ns),
            }
            for one in entry.triggers
        ],
    }
