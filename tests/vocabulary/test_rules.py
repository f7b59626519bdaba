"""Rules of the vocabulary: names, TLS, back-off, formats, times."""

from __future__ import annotations

import pytest

from msrecd.clock.wall import parse_moment
from msrecd.vocabulary.formats import CONTAINERS, SUFFIXES, TYPE_OF_SUFFIX, extension_for
from msrecd.vocabulary.times import format_utc, parse_rfc3339, parse_utc
from msrecd.vocabulary.tls import is_loopback, mqtt_port, uses_tls


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("ip6-loopback", True),
        ("127.0.0.5", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("broker.localhost", False),  # what a resolver without this rule makes of it is anybody's machine
        ("localhost.localdomain", False),
        ("localhost.evil.org", False),
        ("broker", False),
        ("192.168.1.5", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
    ],
)
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here
    assert uses_tls(host, allow_plaintext=False, has_certificates=False) is not here
    assert not uses_tls(host, allow_plaintext=True, has_certificates=False)
    assert uses_tls(host, allow_plaintext=False, has_certificates=True)


def test_the_port_follows_tls_unless_it_is_given() -> None:
    assert mqtt_port(None, tls=True) == 8883
    assert mqtt_port(None, tls=False) == 1883
    assert mqtt_port(1884, tls=True) == 1884


def test_types_and_suffixes_lead_to_each_other() -> None:
    assert set(SUFFIXES) == {".mp4", ".m4a", ".webm", ".mkv", ".mka", ".ogg", ".flac", ".wav"}
    for suffix, mime_type in TYPE_OF_SUFFIX.items():
        assert extension_for(mime_type) == suffix
        assert extension_for(f"{mime_type.upper()}; codecs=opus") == suffix
    for mime_type, container in CONTAINERS.items():
        assert extension_for(mime_type) in container.extensions
    with pytest.raises(ValueError, match="no file format"):
        extension_for("video/ogg")


def test_times_are_read_as_they_are_written() -> None:
    assert format_utc(1_795_197_600_412_999_999) == "2026-11-20T18:00:00.412Z"
    assert parse_rfc3339("2026-11-20t19:00:00.5+01:00") == 1_795_197_600_500_000_000


@pytest.mark.promise("far-times")
@pytest.mark.parametrize("text", ["0001-01-01", "1600-01-01T00:00:00Z", "2263-01-01", "9999-12-31T23:59:59.999999Z"])
def test_a_time_that_no_integer_of_the_index_holds_is_the_nearest_that_one_does(text: str) -> None:
    found = parse_utc(text)
    assert -(1 << 63) <= found < 1 << 63
    assert found == parse_moment(text, 0)
    year = int(text[:4])
    assert format_utc(found)[:4] == ("2262" if year > 2000 else "1677")


@pytest.mark.promise("far-times")
@pytest.mark.parametrize("age", ["999999d", "9" * 30 + "d", "9" * 400 + "ms"])
def test_an_age_may_be_longer_than_time(age: str) -> None:
    found = parse_moment(age, 1_795_197_600 * 10**9)
    assert found >= -(1 << 63)
    assert format_utc(found)[:4] == "1677"


@pytest.mark.parametrize("text", ["2026-11-20", "2026-11-20T18:00:00", "2026-11-20 18:00:00Z", "2026-13-01T00:00:00Z"])
def test_a_time_without_zone_or_with_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_rfc3339(text)
