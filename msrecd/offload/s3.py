"""A store that speaks S3: files are put by their hash, never over another one.

Each PUT is signed with the SHA-256 of the manifest as the hash of its payload, and carries it as a checksum, too: a
store that takes it has proven it. `If-None-Match: *` makes the key once. One connection; everything blocks.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from xml.etree import ElementTree

from msrecd.offload.pace import TokenBucket
from msrecd.offload.sigv4 import EMPTY_SHA256, Credentials, canonical_query, encoded_path, signed_headers
from msrecd.offload.target import Refused, Stopped, StoreError, Unfit, Unreachable
from msrecd.vocabulary.tls import client_context

SILENCE_S = 30.0  # a request that is silent for so long is given up
ANSWER_S = 120.0  # the whole answer of a request that has been sent
_ANSWER_BYTES = 16 << 20  # of a listing
_CODE, _MESSAGE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>"), re.compile(rb"<Message>([^<]{1,200})</Message>")
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_WRONG_BODY = ("XAmzContentSHA256Mismatch", "BadDigest", "InvalidDigest", "IncompleteBody", "RequestTimeout")
_LATER = (429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """endpoint: `https://host[:port]`, or `http://` on this machine. prefix: before all keys."""

    endpoint: str
    bucket: str
    prefix: str
    region: str
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def code(self) -> str:
        """The store's own word for an error."""
        match = _CODE.search(self.body)
        return match[1].decode() if match else ""

    def said(self) -> str:
        """Status and the store's words, for a message."""
        message = _MESSAGE.search(self.body)
        words = message[1].decode("utf-8", "replace") if message else ""
        text = f"{self.status} {self.code or http.client.responses.get(self.status, '')}".strip()
        return f"{text}: {''.join(filter(str.isprintable, words))}" if words else text


class _Lines(io.BufferedReader):
    """Remembers the last line that was read."""

    last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last = super().readline(-1 if size is None else size)
        return self.last


class _WholeResponse(http.client.HTTPResponse):
    """An answer whose head came whole: http.client takes the end of the connection for the end of the head, and an
    object whose hash was not said would be one that has none."""

    def __init__(self, sock: socket.socket, *more: Any, **named: Any) -> None:
        super().__init__(sock, *more, **named)
        self.fp.close()
        self._lines = _Lines(sock.makefile("rb", buffering=0))
        self.fp = self._lines

    def begin(self) -> None:
        """
        Raises:
            HTTPException: it is none, or not whole.
        """
        super().begin()
        if self._lines.last not in (b"\r\n", b"\n"):
            raise http.client.IncompleteRead(self._lines.last)


