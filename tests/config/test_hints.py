"""Mistakes that people make in the file, and whether the line that they get says what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrecd.config import InvalidConfigError, load
from msrecd.daemon.checks import config_checks

HEAD = 'config_version = 1\n[device]\nid = "pi-1"\n'
CAM = '[[recorder]]\nname = "cam0"\nvideo = true\n'
WINDOW = '[[recorder.schedule]]\nstart = "06:00"\nstop = "07:00"\n'


def complaint(folder: Path, text: str) -> str:
    """The one line about a configuration."""
    path = folder / "msrecd.toml"
    path.write_text(HEAD + text)
    with pytest.raises(InvalidConfigError) as caught:
        load(path, checks=config_checks())
    (problem,) = caught.value.problems
    line = str(problem)
    assert str(path) in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[recorder]]\nname = cam0\n", 'line 5 is not valid TOML: name = cam0  <- text stands in quotes: "cam0"'),
        (CAM + "autostart = yes\n", "<- write true"),
        (CAM + "autostart = False\n", "<- write false"),
        (CAM + 'mime_type = "video/mp4\n', 'a closing " is missing'),
        (CAM + "mime_type = \u201cvideo/mp4\u201d\n", "quotes are plain ones"),
        (CAM + "chunk_duration = 60s\n", 'text stands in quotes: "60s"'),
        (CAM + "chunk_duration =\n", "a value is missing"),
        ("[location]\nlatitude = 52,5\nlongitude = 13.4\n", "write 52.5, with a point"),
        ('[storage]\npath = "C:\\Users"\n', r"write \\ or /"),
        ('[storage]\npath = "C:\\recordings"\n', r"write \\ or /"),
        ('[device]\nid = "x"\n', "stands further up already"),
        (CAM + "video = false\n", "keep one of the two"),
        (WINDOW + CAM, "[[recorder]] must stand above all [recorder. ...] and [[recorder. ...]]"),
        ("recorder:\n  - name: cam0\n", "write key = value"),
        ("[[recorder]\n", "the brackets do not match"),
        ("[location]\u00a0\n", "column 11 has an invisible character (U+00A0, no-break space); type the line anew"),
        ("latitude\u200b = 1\n", "(U+200B, zero width space)"),
        ('[[recorder]]\nname = "a"\nvideo = { width = 1920,\n height = 1080 }\n', "{ } must stand in one line"),
    ],
)
def test_slips_of_toml(tmp_path: Path, text: str, words: str) -> None:
    assert words in complaint(tmp_path, text)


def test_a_password_in_the_broken_line_is_not_shown(tmp_path: Path) -> None:
    line = complaint(tmp_path, '[[recorder]]\nname = "a"\nsource = { url = "rtsp://me:secret@camera/x }\n')
    assert "secret" not in line
    assert "rtsp://...@camera/x" in line


def test_the_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "msrecd.toml"
    path.write_bytes(b"config_version = 1\n# Ger\xe4t\n")
    with pytest.raises(InvalidConfigError, match=r"line 2 is not UTF-8 .* save the file as UTF-8"):
        load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CAM + "video_bitrate = 8000\n", 'here it is called "video_bits_per_second"'),
        ('[[recorder]]\nname = "a"\nvideo = { fps = 30 }\n', 'here it is called "frame_rate"'),
        ('[[recorder]]\nname = "a"\nvideo = "1920x1080"\n', "{ width = 1920, height = 1080 }"),
        ('[[recorder]]\nname = "a"\naudio = "hw:1,0"\n', '{ device_id = "..." }'),
        ('[[recorder]]\nname = "a"\nvideo = { resolution = "1080p" }\n', "write width = 1920, height = 1080"),
        ('[[recorder]]\nname = "a"\nvideo = { width = "1920" }\n', "write 1920, without the quotes"),
        ('[mqtt]\nhost = "h"\npassword = "p"\n', "put it into a file and name that with password_file"),
        ('[mqtt]\nhost = "h"\ntls = false\n', "allow_plaintext = true switches it off"),
        ('[mqtt]\nhost = "h"\nport = "1883"\n', "write 1883, without the quotes"),
        ('[location]\nlatitude = "52,5"\nlongitude = 13.4\n', "write 52.5, without the quotes and with a point"),
        (CAM + 'max_total = "1GiB"\n', "max_total belongs below [storage] or [recorder.retention]"),
        ('chunk_duration = "1m"\n', "chunk_duration belongs below [[recorder]]"),
        ('[[schedule]]\nstart = "06:00"\n', "its heading is [[recorder.schedule]], below the [[recorder]]"),
        (CAM + '[recorder.schedule]\nstart = "06:00"\n', "each under a heading [[recorder.schedule]]"),
        (CAM + WINDOW + 'days = "mon-fri"\n', 'an array in [ ], like ["mon", "tue"]'),
        (CAM + WINDOW + 'days = ["weekend"]\n', "known are mon, tue, wed, thu, fri, sat, sun"),
        (CAM + WINDOW + 'days = ["monday"]\n', 'did you mean "mon"?'),
        (CAM + WINDOW.replace('"06:00"', "06:00:00"), 'write it in quotes: "06:00"'),
        (CAM + WINDOW.replace("07:00", "24:00"), 'midnight is "00:00"'),
        (CAM + 'retention = "7d"\n', "with max_total, max_age"),
        (CAM + "retention = { days = 7 }\n", "known are max_total, max_age"),
        ('[devices]\nvirtual = "true"\n', "takes true, false or tables"),
        ('[storage]\npath = "$HOME/recordings"\n', '"$" is not expanded; write the whole path'),
        ('[storage]\npath = "~/recordings"\n', '"~" is not expanded; write the whole path'),
        (CAM + "snapshot = 1\n", 'did you mean "snapshots"?'),
    ],
)
def test_words_of_other_programs(tmp_path: Path, text: str, words: str) -> None:
    # a key at the top would belong to [device], so it stands above it here
    if not text.startswith("["):
        path = tmp_path / "msrecd.toml"
        path.write_text(text)
        with pytest.raises(InvalidConfigError) as caught:
            load(path)
        assert words in str(caught.value)
        return
    assert words in complaint(tmp_path, text)
