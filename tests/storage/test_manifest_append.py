"""A line is in its manifest once, also where an attempt failed and could not be taken back."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from msrecd.storage import files, manifest

LINE = {"deleted": 1, "at": "2026-01-01T00:00:00Z", "reason": "age"}
NEXT = {"deleted": 2, "at": "2026-01-01T00:00:00Z", "reason": "age"}


def test_a_file_system_that_turns_read_only_within_a_line_does_not_double_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync fails, and so does the cut; what was written is still there when the medium is mounted again."""
    sync, cut = os.fsync, os.ftruncate
    failing = {"sync": True}

    def fsync(fd: int) -> None:
        if failing["sync"]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    def ftruncate(fd: int, size: int) -> None:
        if failing["sync"] and os.fstat(fd).st_size != size:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        cut(fd, size)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "ftruncate", ftruncate)
    with files.closing_fd(files.open_root(tmp_path)) as folder:
        with pytest.raises(OSError, match="Input/output"):
            manifest.append(folder, "a.jsonl", LINE)
        failing["sync"] = False
        manifest.append(folder, "a.jsonl", LINE)
        manifest.append(folder, "a.jsonl", NEXT)
    data = (tmp_path / "a.jsonl").read_bytes()
    assert [json.loads(line)["deleted"] for line in data.splitlines()] == [1, 2]
    contents = manifest.read(data)
    assert (contents.broken, contents.edited, contents.unreadable, contents.torn) == ((), (), (), False)
