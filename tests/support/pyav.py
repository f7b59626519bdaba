"""Tests of what PyAV gives from version 15 on; Debian 13 has 14.2."""

from __future__ import annotations

import av
import pytest

IS_OLD = int(av.__version__.partition(".")[0]) < 15
needs_colours = pytest.mark.skipif(IS_OLD, reason="before PyAV 15 frames do not say primaries and transfer")
needs_sender_reports = pytest.mark.skipif(IS_OLD, reason="before PyAV 15 packets do not say the sender's time")
