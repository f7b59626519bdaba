"""The parts of the page's server, each for itself."""

from __future__ import annotations

import asyncio
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from msrecd import pixels
from msrecd.control.bus import Event, State
from msrecd.errors import ConfigError
from msrecd.flow.units import AudioBlock, AudioFormat
from msrecd.media.levels import decibels
from msrecd.vocabulary.listen import ListenAddress, parse_listen
from msrecd.web.metrics import Happened, metrics
from msrecd.web.mirror import CLIENT_LIMIT_MESSAGES, ERRORS_LIMIT, HANDOVER_LIMIT, EventClient, StateMirror
from msrecd.web.passwords import make_hash, parse_hash, read_hash
from msrecd.web.router import Access, Request, Response, Router
from msrecd.web.sessions import IDLE_NS, LIFE_NS, SESSIONS_LIMIT, LoginLimit, Sessions

ROOT = Path(__file__).resolve().parents[2]


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8080)),
        ("[::]:80", ListenAddress("::", 80)),
        ("[fe80::1%eth0]:80", ListenAddress("fe80::1%eth0", 80)),
        ("pi.local:1", ListenAddress("pi.local", 1)),
        ("unix:/run/msrecd/web.sock", ListenAddress(path="/run/msrecd/web.sock")),
    ],
)
def test_addresses(text: str, address: ListenAddress) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text",
    ["", ":80", "8080", "localhost", "::1:80", "a:0", "a:65536", "a b:1", "unix:x", "unix:/" + "x" * 200, "[a]:1"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_listen(text)


@pytest.mark.parametrize("text", ["127.0.0.1:99999", "127.0.0.1:0", "[::]:123456"])
def test_a_port_out_of_range_is_told_from_none(text: str) -> None:
    with pytest.raises(ValueError, match="out of range; it takes one from 1 to 65535"):
        parse_listen(text)


def test_only_loopback_and_unix_sockets_are_local() -> None:
    local = ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x")
    assert all(parse_listen(text).is_local for text in local)
    assert not any(parse_listen(text).is_local for text in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "pi.local:1"))


