"""LocalSocket: the adapter behind `msrecd ctl` on the device itself. Needs no broker and no network.

Who may open the socket may command the daemon: mode 0660, group `msrecd`. Everything that arrives is bounded (clients,
bytes, seconds) and goes through the same checks as a command over MQTT.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from msrecd.clock import SYSTEM_CLOCK
from msrecd.control.bus import Adapter, Bus
from msrecd.control.commands import TIMEOUT_S, Commands, Request
from msrecd.control.messages import Result, encode, encode_reply
from msrecd.errors import CommandError
from msrecd.local.protocol import REQUEST_LIMIT_BYTES, socket_path
from msrecd.tasks import Tasks
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

CLIENTS_LIMIT = 16
REQUEST_DEADLINE_S = 10.0
ANSWER_DEADLINE_S = TIMEOUT_S + 10.0
GROUP = "msrecd"
Look = Callable[[str, bool], Awaitable[Mapping[str, object]]]  # recorder, with a JPEG; raises CommandError


class LocalSocket(Adapter):
    """See `Adapter`."""

    name = "ctl"

    def __init__(
        self,
        bus: Bus,
        commands: Commands,
        greeting: Mapping[str, object],
        path: Path | None = None,
        *,
        look: Look | None = None,
    ) -> None:
        """
        Args:
            greeting: tells a client which daemon this is.
            look: what the tracks of a recorder are; None: nobody may ask.
        """
        self._look_at = look
        self._bus = bus
        self._port = commands.port(self.name, cause_has_id=False)
        self._greeting = encode(greeting) + b"\n"
        self._path = path or socket_path()
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._refused = 0
        self._tasks = Tasks(log)

    def health(self) -> Mapping[str, object]:
        return {
            "listening": self._server is not None,
            "commands_refused": self._port.refused_for_rate,
            "clients_refused": self._refused,
        }

    async def start(self) -> None:
        """Listen. Where that is not possible the daemon runs without."""
        try:
            self._path.parent.mkdir(mode=0o750, exist_ok=True)
            if self._path.is_socket() and _is_alive(self._path):
                log.warning("%s belongs to another daemon; this one takes no commands there", self._path)
                return
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            listening = socket.socket(socket.AF_UNIX)
            try:
                listening.bind(str(self._path))
                with contextlib.suppress(KeyError, OSError):  # no such group, or not a member of it
                    os.chown(self._path, -1, grp.getgrnam(GROUP).gr_gid)
                self._path.chmod(0o660)  # no client can connect before it listens
                self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=REQUEST_LIMIT_BYTES)
            except OSError:
                listening.close()
                raise
        except OSError as exc:
            reason = exc.strerror or exc
            log.warning("no local control socket at %s (%s): `msrecd ctl` needs the broker", self._path, reason)

    async def stop(self, timeout_s: float) -> None:
        self._tasks.cancel()
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=min(1.0, timeout_s))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= CLIENTS_LIMIT:
            self._refused += 1
            writer.close()
            return
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.LimitOverrunError, asyncio.IncompleteReadError) as exc:
            log.debug("closed a client of the local socket: %s", exc or type(exc).__name__)
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            writer.write(self._greeting)
            await writer.drain()
            line = await reader.readuntil(b"\n")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def reply(payload: bytes) -> None:
            if not answer.done():
                answer.set_result(payload)

        self._take(line.rstrip(b"\n"), reply)
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            payload = await answer
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            writer.write(payload + b"\n")
            await writer.drain()

    def _take(self, line: bytes, reply: Callable[[bytes], None]) -> None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        match value:
            case {"states": True}:
                reply(encode(dict(self._bus.states)))
            case {"look": str(name), "jpeg": bool(with_jpeg)} if self._look_at is not None:
                self._tasks.spawn(self._look(self._look_at, name, with_jpeg, reply), "look")
            case {"command": str(path), "payload": str(payload)}:
                self._port.receive(Request(path=path, payload=payload.encode("utf-8", "replace"), answer=reply))
            case _:
                error = CommandError("bad_payload", "a line of JSON with command and payload is expected")
                reply(encode_reply(None, Result(error=error), format_utc(SYSTEM_CLOCK.realtime_ns())))

    async def _look(self, look: Look, name: str, with_jpeg: bool, reply: Callable[[bytes], None]) -> None:
        result = Result(error=CommandError("internal", "the look failed; the device's log says why"))
        try:
            result = Result(data=await look(name, with_jpeg))
        except CommandError as exc:
            result = Result(error=exc)
        finally:
            reply(encode_reply(None, result, format_utc(SYSTEM_CLOCK.realtime_ns())))


def _is_alive(path: Path) -> bool:
    """Whether a process accepts connections there; a socket that a killed daemon left behind refuses them."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass
    return True
