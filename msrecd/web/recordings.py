"""Routes to look back: recordings, playlists, chunks, thumbnails, exports."""

from __future__ import annotations

from msrecd.web.daemonside import DaemonSide
from msrecd.web.router import Router


def add_routes(router: Router, daemon: DaemonSide) -> None:
    """See `router`."""
