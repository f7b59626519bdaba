"""Which recordings are open: one small file each in the state directory, so that a start looks at nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from msrecd.storage import files, layout


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEntry:
    """An unfinished chunk: `file` is its final path relative to the storage."""

    seq: int
    file: str
    mime_type: str
    started_ns: int
    trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRecording:
    """A recording that goes on, or did when the power went; `manifest` is relative to the storage."""

    recording_id: str
    recorder: str
    manifest: str
    chunks: tuple[OpenEntry, ...]


class Journal:
    """Files `<state>/open/<recording_id>.json`. Different recordings may be written by different threads.

    Raises:
        OSError: from every method.
    """

    def __init__(self, state_path: Path) -> None:
        self._path = state_path / "open"

    def write(self, recording: OpenRecording) -> None:
        if not self._path.is_dir():
            self._path.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
            with files.closing_fd(files.open_root(self._path.parent)) as state:
                os.fsync(state)
        with files.closing_fd(files.open_root(self._path)) as folder:
            files.replace_file(folder, f"{recording.recording_id}.json", json.dumps(asdict(recording)).encode())

    def remove(self, recording_id: str) -> None:
        (self._path / f"{recording_id}.json").unlink(missing_ok=True)

    def is_open(self, recording_id: str) -> bool:
        return (self._path / f"{recording_id}.json").exists()

    def recording_ids(self) -> list[str]:
        try:
            names = sorted(path.name for path in self._path.iterdir())
        except FileNotFoundError:
            return []
        return [n.removesuffix(".json") for n in names if layout.parse_recording_id(n.removesuffix(".json"))]

    def read_all(self) -> Iterator[OpenRecording]:
        """Whole entries with names that can be ours; a torn one is passed over (its folder is looked at anyway)."""
        for recording_id in self.recording_ids():
            try:
                values = json.loads((self._path / f"{recording_id}.json").read_bytes())
                chunks = tuple(OpenEntry(**entry) for entry in values["chunks"])
                recording = OpenRecording(
                    recording_id=recording_id,
                    recorder=str(values["recorder"]),
                    manifest=str(values["manifest"]),
                    chunks=chunks,
                )
            except (OSError, ValueError, KeyError, TypeError):
                continue
            paths = [entry.file for entry in chunks] + ([recording.manifest] if recording.manifest else [])
            if all(layout.split_file(path) for path in paths):
                yield recording
