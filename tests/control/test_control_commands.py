"""Commands and replies without a transport: tables, and the fuzzing of everything that reads what arrives.

Twenty thousand payloads in the ordinary run; `MSRECD_FUZZ=1000000` for the acceptance figure.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import string
import time
import tracemalloc
from itertools import combinations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msrecd.clock import NS
from msrecd.control.commands import Commands, Dedupe, RateLimit, Request
from msrecd.control.messages import (
    PAYLOAD_LIMIT_BYTES,
    Result,
    check_args,
    decode_command,
    encode_reply,
    parse_path,
)
from msrecd.daemon.archive import protected_range
from msrecd.errors import CommandError
from msrecd.vocabulary.times import format_utc
from msrecd.vocabulary.verbs import CODES, DAEMON_VERBS, RECORDER_VERBS, RETRYABLE

TS = "2026-11-20T18:00:00.000Z"
FUZZ = int(os.environ.get("MSRECD_FUZZ", "20000"))


class ManualClock:
    def __init__(self):
        self.now_ns = 5 * NS

    def monotonic_ns(self):
        return self.now_ns

    def realtime_ns(self):
        return 1_790_000_000 * NS + self.now_ns

    def wait_until(self, deadline_ns, stop):
        raise AssertionError("nothing here waits")


def code_of(payload, verb="start"):
    with pytest.raises(CommandError) as caught:
        decode_command(payload, verb)
    return caught.value.code


@pytest.mark.parametrize(
    "payload",
    [
        b" ", b"\n", b"null", b"1", b'"x"', b"[]", b"{", b"{}{}", b"{'id': 1}", b"\xef\xbb\xbf{}", b"{}\0",
        '{"id": "x"}'.encode("utf-16"), '{"id": "x"}'.encode("utf-32"),
        b'{"id": "a", "id": "b"}', b'{"args": {"duration_s": 1, "duration_s": 2}}',
        b'{"args": {"duration_s": 1e999}}', b'{"args": {"duration_s": -Infinity}}',
        b'{"args": {"duration_s": ' + b"9" * 5000 + b"}}",
        b'{"id": "\\ud800"}', b'{"args": {"\\u0000": 1}}', b'{"ID": "x"}', b'{"a": ' * 5000,
        b'{"args": ' + b"[" * 60 + b"]" * 60 + b', "x": 1}',
        b'{"id": "' + b"x" * PAYLOAD_LIMIT_BYTES + b'"}',
    ],
)  # fmt: skip
def test_bad_payloads(payload):
    assert code_of(payload) == "bad_payload"


@pytest.mark.parametrize(
    "value",
    [
        {"id": ""}, {"id": "x" * 129}, {"id": "a\nb"}, {"id": 1}, {"id": ["x"]}, {"issued_at": 5}, {"issued_at": ""},
        {"issued_at": "2026-13-01T00:00:00Z"}, {"issued_at": "2026-11-20 18:00:00"},
        {"issued_at": "2026-11-20T18:00:00"},
        {"args": []}, {"args": "x"}, {"args": {"duration_s": 0}}, {"args": {"duration_s": "5"}},
        {"args": {"last_s": 5}},
        {"args": {"duration_s": 1e300}}, {"args": {"duration_s": None}}, {"args": {"profile": "720p"}},
    ],
)  # fmt: skip
def test_bad_args(value):
    assert code_of(json.dumps(value).encode()) == "bad_args"


@pytest.mark.parametrize(
    "args",
    [
        {}, {"last_s": 0}, {"last_s": "60"}, {"last_s": True}, {"from": "2026-11-20T18:00:00Z"},
        {"from": "2026-11-20T18:00:00Z", "to": "2026-11-20T18:00:00Z"}, {"from": 1, "to": 2},
        {"last_s": 60, "from": "2026-11-20T18:00:00Z", "to": "2026-11-20T19:00:00Z"}, {"whole": 1},
        {"whole": True, "last_s": 60}, {"seq": 4}, {"whole": False}, {"whole": False, "last_s": 60},
    ],
)  # fmt: skip
def test_bad_ranges_to_protect(args):
    assert code_of(json.dumps({"args": args}).encode(), "protect") == "bad_args"


def test_a_snapshot_takes_a_flag():
    assert check_args("snapshot", {"full": True}) == {"full": True}
    for args in ({"full": 1}, {"full": "yes"}, {"width": 640}):
        assert code_of(json.dumps({"args": args}).encode(), "snapshot") == "bad_args"


def test_ranges_to_protect():
    assert check_args("protect", {"last_s": 60}) == {"last_s": 60}
    assert check_args("protect", {"whole": True}) == {"whole": True}
    times = {"from": "2026-11-20T18:00:00Z", "to": "2026-11-20T19:00:00Z"}
    assert check_args("protect", times) == {"from": 1795197600.0, "to": 1795201200.0}


@pytest.mark.promise("empty-payload")
def test_good_commands():
    assert decode_command(b"", "start").args == {}
    assert decode_command(b'{"id": null, "args": null, "issued_at": null}', "stop").id is None
    command = decode_command(b'{"id":"a","issued_at":"2026-11-20T18:00:00Z","args":{"duration_s":0.5}}', "start")
    assert (command.id, command.issued_at, command.args) == ("a", 1795197600.0, {"duration_s": 0.5})
    for text in ("2026-11-20T19:00:00+01:00", "2026-11-20t18:00:00.000z"):
        assert decode_command(json.dumps({"issued_at": text}).encode(), "get").issued_at == 1795197600.0
    assert check_args("start", {"duration_s": 600}) == {"duration_s": 600}


def test_every_code_has_its_retryable_and_replies_are_bounded():
    contract = (
        "bad_payload unknown_verb unknown_recorder bad_args wrong_state device_missing device_busy no_space expired"
        " retained_rejected rate_limited internal"
    )
    assert set(contract.split()) == CODES
    for code, retryable in RETRYABLE.items():
        reply = json.loads(encode_reply("x", Result(error=CommandError(code, "m" * 9999)), TS))
        assert (reply["error"]["code"], reply["error"]["retryable"]) == (code, retryable)
        assert len(reply["error"]["message"]) <= 300
    unknown = json.loads(encode_reply(None, Result(error=CommandError("surprise", "x")), TS))
    assert unknown["error"]["code"] == "internal"
    assert (
        json.loads(encode_reply(None, Result(error=CommandError("no_space", "x", retryable=False)), TS))["error"][
            "retryable"
        ]
        is False
    )


@pytest.mark.promise("times-on-the-wire")
def test_times():
    assert format_utc(0) == "1970-01-01T00:00:00.000Z"
    assert format_utc(1_795_197_600_412_999_999) == "2026-11-20T18:00:00.412Z"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("recorder/cam0/start", ("recorder", "cam0", "start")),
        ("recorder/a/b/start", ("recorder", "a/b", "start")),
        ("recorder//start", ("recorder", "", "start")),
        ("recorder/start", ("", None, "recorder/start")),
        ("recorder", ("", None, "recorder")),
        ("daemon/ping", ("daemon", None, "ping")),
        ("daemon/ping/x", ("daemon", None, "ping/x")),
        ("daemon", ("", None, "daemon")),
        ("", ("", None, "")),
    ],
)
def test_paths(path, expected):
    command = parse_path(path)
    assert (command.target, command.recorder, command.verb) == expected


def test_rate_limit():
    clock = ManualClock()
    limit = RateLimit(clock)
    assert [limit.take() for _ in range(25)] == [True] * 20 + [False] * 5
    clock.now_ns += NS // 2
    assert [limit.take() for _ in range(6)] == [True] * 5 + [False]
    clock.now_ns += 100 * NS
    assert sum(limit.take() for _ in range(50)) == 20
    assert limit.refused == 5 + 1 + 30


def test_dedupe_keeps_256_ids_for_ten_minutes():
    clock = ManualClock()
    dedupe = Dedupe(clock)
    outcome = Result(changed=True)
    for number in range(300):
        assert dedupe.begin(str(number))
        dedupe.finish(str(number), outcome)
    assert len(dedupe) == 256
    assert dedupe.begin("0")
    dedupe.abandon("0")
    assert not dedupe.begin("299")
    assert dedupe.result("299") is outcome
    assert dedupe.begin("running")
    clock.now_ns += 599 * NS
    assert not dedupe.begin("299")
    clock.now_ns += 2 * NS
    assert not dedupe.begin("running")
    assert dedupe.begin("299")


def test_what_is_in_flight_is_not_pushed_out_and_does_not_keep_the_rest():
    clock = ManualClock()
    dedupe = Dedupe(clock)
    assert dedupe.begin("running")
    for number in range(1000):
        dedupe.begin(str(number))
        dedupe.finish(str(number), Result())
    assert len(dedupe) <= 257
    assert not dedupe.begin("running")


class Accepting:
    def __init__(self):
        self.calls = []

    async def act(self, address, args, cause):
        self.calls.append((address.target, address.recorder, address.verb, dict(args), cause))
        return Result()


SEEDS = [
    b'{"id":"01JD","issued_at":"2026-11-20T18:00:00Z","args":{"duration_s":600}}', b"{}", b"", b"ON", b"OFF",
    b'{"args":{"duration_s":1e308}}', b'{"id":"\\ud83d\\ude00"}', b'[[[[{"a":NaN}]]]]', b'{"id":"../../etc/passwd"}',
]  # fmt: skip
PATHS = [
    *(f"recorder/cam0/{verb}" for verb in (*RECORDER_VERBS, "set")), *(f"daemon/{verb}" for verb in DAEMON_VERBS),
    "recorder/../../x/start", "recorder/nope/start", "x", "", "recorder/cam0/" + "x" * 3000, "daemon/" + "/" * 150,
]  # fmt: skip


def mutate(chance, payload):
    data = bytearray(payload)
    for _ in range(chance.randrange(4)):
        position = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            data[position:position] = chance.randbytes(chance.randrange(1, 5))
        elif kind == 1:
            del data[position : position + chance.randrange(1, 6)]
        elif kind == 2:
            data[position:position] = chance.choice([b"{", b"[", b'"', b"\\u0000", b"NaN", b"1e999", b"\0", b"9" * 50])
        elif data:
            data[position % len(data)] = chance.randrange(256)
    return bytes(data)


def fuzz(count, seed):
    """Random and damaged commands against the whole way in: nothing raises, every answer is a bounded reply."""
    chance = random.Random(seed)
    clock = ManualClock()
    handler = Accepting()
    replies = []

    async def run():
        commands = Commands(handler.act, lambda: ("cam0",), clock=clock, clock_trusted=lambda: chance.random() < 0.5)
        port = commands.port("test")
        sizes = []
        for number in range(count):
            clock.now_ns += NS // 10
            kind = chance.randrange(10)
            if kind == 0:
                payload = chance.randbytes(chance.randrange(200))
            elif kind == 1:
                payload = "".join(chance.choices(string.printable, k=chance.randrange(100))).encode()
            else:
                payload = mutate(chance, chance.choice(SEEDS))
            port.receive(
                Request(
                    path=chance.choice(PATHS),
                    payload=payload,
                    answer=replies.append,
                    refusal=chance.choice([None] * 20 + [CommandError("retained_rejected", "x")]),
                    expires_ns=chance.choice([None, None, clock.now_ns + NS, clock.now_ns - 1]),
                )
            )
            if number % 1000 == 999:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                for reply in replies:
                    value = json.loads(reply)
                    assert value["status"] in ("ok", "error")
                    assert len(reply) < 1500
                    assert value["status"] == "ok" or value["error"]["code"] in CODES
                replies.clear()
                if number % (count // 4) == count // 4 - 1:
                    sizes.append(tracemalloc.get_traced_memory()[0])
                for target, name, verb, args, _ in handler.calls:
                    assert (target, name) in (("recorder", "cam0"), ("daemon", None))
                    assert verb in (*RECORDER_VERBS, *DAEMON_VERBS)
                    assert set(args) <= {"duration_s", "last_s", "from", "to", "whole"}
                handler.calls.clear()
        await commands.close(5)
        return sizes

    return asyncio.run(run())


def resident_bytes():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


@pytest.mark.timeout(300 + FUZZ // 1000)
def test_fuzz_payloads():
    fuzz(20_000, 9)  # what is loaded and cached only once is there then
    before, begun = resident_bytes(), time.monotonic()
    fuzz(FUZZ, 1)
    after, took = resident_bytes(), time.monotonic() - begun
    print(f"{FUZZ} payloads in {took:.0f} s; resident {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB after")
    assert after - before < 8 << 20


def test_fuzz_leaves_no_memory_behind():
    tracemalloc.start()
    try:
        sizes = fuzz(20_000, 3)
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[0] < 500_000, sizes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["id", "issued_at", "args", "x"]), json_values, max_size=4) | json_values,
    st.sampled_from(RECORDER_VERBS + DAEMON_VERBS),
)
def test_any_json_is_a_command_or_a_refusal(value, verb):
    try:
        command = decode_command(json.dumps(value).encode(), verb)
    except CommandError as exc:
        assert exc.code in ("bad_payload", "bad_args")  # noqa: PT017 - it may also be accepted
    else:
        assert isinstance(value, dict)
        assert set(command.args) <= {"duration_s", "last_s", "from", "to", "whole"}
        encode_reply(command.id, Result(), TS)


VALUES = (
    None, True, False, 0, 1, -1, 0.5, 60, 10**17, 1e300, -0.0, "", "x", "true", "60", [], [1], {}, {"a": 1},
    "2026-11-20T18:00:00Z", "0001-01-01T00:00:00Z", "2999-12-31T23:59:59Z", "9999-12-31T23:59:59+00:00",
    "0001-01-01T00:00:00+14:00", "2026-11-20",
)  # fmt: skip
KEYS = ("duration_s", "last_s", "from", "to", "whole", "full", "dng", "x")


@pytest.mark.promise("args-never-internal")
@pytest.mark.parametrize("verb", [*RECORDER_VERBS, *DAEMON_VERBS])
def test_every_set_of_arguments_with_every_kind_of_value_is_understood_or_refused(verb):
    """What the decoder lets through must be what the one who acts can use: no key lacks, no time is too far."""
    for count in range(4):
        for keys in combinations(KEYS, count):
            for values in product(VALUES, repeat=count) if count < 3 else zip(*[VALUES] * count, strict=True):
                args = dict(zip(keys, values, strict=True))
                try:
                    checked = check_args(verb, args)
                except CommandError as exc:
                    assert exc.code == "bad_args", args  # noqa: PT017 - it may also be accepted
                    continue
                if verb == "protect" and "whole" not in checked:
                    for ns in protected_range(checked, 1_795_197_600 * NS):
                        assert -(1 << 63) <= ns < 1 << 63, args
                elif verb == "protect":
                    assert checked == {"whole": True}, args
                assert isinstance(checked.get("duration_s", 1.0), (int, float))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.text(max_size=80))
@pytest.mark.promise("names-are-compared")
def test_any_bytes_and_any_topic_are_survived(payload, path):
    try:
        decode_command(payload, "start")
    except CommandError as exc:
        assert exc.code in ("bad_payload", "bad_args")  # noqa: PT017 - it may also be accepted
    else:
        assert not payload or payload.lstrip(b" \r\n\t").startswith(b"{")
    assert parse_path(path).path == path
