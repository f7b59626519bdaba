"""WebSettings: what the page goes by, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msrecd.vocabulary.listen import ListenAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """The password files hold hashes of `msrecd web-password`; without the first there is no login.

    device_id: for the page's title.
    """

    listen: ListenAddress
    device_id: str
    version: str
    password_file: Path | None = None
    viewer_password_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    metrics: bool = False
