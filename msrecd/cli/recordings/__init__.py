"""`msrecd recordings`: what is on the disk. Works with or without a running daemon."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from msrecd.cli.errors import Exit
from msrecd.cli.main import add_config

SUBCOMMANDS = {
    "list": "recordings, chunks and gaps, with times corrected where the clock was wrong",
    "verify": "prove a folder, also a copy elsewhere, against its manifests",
    "recover": "finish what a crash or a power cut left unfinished; not while a daemon records",
    "prune": "delete what the limits of the configuration do not allow",
    "protect": "keep a recording, or a part of one, whatever the limits say",
    "unprotect": "let a recording go by the limits again",
    "export": "join the chunks of a time range into one file, without encoding again",
}
_TIME = "2026-05-01T06:30:00Z, 2026-05-01, an age like 2h or 7d, or now"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    subs = {}
    for name, help_ in SUBCOMMANDS.items():
        subs[name] = subparsers.add_parser(
            name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.", allow_abbrev=False
        )
        add_config(subs[name], default=argparse.SUPPRESS)
    listing = subs["list"]
    listing.add_argument("--recorder", metavar="NAME", help="only this recorder")
    listing.add_argument("--since", metavar="T", help=f"what ended after this time: {_TIME}")
    listing.add_argument("--until", metavar="T", help="what began before this time, likewise")
    listing.add_argument("--chunks", action="store_true", help="a line for each chunk too")
    listing.add_argument("--json", action="store_true", help="print recordings with chunks and gaps as JSON")
    verify = subs["verify"]
    verify.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        help="default: the storage of the configuration",
    )
    verify.add_argument(
        "--store", action="store_true", help="prove what lies in the store of [offload], from the store alone"
    )
    verify.add_argument(
        "--credentials", type=Path, metavar="FILE", help="with --store: keys that may list and get, in place of its own"
    )
    verify.add_argument("--json", action="store_true", help="print {proven, manifests, chunks, bytes, findings}")
    for name in ("recover", "prune"):
        subs[name].add_argument("--dry-run", action="store_true", help="only say what would be done")
        subs[name].add_argument("--json", action="store_true", help="print what is done as JSON")
    for name in ("protect", "unprotect"):
        subs[name].add_argument(
            "recording_id", metavar="RECORDING_ID", nargs="?", help="as `msrecd recordings list` shows it"
        )
        subs[name].add_argument("--chunks", metavar="A-B", help="only these chunks of it, by their numbers")
    protect = subs["protect"]
    protect.add_argument("--whole", action="store_true", help="of a recording that is running also what is to come")
    protect.add_argument("--recorder", metavar="NAME", help="instead of RECORDING_ID: a time range of a recorder")
    protect.add_argument("--from", dest="since", metavar="T", help=f"begin of the range: {_TIME}")
    protect.add_argument("--to", dest="until", metavar="T", help="end of the range, likewise")
    export = subs["export"]
    export.add_argument("--recorder", metavar="NAME", required=True)
    export.add_argument("--from", dest="since", metavar="T", required=True, help=f"begin of the range: {_TIME}")
    export.add_argument("--to", dest="until", metavar="T", required=True, help="end of the range, likewise")
    export.add_argument("--force", action="store_true", help="replace OUT if it exists")
    export.add_argument("out", metavar="OUT", type=Path, help="a file that ends in .mp4, .m4a, .webm, .mkv or .mka")


_MODULES = {"list": "listing", "recover": "recover", "prune": "prune", "protect": "protect", "unprotect": "protect"}


def run(args: argparse.Namespace) -> int:
    module = importlib.import_module(f"msrecd.cli.recordings.{_MODULES.get(args.action, args.action)}")
    return Exit(module.run(args))
