"""Every command and the daemon hold a configuration against the same judges, and load no vendor library for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from broker import Certificates

from msrecd.config import check, load
from msrecd.config.model import Camera
from msrecd.daemon.checks import config_checks
from msrecd.vocabulary.secrets import read_secret

CONFIG = """[device]
id = "x"
[[recorder]]
name = "mic"
audio = true
mime_type = "{mime_type}"
[[recorder.schedule]]
start = "{start}"
duration = "1h"
"""


def test_good_texts_have_no_problem() -> None:
    checks = config_checks()
    assert checks.mime_type('video/mp4;codecs="avc1.640028,mp4a.40.2"') is None
    assert checks.mime_type("video/mp4;codecs=hvc1") is None  # only passed through, but that a source may give
    assert checks.time("30 6 * * mon-fri") is None


@pytest.mark.parametrize("command", ["check-config", "run", "schedule"])
def test_bad_types_and_times_are_named_by_every_command(command: str, tmp_path: Path) -> None:
    path = tmp_path / "msrecd.toml"
    path.write_text(CONFIG.format(mime_type="audio/ogg;codecs=mp4a", start="61 6 * * *"))
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", command, "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("recorder[0].mime_type: audio/ogg cannot hold mp4a")
    assert lines[1].startswith("recorder[0].schedule[0].start: ")


def test_judging_a_type_loads_no_vendor_library() -> None:
    code = (
        "import sys; from msrecd.daemon.checks import config_checks; config_checks().mime_type('video/webm');"
        "print([name for name in ('av', 'numpy', 'paho', 'astral') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


SOURCE = '[device]\nid = "x"\n[[recorder]]\nname = "door"\nsource = {{ {} }}\n'


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ("url = 'rtps://c/x'", "url", "cannot play rtps: URLs; known are"),
        ("url = 'gopher://c/x'", "url", "cannot play gopher: URLs"),
        ("url = 'rtsp://u:hidden@c:99999/x'", "url", "port (1 to 65535)"),
        ("url = 'rtsp://c:0/x'", "url", "port (1 to 65535)"),
        ("url = 'rtsp://u:hid/den@c/x'", "url", "in a password write / as %2F"),
        ("url = 'rtsp:///x'", "url", "names no host"),
        ("url = 'rtsp:/c/x'", "url", "takes a URL with its scheme"),
        ("url = 'clip.mp4'", "url", "takes a URL with its scheme"),
        ("url = 'file://other/x.mp4'", "url", "files of this machine"),
        ("url = 'rtsp://c/x', transport = 'sctp'", "transport", '"sctp" is not known'),
        ("url = 'http://c/x', transport = 'udp'", "transport", "is for RTSP"),
        ("url = 'udp://:5000', redirects = 'any'", "redirects", "is for HTTP, RTSP and RTMP"),
        ("url = 'http://c/x', redirects = 'none'", "redirects", '"none" is not known'),
        ("url = 'rtsp://c/x', tracks = ['sound']", "tracks[0]", '"sound" is not known'),
        ("url = 'rtsp://c/x', tracks = ['audio', 'audio']", "tracks", "twice"),
        ("url = 'rtsp://c/x', timeout = '0s'", "timeout", "from 1s to 10m"),
        ("url = 'rtsp://c/x', password_file = 'p'", "password_file", "needs user, or a user name in url"),
        ("url = 'rtsp://c/x', tracks = []", "tracks", "must not be empty"),
        ("url = '/x.mp4', password_file = 'p'", "password_file", "is for network streams"),
        ("url = '/x.mp4', user = 'u'", "user", "is for network streams"),
        ("url = 'rtsp://c/x', loop = true", "loop", "is for files"),
    ],
)
def test_a_wrong_source_is_named_without_its_secrets(tmp_path: Path, keys: str, key: str, words: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(SOURCE.format(keys))
    (problem,) = check(path, checks=config_checks())
    assert problem.path == f"recorder[0].source.{key}"
    assert words in problem.message
    assert "hid" not in str(problem)


@pytest.mark.parametrize(
    "keys",
    [
        "url = 'rtsp://camera.lan/main', transport = 'tcp', tracks = ['video'], timeout = '5s', user = 'u'",
        "url = 'RTSPS://[fe80::1]:322/x', user = 'u', password_file = 'secret'",
        "url = 'rtsp://u@camera.lan/main', password_file = 'secret'",
        "url = 'https://c/live.m3u8?token=abc'",
        "url = 'rtmp://c/app/key'",
        "url = 'srt://c:9000'",
        "url = 'udp://:5000'",
        "url = 'file:/x.mp4', loop = true",
        "url = 'file:///a%20b.mp4'",
        "url = '/srv/x.mp4', loop = true",
    ],
)
def test_every_scheme_of_a_source(tmp_path: Path, keys: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(SOURCE.format(keys))
    assert check(path, checks=config_checks()) == []


def test_the_properties_of_a_camera(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        '[device]\nid = "x"\n[[camera]]\ndevice_id = { label = "imx477" }\nhflip = true\nvflip = true\nrotation = 90\n'
        'tuning_file = "imx477_noir.json"\nautofocus = "manual"\nfocus_distance = 3\n[[camera]]\ndevice_id = "a"\n'
    )
    first, second = load(path, checks=config_checks()).cameras
    assert first == Camera(
        device_id={"label": "imx477"},
        hflip=True,
        vflip=True,
        rotation=90,
        tuning_file="imx477_noir.json",
        autofocus="manual",
        focus_distance=3.0,
    )
    assert second == Camera(device_id="a")


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("hflip = true", "device_id", "is missing"),
        ("device_id = {}", "device_id", "a device id, or { label = ... }"),
        ("device_id = { exact = 'a' }", "device_id", "a device id, or { label = ... }"),
        ("device_id = 'a'\nrotation = 45", "rotation", "45 is not 0, 90, 180 or 270"),
        ("device_id = 'a'\nfocus_distance = 2.0", "focus_distance", 'needs autofocus = "manual"'),
        ("device_id = 'a'\nautofocus = 'off'", "autofocus", "known are continuous, manual"),
        ("device_id = 'a'\nrotate = 90", "rotate", 'did you mean "rotation"?'),
    ],
)
def test_a_wrong_camera_is_named(tmp_path: Path, text: str, key: str, words: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f'[device]\nid = "x"\n[[camera]]\n{text}\n')
    (problem,) = check(path)
    assert problem.path == f"camera[0].{key}"
    assert words in problem.message


def checked(path: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "msrecd", "check-config", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"secret\n", 0o600, ""),
        (b"\xef\xbb\xbfsecret\r\nsecond line\r\n", 0o600, ""),
        (b"secret", 0o640, "chmod 0600"),
        (b"\nsecret", 0o600, "first line"),
        (b"\xe4", 0o600, "not UTF-8"),
        (None, 0o600, "No such file"),
    ],
)
@pytest.mark.promise("secrets-are-checked", "first-line-is-the-secret")
def test_files_of_secrets_are_checked(tmp_path: Path, content: bytes | None, mode: int, words: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
        (tmp_path / "secret").chmod(mode)
        if not words:
            assert read_secret(tmp_path / "secret", "x") == "secret"
    path = tmp_path / "m.toml"
    path.write_text('[device]\nid = "x"\n[mqtt]\nusername = "u"\npassword_file = "secret"\n')
    code, said = checked(path)
    assert code == (2 if words else 0)
    assert words in said
    assert not said or said.startswith("mqtt.password_file: ")
    assert b"secret" not in (content or b"") or "secret\n" not in said


def test_files_are_judged_together_with_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        '[device]\nid = "x"\n[mqtt]\nprot = 1\nca_file = "nope.crt"\npassword_file = 5\n[storage]\npath = 5\n'
        '[[recorder]]\nname = "a"\n'
        'source = { url = "http://u@c/x", loop = true, transport = "tcp", password_file = "p" }\n'
    )
    code, said = checked(path)
    assert code == 2
    assert [line.split(": ")[0] for line in said.splitlines()] == [
        "mqtt.prot",
        "mqtt.password_file",
        "storage.path",
        "recorder[0].source.transport",
        "recorder[0].source.loop",
        "recorder[0].source.password_file",
        "mqtt.ca_file",
    ]


def test_a_file_of_a_fragment_is_named_with_it(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[device]\nid = "x"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/site.toml").write_text('[mqtt]\nca_file = "nope.crt"\n')
    _, said = checked(tmp_path / "m.toml")
    assert said.startswith("mqtt.ca_file: ")
    assert said.endswith(f"({tmp_path / 'conf.d/site.toml'})\n")


@pytest.mark.promise("check-config-warns")
def test_more_min_free_than_there_is_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    path = tmp_path / "m.toml"
    text = '[device]\nid = "x"\n[storage]\npath = "recordings"\nmin_free = "{}"\n'
    path.write_text(text.format("900TiB"))
    code, said = checked(path)
    assert code == 0
    assert said.startswith("msrecd: warning: storage.min_free: 900TiB is more than the whole file system")
    path.write_text(text.format("1MiB"))
    assert checked(path) == (0, "")


def test_a_unix_socket_without_a_folder_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    text = '[device]\nid = "x"\n[web]\nlisten = "unix:{}"\n'
    path.write_text(text.format("/nonexistdir/x.sock"))
    code, said = checked(path)
    assert code == 0
    assert said.startswith("msrecd: warning: web.listen: there is no folder /nonexistdir")
    path.write_text(text.format("/run/msrecd/web.sock"))  # the service manager makes it
    assert checked(path) == (0, "")


@pytest.mark.parametrize("text", ["30 6 31 2 *", "0 0 30 2 *", "0 0 31 4,6 *"])
def test_days_that_no_month_has_never_come(text: str) -> None:
    assert config_checks().time(text) == f'"{text}" never comes: none of its months has such a day'


@pytest.mark.parametrize(("text", "words"), [("0 0 32 2 *", "day-of-month"), ("0 0 31 13 *", "month")])
def test_a_bad_day_or_month_stays_one(text: str, words: str) -> None:
    assert f"bad {words}" in str(config_checks().time(text))


def test_a_leap_day_and_a_weekday_beside_an_impossible_day_come() -> None:
    assert config_checks().time("0 0 29 2 *") is None
    assert config_checks().time("0 0 31 2,3 *") is None


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.mark.promise("key-file-is-guarded")
def test_a_certificate_that_holds_its_key_is_guarded_like_a_key(tmp_path: Path, certificates: Certificates) -> None:
    certificate = tmp_path / "both.pem"
    certificate.write_bytes(certificates.broker.read_bytes() + certificates.broker_key.read_bytes())
    certificate.chmod(0o644)
    path = tmp_path / "m.toml"
    path.write_text('[device]\nid = "x"\n[mqtt]\nhost = "b"\ncert_file = "both.pem"\n')
    code, said = checked(path)
    assert code == 2
    assert said.startswith(f"mqtt.cert_file: {certificate} holds a private key and is open to everyone")
    certificate.chmod(0o640)
    assert checked(path) == (0, "")


WEB = '[web]\ncert_file = "{cert}"\nkey_file = "{key}"\n'
OFFLOAD = (
    '[offload]\nkind = "s3"\nendpoint = "https://s3.lan"\nbucket = "bbb"\n'
    'credentials_file = "aws"\nca_file = "{text}"\n'
)


@pytest.mark.parametrize(
    ("table", "said_of", "words"),
    [
        (WEB.format(cert="{cert}", key="{key}"), None, ""),
        (WEB.format(cert="{text}", key="{key}"), "web.cert_file: {text}", "holds no certificate in PEM form"),
        (WEB.format(cert="{cert}", key="{text}"), "web.key_file: {text}", "holds no private key in PEM form"),
        (WEB.format(cert="{broken}", key="{key}"), "web.cert_file: {broken}", "cannot be used: "),
        (WEB.format(cert="{cert}", key="{broken_key}"), "web.key_file: {broken_key}", "cannot be used: it is damaged"),
        (WEB.format(cert="{cert}", key="{encrypted}"), "web.key_file: {encrypted}", "is encrypted"),
        (WEB.format(cert="{ca}", key="{key}"), "web.key_file: {key}", "is not the key of the certificate in {ca}"),
        (WEB.format(cert="{cert}", key="no"), "web.key_file: {folder}/no", "No such file"),
        ('[web]\ncert_file = "{cert}"\n', "web.cert_file: {cert}", "holds no private key in PEM form; where it has"),
        (OFFLOAD, "offload.ca_file: {text}", "holds no certificate in PEM form"),
        ('[mqtt]\nhost = "b"\nca_file = "{key}"\n', "mqtt.ca_file: {key}", "holds no certificate in PEM form"),
        ('[mqtt]\nhost = "b"\nca_file = "{broken}"\n', "mqtt.ca_file: {broken}", "cannot be used: "),
        ('[mqtt]\nhost = "b"\ncert_file = "{text}"\n', "mqtt.cert_file: {text}", "holds no certificate in PEM form"),
    ],
)
def test_files_of_tls_are_loaded(
    tmp_path: Path, certificates: Certificates, table: str, said_of: str | None, words: str
) -> None:
    made = {
        "text": "a text\n",
        "broken": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "broken_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "encrypted": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "aws": "[default]\naws_access_key_id = a\naws_secret_access_key = b\n",
    }
    for name, content in made.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    places = {name: str(tmp_path / name) for name in made} | {"folder": str(tmp_path)}
    places |= {"cert": str(certificates.broker), "key": str(certificates.broker_key), "ca": str(certificates.ca)}
    path = tmp_path / "m.toml"
    path.write_text('[device]\nid = "x"\n' + table.format(**places))
    code, said = checked(path)
    if said_of is None:
        assert (code, said) == (0, "")
        return
    assert code == 2
    assert len(said.splitlines()) == 1, said
    assert said.startswith(said_of.format(**places))
    assert words.format(**places) in said
