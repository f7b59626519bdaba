"""The page's own files, read once from the package: no path of a request ever becomes one of the disk."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import PurePosixPath

from msrecd.web.router import Access, Request, Response, Router

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_INDEX = "index.html"


class Assets:
    """By name. Each is public: the page itself holds no secret, and asks for the password."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for entry in resources.files("msrecd.web").joinpath("static").iterdir():
            kind = _TYPES.get(PurePosixPath(entry.name).suffix)
            if kind is not None and entry.is_file():
                data = entry.read_bytes()
                self._files[entry.name] = (data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"')

    def add_routes(self, router: Router) -> None:
        for name in self._files:
            router.add("GET", f"/{name}", self._give, access=Access.PUBLIC)
        router.add("GET", "/", self._give, access=Access.PUBLIC)

    async def _give(self, request: Request) -> Response:
        data, kind, tag = self._files[request.path.rpartition("/")[2] or _INDEX]
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(304, headers=headers)
        return Response(200, data, kind, headers)
