"""A bad line to a real store of S3: some requests and answers are lost, cut, late, changed, or not the store's."""

from __future__ import annotations

import base64
import hashlib
import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from s3server import BUCKET

# busy: 503, and the store hears nothing. drop: closed, and the store hears nothing. half: the store gets a half of the
# body. flip: a bit of the body changes. lost: the store does it, and nothing is answered. torn: a half of the answer's
# head comes. slow: the answer comes late. lie: the answer has another ETag and another hash.
FAULTS = ("busy", "drop", "half", "flip", "lost", "torn", "slow", "lie")


class FaultyLine:
    """Hands requests to the store at a port of this machine; a part goes wrong, in turn each way of `faults`."""

    def __init__(self, store_port: int, *, wrong: float, seed: int = 7) -> None:
        self.wrong = wrong
        self.faults: tuple[str, ...] = FAULTS
        self.stored: Counter[str] = Counter()  # keys that the store says to have stored, each as often as it did
        self.met: Counter[str] = Counter()  # faults
        self.requests = 0
        self._store_port = store_port
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        line = self

        class Handler(_Handler):
            state = line

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that was killed
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultyLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def fault(self) -> str | None:
        """What goes wrong with the next request."""
        with self._lock:
            self.requests += 1
            if self._random.random() >= self.wrong:
                return None
            found = self.faults[self.met.total() % len(self.faults)]
            self.met[found] += 1
            return found

    def note_stored(self, key: str) -> None:
        with self._lock:
            self.stored[key] += 1

    def arrived(self, suffix: str) -> int:
        """How many keys with a suffix the store has said to have."""
        with self._lock:
            return sum(key.endswith(suffix) for key in self.stored)

    def ask_store(self, method: str, path: str, headers: Any, body: bytes, sent: int) -> tuple[int, Any, bytes]:
        """Status, headers and body of the store's answer to a request of which so many bytes of the body are sent.

        Raises:
            OSError, HTTPException: it gives none.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._store_port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(body[:sent])
            if sent < len(body):
                raise ConnectionResetError
            answer = connection.getresponse()
            content = answer.read()
            if method == "PUT" and answer.status == 200:
                self.note_stored(unquote(urlsplit(path).path).removeprefix(f"/{BUCKET}/"))
            return answer.status, answer.headers, content
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultyLine

    def log_message(self, *_: Any) -> None:
        return None

    def do_PUT(self) -> None:
        self._hand_on()

    def do_GET(self) -> None:
        self._hand_on()

    def do_HEAD(self) -> None:
        self._hand_on()

    def _hand_on(self) -> None:
        line = self.state
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        fault = line.fault()
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "busy":
            self._answer(503, {}, b"<Error><Code>SlowDown</Code><Message>SlowDown</Message></Error>")
            return
        if fault == "flip" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        sent = len(body) // 2 if fault == "half" else len(body)
        try:
            status, headers, content = line.ask_store(self.command, self.path, self.headers, body, sent)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # the store was killed, or got a half
            return
        kept = {
            name: value for name, value in headers.items() if name.lower() not in ("connection", "transfer-encoding")
        }
        if fault == "lost":
            self.close_connection = True
        elif fault == "torn":
            self.wfile.write(b"HTTP/1.1 200 O")
            self.close_connection = True
        else:
            if fault == "slow":
                time.sleep(0.3)  # a line that is late
            if fault == "lie" and status == 200:
                other = base64.b64encode(hashlib.sha256(b"another").digest()).decode()
                changed = {"etag": '"00000000000000000000000000000000"', "x-amz-checksum-sha256": other}
                kept = {name: changed.get(name.lower(), value) for name, value in kept.items()}
            self._answer(status, kept, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        lengths = {name for name in headers if name.lower() == "content-length"}
        for name, value in headers.items():
            self.send_header(name, value)
        if not lengths:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
