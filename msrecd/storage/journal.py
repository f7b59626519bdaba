"""Which recordings are open: one small file each on the medium, so that a start looks at nothing else."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from msrecd.storage import files, layout
from msrecd.storage.manifest_values import is_seconds
from msrecd.storage.medium import FOLDER
from msrecd.vocabulary.lapse import TimeLapse

log = logging.getLogger(__name__)

_FOLDER = f"{FOLDER}/open"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEntry:
    """An unfinished chunk: `file` is its final path relative to the storage.

    interval_s, frame_rate: of a time-lapse; else 0.
    """

    seq: int
    file: str
    mime_type: str
    started_ns: int
    trusted: bool
    boot_id: str = ""
    interval_s: float = 0.0
    frame_rate: float = 0.0

    @property
    def time_lapse(self) -> TimeLapse | None:
        return TimeLapse(self.interval_s, self.frame_rate) if self.interval_s and self.frame_rate else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRecording:
    """A recording that goes on, or did when the power went; `manifest` is relative to the storage."""

    recording_id: str
    recorder: str
    manifest: str
    chunks: tuple[OpenEntry, ...]


class Journal:
    """Files `.msrecd/open/<recording_id>.json` on the medium. Different recordings may be written by different threads.

    Methods take a descriptor of the medium's folder.

    Raises:
        OSError: from every method.
    """

    def write(self, root: int, recording: OpenRecording) -> None:
        with files.closing_fd(files.open_folder(root, _FOLDER, create=True)) as folder:
            files.replace_file(folder, f"{recording.recording_id}.json", json.dumps(asdict(recording)).encode())

    def remove(self, root: int, recording_id: str) -> None:
        with contextlib.suppress(FileNotFoundError), files.closing_fd(files.open_folder(root, _FOLDER)) as folder:
            os.unlink(f"{recording_id}.json", dir_fd=folder)

    def is_open(self, root: int, recording_id: str) -> bool:
        try:
            with files.closing_fd(files.open_folder(root, _FOLDER)) as folder:
                return files.exists(folder, f"{recording_id}.json")
        except FileNotFoundError:
            return False

    def recording_ids(self, root: int) -> list[str]:
        try:
            with files.closing_fd(files.open_folder(root, _FOLDER)) as folder:
                names = sorted(os.listdir(folder))  # noqa: PTH208  # a descriptor
        except FileNotFoundError:
            return []
        ids = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        return [recording_id for recording_id in ids if layout.parse_recording_id(recording_id) is not None]

    def read_all(self, root: int) -> Iterator[OpenRecording]:
        """Whole entries with names that can be ours; a torn one is passed over (its folder is looked at anyway)."""
        for recording_id in self.recording_ids(root):
            try:
                with files.closing_fd(files.open_folder(root, _FOLDER)) as folder:
                    yield _recording(recording_id, json.loads(files.read_at(folder, f"{recording_id}.json")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
                log.warning("skipping the journal of %s, which cannot be read: %s", recording_id, exc)


def _recording(recording_id: str, values: Mapping[str, Any]) -> OpenRecording:
    """
    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: it is none of ours.
    """
    known = layout.parse_recording_id(recording_id)
    chunks = tuple(map(_entry, values["chunks"]))
    manifest = values["manifest"]
    if not isinstance(manifest, str):
        raise TypeError("manifest")
    for file in (*(entry.file for entry in chunks), *([manifest] if manifest else [])):
        if layout.split_file(file) is None or file.rpartition("/")[2][: len(recording_id)] != recording_id:
            raise ValueError("a file of another recording")
    if known is None or values["recorder"] != known.recorder:
        raise ValueError("another recorder")
    return OpenRecording(recording_id=recording_id, recorder=known.recorder, manifest=manifest, chunks=chunks)


def _entry(values: Mapping[str, Any]) -> OpenEntry:
    entry = OpenEntry(**values)
    texts = (entry.file, entry.mime_type, entry.boot_id)
    if not (isinstance(entry.seq, int) and isinstance(entry.started_ns, int) and isinstance(entry.trusted, bool)):
        raise TypeError("a value of a wrong type")
    if not all(isinstance(text, str) and len(text) <= 512 and text.isprintable() for text in texts):
        raise TypeError("a value of a wrong type")
    if not all(is_seconds(value) for value in (entry.interval_s, entry.frame_rate)):
        raise TypeError("a value of a wrong type")
    if not 1 <= entry.seq <= 999_999_999 or abs(entry.started_ns) > 1 << 62:
        raise ValueError("a value that can be none of ours")
    return entry
