"""Reading a configuration: what is right becomes a Config, and everything that is wrong is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from msrecd.config import Checks, Config, InvalidConfigError, check, load
from msrecd.config.load import default_state_path, device_id
from msrecd.errors import ConfigError

RECORDER = '[[recorder]]\nname = "a"\naudio = true\n'


def write(folder: Path, text: str, name: str = "msrecd.toml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('[device]\nid = "pi-1"\n' + text if name == "msrecd.toml" else text, "utf-8")
    return path


def problems(folder: Path, text: str) -> dict[str, str]:
    found = check(write(folder, text))
    assert len({problem.path for problem in found}) == len(found), found
    return {problem.path: problem.message for problem in found}


CONTRACT = """
config_version = 1
[devices]
virtual = [{ kind = "camera", label = "Virtual Camera", modes = [[1280, 720, 30]] },
           { kind = "microphone", label = "M", signal = "tone", ppm = 50.0 }]
[mqtt]
host = "localhost"
port = 1883
username = "pi-7f3a"
password_file = "secret"
groups = ["north-field"]
[storage]
path = "/srv/recordings"
max_total = "20GiB"
max_age = "30d"
min_free = "1GiB"
sync_interval = "2s"
state_path = "/srv/state"
[location]
latitude = 52.52
longitude = 13.40
[homeassistant]
discovery = false
[[recorder]]
name = "cam0"
video = { width = { ideal = 1920 }, height = 1080, frame_rate = 30 }
audio = { device_id = "abc" }
mime_type = "video/mp4"
video_bits_per_second = 8_000_000
audio_bits_per_second = 128_000
timeslice = "1s"
chunk_duration = "60s"
chunk_max_size = "1GiB"
autostart = false
max_duration = "6h"
retention = { max_total = "5GiB", max_age = "7d" }
[[recorder.schedule]]
start = "30 6 * * mon-fri"
stop = "sunset+30m"
[[recorder]]
name = "cam1"
source = { url = "rtsp://camera.lan/main", loop = false }
"""


def test_the_contracts_example(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_text(CONTRACT.replace("[devices]", '[device]\nid = "pi-7f3a"\n[devices]', 1), "utf-8")
    config = load(path)
    assert config.device.id == "pi-7f3a"
    assert config.mqtt is not None
    assert config.mqtt.password_file == tmp_path / "secret"
    assert config.storage.max_total_bytes == 20 * 2**30
    assert config.storage.max_age_s == 30 * 86400
    cam0, cam1 = config.recorders
    assert cam0.video == {"width": {"ideal": 1920}, "height": 1080, "frame_rate": 30}
    assert (cam0.timeslice_s, cam0.chunk_duration_s, cam0.max_duration_s) == (1, 60, 21600)
    assert cam0.retention.max_total_bytes == 5 * 2**30
    assert cam0.schedules[0].stop == "sunset+30m"
    assert cam1.source is not None
    assert cam1.source.url == "rtsp://camera.lan/main"
    assert [device.kind for device in config.devices.virtual] == ["camera", "microphone"]
    assert config.devices.virtual[1].ppm == 50
    assert config.devices.virtual[0].modes == ((1280, 720, 30),)


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/run/one")  # of the service: commands do not have it, so it decides nothing
    config = load(write(tmp_path, '[[recorder]]\nname = "v"\nvideo = true\n' + RECORDER))
    video, audio = config.recorders
    assert (video.mime_type, audio.mime_type) == ("video/mp4", "audio/mp4")
    assert (video.timeslice_s, video.chunk_duration_s) == (0.25, 60)
    assert video.chunk_max_size_bytes < 4 * 2**30
    assert video.max_duration_s is None
    assert config.mqtt is None
    assert config.storage.sync_interval_s == 2
    assert config.storage.state_path == tmp_path / "state"


@pytest.mark.parametrize(
    ("path", "state"),
    [
        ("/etc/msrecd/msrecd.toml", "/var/lib/msrecd/state"),
        ("/etc/msrecd/site/north.toml", "/var/lib/msrecd/state"),
        ("/etc/msrecd-2/msrecd.toml", "/etc/msrecd-2/state"),
        ("/srv/m.toml", "/srv/state"),
    ],
)
def test_the_state_folder_belongs_to_the_configuration(path: str, state: str) -> None:
    assert default_state_path(Path(path)) == Path(state)


@pytest.mark.promise("paths-are-resolved")
def test_links_and_dots_in_the_paths_of_the_storage_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for written in ("link/x", "../" + tmp_path.name + "/real/x", f"/{tmp_path}/real/./x", f"{tmp_path}/link/../real/x"):
        config = load(write(tmp_path, f'[storage]\npath = "{written}"\nstate_path = "link/state"\n'))
        assert config.storage.path == tmp_path / "real" / "x"
        assert config.storage.state_path == tmp_path / "real" / "state"


def test_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().config_version = 1  # type: ignore[misc]


def test_virtual_true_gives_the_pair(tmp_path: Path) -> None:
    config = load(write(tmp_path, "[devices]\nvirtual = true\n"))
    assert [device.label for device in config.devices.virtual] == ["Virtual Camera", "Virtual Microphone"]
    assert load(write(tmp_path, "[devices]\nvirtual = false\n")).devices.virtual == ()


WRONG = """
colour = 1
[devices]
virtual = [{ kind = "camera", label = "X" }, { kind = "camera", label = "X", modes = [[1, 2]] }]
[mqtt]
host = "mqtt://broker"
port = 70000
passwrd_file = "a"
allow_verbs = ["start", "reboot"]
[storage]
max_total = 20
state_path = "/var/lib/msrecd/recordings/state"
[location]
latitude = 91
[[recorder]]
name = "Cam 0"
video = { width = { idel = 1920 }, hight = 1080, frame_rate = "30", sample_rate = 3, iso = { max = true } }
mime_type = "audio/mp4"
chunk_duration = "60"
timeslice = "1 fortnight"
[[recorder.schedule]]
start = "sunrise-30m"
stop = "25:00"
duration = "1h"
days = ["monday"]
timezone = "Europe/Berln"
[[recorder]]
name = "b"
[[recorder]]
name = "b"
audio = { device_id = 5, auto_gain_control = "no", advanced = [{ latency = { max = true } }] }
source = { url = "camera" }
autostart = "yes"
"""
EXPECTED = {
    "device.colour": "unknown key",
    "devices.virtual[1].label": "another virtual camera",
    "devices.virtual[1].modes[0]": "three numbers",
    "mqtt.host": "not a host name",
    "mqtt.port": "out of range",
    "mqtt.passwrd_file": 'did you mean "password_file"?',
    "mqtt.allow_verbs[1]": '"reboot" is not known',
    "storage.max_total": '"20GiB"',
    "storage.state_path": "must not lie in",
    "location.latitude": "from -90 to 90",
    "location.longitude": "is missing",
    "recorder[0].name": "a-z",
    "recorder[0].video.width.idel": 'did you mean "ideal"?',
    "recorder[0].video.hight": 'did you mean "height"?',
    "recorder[0].video.frame_rate": "write 30, without",
    "recorder[0].video.sample_rate": "is a constraint of audio",
    "recorder[0].video.iso.max": "write ideal instead of max",
    "recorder[0].mime_type": "cannot hold video",
    "recorder[0].chunk_duration": '"60s"',
    "recorder[0].timeslice": '"fortnight"',
    "recorder[0].schedule[0]": "not both",
    "recorder[0].schedule[0].stop": '"25:00" is not a time',
    "recorder[0].schedule[0].days[0]": 'did you mean "mon"?',
    "recorder[0].schedule[0].timezone": 'did you mean "Europe/Berlin"?',
    "recorder[1]": "records nothing",
    "recorder[2].name": "is the name of recorder[1] of",
    "recorder[2].audio": "together with source",
    "recorder[2].audio.device_id": "takes a string or a list",
    "recorder[2].audio.auto_gain_control": "takes true or false",
    "recorder[2].audio.advanced[0].latency.max": "takes a finite number",
    "recorder[2].source.url": "takes a URL with its scheme",
    "recorder[2].autostart": "takes true or false",
}


@pytest.mark.promise("every-problem-is-named")
@pytest.mark.promise("check-config-names-all")
def test_every_problem_is_named_in_one_pass(tmp_path: Path) -> None:
    found = problems(tmp_path, WRONG)
    assert set(found) == set(EXPECTED)
    for path, words in EXPECTED.items():
        assert words in found[path], (path, found[path])


@pytest.mark.parametrize("path", ["/dev/shm/recordings", "/process/x", "new/folder"])
def test_a_folder_that_may_come_is_valid(tmp_path: Path, path: str) -> None:
    assert problems(tmp_path, f"[storage]\npath = '{path}'") == {}


def test_a_password_needs_no_user_name(tmp_path: Path) -> None:
    """The user is the device then (msrecd.mqtt.settings.user_name)."""
    assert problems(tmp_path, "[mqtt]\npassword_file = 'x'") == {}


def test_load_raises_with_the_problems(tmp_path: Path) -> None:
    path = tmp_path / "top.toml"
    path.write_text('colour = 1\n[device]\nid = "x"\n', "utf-8")
    with pytest.raises(ConfigError, match=r"^colour: unknown key") as caught:
        load(path)
    assert isinstance(caught.value, InvalidConfigError)
    (problem,) = caught.value.problems
    assert problem.to_json() == {"path": "colour", "message": problem.message, "file": str(path)}
    assert str(problem).startswith("colour: ")
    assert str(path) in str(problem)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("[mqtt]\nusername = 5", "mqtt.username", "not 5"),
        ("[mqtt]\nkey_file = 'x'", "mqtt.key_file", "needs mqtt.cert_file"),
        ("[mqtt]\nhost='h'\nca_file = 'x'\nallow_plaintext = true", "mqtt.allow_plaintext", "remove one"),
        ("[mqtt]\nhost='h:1883'", "mqtt.host", "the port goes to mqtt.port"),
        ("[mqtt]\ngroups=['all']", "mqtt.groups", "has every device"),
        ("[storage]\npath = '~/x'", "storage.path", "whole path"),
        ("[storage]\npath = 5", "storage.path", "takes a path"),
        ("[storage]\nstate_path = 5", "storage.state_path", "takes a path"),
        ("[storage]\npath = '/proc/foo'", "storage.path", "lies in /proc, which holds no files"),
        ("[storage]\npath = '/sys'", "storage.path", "lies in /sys"),
        ("[storage]\nstate_path = '/dev/null/x'", "storage.state_path", "lies below /dev/null, which is no folder"),
        ("[storage]\npath = 'msrecd.toml/x'", "storage.path", "msrecd.toml, which is no folder"),
        ("[storage]\npath = 'msrecd.toml'", "storage.path", "is no folder"),
        ("[storage]\nsync_interval = '0s'", "storage.sync_interval", "from 100ms to 1m"),
        ("recorder = 5", "device.recorder", "unknown key"),
        ("[recorder]\nname = 'x'", "recorder", "under a heading [[recorder]]"),
        ("[[recorder]]\nname = 'x'\nvideo = 5", "recorder[0].video", "takes true, false or a table"),
        (RECORDER + "mime_type = 'mp4'", "recorder[0].mime_type", "not a MIME type"),
        (RECORDER + "chunk_max_size = '5GiB'", "recorder[0].chunk_max_size", "3.9GiB"),
        (RECORDER + "timeslice = '10s'\nchunk_duration = '5s'", "recorder[0].timeslice", "longer than chunk_duration"),
        (RECORDER + "chunk_duration = 'x'\ntimeslice = '3s'", "recorder[0].chunk_duration", "is not a duration"),
        ("[[camera]]\ndevice_id = 'a'\nautofocus = 'x'\nfocus_distance = 1", "camera[0].autofocus", "is not known"),
        (RECORDER + "[[recorder.schedule]]\nstart='06:30'", "recorder[0].schedule[0]", "either stop or duration"),
        (RECORDER + "[[recorder.schedule]]\nduration='1h'", "recorder[0].schedule[0].start", "is missing"),
        (
            RECORDER + "[[recorder.schedule]]\nstart='sunrise'\nduration='1h'",
            "recorder[0].schedule[0].start",
            "needs [location]",
        ),
        (
            RECORDER + "[[recorder.schedule]]\nstart='0 6 * * *'\ndays=['mon']\nduration='1h'",
            "recorder[0].schedule[0].days",
            "cron",
        ),
        ('"a.b\\"c" = 1', 'device."a.b"c"', "unknown key"),
        ("config_version = 1", "device.config_version", "unknown key"),
    ],
)
@pytest.mark.promise("unknown-keys")
def test_one_problem(tmp_path: Path, text: str, path: str, words: str) -> None:
    found = problems(tmp_path, text)
    assert list(found) == [path]
    assert words in found[path]


def test_hostile_values_give_lines_not_tracebacks(tmp_path: Path) -> None:
    nested = "x = " + "[" * 5000 + "]" * 5000
    for text in ("a = 1\na = 2", "[[", "\ufeff\0", nested, 'storage = { path = "a\\u0000b" }', "a = " + "9" * 5000):
        path = tmp_path / "bad.toml"
        path.write_text(text, "utf-8")
        found = check(path)
        assert found, text[:20]
        assert all("\n" not in str(problem) and len(str(problem)) < 500 for problem in found)


@pytest.mark.promise("toml-line")
def test_broken_toml_names_line_and_file(tmp_path: Path) -> None:
    path = write(tmp_path, "\n\nx = = 1\n")
    (problem,) = check(path)
    assert problem.file == str(path)
    assert "line 5" in problem.message


def test_not_utf8_and_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe4'")
    for name, words in (("latin.toml", "not UTF-8"), ("none.toml", "no such file"), (".", "cannot be read")):
        (problem,) = check(tmp_path / name)
        assert words in problem.message


def test_byte_order_mark_and_windows_lines_are_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_bytes(b'\xef\xbb\xbf[device]\r\nid = "w"\r\n')
    assert load(path).device.id == "w"


@pytest.mark.parametrize("special", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_in_conf_d_is_a_problem_and_not_waited_for(
    tmp_path: Path, special: Callable[[Path], None]
) -> None:
    main = write(tmp_path, RECORDER)
    (tmp_path / "conf.d").mkdir()
    special(tmp_path / "conf.d" / "x.toml")
    (problem,) = check(main)
    assert "no regular file" in problem.message
    assert problem.file == str(tmp_path / "conf.d" / "x.toml")


@pytest.mark.promise("conf-d-merges")
@pytest.mark.promise("conf-d-is-merged")
def test_conf_d_is_merged_in_order_and_problems_name_their_file(tmp_path: Path) -> None:
    main = write(tmp_path, '[storage]\npath = "/a"\nmax_total = "1GiB"\n' + RECORDER)
    write(tmp_path, '[storage]\npath = "/b"\n[mqtt]\nhost = "one"\n', "conf.d/10-x.toml")
    write(tmp_path, '[storage]\npath = "/c"\n[[recorder]]\nname = "z"\naudio = true\n', "conf.d/20-y.toml")
    write(tmp_path, "this is not read", "conf.d/30.toml.off")
    config = load(main)
    assert config.storage.path == Path("/c")
    assert config.storage.max_total_bytes == 2**30
    assert config.mqtt is not None
    assert [recorder.name for recorder in config.recorders] == ["a", "z"]
    write(tmp_path, '[mqtt]\nport = "x"\n[[recorder]]\nname = "Z"\naudio = true\n', "conf.d/40.toml")
    files = {problem.path: Path(problem.file).name for problem in check(main)}
    assert files == {"mqtt.port": "40.toml", "recorder[0].name": "40.toml"}


@pytest.mark.promise("recorders-of-conf-d-are-added")
@pytest.mark.promise("conf-d-adds")
def test_recorders_and_cameras_of_several_files_are_added_and_a_name_that_two_have_names_both(tmp_path: Path) -> None:
    main = write(tmp_path, RECORDER + RECORDER.replace('"a"', '"b"') + '[[camera]]\ndevice_id = "x"\n')
    write(tmp_path, RECORDER.replace('"a"', '"c"') + RECORDER, "conf.d/more.toml")
    write(tmp_path, '[[camera]]\ndevice_id = "x"\n', "conf.d/zz.toml")
    found = {problem.path: problem for problem in check(main)}
    assert set(found) == {"recorder[1].name", "camera[0].device_id"}
    assert found["recorder[1].name"].file == str(tmp_path / "conf.d" / "more.toml")
    assert '"a" is the name of recorder[0]' in found["recorder[1].name"].message
    assert f"recorder[0] of {main}" in found["recorder[1].name"].message
    assert f"camera[0] of {main}" in found["camera[0].device_id"].message


@pytest.mark.promise("conf-d-guarded")
@pytest.mark.promise("open-fragment-is-refused")
def test_a_fragment_that_everyone_may_write_to_is_refused(tmp_path: Path) -> None:
    main = write(tmp_path, RECORDER)
    fragment = write(tmp_path, "[mqtt]\n", "conf.d/x.toml")
    fragment.chmod(0o666)
    (problem,) = check(main)
    assert problem.file == str(fragment)
    assert "chmod o-w" in problem.message
    fragment.chmod(0o664)
    assert check(main) == []


@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.promise("open-fragment-is-refused")
def test_fragments_in_a_folder_that_everyone_may_write_to_are_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "msrecd.toml").write_text("config_version = 1\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d").chmod(mode)
    assert not [problem for problem in check(tmp_path / "msrecd.toml") if "put files into it" in problem.message]
    (tmp_path / "conf.d" / "a.toml").write_text("")
    (problem,) = [found for found in check(tmp_path / "msrecd.toml") if "put files into it" in found.message]
    assert problem.file == str(tmp_path / "conf.d")


def test_checks_of_other_packages_are_asked(tmp_path: Path) -> None:
    text = RECORDER + "[[recorder.schedule]]\nstart = '61 6 * * *'\nduration = '1h'\n"
    checks = Checks(time=lambda text: f"bad {text}", mime_type=lambda text: f"no {text}")
    found = {problem.path: problem.message for problem in check(write(tmp_path, text), checks=checks)}
    assert found == {"recorder[0].mime_type": "no audio/mp4", "recorder[0].schedule[0].start": "bad 61 6 * * *"}


def test_hash_is_of_the_meaning(tmp_path: Path) -> None:
    one = load(write(tmp_path, '[storage]\nmax_age = "1h"\npath = "/x"\n')).hash
    same = load(write(tmp_path, '# other words\n[storage]\npath = "/x"\nmax_age = "60m"\n')).hash
    other = load(write(tmp_path, '[storage]\npath = "/x"\nmax_age = "61m"\n')).hash
    assert one == same != other
    assert len(one) == 64


@pytest.mark.promise("device-id-hides-the-machine")
def test_device_id_is_stable_and_hides_the_machine_id() -> None:
    machine_id = "0123456789abcdef0123456789abcdef"
    assert device_id(machine_id) == device_id(machine_id)
    assert device_id(machine_id) != device_id(machine_id[::-1])
    assert device_id(machine_id).removeprefix("pi-") not in machine_id
    assert len(device_id(machine_id)) == 11


def test_loading_imports_no_heavy_library(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDER)
    code = (
        "import sys; from pathlib import Path; from msrecd.config import load; load(Path(sys.argv[1]));"
        "print([m for m in ('av', 'numpy', 'paho', 'picamera2', 'alsaaudio', 'astral', 'cronsim') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
