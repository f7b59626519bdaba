"""A network camera by GStreamer's RTSP server (rtsp_server.py), which knows nothing of msrecd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SERVER = Path(__file__).with_name("rtsp_server.py")
_PYTHON = "/usr/bin/python3"  # the system's, which has GStreamer's modules


def require_gst_camera() -> None:
    """Skip the test where there is no such server."""
    probe = [_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no RTSP server (apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good)")


@contextmanager
def gst_camera(media: Path, port: int, *, sound: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """One that plays a file at rtsp://127.0.0.1:PORT/camera."""
    command = [_PYTHON, str(_SERVER), str(port), str(media), *(["--sound"] if sound else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield server
        finally:
            server.kill()
