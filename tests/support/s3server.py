"""Stores for the tests: a real S3 server where it is installed, and a stand-in that judges as strictly.

The stand-in obeys what Amazon documents: a request's signature covers the SHA-256 of its payload, and a payload with
another one is refused with `XAmzContentSHA256Mismatch`
(https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html); `x-amz-checksum-sha256` that is not
that of the payload is `BadDigest`, and is given back by HEAD with `x-amz-checksum-mode`
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html); `If-None-Match: *` on a key that
exists is 412 `PreconditionFailed` (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
A PUT is stored whole or not at all.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from msrecd.offload.sigv4 import Credentials, signed_headers

KEYS = Credentials(access_key="AKTEST", secret_key="secret-of-the-test")
BUCKET = "bucket"
VERSITYGW = shutil.which("versitygw") or str(Path(__file__).parents[2] / ".cache/versitygw/versitygw")


@contextmanager
def versitygw(folder: Path, port: int) -> Iterator[None]:
    """The S3 gateway of Versity on a folder; https://github.com/versity/versitygw, from the Go module proxy."""
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [VERSITYGW, "--port", f"127.0.0.1:{port}", "posix", str(folder)],
        env=os.environ | {"ROOT_ACCESS_KEY": KEYS.access_key, "ROOT_SECRET_KEY": KEYS.secret_key},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait(10)


class StandIn:
    """A store in memory. `fault(method, key, number)` may name what goes wrong with a request: see `_Handler`."""

    def __init__(self, port: int = 0, *, certificate: Path | None = None) -> None:
        """
        Args:
            certificate: PEM with its key, for TLS.
        """
        self.regions: set[str] = set()  # that requests were signed for
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []  # keys that were stored, in order, each as often as it was
        self.requests = 0
        self.allows_get = True
        self.room: int | None = None  # bytes; None: without end
        self.fault: Callable[[str, str, int], str | None] = lambda method, key, number: None
        self.lock = threading.Lock()
        store = self

        class Handler(_Handler):
            state = store

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    """Faults: "drop" (closes without an answer, nothing stored), "lost" (stored, and closes without an answer),
    "flip" (the payload arrives with another bit), "busy" (503), "silent" (waits for a second, then closes), "torn"
    (done, and the head of the answer breaks off), "cut" (so does its body), "other" (the answer has another hash)."""

    protocol_version = "HTTP/1.1"
    state: StandIn

    def log_message(self, *_: Any) -> None:
        return None

    def do_PUT(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        store = self.state
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        with store.lock:
            store.requests += 1
            number = store.requests
        length = int(self.headers.get("content-length", "0"))
        body = self.rfile.read(length)
        fault = store.fault(self.command, key, number)
        if len(body) < length or fault == "drop":
            self.close_connection = True
            return
        if fault == "silent":
            time.sleep(1.0)  # a store that hangs
            self.close_connection = True
            return
        if fault == "busy":
            self._error(503, "SlowDown")
            return
        if fault == "flip" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if not unquote(url.path).startswith(f"/{BUCKET}"):
            self._error(404, "NoSuchBucket")
        elif not self._is_signed(url.path, dict(parse_qsl(url.query, keep_blank_values=True))):
            self._error(403, "SignatureDoesNotMatch")
        elif self.command == "PUT":
            self._put(key, body, fault)
        elif fault == "torn":
            self._tear()
        elif not store.allows_get:
            self._error(403, "AccessDenied")
        elif not key:
            self._list(dict(parse_qsl(url.query, keep_blank_values=True)))
        elif key not in store.objects:
            self._error(404, "NoSuchKey")
        else:
            self._give(store.objects[key], fault)

    def _tear(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\nx-amz-req")
        self.close_connection = True

    def _is_signed(self, path: str, query: dict[str, str]) -> bool:
        said = self.headers.get("authorization", "")
        names = said.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        region = said.partition("Credential=")[2].split("/")[2:3]
        self.state.regions.update(region)
        try:
            now = datetime.strptime(self.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except (KeyError, ValueError, TypeError):
            return False
        fixed = ("host", "x-amz-date", "x-amz-content-sha256")
        right = signed_headers(
            KEYS,
            method=self.command,
            host=self.headers["host"],
            path=path,
            query=query,
            headers={name: self.headers[name] for name in names if name not in fixed},
            payload_sha256=self.headers["x-amz-content-sha256"],
            region=region[0] if region else "",
            now=now,
        )
        return right["authorization"] == said

    def _put(self, key: str, body: bytes, fault: str | None) -> None:
        store = self.state
        digest = hashlib.sha256(body)
        checksum = self.headers.get("x-amz-checksum-sha256")
        if digest.hexdigest() != self.headers["x-amz-content-sha256"]:
            self._error(400, "XAmzContentSHA256Mismatch")
            return
        if checksum is not None and base64.b64encode(digest.digest()).decode() != checksum:
            self._error(400, "BadDigest")
            return
        with store.lock:
            is_there = key in store.objects
            is_full = store.room is not None and sum(map(len, store.objects.values())) + len(body) > store.room
            if not is_full and not (is_there and self.headers.get("if-none-match") == "*"):
                store.objects[key] = body
                store.puts.append(key)
        if is_there and self.headers.get("if-none-match") == "*":
            self._error(412, "PreconditionFailed")
        elif is_full:
            self._error(403, "QuotaExceeded")
        elif fault == "lost":
            self.close_connection = True
        else:
            told = base64.b64encode(hashlib.sha256(b"other").digest()).decode() if fault == "other" else checksum
            self._reply(200, b"", {"ETag": '"x"'} | ({"x-amz-checksum-sha256": told} if told else {}))

    def _give(self, data: bytes, fault: str | None) -> None:
        if fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        more = {}
        if self.headers.get("x-amz-checksum-mode") == "ENABLED":
            more["x-amz-checksum-sha256"] = base64.b64encode(hashlib.sha256(data).digest()).decode()
        self._reply(200, data, more)

    def _list(self, query: dict[str, str]) -> None:
        keys = sorted(key for key in self.state.objects if key.startswith(query.get("prefix", "")))
        after = query.get("continuation-token", "")
        page = [key for key in keys if key > after][:50]
        token = page[-1] if page and page[-1] != keys[-1] else ""
        parts = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in page)
        more = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
        namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
        self._reply(200, f'<ListBucketResult xmlns="{namespace}">{parts}{more}</ListBucketResult>'.encode(), {})

    def _error(self, status: int, code: str) -> None:
        self._reply(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), {})

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(datetime.now(UTC), usegmt=True)
