"""`msrecd recordings export`: the chunks of a time range as one file."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from msrecd.cli.errors import Exit, UsageError
from msrecd.cli.output import Progress
from msrecd.cli.recordings.access import catalog_of, configuration, known_recorder, moment, open_recordings
from msrecd.clock import NS
from msrecd.errors import MsrecdError, StorageError
from msrecd.storage.catalog import ChunkEntry, GapEntry
from msrecd.storage.files import closing_fd, open_root, rename_new
from msrecd.storage.finishing import complete
from msrecd.storage.layout import parse_chunk_name
from msrecd.storage.medium import is_in_use
from msrecd.vocabulary.times import format_utc
from msrecd.vocabulary.units import counted, format_size

_BEHIND = "behind the file's end"
_JOINT_NS = NS // 2  # an open chunk begins where the one before it ends, but for rounding


def run(args: argparse.Namespace) -> int:
    """0: OUT is whole and on the disk. 1: there is no OUT, or the one from before."""
    from_ns, to_ns = moment(args.since, "--from"), moment(args.until, "--to")
    if from_ns is None or to_ns is None or from_ns >= to_ns:
        raise UsageError("--from must be earlier than --to")
    config = configuration(args.config)
    known_recorder(config, args.recorder)
    out: Path = args.out.absolute()
    _check_target(out, config.storage.path, force=args.force)
    # Before what is finished is looked up: what is finished meanwhile is found in one of the two.
    open_ = [
        entry.started_ns
        for recording in open_recordings(config.storage.path)
        if recording.recorder == args.recorder
        for entry in recording.chunks
    ]
    with catalog_of(config) as catalog:
        chunks, gaps = catalog.export_plan(args.recorder, from_ns, to_ns)
    if not chunks:
        raise MsrecdError(f"{args.recorder} recorded nothing that is finished and still there in this range")
    _write(out, config.storage.path, chunks, from_ns, to_ns, force=args.force)
    what = "still being written" if is_in_use(config.storage.path) else "to be recovered: msrecd recordings recover"
    for gap in gaps:
        for line in _missing(gap, chunks, open_, what):
            print(line)
    return Exit.OK


def _check_target(out: Path, storage: Path, *, force: bool) -> None:
    from msrecd.muxing.join import JoinError, container_for

    try:
        container_for(out)
    except JoinError as exc:
        raise UsageError(str(exc)) from exc
    if os.path.lexists(out) and (not force or not out.is_file()):
        raise UsageError(f"{out} exists already" + ("; --force replaces it" if out.is_file() else ""))
    if not out.parent.is_dir():
        raise UsageError(f"the folder {out.parent} is not there")
    if storage.resolve() in (out.parent.resolve(), *out.parent.resolve().parents):
        raise UsageError(f"{out} lies in the storage {storage}, where only recordings may be; write somewhere else")


def _write(out: Path, storage: Path, chunks: Sequence[ChunkEntry], from_ns: int, to_ns: int, *, force: bool) -> None:
    from msrecd.muxing.join import Joiner, container_for
    from msrecd.muxing.seams import Piece

    pieces = [
        Piece(
            path=storage / chunk.file,
            recording_id=_recording_id(chunk),
            seq=chunk.seq,
            started_ns=chunk.started_ns,
            ended_ns=chunk.ended_ns,
            duration_ns=round(chunk.duration_s * NS),
            bytes=chunk.bytes,
        )
        for chunk in chunks
    ]
    # A name of its own, and only a new file: what lies there, a symbolic link for one, is not followed or written to.
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        with Progress() as progress, open(part, "x+b", buffering=0) as file:  # noqa: PTH123  # x: O_EXCL
            joined = Joiner(
                pieces,
                container_for(out),
                lambda data: _write_all(file.fileno(), data),
                from_ns=from_ns,
                to_ns=to_ns,
                progress=lambda done, total: progress.show(_bar(done, total)),
            ).run()
            size, _ = complete(file.fileno(), os.fstat(file.fileno()).st_size, out.name.lower())
            os.fsync(file.fileno())
        if force:
            part.replace(out)
        else:
            with closing_fd(open_root(out.parent)) as folder:
                rename_new(folder, part.name, out.name)  # somebody may have made it meanwhile
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise StorageError(f"cannot write {out}: {exc.strerror or exc}") from exc
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    print(f"{out}: {joined.duration_s:.3f} s from {counted(joined.chunks, 'chunk')}, {format_size(size)}")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _bar(done: int, total: int) -> str:
    filled = 30 * done // total if total else 30
    share = 100 * done // total if total else 100
    return f"exporting [{'#' * filled}{'.' * (30 - filled)}] {share:3d} %  {format_size(done)} of {format_size(total)}"


def _recording_id(chunk: ChunkEntry) -> str:
    parsed = parse_chunk_name(chunk.file.rpartition("/")[2])
    return parsed.recording_id if parsed is not None else chunk.file


def _missing(gap: GapEntry, chunks: Sequence[ChunkEntry], open_: Sequence[int], what: str) -> Iterator[str]:
    """What to say of a gap.

    Args:
        open_: when the chunks that are not finished began. what: they are.
    """
    where = _where(gap, chunks)
    end_ns = gap.started_ns + round(gap.duration_s * NS)
    begun_ns = min((at for at in open_ if at < end_ns), default=None)
    if where != _BEHIND or begun_ns is None:
        yield f"not recorded: {gap.duration_s:g} s from {format_utc(gap.started_ns)} ({where})"
        return
    if begun_ns - gap.started_ns > _JOINT_NS:
        before_s = round((begun_ns - gap.started_ns) / NS, 3)
        yield f"not recorded: {before_s:g} s from {format_utc(gap.started_ns)} ({where})"
    yield f"{what}, from {format_utc(max(begun_ns, gap.started_ns))}"


def _where(gap: GapEntry, chunks: Sequence[ChunkEntry]) -> str:
    if gap.started_ns < chunks[0].started_ns:
        return "before the file's beginning"
    if gap.started_ns >= max(chunk.ended_ns for chunk in chunks):
        return _BEHIND
    return "a gap in the file"
