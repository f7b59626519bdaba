"""`msrecd recordings verify`: is everything there that was recorded, and is it what was recorded."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msrecd.cli.errors import Exit
from msrecd.cli.output import Progress, print_json, print_line
from msrecd.cli.recordings.access import configuration
from msrecd.errors import ConfigError
from msrecd.storage.verify import Fault, Finding, Verdict, still_holds, verify
from msrecd.vocabulary.units import counted, format_size

if TYPE_CHECKING:
    from msrecd.config.offload_table import Offload
    from msrecd.offload.rclonestore import RcloneStore
    from msrecd.offload.s3 import S3Store

_LINE_S = 2.0  # from the name of a chunk to its line in the manifest


def run(args: argparse.Namespace) -> int:
    """0: all of it is proven. 1: something is missing, altered or torn, or there is nothing to prove.

    Each finding is a line on stdout.
    """
    if args.store:
        return _verify_store(args)
    folder: Path = args.folder if args.folder is not None else configuration(args.config).storage.path
    with Progress(f"reading {folder}") as progress:
        verdict = verify(folder, progress=lambda done, total: _show(progress, done, total))
    # A daemon may have finished or rotated chunks meanwhile: what a second look does not confirm is not so. A chunk has
    # its name before its line, which a slow card may keep waiting.
    findings = [finding for finding in verdict.findings if still_holds(folder, finding)]
    until = time.monotonic() + _LINE_S
    while any(finding.fault is Fault.UNLISTED for finding in findings) and time.monotonic() < until:
        time.sleep(0.2)
        findings = [finding for finding in findings if still_holds(folder, finding)]
    return _print(str(folder), verdict, findings, as_json=args.json)


def _verify_store(args: argparse.Namespace) -> int:
    from msrecd.offload.proof import verify_store

    if args.folder is not None:
        raise ConfigError("--store and FOLDER cannot stand together")
    offload = configuration(args.config).offload
    if offload is None:
        raise ConfigError("--store needs [offload] in the configuration")
    store = _store_of(offload, args.credentials)
    try:
        with Progress(f"reading {store.name}") as progress:
            verdict = verify_store(store, progress=lambda done, total: _show(progress, done, total))
    finally:
        store.close()
    return _print(store.name, verdict, list(verdict.findings), as_json=args.json)


def _store_of(offload: Offload, credentials: Path | None) -> S3Store | RcloneStore:
    """The store of the configuration, with other keys where they are given."""
    from msrecd.daemon.offloading import rclone_settings, s3_settings

    if offload.kind == "rclone":
        from msrecd.offload.rclonestore import RcloneStore

        settings = rclone_settings(offload)
        return RcloneStore(settings if credentials is None else replace(settings, config_file=credentials))
    from msrecd.offload.awscredentials import read_credentials
    from msrecd.offload.s3 import S3Store

    name = "--credentials" if credentials else "offload.credentials_file"
    return S3Store(s3_settings(offload), read_credentials(credentials or offload.credentials_file or Path(), name))


def _print(place: str, verdict: Verdict, findings: Sequence[Finding], *, as_json: bool) -> int:
    failures = [finding for finding in findings if finding.is_failure]
    is_proven = verdict.chunks + verdict.snapshots > 0 and not failures
    if as_json:
        print_json(
            {
                "proven": is_proven,
                "manifests": verdict.manifests,
                "chunks": verdict.chunks,
                "snapshots": verdict.snapshots,
                "bytes": verdict.bytes,
                "findings": [{"fault": f.fault, "file": f.file, "message": f.message} for f in findings],
            }
        )
    else:
        for finding in findings:
            print_line(finding.message)
        print_line(_summary(place, verdict, Counter(str(finding.fault) for finding in failures)))
    return Exit.OK if is_proven else Exit.FAILED


def _show(progress: Progress, done: int, total: int) -> None:
    share = 100 * done // total if total else 100
    progress.show(f"verifying  {share:3d} %  {format_size(done)} of {format_size(total)}")


def _summary(folder: str, verdict: Verdict, faults: Counter[str]) -> str:
    shots = f" and {counted(verdict.snapshots, 'snapshot')}" if verdict.snapshots else ""
    files = f"{counted(verdict.chunks, 'chunk')}{shots}"
    looked = f"{files} of {counted(verdict.manifests, 'recording')}, {format_size(verdict.bytes)}"
    if faults:
        return f"{folder}: NOT proven: {', '.join(f'{n} {fault}' for fault, n in sorted(faults.items()))}; {looked}"
    if not verdict.chunks + verdict.snapshots:
        unreadable = sum(finding.fault is Fault.UNREADABLE for finding in verdict.findings)
        if unreadable:
            what = f"{counted(unreadable, 'folder')} could not be read; let this user read there, or try with sudo"
        elif verdict.manifests:
            what = "its manifests list no chunk that should be there"
        elif any(finding.fault is Fault.UNFINISHED for finding in verdict.findings):
            what = "no chunk is finished yet"
        else:
            what = "no recordings here; is it the right folder?"
        return f"{folder}: NOT proven, for there was nothing to prove: {what}"
    return f"{folder}: proven: {looked}"
