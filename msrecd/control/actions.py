"""What each verb does. The commands are checked already; errors are CommandError with a code of the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msrecd.control.bus import Bus
from msrecd.control.conductor import Conductor
from msrecd.control.device_list import DeviceWatch
from msrecd.control.messages import Address, Result
from msrecd.control.publisher import Publisher
from msrecd.control.recorders import Recorders
from msrecd.errors import CommandError
from msrecd.media.devices import MediaDevices
from msrecd.recorder.controller import RecorderController

Arguments = Mapping[str, object]


class Actions:
    """Lives on the loop."""

    def __init__(
        self,
        *,
        bus: Bus,
        recorders: Recorders,
        conductor: Conductor,
        publisher: Publisher,
        devices: MediaDevices,
        watch: DeviceWatch,
        settled: Callable[[str], Awaitable[None]],
        reload: Callable[[], Awaitable[bool]],
        measure: Callable[[], Awaitable[Mapping[str, Any]]],
        protect: Callable[[RecorderController, Arguments], Awaitable[Mapping[str, Any]]],
        snapshot: Callable[[RecorderController, bool, bool], Awaitable[Mapping[str, Any] | None]],
    ) -> None:
        """
        Args:
            settled: waits while a reload replaces this recorder.
            reload: reads the configuration again; whether it is another one.
            measure: publishes state/health; the payload.
            protect: keeps chunks of a recorder whatever the limits say; what it kept.
            snapshot: puts one on the disk, if the recorder has snapshots, or it is to be of full resolution (True); its
                facts. Raises CommandError.
        """
        self._bus = bus
        self._recorders = recorders
        self._conductor = conductor
        self._publisher = publisher
        self._devices = devices
        self._watch = watch
        self._settled = settled
        self._reload = reload
        self._measure = measure
        self._protect = protect
        self._save_snapshot = snapshot

    async def act(self, address: Address, args: Arguments, cause: str) -> Result:
        """Do what `address.verb` says. The state that it leads to is published before this returns.

        Raises: CommandError.
        """
        if address.target == "daemon":
            return await self._of_daemon(address.verb)
        await self._settled(address.recorder or "")
        unit = self._recorders.units.get(address.recorder or "")
        if unit is None:
            raise CommandError("unknown_recorder", f"there is no recorder {address.recorder}")
        try:
            return await self._of_recorder(unit, address.verb, args, cause)
        finally:
            self._publisher.flush()

    async def _of_daemon(self, verb: str) -> Result:
        match verb:
            case "ping":
                return Result(data=self._publisher.daemon_state())
            case "devices":
                return Result(data={"devices": await self._watch.look()})
            case "health":
                return Result(data=await self._measure())
            case "reload":
                changed = await self._reload()
                return Result(changed=changed, data={"config_hash": self._recorders.config.hash})
        raise CommandError("unknown_verb", f"unknown verb {verb}")

    async def _of_recorder(self, unit: RecorderController, verb: str, args: Arguments, cause: str) -> Result:
        match verb:
            case "start":
                duration = args.get("duration_s")
                duration_s = float(duration) if isinstance(duration, (int, float)) else None
                changed = await self._conductor.start(unit.name, cause, duration_s)
            case "stop":
                recording_id = unit.files.recording_id
                changed = await self._conductor.stop(unit.name, cause)
                return Result(changed=changed, data=_data(unit) | {"recording_id": recording_id})
            case "pause":
                changed = await unit.pause()
            case "resume":
                changed = await unit.resume()
            case "split":
                changed = await unit.split()
            case "get":
                return Result(data=self._publisher.recorder_state(unit))
            case "protect":
                return Result(changed=True, data=await self._protect(unit, args))
            case "snapshot":
                how = {"is_full": args.get("full") is True, "is_dng": args.get("dng") is True}
                return await self._snapshot(unit, cause, **how)
            case _:
                raise CommandError("unknown_verb", f"unknown verb {verb}")
        return Result(changed=changed, data=_data(unit))

    async def _snapshot(self, unit: RecorderController, cause: str, *, is_full: bool, is_dng: bool) -> Result:
        config = self._recorders.config
        recorder = config.recorder(unit.name)
        is_kept = is_full or is_dng or recorder is None or recorder.snapshots is not None
        if not is_kept and config.mqtt is None and cause != "web":  # the page shows the frame itself
            raise CommandError(
                "bad_args",
                f"the frame would go nowhere: {unit.name} has no snapshots configured, and there is no broker to "
                'publish it to; {"full": true} (--full) writes a file',
            )
        from msrecd.recorder.snapshot import take_snapshot  # here: the JPEG encoder, for those few who want one

        facts = await self._save_snapshot(unit, is_full, is_dng) or {}
        jpeg = await take_snapshot(unit, self._devices)
        self._bus.show(unit.name, jpeg)
        file = {name: facts[name] for name in ("file", "bytes", "sha256", "dng") if name in facts}
        return Result(changed=True, data=_data(unit) | {"bytes": len(jpeg)} | file)  # of the file, where there is one


def _data(unit: RecorderController) -> dict[str, Any]:
    return {"state": unit.status.state, "recording_id": unit.files.recording_id}
