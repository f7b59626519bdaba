"""The local socket: bounded, strict, and with the same commands as MQTT."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from msrecd.control.bus import Bus
from msrecd.control.commands import Commands
from msrecd.control.messages import Address, Result
from msrecd.local import server as module
from msrecd.local.client import LocalDaemon, LocalError
from msrecd.local.protocol import REQUEST_LIMIT_BYTES, socket_path
from msrecd.local.server import LocalSocket

Calls = list[tuple[Address, Mapping[str, object], str]]


@pytest.fixture
def path() -> Iterator[Path]:
    """Short: the name of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="msrecd-") as folder:
        yield Path(folder) / "control.sock"


@asynccontextmanager
async def listening(path: Path, calls: Calls) -> AsyncIterator[LocalSocket]:
    async def act(address: Address, args: Mapping[str, object], cause: str) -> Result:
        calls.append((address, args, cause))
        return Result(changed=True, data={"state": "recording"})

    bus = Bus()
    bus.set_state("recorder/cam0", {"state": "inactive"})
    commands = Commands(act, lambda: ("cam0",), clock_trusted=lambda: True)
    adapter = LocalSocket(bus, commands, {"device": "pi-test", "config": "/etc/x.toml"}, path)
    await adapter.start()
    try:
        yield adapter
    finally:
        await adapter.stop(5.0)
        await commands.close(1.0)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(within())


async def raw(path: Path, line: bytes) -> Any:
    """Send a line; the answer behind the greeting, None when there is none."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 22)
    try:
        assert json.loads(await reader.readline())["device"] == "pi-test"
        writer.write(line)
        await writer.drain()
        answer = await reader.readline()
        return json.loads(answer) if answer else None
    except ConnectionError:
        return None
    finally:
        writer.close()


@pytest.mark.promise("socket-mode")
def test_a_command_and_the_states(path: Path) -> None:
    calls: Calls = []

    def client() -> None:
        assert path.stat().st_mode & 0o777 == 0o660
        with LocalDaemon(path) as daemon:
            assert (daemon.device_id, daemon.config) == ("pi-test", Path("/etc/x.toml"))
            reply = daemon.send("recorder/cam0/start", b'{"id": "a", "args": {"duration_s": 5}}', 10.0)
        assert (reply["id"], reply["status"], reply["changed"]) == ("a", "ok", True)
        with LocalDaemon(path) as daemon:
            assert daemon.states(10.0) == {"recorder/cam0": {"state": "inactive"}}

    async def work() -> None:
        async with listening(path, calls):
            await asyncio.to_thread(client)

    run(work)
    ((address, args, cause),) = calls
    assert (address.path, args, cause) == ("recorder/cam0/start", {"duration_s": 5}, "ctl")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"x", "bad_payload"),
        (b"[]", "bad_payload"),
        (b"[" * 10_000, "bad_payload"),
        (b'{"command": 1, "payload": ""}', "bad_payload"),
        (b'{"command": "recorder/cam0/start", "payload": {}}', "bad_payload"),
        (b'{"command": "recorder/cam0/start", "payload": "[]"}', "bad_payload"),
        (b'{"command": "recorder/cam0/start", "payload": "\\ud800"}', "bad_payload"),
        (json.dumps({"command": "daemon/ping", "payload": " " * 17_000}).encode(), "bad_payload"),
        (b'{"command": "recorder/cam0/fly", "payload": ""}', "unknown_verb"),
        (b'{"command": "recorder/../x/start", "payload": ""}', "unknown_recorder"),
    ],
)
def test_what_is_no_command_is_refused(path: Path, request_: bytes, code: str) -> None:
    calls: Calls = []

    async def work() -> None:
        async with listening(path, calls):
            reply = await raw(path, request_ + b"\n")
            assert (reply["status"], reply["error"]["code"]) == ("error", code)

    run(work)
    assert not calls


def test_a_line_without_an_end_is_cut_and_the_next_client_is_served(path: Path) -> None:
    async def work() -> None:
        async with listening(path, []):
            assert await raw(path, b"x" * (4 * REQUEST_LIMIT_BYTES)) is None
            assert (await raw(path, b'{"command": "daemon/ping", "payload": ""}\n'))["status"] == "ok"

    run(work)


@pytest.mark.effect("state-health: clients_refused")
def test_clients_that_say_nothing_are_given_up_and_at_most_so_many_are_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_DEADLINE_S", 1.0)

    async def work() -> None:
        async with listening(path, []) as adapter:
            silent = [await asyncio.open_unix_connection(path) for _ in range(module.CLIENTS_LIMIT + 3)]
            ends = await asyncio.gather(*(reader.read() for reader, _ in silent))
            assert sum(end == b"" for end in ends) == 3, "those above the limit are not even greeted"
            assert adapter.health()["clients_refused"] == 3
            for _, writer in silent:
                writer.close()
            assert (await raw(path, b'{"states": true}\n')) == {"recorder/cam0": {"state": "inactive"}}

    run(work)


def test_a_second_daemon_leaves_the_socket_alone(path: Path) -> None:
    async def work() -> None:
        async with listening(path, []):
            async with listening(path, []) as second:
                assert second.health()["listening"] is False
            assert (await raw(path, b'{"states": true}\n')) is not None

    run(work)


def test_where_it_cannot_listen_the_daemon_runs_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with listening(tmp_path / ("x" * 120) / "control.sock", []) as adapter:
            assert adapter.health()["listening"] is False

    run(work)
    assert "`msrecd ctl` needs the broker" in caplog.text


def test_a_daemon_that_does_not_answer_is_given_up(path: Path) -> None:
    def client() -> None:
        with LocalDaemon(path) as daemon, pytest.raises(LocalError, match=r"within 0\.2 s"):
            daemon.send("daemon/ping", b"", 0.2)

    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"{}\n")
        try:
            await asyncio.sleep(60)
        finally:
            writer.close()

    async def work() -> None:
        server = await asyncio.start_unix_server(mute, path)
        await asyncio.to_thread(client)
        server.close()

    run(work)


def test_the_place() -> None:
    assert socket_path({}) == Path("/run/msrecd/control.sock")
    assert socket_path({"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == Path("/run/a/control.sock")
