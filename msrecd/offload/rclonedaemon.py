"""`rclone rcd`: one process that is asked, over loopback, to copy, to hash and to list. https://rclone.org/rc/"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msrecd.offload.rcloneconfig import RcloneSettings
from msrecd.offload.target import Refused, StoreError, Unreachable

START_S = 30.0  # a cold start on a small board
QUICK_S = 120.0  # an answer that moves no media; rclone itself gives up a silent connection after 30 s
_BLOCK_BYTES = 256 << 10
_ANSWER_BYTES = 64 << 20
_SMALL_BYTES = 1 << 20
_PORT = re.compile(rb"Serving remote control on http://127\.0\.0\.1:(\d+)/")
# What is worth another try without a person: https://rclone.org/docs/#exit-code has no finer grain.
_LATER = re.compile(
    r"dial tcp|no such host|connection (refused|reset)|i/o timeout|timeout|temporar|EOF|unreachable|broken pipe|"
    r"TLS handshake|ssh: handshake failed: read|SlowDown|too many requests|rate.?limit|\b(429|500|502|503|504)\b",
    re.IGNORECASE,
)


def error_of(message: str) -> StoreError:
    """What rclone's words mean for what was tried."""
    words = " ".join("".join(char if char.isprintable() else " " for char in message).split())[:300]
    return (Unreachable if _LATER.search(words) else Refused)(words or "rclone gives no reason")


def _ending_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes rclone: it asks the kernel to be killed when its parent ends.

    Not by setpriv(1): that of Debian 13 sets capabilities as well, whatever it is asked for, which the unit forbids.
    """
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec as little happens as can

    def end_with_parent() -> None:
        set_parent_death_signal = 1
        libc.prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return end_with_parent


class Rclone:
    """`rclone rcd`, which listens on loopback behind a password that is made for each."""

    def __init__(self, settings: RcloneSettings, *, idle: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            idle: called several times a second while rclone works; may raise to give up.
        """
        self._settings = settings
        self._idle = idle
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._password = ""
        self._home = ""

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        if self._home:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = ""

    def call(self, command: str, parameters: Mapping[str, Any], *, within_s: float = QUICK_S) -> dict[str, Any]:
        """Run a command to its end.

        Raises:
            StoreError: it failed, or took too long.
        """
        deadline = time.monotonic() + within_s
        job = self._ask(command, {**parameters, "_async": True}).get("jobid")
        wait_s = 0.005
        while True:
            status = self._ask("job/status", {"jobid": job})
            if status.get("finished"):
                break
            if time.monotonic() > deadline:
                self.close()
                raise Unreachable(f"{command} took longer than {within_s:.0f} s")
            self._idle()
            time.sleep(wait_s)
            wait_s = min(0.25, wait_s * 1.5)
        if not status.get("success"):
            raise self._error_of(str(status.get("error", "")))
        output = status.get("output")
        return output if isinstance(output, dict) else {}

    def read(self, fs: str, key: str, *, within_s: float) -> Iterator[bytes]:
        """The bytes of an object.

        Raises:
            StoreError: they cannot be had.
        """
        deadline = time.monotonic() + within_s
        path = f"/[{quote(fs, safe='/:')}]/{quote(key)}"
        connection = self._connect()
        try:
            connection.request("GET", path, headers=self._headers())
            response = connection.getresponse()
            if response.status != 200:
                raise error_of(f"{response.status}: {response.read(500).decode('utf-8', 'replace')}")
            left = int(response.headers.get("content-length") or -1)
            while block := response.read(_BLOCK_BYTES):
                left -= len(block)
                self._idle()
                if time.monotonic() > deadline:
                    raise Unreachable(f"reading {key} back took longer than {within_s:.0f} s")
                yield block
            if left > 0:
                raise Unreachable(f"reading {key} back broke off")
        except (OSError, http.client.HTTPException) as exc:
            raise self._ended(exc) from exc
        finally:
            connection.close()

    def _ask(self, command: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        connection = self._connect()
        try:
            body = json.dumps(parameters).encode()
            connection.request("POST", f"/{command}", body, self._headers() | {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read(_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise self._ended(exc) from exc
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise Unreachable("rclone answers something else than asked")
        if "jobid" not in answer and "error" in answer and "finished" not in answer:
            raise self._error_of(str(answer["error"]))
        return answer

    def _error_of(self, message: str) -> StoreError:
        """As error_of; of a file in the place of the store's folder, rclone's words do not say where."""
        if "not a directory" in message:
            place = self._settings.remote
            return Refused(f"{place}: a file is in the place of a folder; move it away, or name another place")
        return error_of(message)

    def _ended(self, exc: Exception) -> StoreError:
        """rclone does not answer: the next call starts another one."""
        self.close()
        return Unreachable(f"rclone ended or does not answer ({type(exc).__name__})")

    def _headers(self) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"msrecd:{self._password}".encode()).decode()}

    def _connect(self) -> http.client.HTTPConnection:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=QUICK_S)

    def _start(self) -> None:
        self._password = secrets.token_urlsafe(24)
        self._home = tempfile.mkdtemp(prefix="msrecd-rclone-")  # a cache that outlives nothing
        settings = self._settings
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": self._home,
            "LANG": "C.UTF-8",
            "GOMEMLIMIT": "96MiB",
            "RCLONE_CONFIG": str(settings.config_file),
            "RCLONE_RC_USER": "msrecd",
            "RCLONE_RC_PASS": self._password,
            "RCLONE_BWLIMIT": "off" if settings.rate is None else f"{settings.rate}B",
            "RCLONE_BUFFER_SIZE": "1Mi",
            "RCLONE_TIMEOUT": "30s",
            "RCLONE_CONTIMEOUT": "30s",
            "RCLONE_LOW_LEVEL_RETRIES": "2",
            # In one piece, so that the store's hash is one of the whole file and none that the sender made.
            "RCLONE_S3_UPLOAD_CUTOFF": "4Gi",
            "RCLONE_S3_NO_CHECK_BUCKET": "true",
            "RCLONE_S3_UPLOAD_CONCURRENCY": "1",
            "RCLONE_B2_UPLOAD_CUTOFF": "4Gi",
        }
        if settings.ca_file is not None:
            environment["RCLONE_CA_CERT"] = str(settings.ca_file)
        if shutil.which("rclone", path=environment["PATH"]) is None:
            self.close()
            raise Refused("rclone is not installed; on Debian: apt install rclone")
        # rclone ends with this process, also where that is killed and no unit ends what it leaves.
        words = [
            "rclone",
            "rcd",
            "--rc-addr",
            "127.0.0.1:0",
            "--rc-serve",
            "--checksum",
        ]
        log = Path(self._home) / "log"  # errors come with the answers, too; it ends with this process
        try:
            with log.open("wb") as file:
                self._process = subprocess.Popen(
                    words,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                    start_new_session=True,
                    preexec_fn=_ending_with(os.getpid()),
                )
            self._port = self._read_port(log)
        except OSError as exc:
            self.close()
            raise Refused(f"rclone does not start: {exc.strerror}") from exc

    def _read_port(self, log: Path) -> int:
        deadline = time.monotonic() + START_S
        while self._process is not None and time.monotonic() < deadline:
            has_ended = self._process.poll() is not None
            said = log.read_bytes()[:_SMALL_BYTES]
            if (match := _PORT.search(said)) is not None:
                return int(match[1])
            if has_ended:
                break
            self._idle()
            time.sleep(0.02)
        self.close()
        words = said.decode("utf-8", "replace").strip().splitlines()
        raise Refused(f"rclone does not start: {error_of(words[-1] if words else 'it says nothing').message}")