class S3Store:
    """One thread at a time; `stop` from any."""

    def __init__(self, settings: S3Settings, credentials: Credentials, *, rate: int | None = None) -> None:
        """
        Args:
            rate: bytes a second; None: as fast as it goes.
        """
        parts = urlsplit(settings.endpoint)
        self.name = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}/{settings.bucket}"
        self._settings = settings
        self._credentials = credentials
        self._is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._bucket = TokenBucket(rate)
        self._connection: http.client.HTTPConnection | None = None
        self._skew = timedelta()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Give up what is being sent."""
        self._stopping.set()
        self._cut()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: str, mime_type: str) -> str:
        """See Target."""
        headers = {
            "content-length": str(size),
            "content-type": mime_type.partition(";")[0] or "application/octet-stream",
            "if-none-match": "*",
            "x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(sha256)).decode(),
        }
        answer = self._send("PUT", key, headers=headers, payload_sha256=sha256, body=body, size=size)
        if answer.status in (200, 201, 204):
            stored = answer.headers.get("x-amz-checksum-sha256", headers["x-amz-checksum-sha256"])
            if stored != headers["x-amz-checksum-sha256"]:  # the next try compares what is there
                raise Unreachable(f"PUT {key}: the store answers that it has another SHA-256 of it")
            return "put"
        if answer.status in (409, 412) and answer.code != "NoSuchBucket":
            return self._compare(key, size, sha256, answer)
        raise _error_of(answer, f"PUT {key}")

    def _compare(self, key: str, size: int, sha256: str, refusal: Answer) -> str:
        """The key exists, perhaps from a request whose answer was lost: whether it is the same file."""
        found = self.head(key)
        if found is None:  # another request with this key is under way, or it was deleted just now
            raise Unreachable(f"PUT {key}: {refusal.said()}")
        if found == (size, sha256):
            return "head"
        if found[1]:
            raise Unfit(f"{key} is in the store with other content, and is not overwritten")
        raise Unfit(f"{key} is in the store, which has no SHA-256 of it to compare")

    def head(self, key: str) -> tuple[int, str] | None:
        """Size and SHA-256 (hex, "" where the store has none) of an object; None: there is none.

        Raises:
            StoreError: nobody knows.
        """
        answer = self._send("HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"})
        if answer.status == 404:
            return None
        if answer.status == 403:
            raise Unfit(f"{key} is in the store already; to compare it the key needs the right s3:GetObject")
        if answer.status != 200:
            raise _error_of(answer, f"HEAD {key}")
        checksum = answer.headers.get("x-amz-checksum-sha256", "")
        try:
            digest = base64.b64decode(checksum, validate=True).hex()
        except ValueError:  # "…-3": of an object in parts, which is none of ours
            digest = ""
        length = answer.headers.get("content-length", "")
        return (int(length) if length.isdigit() else -1), digest

    def get(self, key: str) -> bytes:
        """A small object.

        Raises:
            StoreError: it cannot be had.
        """
        answer = self._send("GET", key)
        if answer.status != 200:
            raise _error_of(answer, f"GET {key}")
        return answer.body

    def keys(self) -> Iterator[str]:
        """All keys with the prefix, without it.

        Raises:
            StoreError: they cannot be listed.
        """
        prefix, token = self._settings.prefix, ""
        while True:
            query = {"list-type": "2", "prefix": prefix} | ({"continuation-token": token} if token else {})
            answer = self._send("GET", None, query=query)
            if answer.status != 200:
                raise _error_of(answer, "list the bucket")
            try:
                root = ElementTree.fromstring(answer.body)  # bounded, and entities are not expanded
            except ElementTree.ParseError as exc:
                raise Unreachable("list the bucket: the answer is no XML") from exc
            found = {child.tag.rpartition("}")[2]: child.text or "" for child in root}
            for entry in root:
                if entry.tag.endswith("Contents"):
                    for child in entry:
                        if child.tag.rpartition("}")[2] == "Key":
                            yield (child.text or "").removeprefix(prefix)
            token = found.get("NextContinuationToken", "")
            if not token:
                return

    # --- one request -------------------------------------------------------------------------------------------------

    def _send(
        self,
        method: str,
        key: str | None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        payload_sha256: str = EMPTY_SHA256,
        body: BinaryIO | None = None,
        size: int = 0,
    ) -> Answer:
        path = encoded_path(self._settings.bucket, "" if key is None else self._settings.prefix + key)
        for attempt in range(2):
            if body is not None:
                body.seek(0)
            signed = signed_headers(
                self._credentials,
                method=method,
                host=self._host_header,
                path=path,
                query=query or {},
                headers=headers or {},
                payload_sha256=payload_sha256,
                region=self._settings.region,
                now=datetime.now(UTC) + self._skew,
            )
            target = path + (f"?{canonical_query(query)}" if query else "")
            answer = self._exchange(method, target, signed, body, size, payload_sha256)
            if attempt or answer.code != "RequestTimeTooSkewed" or "date" not in answer.headers:
                return answer
            # A clock that nobody has set is no reason to send nothing: the store says what time it is.
            with contextlib.suppress(ValueError, TypeError):
                self._skew = parsedate_to_datetime(answer.headers["date"]).astimezone(UTC) - datetime.now(UTC)
        return answer

    @property
    def _host_header(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        usual = 443 if self._is_tls else 80
        return host if self._port in (None, usual) else f"{host}:{self._port}"

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: BinaryIO | None, size: int, sha256: str
    ) -> Answer:
        if self._stopping.is_set():
            raise Stopped("stopping")
        is_sent_whole = False
        timer: threading.Timer | None = None
        try:
            connection = self._connected()
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                if body is not None:
                    self._send_body(connection, body, size, sha256)
                is_sent_whole = True
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may have answered before it had all
            timer = threading.Timer(ANSWER_S, self._cut)
            timer.daemon = True
            timer.start()
            response = connection.getresponse()
            content = response.read(_ANSWER_BYTES + 1)
            if response.length and len(content) <= _ANSWER_BYTES:
                raise http.client.IncompleteRead(content, response.length)
            answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, content)
            if len(content) > _ANSWER_BYTES or response.will_close or not is_sent_whole:
                self.close()
            return answer
        except StoreError:
            self.close()
            raise
        except ssl.SSLCertVerificationError as exc:
            self.close()
            advice = "offload.ca_file names the authority that signed it"
            raise Refused(f"the store's certificate is not trusted: {exc.verify_message} ({advice})") from exc
        except TimeoutError as exc:
            self.close()
            raise Unreachable(f"{self.name} was silent for {SILENCE_S:g} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            if self._stopping.is_set():
                raise Stopped("stopping") from exc
            words = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
            raise Unreachable(f"{self.name}: {words}") from exc
        finally:
            if timer is not None:
                timer.cancel()

    def _send_body(self, connection: http.client.HTTPConnection, body: BinaryIO, size: int, sha256: str) -> None:
        digest = hashlib.sha256()
        left = size
        while left:
            block = body.read(min(self._bucket.block_bytes, left))
            if not block:
                raise Unfit("the file is shorter than its manifest says")
            digest.update(block)
            left -= len(block)
            if not left and digest.hexdigest() != sha256:
                raise Unfit("the file is not what was recorded: its SHA-256 is not the manifest's")
            if self._stopping.wait(self._bucket.delay_s(len(block), time.monotonic())):
                raise Stopped("stopping")
            connection.send(block)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._is_tls:
                context = client_context(self._settings.ca_file, "offload.ca_file")
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=SILENCE_S, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=SILENCE_S)
            self._connection.response_class = _WholeResponse
        return self._connection

    def _cut(self) -> None:
        connection = self._connection
        sock = None if connection is None else connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _error_of(answer: Answer, doing: str) -> StoreError:
    """What an answer means for what was tried."""
    if answer.code in _WRONG_BODY or answer.status in _LATER:
        return Unreachable(f"{doing}: {answer.said()}")
    if answer.status in (301, 307, 308):
        region = answer.headers.get("x-amz-bucket-region")
        hint = f"the bucket is in the region {region}: set offload.region" if region else "it points elsewhere"
        return Refused(f"{doing}: {answer.said()}; {hint}")
    return Refused(f"{doing}: {answer.said()}")
