"""[offload]: the store to which finished files go."""

# ruff: noqa: RUF009 - `key` makes a dataclasses.field

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from msrecd.config.kinds import FilePath, Size, Text
from msrecd.config.problems import Report
from msrecd.config.tables import ListOf, key
from msrecd.vocabulary.tls import is_loopback

if TYPE_CHECKING:
    from msrecd.config.rules import Checks

_WINDOW = re.compile(r"\s*([01]?\d|2[0-3]):[0-5]\d\s*-\s*([01]?\d|2[0-3]):[0-5]\d\s*", re.ASCII)
_REMOTE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_. +@-]{0,63}:[^\x00-\x1f]{0,512}", re.ASCII)
_KEYS = {"s3": ("endpoint", "bucket", "credentials_file"), "rclone": ("remote", "config_file")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """[offload]: finished files go to a store outside, which proves each by its hash. Absent: nothing is sent."""

    kind: Literal["s3", "rclone"] = key(
        Text(choices=("s3", "rclone")), 'What the store speaks; "rclone": whatever rclone does, in a unit of its own.'
    )
    endpoint: str = key(
        Text(max_length=512),
        'S3: where it is, "https://host" or "https://host:port"; "http://" only on this machine.',
        default="",
        default_doc="needed for S3",
    )
    bucket: str = key(
        Text(
            pattern=r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
            form="the name of a bucket: a-z, 0-9, . and -, 3 to 63 characters",
            max_length=63,
        ),
        "S3: the bucket.",
        default="",
        default_doc="needed for S3",
    )
    remote: str = key(
        Text(max_length=512),
        'rclone: remote and folder, like "nas:cameras", as config_file names it.',
        default="",
        default_doc="needed for rclone",
    )
    config_file: Path | None = key(
        FilePath(),
        "rclone: its configuration, as `rclone config` writes it; readable by the service's user only, not encrypted.",
        default=None,
        default_doc="needed for rclone",
    )
    prefix: str = key(
        Text(min_length=0, max_length=256),
        'Stands before the path of each file below `storage.path` in its key, like "pi-7f3a/"; one for each device.',
        default="",
        default_doc="none",
    )
    region: str = key(Text(max_length=64), "S3: the region that requests are signed for.", default="us-east-1")
    credentials_file: Path | None = key(
        FilePath(),
        "S3: file with the keys in the INI format of the AWS tools, profile `default`; readable by the service's user"
        " only. The right to put is enough; to compare what is there already they need that to get, too.",
        default=None,
        default_doc="needed for S3",
    )
    ca_file: Path | None = key(
        FilePath(),
        "Certificates (PEM) of the authorities that the store's certificate is checked against.",
        default=None,
        default_doc="the system's",
    )
    windows: tuple[str, ...] = key(
        ListOf(item=Text(max_length=32), max_items=16),
        'When files are sent, in local time, "22:00-05:00" for instance. A file that has begun is sent to its end.',
        default=(),
        default_doc="always",
    )
    metered: Literal["ignore", "pause"] = key(
        Text(choices=("ignore", "pause")),
        'What a link that NetworkManager calls metered changes, a mobile one for instance: "ignore", nothing; "pause",'
        " no file begins while the default route is such a link. Without NetworkManager no link is metered.",
        default="ignore",
    )
    max_rate_bytes: int | None = key(
        Size(minimum=1024, maximum=2**40), "At most so much a second.", default=None, default_doc="no limit"
    )
    delete: Literal["never", "proven"] = key(
        Text(choices=("never", "proven")),
        'What the store has to do with rotation: "never", nothing, the limits delete what they say, and `state/health` '
        'counts what the store never had; "proven", only what the store has proven may be deleted.',
        default="never",
    )


def check_offload(offload: Offload, recordings: Path, report: Report, checks: Checks) -> None:
    """Report what does not go together.

    Args:
        recordings: their folder.
    """
    _check_kind(offload, report)
    is_named = offload.endpoint and not report.concerns("offload.endpoint")
    if is_named and (message := _endpoint_problem(offload.endpoint)):
        report.add("offload.endpoint", message)
    for i, text in enumerate(offload.windows):
        if not report.concerns(f"offload.windows[{i}]") and not _WINDOW.fullmatch(text):
            report.add(f"offload.windows[{i}]", f'"{text}" is no window; write for example "22:00-05:00"')
    if offload.prefix.startswith("/") or "//" in offload.prefix or any(ord(char) < 32 for char in offload.prefix):
        report.add("offload.prefix", 'begins a key: no "/" at its beginning, no empty part, no control characters')
    if offload.credentials_file is not None and (message := checks.aws_file(offload.credentials_file)):
        report.add("offload.credentials_file", message)
    if offload.kind == "rclone" and offload.remote and not report.concerns("offload.remote"):
        if not _REMOTE.fullmatch(offload.remote):
            report.add("offload.remote", f'"{offload.remote}" is no remote; write for example "nas:cameras"')
        elif offload.config_file is not None and (message := checks.rclone_file(offload.remote, offload.config_file)):
            report.add("offload.config_file", message)
        elif offload.config_file is not None and (
            message := checks.rclone_place(offload.remote, offload.config_file, offload.prefix, recordings)
        ):
            report.add("offload.remote", message)
    if offload.ca_file is not None and (message := checks.ca_file(offload.ca_file)):
        report.add("offload.ca_file", message)


def _check_kind(offload: Offload, report: Report) -> None:
    """Each kind has keys of its own."""
    for kind, names in _KEYS.items():
        for name in names:
            is_set = bool(getattr(offload, name))
            if report.concerns("offload.kind") or report.concerns(f"offload.{name}"):
                continue
            if kind == offload.kind and not is_set:
                report.add(f"offload.{name}", f'is missing: kind = "{kind}" needs it')
            if kind != offload.kind and is_set:
                report.add(f"offload.{name}", f'goes with kind = "{kind}" only')


def _endpoint_problem(endpoint: str) -> str | None:
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        return "is no URL; write for example https://s3.example.org"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "takes a URL like https://s3.example.org, with a port where it is another than 443"
    if parts.username is not None or parts.password is not None:
        return "holds a user name or password; keys belong into credentials_file"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "takes only scheme, host and port; the bucket has a key of its own"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        return "is http:// to another machine, where everybody on the way can read; write https://"
    return None
