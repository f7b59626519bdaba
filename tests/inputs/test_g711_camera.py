"""G.711 of a camera: PCM of the same samples where that is asked, AAC else, a sentence where it is named itself."""

from __future__ import annotations

import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from msrecd.codecs.g711 import pcm_of_g711
from msrecd.daemon.checks import config_checks

CAMERA = Path(__file__).parents[2] / "benchmarks" / "camera.py"
CODECS = pytest.mark.parametrize("codec", ["pcm_mulaw", "pcm_alaw"])


@pytest.fixture
def camera(tmp_path: Path, codec: str) -> Iterator[str]:
    media = tmp_path / "camera.mkv"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=8", "-f", "lavfi", "-i",
         "sine=frequency=437:duration=8:sample_rate=8000", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g",
         "25", "-pix_fmt", "yuv420p", "-c:a", codec, str(media)],
        check=True, timeout=120,
    )  # fmt: skip
    with subprocess.Popen([sys.executable, str(CAMERA), str(media)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"rtsp://127.0.0.1:{int(process.stdout.readline())}/cam"
        process.kill()


def record(url: str, out: Path, *more: str) -> tuple[str, set[int]]:
    """(codec of the sound, the values of its samples) of what was recorded."""
    command = [sys.executable, "-m", "msrecd", "record", "--source", url, "--duration", "3s", *more, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with av.open(str(out)) as container:
        sound = container.streams.audio[0]
        samples = [frame.to_ndarray().ravel() for frame in container.decode(sound)]
    assert 2.5 < sum(map(len, samples)) / sound.codec_context.sample_rate < 4.5
    return sound.codec_context.name, {int(value) for block in samples for value in block}


@CODECS
@pytest.mark.promise("g711-of-a-camera")
def test_a_cameras_g711_is_pcm_where_that_is_asked_and_aac_else(camera: str, codec: str, tmp_path: Path) -> None:
    name, values = record(camera, tmp_path / "pcm.mkv", "--mime-type", "video/x-matroska;codecs=avc1,pcm")
    assert name == "pcm_s16le"
    of_codes = set(array("h", pcm_of_g711(bytes(range(256)), codec)))
    assert len(values) > 25
    assert values - {0} <= of_codes, "no sample is changed"
    assert record(camera, tmp_path / "encoded.mkv")[0] == "aac"


@CODECS
@pytest.mark.promise("g711-is-refused")
@pytest.mark.parametrize("container", ["video/mp4", "video/x-matroska"])
def test_a_type_that_names_it_is_refused_with_what_to_take(container: str, codec: str) -> None:
    """As check-config asks: whatever the libav build."""
    message = config_checks().mime_type(f"{container};codecs=avc1,{codec}")
    assert message is not None
    assert f"{container} cannot hold {codec}" in message
    assert '"pcm" in Matroska' in message
