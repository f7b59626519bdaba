"""DaemonArchive: the storage as recorders see it, with its janitor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msrecd.clock import NS
from msrecd.errors import CommandError, StorageError
from msrecd.muxing.facts import ChunkInfo
from msrecd.storage.store import ChunkFacts, Recording, Store
from msrecd.vocabulary.lapse import TimeLapse
from msrecd.vocabulary.units import format_size

if TYPE_CHECKING:
    from msrecd.recorder.controller import RecorderController

log = logging.getLogger(__name__)

JANITOR_INTERVAL_S = 30.0
_MUCH = 0.8  # of max_total is protected


class DaemonArchive:
    """Recordings begin here; old chunks go here. Blocking calls run in worker threads."""

    def __init__(
        self,
        store: Store,
        on_late: Callable[[Mapping[str, Any]], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            on_late: called on the loop with the line of a chunk that could be finished only later.
            warn: called on the loop with what a person should know before it hurts.
        """
        self.store = store
        self._warn = warn
        self._has_warned = False
        self._rotation_problem = ""  # the one that stands in the log
        self._on_late = on_late
        self._janitor = asyncio.Lock()

    def begin(self, recorder: str, mime_type: str, time_lapse: TimeLapse | None = None) -> Recording:
        """Blocking; see Store.begin.

        Raises:
            StorageError: also `no_space` or `missing_mount`: nothing could be written now.
        """
        self.store.require_room()
        return self.store.begin(recorder, mime_type, time_lapse)

    def facts(
        self, *, info: ChunkInfo | None, final: bool, gaps: list[dict[str, Any]], lost_s: float, paused_s: float
    ) -> ChunkFacts:
        """What the manifest says of a chunk; without accounts (the file broke off) only what is known.

        Args:
            gaps: those that `info` does not know.
            paused_s: of a pause between the chunk before and this one.
        """
        if info is None:
            return ChunkFacts(final=final, gaps=gaps, lost_s=lost_s, paused_s=paused_s)
        tracks: dict[str, dict[str, Any]] = {}
        for track in info.tracks:
            if track.kind == "video":
                tracks["video"] = {"frames": track.units, "dropped": track.dropped}
            else:
                tracks["audio"] = {
                    "samples": track.units,
                    "xruns": track.xruns,
                    "gap_s": track.gap_s,
                    "drift_ppm": track.drift_ppm,
                    "offset_ms": track.offset_ms,
                }
        gaps = gaps + [{"at_s": gap.at_s, "duration_s": gap.duration_s, "reason": gap.reason} for gap in info.gaps]
        gaps.sort(key=lambda gap: gap["at_s"])
        return ChunkFacts(
            duration_s=info.duration_s,
            ended_ns=info.ended_ns,
            final=final,
            tracks=tracks,
            gaps=gaps,
            lost_s=round(lost_s + info.lost_s, 3),
            captured_s=info.captured_s,
            paused_s=paused_s,
        )

    async def protect(self, unit: RecorderController, args: Mapping[str, object]) -> dict[str, object]:
        """The verb `protect`.

        Raises: CommandError.
        """
        store, recording_id = self.store, unit.files.recording_id
        if args.get("whole"):
            if recording_id is None:
                raise CommandError("wrong_state", f"{unit.name} is not recording")
            call = partial(store.protections.protect, recording_id, whole=True)
        else:
            now_ns = store.walltime.stamp().utc_ns
            call = partial(store.protections.protect_range, unit.name, *protected_range(args, now_ns))
        try:
            kept = await asyncio.to_thread(call)
        except StorageError as exc:
            raise CommandError("bad_args" if exc.code == "not_found" else "no_space", exc.message) from exc
        facts: dict[str, object] = {"recording_ids": kept.recording_ids, "chunks": kept.chunks, "bytes": kept.bytes}
        if kept.is_endless and store.limits.max_protected_bytes is not None:
            facts["warning"] = (
                "what this recording still brings is protected, too, until storage.max_protected = "
                f"{format_size(store.limits.max_protected_bytes)} is reached; what comes then goes by the limits"
            )
        elif kept.is_endless:
            facts["warning"] = (
                "everything that this recording still brings is protected, too: when the limits are reached, nothing "
                "of it can be deleted, and the recorder stops with no_space"
            )
        elif (share := await asyncio.to_thread(store.protected_share)) > 0.5:
            facts["warning"] = (
                f"{share:.0%} of storage.max_total is protected: recordings have the rest, and when that is full of "
                "protected ones, they stop with no_space"
            )
        return facts

    async def add_snapshot(
        self, unit: RecorderController, data: bytes, taken_ns: int, mime_type: str
    ) -> dict[str, Any]:
        """Put a snapshot on the disk; the facts of its event.

        Raises:
            StorageError: it is not there.
        """
        recording = unit.files.recording
        save = partial(self.store.add_snapshot, mime_type=mime_type, taken_ns=taken_ns, recording=recording)
        written = await asyncio.to_thread(save, unit.name, data)
        line = written.line
        return {
            "recording_id": written.recording_id,
            "snapshot": line["snapshot"],
            **{name: line[name] for name in ("file", "bytes", "sha256", "mime_type", "taken", "clock")},
        }

    async def make_room(self, recorder: str) -> StorageError | None:
        """Rotate; why no chunk of this recorder can be written even so."""
        await self.tidy()
        try:
            await asyncio.to_thread(self.store.check_writable, recorder)
        except StorageError as exc:
            return exc
        except OSError as exc:
            return StorageError(str(exc))
        return None

    async def tidy(self) -> None:
        """Delete what the limits say, and finish chunks whose finishing had failed."""
        async with self._janitor:
            try:
                deleted = await asyncio.to_thread(self.store.rotate)
                for line in await asyncio.to_thread(self.store.finish_unfinished):
                    self._on_late(line)
                await self._look_at_protection()
            except (StorageError, OSError) as exc:
                if str(exc) != self._rotation_problem:  # once: it is tried again each second while nothing is written
                    log.warning("rotation: %s", exc)
                self._rotation_problem = str(exc)
                return
            self._rotation_problem = ""
            for entry in deleted:
                log.info("deleted %s (%s)", entry.file, entry.reason)

    async def _look_at_protection(self) -> None:
        """Say when protected chunks leave little to the others, once, until they leave more again.

        Raises:
            StorageError: the index cannot be read.
        """
        for recording_id in await asyncio.to_thread(self.store.protections.end_at_limit):
            self._warn(f"storage.max_protected is reached: what {recording_id} still brings is not protected any more")
        share = await asyncio.to_thread(self.store.protected_share)
        if share > _MUCH and not self._has_warned:
            self._warn(
                f"{share:.0%} of storage.max_total is protected: the limits delete only the rest, and when nothing of "
                "it is left, recording stops with no_space; unprotect recordings, raise max_total, or set max_protected"
            )
        self._has_warned = share > _MUCH or (self._has_warned and share > _MUCH - 0.1)

    async def run(self, after: Callable[[], None]) -> None:
        """The janitor's round, until cancelled."""
        while True:
            await self.tidy()
            after()
            await asyncio.sleep(JANITOR_INTERVAL_S)


def recovered_event(line: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """(recorder, line) of a chunk that was recovered: the recorder is the first folder of its file."""
    return str(line["file"]).split("/", 1)[0], line


def protected_range(args: Mapping[str, object], now_ns: int) -> tuple[int, int]:
    """The range of UTC ns that checked arguments of `protect` mean. Pure."""

    def ns(name: str) -> int:
        return round(float(str(args[name])) * NS)

    return (now_ns - ns("last_s"), now_ns) if "last_s" in args else (ns("from"), ns("to"))
