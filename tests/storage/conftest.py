"""A folder in memory, for tests with thousands of syncs whose subject is not the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")


@pytest.fixture
def quick_path() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="msrecd-test-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
    yield path
    shutil.rmtree(path)
