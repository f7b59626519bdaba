"""Signature, windows, rate, keys: the pure parts of off-load."""

from __future__ import annotations

from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from msrecd.errors import ConfigError
from msrecd.offload.awscredentials import read_credentials
from msrecd.offload.pace import TokenBucket, hours_to_clear, may_send, parse_window
from msrecd.offload.sigv4 import EMPTY_SHA256, Credentials, canonical_query, encoded_path, signed_headers

# The keys and the requests of https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
EXAMPLE = Credentials(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
THEN = datetime(2013, 5, 24, tzinfo=UTC)
HOST = "examplebucket.s3.amazonaws.com"


def signature(headers: dict[str, str]) -> str:
    return headers["authorization"].rpartition("Signature=")[2]


def test_signatures_are_those_of_the_documentation() -> None:
    listed = signed_headers(
        EXAMPLE,
        method="GET",
        host=HOST,
        path="/",
        query={"max-keys": "2", "prefix": "J"},
        headers={},
        payload_sha256=EMPTY_SHA256,
        region="us-east-1",
        now=THEN,
    )
    assert signature(listed) == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    put = signed_headers(
        EXAMPLE,
        method="PUT",
        host=HOST,
        path="/test%24file.text",
        query={},
        headers={"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        payload_sha256="44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        region="us-east-1",
        now=THEN,
    )
    assert signature(put) == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    assert encoded_path("bucket", "a b/ü+~.mp4") == "/bucket/a%20b/%C3%BC%2B~.mp4"
    assert canonical_query({"b": "x/y z", "a": ""}) == "a=&b=x%2Fy%20z"
    assert "wJalr" not in repr(EXAMPLE)


def test_windows_go_over_midnight() -> None:
    night = [parse_window("22:00-05:00"), parse_window("12:00 - 12:30")]
    assert [may_send(night, time(*at)) for at in ((21, 59), (22, 0), (0, 0), (4, 59), (5, 0), (12, 29), (12, 30))] == [
        *(False, True, True, True, False, True, False)
    ]
    assert may_send([], time(3, 0))
    assert may_send([parse_window("00:00-00:00")], time(3, 0)), "the whole day"
    with pytest.raises(ValueError, match="22:00-05:00"):
        parse_window("25:00-05:00")


def test_the_rate_holds_on_the_average_and_the_bursts_are_short() -> None:
    bucket = TokenBucket(1 << 20)
    assert bucket.block_bytes == 256 << 10
    now, sent = 0.0, 0
    for _ in range(400):
        now += bucket.delay_s(bucket.block_bytes, now)
        sent += bucket.block_bytes
    assert sent / now == pytest.approx(1 << 20, rel=0.01)
    assert TokenBucket(None).delay_s(1 << 30, 5.0) == 0.0
    assert TokenBucket(2048).block_bytes == 1024
    assert hours_to_clear(3600 << 20, 1 << 20) == 1.0
    assert hours_to_clear(0, None) == 0.0
    assert hours_to_clear(1, None) is None


def test_keys_come_from_the_default_profile_of_a_file_for_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[other]\naws_access_key_id = X\n[default]\naws_access_key_id = A\naws_secret_access_key = s%3\n")
    file.chmod(0o600)
    assert read_credentials(file) == Credentials(access_key="A", secret_key="s%3")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="open to others"):
        read_credentials(file)
    file.chmod(0o600)
    for text, words in (
        ("[other]\n", "no section"),
        ("[default]\n", "lacks aws_access_key_id"),
        ("rubbish", "no file"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_credentials(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_credentials(tmp_path / "none")
