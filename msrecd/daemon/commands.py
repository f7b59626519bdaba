"""Commands of section 6 of the contract, from MQTT to the units."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from msrecd.errors import CommandError
from msrecd.mqtt.commands import CommandResult
from msrecd.recorder.controller import RecorderController

if TYPE_CHECKING:
    from msrecd.daemon.daemon import Daemon

Handler = Callable[[RecorderController, Mapping[str, object], str], Awaitable[CommandResult]]


class Commands:
    """The mqtt package's CommandHandler: one coroutine a command; errors are CommandError."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._recorder_verbs: Mapping[str, Handler] = {
            "start": self._start,
            "stop": self._stop,
            "pause": self._pause,
            "resume": self._resume,
            "split": self._split,
            "snapshot": self._snapshot,
            "get": self._get,
        }

    async def command(
        self, target: str, name: str | None, verb: str, args: Mapping[str, object], cause: str
    ) -> CommandResult:
        """
        Raises:
            CommandError: with a code of the contract.
        """
        if target == "daemon":
            return await self._daemon_command(verb)
        await self._daemon.reloader.settled(name or "")
        unit = self._daemon.units.get(name or "")
        if unit is None:
            raise CommandError("unknown_recorder", f"there is no recorder {name}")
        handler = self._recorder_verbs.get(verb)
        if handler is None:
            raise CommandError("unknown_verb", f"unknown verb {verb}")
        return await handler(unit, args, cause)

    async def _start(self, unit: RecorderController, args: Mapping[str, object], cause: str) -> CommandResult:
        duration = args.get("duration_s")
        duration_s = float(duration) if isinstance(duration, (int, float)) else None
        changed = await self._daemon.conductor.start(unit.name, cause, duration_s)
        return CommandResult(changed=changed, data=_data(unit))

    async def _stop(self, unit: RecorderController, args: Mapping[str, object], cause: str) -> CommandResult:
        recording_id = unit.files.recording_id
        changed = await self._daemon.conductor.stop(unit.name, cause)
        return CommandResult(changed=changed, data=_data(unit) | {"recording_id": recording_id})

    async def _pause(self, unit: RecorderController, args: Mapping[str, object], cause: str) -> CommandResult:
        return CommandResult(changed=await unit.pause(), data=_data(unit))

    async def _resume(self, unit: RecorderController, args: Mapping[str, object], cause: str) -> CommandResult:
        return CommandResult(changed=await unit.resume(), data=_data(unit))

    async def _split(self, unit: RecorderController, args: Mapping[str, object], cause: str) -> CommandResult:
        return CommandResult(changed=await unit.split(), data=_data(unit))

    async def _get(self, unit: RecorderController, args: Mapping[str, object], cause: str) -> CommandResult:
        self._daemon.state_changed(unit)
        return CommandResult(changed=False, data=self._daemon.recorder_state(unit))

    async def _snapshot(self, unit: RecorderController, args: Mapping[str, object], cause: str) -> CommandResult:
        from msrecd.recorder.snapshot import take_snapshot

        jpeg = await take_snapshot(unit, self._daemon.devices)
        self._daemon.publish_image(unit.name, jpeg)
        return CommandResult(changed=True, data=_data(unit) | {"bytes": len(jpeg)})

    async def _daemon_command(self, verb: str) -> CommandResult:
        daemon = self._daemon
        if verb == "ping":
            return CommandResult(changed=False, data=daemon.daemon_state())
        if verb == "devices":
            return CommandResult(changed=False, data={"devices": await daemon.refresh_devices()})
        if verb == "health":
            return CommandResult(changed=False, data=await daemon.vitals.tell())
        if verb == "reload":
            changed = await daemon.reloader.reload()
            return CommandResult(changed=changed, data={"config_hash": daemon.config.hash})
        raise CommandError("unknown_verb", f"unknown verb {verb}")


def _data(unit: RecorderController) -> dict[str, Any]:
    return {"state": unit.status.state, "recording_id": unit.files.recording_id}
