"""Addresses of the page, files with secrets, certificates: what is taken, and what a person reads about what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from broker import Certificates

from msrecd.errors import ConfigError
from msrecd.vocabulary.listen import ListenAddress, parse_listen
from msrecd.vocabulary.secrets import SECRET_LIMIT_BYTES, check_key_file, read_secret
from msrecd.vocabulary.tls import client_context, server_context

PEM = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("text", "address", "is_local"),
    [
        ("127.0.0.1:8080", ListenAddress(host="127.0.0.1", port=8080), True),
        ("[::1]:1", ListenAddress(host="::1", port=1), True),
        ("[::]:65535", ListenAddress(host="::", port=65535), False),
        ("device.example:80", ListenAddress(host="device.example", port=80), False),
        ("unix:/run/msrecd/web.sock", ListenAddress(path="/run/msrecd/web.sock"), True),
    ],
)
def test_addresses(text: str, address: ListenAddress, is_local: bool) -> None:
    assert parse_listen(text) == address
    assert address.is_local == is_local


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unix:web.sock", "takes an absolute path"),
        ("unix:/run/", "takes an absolute path"),
        ("unix:/" + 107 * "x", "at most 107 bytes"),
        ("127.0.0.1", "needs a port"),
        ("127.0.0.1:", "needs a port"),
        ("127.0.0.1:http", "needs a port"),
        ("127.0.0.1:0", "out of range"),
        ("127.0.0.1:65536", "out of range"),
        ("::1:8080", "is no host and port"),
        ("[device]:8080", "is no host and port"),
        ("a b:8080", "is no host and port"),
    ],
)
def test_what_is_no_address(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_listen(text)


def secret(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"hunter2", b"hunter2\n", b"hunter2\r\nmore\n", b"\xef\xbb\xbfhunter2\n"])
def test_the_first_line_is_the_secret(tmp_path: Path, content: bytes) -> None:
    assert read_secret(secret(tmp_path, content), "password_file") == "hunter2"


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"hunter2", 0o640, "is open to others .mode 0640.; chmod 0600 it"),
        (b"x" * (SECRET_LIMIT_BYTES + 1), 0o600, "is longer than"),
        (b"hunter2\xff", 0o600, "is not UTF-8 text"),
        (b"\nhunter2", 0o600, "is empty; the password belongs there"),
    ],
)
def test_what_is_no_secret_is_named_and_not_shown(tmp_path: Path, content: bytes, mode: int, message: str) -> None:
    with pytest.raises(ConfigError, match=f"password_file: .*{message}") as refused:
        read_secret(secret(tmp_path, content, mode), "password_file")
    assert "hunter2" not in str(refused.value)


def test_what_systemd_guards_may_be_readable_and_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert read_secret(secret(tmp_path, b"hunter2", 0o444), "password_file", is_private=False) == "hunter2"
    for read in (read_secret, check_key_file):
        with pytest.raises(ConfigError, match=r"key_file: .*nowhere"):
            read(tmp_path / "nowhere", "key_file")


def test_a_private_key_must_not_be_open_to_everyone(tmp_path: Path) -> None:
    check_key_file(secret(tmp_path, PEM.encode(), 0o640), "key_file")
    check_key_file(secret(tmp_path, PEM.replace("PRIVATE KEY", "CERTIFICATE").encode(), 0o644), "key_file")
    with pytest.raises(ConfigError, match=r"key_file: .*open to everyone"):
        check_key_file(secret(tmp_path, PEM.encode(), 0o644), "key_file")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


def test_certificates_that_can_be_used(certificates: Certificates, tmp_path: Path) -> None:
    assert client_context(certificates.ca, "mqtt.ca_file").get_ca_certs()
    assert client_context(None, "mqtt.ca_file").check_hostname
    assert server_context(certificates.broker, certificates.broker_key, "web")
    both = secret(tmp_path, certificates.broker.read_bytes() + certificates.broker_key.read_bytes())
    assert server_context(both, None, "web"), "the key may be in the same file"


def test_which_file_cannot_be_used_and_why(certificates: Certificates, tmp_path: Path) -> None:
    other_key = certificates.issue("other", "other")[1]
    damaged = tmp_path / "damaged"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked, broken = tmp_path / "locked", tmp_path / "broken"
    locked.write_text(PEM.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"))
    broken.write_text(PEM)
    for path in (locked, broken):
        path.chmod(0o600)
    for certificate, key, message in (
        (certificates.broker, None, r"web\.cert_file: .*holds no private key.*web\.key_file names it"),
        (certificates.broker, certificates.broker, r"web\.key_file: .*holds no private key"),
        (certificates.broker, locked, r"web\.key_file: .*is encrypted"),
        (certificates.broker, other_key, r"web\.key_file: .*is not the key of the certificate"),
        (certificates.broker, broken, r"web\.key_file: .*cannot be used"),
        (damaged, certificates.broker_key, r"web\.cert_file: .*cannot be used"),
        (other_key, other_key, r"web\.cert_file: .*holds no certificate"),
        (tmp_path / "nowhere", None, r"web\.cert_file: .*No such file"),
    ):
        with pytest.raises(ConfigError, match=message):
            server_context(certificate, key, "web")
    for file, message in ((damaged, "cannot be used"), (broken, "holds no certificate"), (tmp_path / "x", "No such")):
        with pytest.raises(ConfigError, match=rf"mqtt\.ca_file: .*{message}"):
            client_context(file, "mqtt.ca_file")
