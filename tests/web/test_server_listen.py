"""Where the page listens, and how: each key of `[web]` in a running daemon."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_text import camera, configuration
from daemon import DaemonProcess
from pageclient import OPERATOR, VIEWER, PageClient, web_table
from ports import free_port
from waiting import until

from msrecd.web.passwords import parse_hash

ROOT = Path(__file__).resolve().parents[2]


def daemon_with(folder: Path, table: str) -> DaemonProcess:
    return DaemonProcess(folder, configuration(folder, port=None, recorders=table + camera()))


def answers(client: PageClient) -> bool:
    with contextlib.suppress(OSError):
        return client.get("/").status == 200
    return False


@pytest.mark.effect("config: web.listen", "config: web.metrics")
def test_metrics_need_no_login_where_they_are_on(tmp_path: Path) -> None:
    port = free_port()
    with daemon_with(tmp_path, web_table(port, tmp_path, more="metrics = true")):
        client = PageClient(port)
        until(lambda: answers(client), "no page")
        given = client.get("/metrics")
        assert given.status == 200
        assert given.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'msrecd_recorder_state{recorder="cam0",state="inactive"} 1' in given.body.decode().splitlines()
        assert client.get("/api/recorders").status == 401


@pytest.mark.effect("config: web.password_file", "config: web.viewer_password_file")
def test_two_passwords(page_daemon: tuple[DaemonProcess, int]) -> None:
    assert PageClient(page_daemon[1]).get("/metrics").status == 401, "off unless it is on"
    for password, role in ((OPERATOR, "operator"), (VIEWER, "viewer")):
        client = PageClient(page_daemon[1])
        assert client.log_in(password).status == 204
        assert client.get("/api/session").json["role"] == role


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    key.chmod(0o600)
    return cert, key


@pytest.mark.effect("config: web.cert_file", "config: web.key_file")
@pytest.mark.promise("page-tls")
def test_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    port = free_port()
    table = web_table(port, tmp_path, more=f'cert_file = "{cert}"\nkey_file = "{key}"')
    context = ssl.create_default_context(cafile=str(cert))
    origin = {"Origin": f"https://127.0.0.1:{port}", "Content-Type": "application/json"}

    def ask(method: str, path: str, body: str = "", headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            response.read()
            return response

    with daemon_with(tmp_path, table) as daemon:

        def is_up() -> bool:
            with contextlib.suppress(OSError):
                return ask("GET", "/").status == 200
            return False

        until(is_up, "no page over TLS")
        assert (
            ask("POST", "/api/login", f'{{"password": "{OPERATOR}"}}', origin).headers["Set-Cookie"].endswith("Secure")
        )
        plain = {**origin, "Origin": f"http://127.0.0.1:{port}"}
        assert ask("POST", "/api/login", f'{{"password": "{OPERATOR}"}}', plain).status == 403
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert PageClient(port).get("/").status >= 400, "plain HTTP is not answered"
        assert ask("GET", "/").status == 200
        assert "Traceback" not in daemon.log.read_text()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


@pytest.fixture
def short() -> Iterator[Path]:
    """The name of a socket has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="msrecd-web-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_unix_socket(tmp_path: Path, short: Path) -> None:
    place = short / "web.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(place))  # of a daemon that was killed
    left.close()
    with daemon_with(tmp_path, f'[web]\nlisten = "unix:{place}"\n'):

        def status() -> int:
            with contextlib.closing(UnixConnection(str(place))) as connection, contextlib.suppress(OSError):
                connection.request("GET", "/api/session")
                return connection.getresponse().status
            return 0

        until(lambda: status() == 200, "no page at the unix socket")
        assert stat.S_IMODE(place.stat().st_mode) == 0o660
    assert not place.exists()


