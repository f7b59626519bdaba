"""A headless Chromium, driven over chromedriver's HTTP interface, and a server with byte ranges for what it plays.

https://www.w3.org/TR/webdriver2/; only the standard library, so that a test needs nothing but Debian's packages
chromium and chromium-driver.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

START_DEADLINE_S = 60.0
SCRIPT_DEADLINE_S = 90.0

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
)
# Loopback only, whatever proxy the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def missing() -> str | None:
    """Why there is no browser here, None when there is one."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not installed: {', '.join(programs)} (Debian: chromium chromium-driver)" if programs else None


class Browser:
    """One session of one browser."""

    def __init__(self, base: str, session: str) -> None:
        self._base, self._session = base, session

    def open(self, url: str) -> None:
        _call("POST", f"{self._base}/session/{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of an asynchronous function in the page; what it returns, or AssertionError with its error."""
        body = (
            "const done = arguments[arguments.length - 1];"
            f"(async (...args) => {{ {script} }})(...Array.from(arguments).slice(0, -1))"
            ".then(value => done({value}), error => done({error: String(error)}));"
        )
        url = f"{self._base}/session/{self._session}/execute/async"
        result = _call("POST", url, {"script": body, "args": list(arguments)})
        assert "error" not in result, result["error"]
        return result.get("value")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a new, empty profile below `folder`; its processes are gone afterwards."""
    home = folder / "home"
    home.mkdir()
    with (folder / "chromedriver.log").open("wb") as log:
        driver, port = _driver(home, log)
        try:
            base = f"http://127.0.0.1:{port}"
            options = {"binary": shutil.which("chromium"), "args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options}
            created = _call("POST", f"{base}/session", {"capabilities": {"alwaysMatch": wanted}})
            session = created["sessionId"]
            timeouts = {"script": int(SCRIPT_DEADLINE_S * 1000), "pageLoad": 30_000}
            _call("POST", f"{base}/session/{session}/timeouts", timeouts)
            try:
                yield Browser(base, session)
            finally:
                with suppress(AssertionError, OSError):
                    _call("DELETE", f"{base}/session/{session}", None)
        finally:
            _end(driver)


def _driver(home: Path, log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    """One that listens, and its port. It takes a free port of IPv4; where that is not free for IPv6, it gives up."""
    for _ in range(5):
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "HOME": str(home)},
            start_new_session=True,
        )
        if (port := _port(driver)) is not None:
            return driver, port
        _end(driver)
    raise AssertionError("chromedriver did not start")


def _end(driver: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)
    driver.wait(10)
    assert driver.stdout is not None
    driver.stdout.close()


def _port(driver: subprocess.Popen[bytes]) -> int | None:
    """The port that chromedriver says it listens on; None: it has ended."""
    assert driver.stdout is not None
    watchdog = threading.Timer(START_DEADLINE_S, driver.kill)
    watchdog.start()
    try:
        for line in driver.stdout:
            if found := re.search(rb"started successfully on port (\d+)", line):
                return int(found[1])
    finally:
        watchdog.cancel()
    return None


def _call(method: str, url: str, body: Mapping[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _OPENER.open(request, timeout=START_DEADLINE_S + SCRIPT_DEADLINE_S) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as exc:
        with exc:
            text = exc.read(2000).decode(errors="replace")
        raise AssertionError(f"{method} {url}: {exc.code} {text}") from exc


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET of what lies in `contents`, with one byte range, which <video> needs for seeking."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    contents: Mapping[str, tuple[bytes, str]]

    def do_GET(self) -> None:
        found = self.contents.get(self.path)
        if found is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, type_ = found
        begin, end = 0, len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            begin = int(asked[1])
            end = min(len(data), int(asked[2]) + 1) if asked[2] else len(data)
            self.send_response(206 if begin < end else 416)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}" if begin < end else "bytes */*")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(max(0, end - begin)))
        self.end_headers()
        with suppress(ConnectionError):  # a player that has enough hangs up
            self.wfile.write(data[begin:end])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the log of the test is for the test."""


@contextmanager
def served(contents: Mapping[str, tuple[bytes, str]]) -> Iterator[str]:
    """Serve bytes and their types by path on loopback; the address, without a slash at its end."""
    handler = type("Handler", (_Handler,), {"contents": contents})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="files")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
        assert not thread.is_alive()
