from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from broker import Broker

from msrecd.control.bus import Bus
from msrecd.control.commands import Commands
from msrecd.control.messages import Address, Result
from msrecd.errors import CommandError
from msrecd.mqtt.service import MqttService
from msrecd.mqtt.settings import MqttSettings


class RecordingHandler:
    """Stands for the daemon: keeps a state per recorder as the real one does, and every call it got."""

    def __init__(self) -> None:
        self.states = {"cam0": "inactive", "mic": "inactive"}
        self.calls: list[tuple[str, str | None, str, dict[str, object], str]] = []
        self.bus: Bus | None = None
        self.gate: asyncio.Event | None = None
        self.running = 0
        self.most_running = 0
        self.failure: Exception | None = None
        self.data: dict[str, object] = {}  # more for the replies to daemon verbs

    async def act(self, address: Address, args: Mapping[str, object], cause: str) -> Result:
        target, name, verb = address.target, address.recorder, address.verb
        self.calls.append((target, name, verb, dict(args), cause))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            if target == "daemon" or name is None:
                return Result(data={"verb": verb} | self.data)
            return self._act(name, verb)
        finally:
            self.running -= 1

    def _act(self, name: str, verb: str) -> Result:
        before = self.states[name]
        after = {"start": "recording", "stop": "inactive", "pause": "paused", "resume": "recording"}.get(verb, before)
        if verb in ("pause", "resume", "split") and before == "inactive":
            raise CommandError("wrong_state", f"{name} is not recording")
        self.states[name] = after
        if self.bus is not None and after != before:
            self.bus.set_state(f"recorder/{name}", {"state": after})
            self.bus.emit(f"recorder/{name}", {"event_type": after})
        return Result(changed=after != before or verb == "split", data={"state": after})


class ServiceThread:
    """An MqttService on a loop of its own, so that a test can look at it from outside."""

    def __init__(self, settings: MqttSettings, state_path: Path, **options: Any) -> None:
        self.settings = settings
        self.handler = options.pop("handler", None) or RecordingHandler()
        self.trusted = options.pop("trusted", True)
        self._state_path = state_path
        self._options = options
        self._ready = threading.Event()
        self._done = threading.Event()
        self._finish: asyncio.Event | None = None
        self._problem: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.service: MqttService | None = None
        self.bus: Bus | None = None
        self.stop_timeout = 5.0

    def __enter__(self) -> ServiceThread:
        threading.Thread(target=self._main, name="service under test", daemon=True).start()
        assert self._ready.wait(20), "the service did not start"
        if self._problem is not None:
            raise self._problem
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.loop is not None and self._finish is not None and not self._done.is_set():
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._finish.set)
        assert self._done.wait(self.stop_timeout + 15), "the service did not stop"
        if self._problem is not None:
            raise self._problem

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function` on the loop; what it returns."""
        assert self.loop is not None

        async def run() -> Any:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(15)

    def publish_state(self, path: str, payload: Any) -> None:
        """Set a state on the bus; None clears it."""
        assert self.bus is not None
        if payload is None:
            self.call(self.bus.clear_state, path)
        else:
            self.call(self.bus.set_state, path, payload)

    def publish_event(self, path: str, payload: Any) -> None:
        assert self.bus is not None
        self.call(self.bus.emit, path, payload)

    def publish_image(self, recorder: str, jpeg: bytes) -> None:
        assert self.bus is not None
        self.call(self.bus.show, recorder, jpeg)

    def health(self) -> Any:
        assert self.service is not None
        return self.call(self.service.health)

    def wait(self, condition: Callable[[MqttService], bool], timeout: float = 20.0) -> None:
        """Until `condition` holds, asked on the loop."""
        deadline = time.monotonic() + timeout
        while not self.call(condition, self.service):
            assert time.monotonic() < deadline, f"not within {timeout} s: {self.service and self.service.health()}"
            time.sleep(0.02)

    def connected(self) -> ServiceThread:
        self.wait(lambda service: service.health()["connected"])
        return self

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as exc:
            self._problem = exc
        finally:
            self._ready.set()
            self._done.set()

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._finish = asyncio.Event()
        options = {"boot_counter": 7} | self._options
        self.bus = self.handler.bus = Bus()
        commands = Commands(
            self.handler.act,
            lambda: tuple(self.handler.states),
            clock_trusted=lambda: self.trusted,
            timeout_s=options.pop("timeout_s", 120.0),
        )
        for name, state in self.handler.states.items():
            self.bus.set_state(f"recorder/{name}", {"state": state})
        self.service = MqttService(self.settings, self.bus, commands, state_path=self._state_path, **options)
        await self.service.start()
        self._ready.set()
        try:
            await self._finish.wait()
        finally:
            await self.service.stop(self.stop_timeout)


@pytest.fixture
def settings_for() -> Callable[..., MqttSettings]:
    def make(broker: Broker, **changes: Any) -> MqttSettings:
        values: dict[str, Any] = {
            "host": broker.host,
            "port": broker.port,
            "device_id": "pi-test",
            "groups": ("north",),
            "reconnect_min_s": 0.05,
            "reconnect_max_s": 0.5,
        }
        return MqttSettings(**(values | changes))

    return make


@pytest.fixture
def service_for(tmp_path: Path, settings_for: Callable[..., MqttSettings]) -> Callable[..., ServiceThread]:
    def make(
        broker: Broker,
        *,
        handler: Any = None,
        trusted: bool = True,
        state: str = "state",
        timeout_s: float = 120.0,
        **changes: Any,
    ) -> ServiceThread:
        options = {"handler": handler, "trusted": trusted, "timeout_s": timeout_s}
        if "has_video" in changes:
            options["has_video"] = changes.pop("has_video")
        return ServiceThread(settings_for(broker, **changes), tmp_path / state, **options)

    return make
