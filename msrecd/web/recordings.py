"""Routes of what is recorded: lists, playlists, chunks, thumbnails, manifests, exports. Looking is a viewer's right."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from msrecd.clock import NS
from msrecd.errors import MsrecdError, StorageError
from msrecd.storage.catalog import ChunkEntry, GapEntry, RecordingEntry, TriggerEntry
from msrecd.vocabulary.formats import SUFFIXES, parse_mime_type
from msrecd.vocabulary.times import format_utc, parse_rfc3339
from msrecd.web.daemonside import DaemonSide
from msrecd.web.exporting import Exports, container_of
from msrecd.web.library import ChunkFile, Library, known_name
from msrecd.web.ranges import select
from msrecd.web.router import Access, HttpError, Request, Response, Router, json_response
from msrecd.web.thumbnails import Thumbnails

T = TypeVar("T")

PLAYLIST = "application/vnd.apple.mpegurl"
THUMBNAILS_WAITING = 32  # for the one that is being decoded
TRIGGERS_LIMIT = 1000  # of a recording in an answer
DEADLINE_S = 30.0
READ_BYTES = 256 * 1024
_STATUS = {"not_found": 404, "too_large": 413, "damaged": 422}
_AGAIN = {"Retry-After": "5"}
_UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}


def add_routes(router: Router, daemon: DaemonSide) -> Recordings:
    """See `router`."""
    recordings = Recordings(daemon)
    for pattern, handler in (
        ("/api/recordings", recordings.list),
        ("/api/recordings/{recording_id}/index.m3u8", recordings.index),
        ("/api/recordings/{recording_id}/manifest", recordings.manifest),
        ("/api/recordings/{recording_id}/{name}", recordings.chunk),
        ("/api/timeline/{name}", recordings.timeline),
        ("/api/days", recordings.days),
        ("/api/export", recordings.export),
    ):
        router.add("GET", pattern, handler, access=Access.VIEWER)
    return recordings


class Recordings:
    """Handlers, on the server's loop; what blocks is done by the threads of `daemon`."""

    def __init__(self, daemon: DaemonSide) -> None:
        self._daemon = daemon
        self._library = Library(daemon.store)
        self._thumbnails = Thumbnails()
        self._decoding = asyncio.Lock()
        self._waiting = 0
        self._refused = 0
        self._exports = Exports()

    def health(self) -> Mapping[str, int]:
        """For state/health: what was refused, because others were being made."""
        return {"thumbnails_refused": self._refused, "exports_refused": self._exports.refused}

    def _now(self) -> str:
        return format_utc(self._daemon.store.walltime.stamp().utc_ns)

    # --- lists and playlists -----------------------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        """GET /api/recordings"""
        recorder = request.query.get("recorder")
        if recorder is not None:
            await self._do(known_name, recorder)
        from_ns, to_ns = _moment(request, "from"), _moment(request, "to")
        found = await self._do(self._library.recordings, recorder, from_ns, to_ns)
        return json_response({"now": self._now(), "recordings": [_recording_json(entry) for entry in found]})

    async def days(self, request: Request) -> Response:
        """GET /api/days: when recordings began and ended, the newest first."""
        recorder = request.query.get("recorder")
        if recorder is not None:
            await self._do(known_name, recorder)
        found = await self._do(self._library.spans, recorder)
        return json_response({"now": self._now(), "recordings": found})

    async def index(self, request: Request) -> Response:
        """GET /api/recordings/<id>/index.m3u8"""
        text = await self._do(self._library.recording_playlist, request.params["recording_id"])
        return Response(200, text.encode(), PLAYLIST, {"Cache-Control": "no-store"})

    async def timeline(self, request: Request) -> Response:
        """GET /api/timeline/<recorder>.m3u8"""
        name = request.params["name"]
        if not name.endswith(".m3u8"):
            raise HttpError(404, "not_found", "there is no such timeline")
        recorder = await self._do(known_name, name.removesuffix(".m3u8"))
        text = await self._do(self._library.timeline_playlist, recorder, *_range(request))
        return Response(200, text.encode(), PLAYLIST, {"Cache-Control": "no-store"})

    async def manifest(self, request: Request) -> Response:
        """GET /api/recordings/<id>/manifest"""
        recording_id = request.params["recording_id"]
        data = await self._do(self._library.manifest, recording_id)
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{recording_id}.jsonl"',
        }
        return Response(200, data, "application/jsonl", headers)

    # --- one chunk ---------------------------------------------------------------------------------------------------

    async def chunk(self, request: Request) -> Response:
        """GET /api/recordings/<id>/<seq>, <seq>.mp4, <seq>.jpg, <seq>.m3u8"""
        number, _, suffix = request.params["name"].partition(".")
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise HttpError(404, "not_found", "there is no such chunk")
        chunk = await self._do(self._library.chunk, request.params["recording_id"], int(number))
        if suffix == "jpg":
            return await self._thumbnail(request, chunk)
        if suffix == "m3u8":
            text = await self._do(self._library.chunk_playlist, chunk)
            return Response(200, text.encode(), PLAYLIST, dict(_UNCHANGING))
        if suffix and (f".{suffix}" not in SUFFIXES or f".{suffix}" != chunk.suffix):
            raise HttpError(404, "not_found", f"chunk {number} is a {chunk.suffix}")
        return await self._file(request, chunk)

    async def _file(self, request: Request, chunk: ChunkFile) -> Response:
        etag = f'"{chunk.sha256}"'
        fd = await self._do(self._library.open, chunk)
        try:
            chosen = select(request.headers, etag, chunk.bytes)
            headers = {"ETag": etag, "Accept-Ranges": "bytes", **_UNCHANGING}
            if "download" in request.query:
                headers["Content-Disposition"] = f'attachment; filename="{chunk.name}"'
            if chosen.status == 416:
                headers["Content-Range"] = f"bytes */{chunk.bytes}"
                raise HttpError(416, "bad_range", "these bytes are not in the file", headers=headers)
            mime = parse_mime_type(chunk.mime_type)
            response = Response(chosen.status, b"", mime.essence if mime else "application/octet-stream", headers)
            if chosen.status == 304:
                return response
            if chosen.status == 206:
                last = chosen.offset + chosen.length - 1
                headers["Content-Range"] = f"bytes {chosen.offset}-{last}/{chunk.bytes}"
            response.length = chosen.length
            if request.method != "HEAD":
                response.body, fd = _Part(fd, chosen.offset, chosen.length, self._daemon), -1
            return response
        finally:
            if fd >= 0:
                os.close(fd)

    async def _thumbnail(self, request: Request, chunk: ChunkFile) -> Response:
        etag = f'"{chunk.sha256}-jpg"'
        headers = {"ETag": etag, **_UNCHANGING}
        if select(request.headers, etag, 1).status == 304:
            return Response(304, b"", "image/jpeg", headers)
        jpeg = self._thumbnails.get(chunk.sha256)
        if jpeg is None:
            if not chunk.mime_type.startswith("video/"):
                raise HttpError(404, "not_found", "a recording of sound has no thumbnail")
            jpeg = await self._decode(chunk)
        return Response(200, jpeg, "image/jpeg", headers)

    async def _decode(self, chunk: ChunkFile) -> bytes:
        """One after the other: a recording needs the processor more."""
        if self._waiting >= THUMBNAILS_WAITING:
            raise HttpError(
                503, "busy", "too many thumbnails are asked for", headers={"Retry-After": "2"}, retryable=True
            )
        self._waiting += 1
        try:
            async with self._decoding:
                kept = self._thumbnails.get(chunk.sha256)  # another request was first
                return await self._do(self._make, chunk) if kept is None else kept
        finally:
            self._waiting -= 1

    def _make(self, chunk: ChunkFile) -> bytes:
        return self._thumbnails.make(chunk.sha256, self._library.path(chunk))

    # --- export ------------------------------------------------------------------------------------------------------

    async def export(self, request: Request) -> Response:
        """GET /api/export: the chunks of a range as one file."""
        recorder = request.query.get("recorder")
        if recorder is None:
            raise HttpError(400, "bad_args", "recorder: the name of a recorder is expected")
        await self._do(known_name, recorder)
        from_ns, to_ns = _range(request)
        chunks, _ = await self._do(self._library.chunks_between, recorder, from_ns, to_ns)
        if not chunks:
            raise HttpError(404, "not_found", f"{recorder} recorded nothing that is finished and there in this range")
        library = self._library
        container, suffix = container_of([f".{chunk.file.rpartition('.')[2]}" for chunk in chunks])
        name = f"{recorder}_{_for_name(from_ns)}_{_for_name(to_ns)}{suffix}"
        headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"'}
        response = Response(200, b"", "application/octet-stream", headers)
        if request.method == "HEAD":
            return response
        if self._exports.is_busy:
            self._exports.refused += 1
            raise HttpError(503, "busy", "another export is being sent", headers=_AGAIN, retryable=True)
        pieces = [library.piece(chunk) for chunk in chunks]
        try:
            response.body = await self._exports.begin(pieces, container, library.lease, from_ns, to_ns)
        except MsrecdError as exc:  # of the joiner: it names the file and what to do
            raise HttpError(422, "cannot_join", str(exc)) from exc
        except OSError as exc:
            raise HttpError(503, "io_error", f"the chunks cannot be read: {exc.strerror or exc}") from exc
        return response

    async def _do(self, call: Callable[..., T], *args: Any) -> T:
        """Call what blocks, in a thread; its errors as answers."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._daemon.in_thread(call, *args)
        except TimeoutError as exc:
            raise HttpError(503, "io_error", "the disk does not answer", retryable=True) from exc
        except StorageError as exc:
            raise HttpError(_STATUS.get(exc.code, 503), exc.code, exc.message) from exc


class _Part:
    """Bytes of an open file, piece by piece; closes the descriptor at the end, or with `aclose`."""

    def __init__(self, fd: int, offset: int, length: int, daemon: DaemonSide) -> None:
        self._fd, self._offset, self._left, self._daemon = fd, offset, length, daemon

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left or self._fd < 0:
            await self.aclose()
            raise StopAsyncIteration
        async with asyncio.timeout(DEADLINE_S):
            data = await self._daemon.in_thread(_read, os.dup(self._fd), min(READ_BYTES, self._left), self._offset)
        if not data:
            raise OSError("the file ended early")
        self._offset += len(data)
        self._left -= len(data)
        return data

    async def aclose(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _read(fd: int, size: int, offset: int) -> bytes:
    """From a descriptor of its own, which it closes: the request may end meanwhile."""
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _moment(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError) as exc:
        raise HttpError(400, "bad_args", f"{name}: a time like 2026-11-20T18:00:00Z is expected") from exc


def _range(request: Request) -> tuple[int, int]:
    """Both ends of a range, which an export and a timeline need."""
    from_ns, to_ns = _moment(request, "from"), _moment(request, "to")
    if from_ns is None or to_ns is None or from_ns >= to_ns:
        raise HttpError(400, "bad_args", "from and to: two times are expected, from before to")
    return from_ns, to_ns


def _for_name(utc_ns: int) -> str:
    """A moment in a file name: 20261120T180000Z."""
    return format_utc(utc_ns)[:19].replace("-", "").replace(":", "") + "Z"


def _recording_json(entry: RecordingEntry) -> dict[str, object]:
    """The keys are those of `msrecd recordings list --json`, as far as the page needs them."""
    return {
        "recording_id": entry.recording_id,
        "recorder": entry.recorder,
        "started": format_utc(entry.started_ns),
        "ended": format_utc(entry.ended_ns),
        "bytes": entry.bytes,
        "protected": entry.protected,
        "chunks": [_chunk_json(chunk) for chunk in entry.chunks if chunk.exists],
        "gaps": [
            {"started": format_utc(gap.started_ns), "duration_s": gap.duration_s, "reason": gap.reason}
            for gap in (*entry.gaps, *_missing(entry))
        ],
        "triggers": [
            {
                "kind": one.kind,
                "score": one.score,
                "started": format_utc(one.started_ns),
                "ended": format_utc(one.ended_ns),
            }
            for one in _joined(entry.triggers)
        ],
    }


def _joined(triggers: Sequence[TriggerEntry], limit: int = TRIGGERS_LIMIT) -> list[TriggerEntry]:
    """At most so many, by joining neighbours: what is nearer than a pixel of any screen is one mark anyway."""
    found = sorted(triggers, key=lambda one: one.started_ns)
    if len(found) <= limit:
        return found
    each = -(-len(found) // limit)
    groups = [found[at : at + each] for at in range(0, len(found), each)]
    return [
        replace(group[0], ended_ns=max(one.ended_ns for one in group), score=max(one.score for one in group))
        for group in groups
    ]


def _missing(entry: RecordingEntry) -> list[GapEntry]:
    """Files that a manifest lists and that are not there."""
    return [
        GapEntry(
            started_ns=chunk.started_ns, duration_s=(chunk.ended_ns - chunk.started_ns) / NS, reason="missing_file"
        )
        for chunk in entry.chunks
        if not chunk.exists
    ]


def _chunk_json(chunk: ChunkEntry) -> dict[str, object]:
    return {
        "seq": chunk.seq,
        "started": format_utc(chunk.started_ns),
        "ended": format_utc(chunk.ended_ns),
        "duration_s": chunk.duration_s,
        "bytes": chunk.bytes,
        "mime_type": chunk.mime_type,
        "clock": "corrected" if chunk.corrected else chunk.clock,
        "protected": chunk.protected,
        "recovered": chunk.recovered,
        **({"time_lapse": True} if chunk.is_time_lapse else {}),
    }
