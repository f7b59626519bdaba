"""`msrecd check-config`: is the configuration valid, and if not, what is to be corrected."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from msrecd.cli.errors import Exit
from msrecd.cli.output import note, print_json
from msrecd.config import Checks, Config, InvalidConfigError, load
from msrecd.config.model import Storage, Web
from msrecd.daemon.checks import config_checks
from msrecd.errors import ConfigError
from msrecd.inputs.address import parse
from msrecd.vocabulary.listen import parse_listen
from msrecd.vocabulary.secrets import read_secret
from msrecd.vocabulary.tls import client_context, server_context
from msrecd.vocabulary.units import format_size

_OWN_FOLDER = Path("/run/msrecd")  # the service manager makes it when the service starts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print {valid, problems: [{path, message, file}], warnings}"
    )


def run(args: argparse.Namespace) -> int:
    """0: valid. 2: not, every problem in the JSON.

    Raises:
        InvalidConfigError: it is not, and no JSON was asked for.
    """
    try:
        config = load(args.config, checks=_checks())
    except InvalidConfigError as exc:
        if not args.json:
            raise
        print_json({"valid": False, "problems": [problem.to_json() for problem in exc.problems], "warnings": []})
        return Exit.USAGE
    warnings = _warnings(config)
    if args.json:
        print_json({"valid": True, "problems": [], "warnings": warnings})
        return Exit.OK
    for warning in warnings:
        note(f"warning: {warning}")
    names = ", ".join(recorder.name for recorder in config.recorders)
    found = f"recorders: {names}" if names else "but without a [[recorder]] it records nothing"
    print(f"{args.config}: valid; device {config.device.id}; {found}")
    return Exit.OK


def _checks() -> Checks:
    """Those of the daemon, and the files of secrets and certificates.

    The daemon does without them (a recording never depends on the broker), so only this command judges them.
    """
    return replace(
        config_checks(),
        secret_file=_judge(read_secret),
        ca_file=_judge(client_context),
        certificate=_certificate_problem,
        aws_file=_judge(_read_credentials),
        rclone_file=lambda remote, path: _judge(lambda file, name: _read_rclone(remote, file, name))(path),
        rclone_place=_rclone_place_problem,
    )


def _read_credentials(path: Path, name: str) -> None:
    from msrecd.offload.awscredentials import read_credentials  # here: for those who have a store

    read_credentials(path, name)


def _read_rclone(remote: str, path: Path, name: str) -> None:
    from msrecd.offload.rcloneconfig import read_kind  # here: for those who have a store

    read_kind(remote, path, name)


def _rclone_place_problem(remote: str, path: Path, prefix: str, recordings: Path) -> str | None:
    """Whether a remote surely ends in the folder of the recordings; a file that this user may not read is left out."""
    from msrecd.offload.rcloneconfig import local_folder, recordings_problem  # as above

    try:
        return recordings_problem(local_folder(remote, path), prefix.rpartition("/")[0], recordings)
    except ConfigError:
        return None  # `rclone_file` has told


def _certificate_problem(table: str, cert_file: Path, key_file: Path | None) -> str | None:
    """What is wrong with a certificate and its key; begins with the key's name."""
    try:
        server_context(cert_file, key_file, table)
    except ConfigError as exc:
        return None if isinstance(exc.__cause__, PermissionError) else str(exc)
    return None


def _judge(look: Callable[[Path, str], object]) -> Callable[[Path], str | None]:
    """What `look` finds wrong with a file; a file that this user may not read is left out."""

    def judge(path: Path) -> str | None:
        try:
            look(path, "file")
        except ConfigError as exc:
            return None if isinstance(exc.__cause__, PermissionError) else str(exc).removeprefix("file: ")
        return None

    return judge


def _warnings(config: Config) -> list[str]:
    """What is valid and yet cannot be meant on this machine."""
    return [
        *_warnings_of_storage(config.storage),
        *_warnings_of_web(config.web),
        *_warnings_of_offload(config),
        *_warnings_of_recorders(config),
    ]


def _warnings_of_recorders(config: Config) -> Iterator[str]:
    for recorder in config.recorders:
        if recorder.source is not None:
            address = parse(recorder.source.url)
            if address.is_file and _is_missing(Path(address.opened)):
                yield f"recorder {recorder.name}: source.url: there is no file {address.shown}"
        shots = recorder.snapshots
        if shots is not None and shots.idle and shots.every_s is None and shots.at is None:
            yield f"recorder {recorder.name}: snapshots.idle without every or at: none is taken by itself"


def _is_missing(path: Path) -> bool:
    """Surely: where this user may look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _warnings_of_offload(config: Config) -> list[str]:
    if config.offload is None or config.offload.kind != "rclone" or shutil.which("rclone") is not None:
        return []
    return ["offload.kind: rclone is not installed; on Debian: apt install rclone"]


def _warnings_of_web(web: Web | None) -> list[str]:
    if web is None or not web.listen.startswith("unix:"):
        return []
    folder = Path(parse_listen(web.listen).path).parent
    if folder.is_dir() or folder == _OWN_FOLDER:
        return []
    return [f"web.listen: there is no folder {folder}: without it the page cannot be reached"]


def _warnings_of_storage(storage: Storage) -> list[str]:
    """A drive that is away is not judged."""
    try:
        total = shutil.disk_usage(storage.path).total
    except OSError:
        return []
    if (storage.min_free_bytes or 0) <= total:
        return []
    asked, there = format_size(storage.min_free_bytes or 0), format_size(total)
    return [
        f"storage.min_free: {asked} is more than the whole file system of {storage.path} has ({there}): nothing can "
        "be recorded there"
    ]
