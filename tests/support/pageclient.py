"""A client of the page: plain HTTP over sockets, with the headers that a browser of this page would send."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon import DaemonProcess
from waiting import until

from msrecd.web.passwords import make_hash

OPERATOR, VIEWER = "look after the mast", "only looking"


def web_table(port: int, folder: Path, *, with_passwords: bool = True, more: str = "") -> str:
    """`[web]` at a port of this machine, with files of passwords in `folder`."""
    lines = ["[web]", f'listen = "127.0.0.1:{port}"', more]
    for key, password in (("password_file", OPERATOR), ("viewer_password_file", VIEWER)) if with_passwords else ():
        path = folder / key
        path.touch(0o600)
        path.write_text(make_hash(password) + "\n")
        lines.append(f'{key} = "{path}"')
    return "\n".join(lines) + "\n"


class Answer:
    """status, headers by lower-case name, body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a refusal."""
        return str(self.json["error"]["code"])


class PageClient:
    """One browser. `source` is its address on this machine: 127.0.0.2, … are others."""

    def __init__(self, port: int, *, source: str = "127.0.0.1") -> None:
        self.port = port
        self.source = source
        self.cookie = ""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 20.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout, source_address=(self.source, 0))

    def headers(self, method: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if method not in ("GET", "HEAD", "OPTIONS"):
            headers |= {"Origin": self.origin, "Content-Type": "application/json"}
        return headers | dict(more or {})

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, self.headers(method, headers))
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, value: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        body = b"" if value is None else json.dumps(value).encode()
        return self.request("POST", path, body, headers)

    def log_in(self, password: str = OPERATOR) -> Answer:
        answer = self.post("/api/login", {"password": password})
        if answer.status == 204:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    @contextmanager
    def stream(self, path: str, timeout: float = 20.0) -> Iterator[http.client.HTTPResponse]:
        """An answer that is read piece by piece."""
        connection = self.connect(timeout)
        try:
            connection.request("GET", path, headers=self.headers("GET"))
            yield connection.getresponse()
        finally:
            connection.close()

    def events(self, response: http.client.HTTPResponse, timeout: float = 20.0) -> Iterator[tuple[str, Any]]:
        """Kind and value of the server-sent events as they come, for so long."""
        deadline = time.monotonic() + timeout
        kind = ""
        while time.monotonic() < deadline:
            line = response.readline().decode().rstrip("\n")
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield kind, json.loads(line.removeprefix("data: "))


def raw_exchange(port: int, data: bytes, *, timeout: float = 20.0, limit: int = 1 << 16) -> bytes:
    """Send bytes as they are; what comes back until the connection is closed."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        try:
            connection.sendall(data)
            while len(answer) < limit and (piece := connection.recv(65536)):
                answer += piece
        except (ConnectionError, TimeoutError):
            pass
    return answer


def wait_for_page(daemon: DaemonProcess, port: int, timeout: float = 60.0) -> None:
    """READY comes first: the daemon does not wait for its page."""

    def answers() -> bool:
        try:
            return PageClient(port).get("/").status == 200
        except OSError:
            return False

    until(answers, lambda: f"no page at port {port}:\n{Path(daemon.log).read_text()}", timeout=timeout)