def test_a_hash_fits_its_password_only(tmp_path: Path) -> None:
    line = make_hash("päss")
    assert line != make_hash("päss")
    assert parse_hash(line).fits("päss")
    assert not parse_hash(line).fits("pass")
    path = tmp_path / "hash"
    path.write_text("geheim\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="web-password") as refused:
        read_hash(path, "web.password_file")
    assert "geheim" not in str(refused.value)
    path.write_text("")
    with pytest.raises(ConfigError, match="is empty; a hash made by: msrecd web-password belongs there"):
        read_hash(path, "web.password_file")


@pytest.mark.parametrize(
    "line", ["", "scrypt", "scrypt$14$8$1$$", "scrypt$30$8$1$AAAAAAAAAAA=$AAAA", "scrypt$a$b$c$d$e", "bcrypt$1$2$3$4$5"]
)
def test_what_is_no_hash(line: str) -> None:
    with pytest.raises(ValueError, match="web-password"):
        parse_hash(line)


def test_sessions_end_by_themselves() -> None:
    clock = ManualClock()
    sessions = Sessions(clock)  # type: ignore[arg-type]
    idle, used = sessions.begin(Access.VIEWER), sessions.begin(Access.OPERATOR)
    ended: list[str] = []
    idle.on_end.clear()
    used.on_end.add(lambda: ended.append("used"))
    clock.now_ns = IDLE_NS + 1
    assert sessions.find(idle.token) is None
    assert sessions.find(used.token) is used, "something is under way for it"
    clock.now_ns = LIFE_NS + 1
    sessions.sweep()
    assert (len(sessions), ended) == (0, ["used"])


def test_sessions_are_bounded() -> None:
    sessions = Sessions(ManualClock())  # type: ignore[arg-type]
    first, *rest = [sessions.begin(Access.VIEWER).token for _ in range(SESSIONS_LIMIT + 1)]
    assert sessions.find(first) is None
    assert len(sessions) == SESSIONS_LIMIT
    assert sessions.find(rest[-1]) is not None


def test_tries_of_a_password_are_limited_by_network() -> None:
    clock = ManualClock()
    limit = LoginLimit(clock)  # type: ignore[arg-type]
    assert [limit.take("10.0.0.1") for _ in range(6)] == [True] * 5 + [False]
    assert limit.take("10.0.0.2")
    clock.now_ns = 10_000_000_001
    assert [limit.take("10.0.0.1") for _ in range(2)] == [True, False]
    assert [limit.take(f"fd00::{n:x}") for n in range(1, 7)] == [True] * 5 + [False], "one network"
    many = [limit.take(f"10.1.0.{n}") for n in range(100)]
    assert sum(many) < 30, "all together are limited, too"


def test_a_route_is_the_operators_unless_it_says_otherwise() -> None:
    async def handler(_: Request) -> Response:
        return Response()

    router = Router()
    router.add("POST", "/api/x/{name}", handler)
    router.add("GET", "/api/x/{name}", handler, access=Access.VIEWER)
    router.add("GET", "/api/x/known", handler, access=Access.PUBLIC)
    assert router.find("POST", ("api", "x", "y"))[0].access is Access.OPERATOR  # type: ignore[union-attr]
    assert router.find("HEAD", ("api", "x", "y"))[1] == {"name": "y"}
    assert router.find("GET", ("api", "x", "known"))[0].access is Access.PUBLIC  # type: ignore[union-attr]
    assert router.find("PUT", ("api", "x", "y")) == (None, {}, ["GET", "POST"])
    with pytest.raises(ValueError, match="already"):
        router.add("GET", "/api/x/{name}", handler)


def test_the_last_errors_are_kept_and_repetitions_counted() -> None:
    mirror = StateMirror()

    def happens(path: str, **facts: object) -> None:
        mirror.receive(Event(path, {"ts": "2026-11-30T20:00:00Z", **facts}))

    async def attach() -> None:
        mirror.attach(asyncio.get_running_loop())

    happens("recorder/cam0", event_type="chunk", seq=1)
    for _ in range(3):
        happens("recorder/cam0", event_type="error", recorder="cam0", error={"code": "no_space", "message": "full"})
    happens("error", event_type="error", recorder=None, code="internal", message="under-voltage", count=4)
    asyncio.run(attach())
    found = [(one["recorder"], one["code"], one["message"], one["count"]) for one in mirror.errors]
    assert found == [(None, "internal", "under-voltage", 4), ("cam0", "no_space", "full", 3)]
    for number in range(2 * ERRORS_LIMIT):
        happens("error", event_type="error", recorder="mic0", code="internal", message=str(number), count=1)
    asyncio.run(attach())
    assert [one["message"] for one in mirror.errors] == [str(n) for n in range(2 * ERRORS_LIMIT)][
        : -ERRORS_LIMIT - 1 : -1
    ]


def test_states_and_events_wait_in_bounds() -> None:
    mirror = StateMirror()
    for number in range(3 * HANDOVER_LIMIT):
        mirror.receive(State("recorder/cam0", {"rev": number}))
        mirror.receive(Event("recorder/cam0", {"event_type": "chunk", "recorder": "cam0", "number": number}))
    assert len(mirror._waiting) <= HANDOVER_LIMIT
    assert mirror.lost_items > 0

    async def take() -> None:
        mirror.attach(asyncio.get_running_loop())

    asyncio.run(take())
    assert mirror.recorders() == {"cam0": {"rev": 3 * HANDOVER_LIMIT - 1}}, "the newest state is there"


def test_a_client_that_does_not_read_is_bounded() -> None:
    async def go() -> None:
        client = EventClient()
        assert all(client.offer(b"x", optional=True) for _ in range(CLIENT_LIMIT_MESSAGES // 2))
        assert not client.offer(b"x", optional=True), "levels take half of the room"
        assert client.offer(b"a state")
        assert not client.offer(b"x" * (1 << 20))

    asyncio.run(go())


def sound(amplitude: float, *, channels: int = 2, sample_format: Any = "s16", rate: int = 48_000) -> AudioBlock:
    """A tenth of a second of 1 kHz."""
    full = (1 << 15) if sample_format == "s16" else (1 << 31)
    waves = (
        min(full - 1, round(amplitude * full * math.sin(2 * math.pi * 1000 * n / rate))) for n in range(rate // 10)
    )
    code = "<h" if sample_format == "s16" else "<i"
    data = b"".join(struct.pack(code, value) * channels for value in waves)
    format = AudioFormat(sample_rate=rate, channels=channels, sample_format=sample_format)
    return AudioBlock(pts_ns=0, format=format, samples=rate // 10, data=data)


@pytest.mark.parametrize("sample_format", ["s16", "s32"])
def test_levels_are_those_of_full_scale_amplitude(sample_format: str) -> None:
    block = sound(10 ** (-6 / 20), sample_format=sample_format)
    squares, peaks, clipped = pixels.sums_of(block)
    assert [decibels(peak) for peak in peaks] == pytest.approx([-6.0, -6.0], abs=0.02)
    assert [decibels(math.sqrt(square / block.samples)) for square in squares] == pytest.approx(
        [-9.01, -9.01], abs=0.03
    )
    assert clipped == [0, 0]
    assert pixels.sums_of(sound(1.0, sample_format=sample_format))[2][0] > 0
    assert decibels(0.0) == -80.0
    assert decibels(1e-9) == -80.0


LABEL = r'[a-z_]+="(?:[^"\\\n]|\\.)*"'
SAMPLE = re.compile(rf"([a-z_][a-z0-9_]*)(\{{{LABEL}(?:,{LABEL})*\}})? -?[0-9.e+-]+")


def test_metrics_have_the_form_of_prometheus() -> None:
    happened = Happened()
    happened.count({"recorder": "cam0", "event_type": "gap", "duration_s": 1.5})
    happened.count({"recorder": "cam0", "event_type": "chunk", "bytes": 7, "tracks": {"video": {"dropped": 2}}})
    states = {
        "daemon": {"version": "1", "clock": "synchronized"},
        "devices": [{"device_id": "a", "label": 'say "hi"\\\n', "state": "free"}],
        "health": {
            "cpu_temp_c": 50.5,
            "disk": {"free_bytes": 10},
            "throttled": {"now": ["under_voltage"]},
            "mqtt": None,
        },
        "recorder/cam0": {
            "state": "error",
            "error": {"code": "no_space"},
            "bytes": 5,
            "chunks": 1,
            "dropped_frames": 0,
        },
    }
    text = metrics(states, happened, {"viewers": 2, "listening": True}, "pi")
    seen: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in seen, f"{name} stands twice"
            seen.add(name)
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in seen, line
    for line in (
        'msrecd_recorder_state{recorder="cam0",state="error"} 1',
        'msrecd_recorder_error{recorder="cam0",code="no_space"} 1',
        'msrecd_gap_seconds_total{recorder="cam0"} 1.5',
        'msrecd_chunk_bytes_total{recorder="cam0"} 7',
        'msrecd_dropped_frames_total{recorder="cam0"} 2',
        "msrecd_temperature_celsius 50.5",
        "msrecd_under_voltage 1",
        "msrecd_clock_synchronized 1",
        "msrecd_web_viewers 2",
        "msrecd_disk_free_bytes 10",
    ):
        assert line in text.splitlines(), line
    assert "mqtt" not in text, "no broker, no figures of one"


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    source = (ROOT / "msrecd/web/metrics.py").read_text()
    dashboard = json.loads((ROOT / "config/grafana/msrecd.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"msrecd_([a-z0-9_]+)", target["expr"])
    }
    assert len(asked) > 10
    assert not [name for name in asked if f'"{name}"' not in source]