def test_an_address_that_is_taken_is_tried_again(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with daemon_with(tmp_path, web_table(port, tmp_path, with_passwords=False)) as daemon:
            until(lambda: "the page cannot listen" in daemon.log.read_text(), "no word about it")
            assert daemon.is_running
            other.close()
            until(lambda: answers(PageClient(port)), "it does not try again")


ACTIVATED = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
os.environ["LISTEN_FDNAMES"] = "web"
os.execv(sys.executable, [sys.executable, "-m", "msrecd", "run", "--config", sys.argv[1]])
"""


@pytest.mark.parametrize(("address", "with_passwords"), [("127.0.0.1", False), ("0.0.0.0", True), ("0.0.0.0", False)])
def test_a_socket_of_systemd(tmp_path: Path, short: Path, address: str, with_passwords: bool) -> None:
    """sd_listen_fds(3): descriptor 3, and the process it is meant for in LISTEN_PID."""
    configured = free_port()
    text = configuration(
        tmp_path, port=None, recorders=web_table(configured, tmp_path, with_passwords=with_passwords) + camera()
    )
    config, log = tmp_path / "msrecd.toml", tmp_path / "daemon.log"
    config.write_text(text)
    for name in ("recordings", "state"):
        (tmp_path / name).mkdir()
    with socket.socket() as listening, log.open("wb") as output:
        listening.bind((address, 0))
        listening.listen()
        port = listening.getsockname()[1]
        environment = os.environ | {"RUNTIME_DIRECTORY": str(short), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec 3<&{listening.fileno()}; exec "$@"',
                "-",
                sys.executable,
                "-c",
                ACTIVATED,
                str(config),
            ],
            pass_fds=(listening.fileno(),),
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
        try:
            if address == "0.0.0.0" and not with_passwords:
                until(lambda: "password_file: is needed" in log.read_text(), log.read_text)
                assert process.poll() is None, "recording goes on without a page"
            else:
                until(lambda: answers(PageClient(port)), log.read_text)
                assert not answers(PageClient(configured)), "the configured address is not used then"
        finally:
            process.terminate()
            assert process.wait(40) == 0, log.read_text()


def test_the_socket_unit_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / "msrecd-web.socket"
    unit.write_text((ROOT / "systemd/msrecd-web.socket").read_text())
    service = tmp_path / "msrecd.service"
    service.write_text("[Service]\nExecStart=/bin/true\n")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ('listen = "0.0.0.0:80"', "web.password_file"),
        ('listen = "[::]:80"', "web.password_file"),
        ('listen = "8080"', "web.listen"),
        ('password_file = "/nothing"', "web.password_file"),
        ('key_file = "key.pem"', "web.key_file"),
        ('listne = "127.0.0.1:1"', "web.listne"),
    ],
)
@pytest.mark.promise("page-needs-a-password")
def test_what_check_config_says(tmp_path: Path, lines: str, path: str) -> None:
    (tmp_path / "key.pem").touch()
    config = tmp_path / "msrecd.toml"
    config.write_text(configuration(tmp_path, port=None, recorders=f"[web]\n{lines}\n" + camera()))
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", "check-config", "--config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"{path}: " in done.stdout + done.stderr


def test_a_file_with_a_password_in_clear_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("my dog's name\n")
    secret.chmod(0o600)
    config = tmp_path / "msrecd.toml"
    config.write_text(configuration(tmp_path, port=None, recorders=f'[web]\npassword_file = "{secret}"\n' + camera()))
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", "check-config", "--config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "web-password" in done.stdout + done.stderr
    assert "dog" not in done.stdout + done.stderr


@pytest.mark.promise("web-password")
def test_web_password() -> None:
    def make(given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "msrecd", "web-password"], input=given, capture_output=True, text=True, check=False
        )

    done = make("geheim\nsecond line\n")
    assert done.returncode == 0
    assert parse_hash(done.stdout).fits("geheim")
    assert "geheim" not in done.stdout + done.stderr
    assert make("").returncode == 2
    assert make("\n").returncode == 2
