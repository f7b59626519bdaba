"""A new configuration for a running daemon: all of it or nothing; recorders that are not concerned go on untouched.

Everything that can be refused is refused before anything changes: the file, what needs a restart, the schedules, the
new units. What then remains (recordings that end) can be slow or complain, but not leave half a configuration.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

from msrecd.clock import SYSTEM_CLOCK
from msrecd.config.load import load
from msrecd.config.model import Config
from msrecd.config.recorder_model import Recorder
from msrecd.control.conductor import Conductor
from msrecd.control.publisher import Publisher
from msrecd.control.recorders import Recorders
from msrecd.daemon import systemd
from msrecd.daemon.checks import config_checks
from msrecd.daemon.from_config import recorder_settings
from msrecd.errors import CommandError, ConfigError
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.settings import RecorderSettings
from msrecd.schedule.model import ScheduleError

log = logging.getLogger(__name__)

_FIXED = ("config_version", "device", "devices", "mqtt", "web", "storage", "offload", "homeassistant")
_LIVE = frozenset(
    f"storage.{name}"
    for name in ("max_total_bytes", "max_age_s", "min_free_bytes", "max_protected_bytes", "sync_interval_s")
)
_SUFFIXES = ("_bytes", "_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Names of recorders: removed, replaced and new ones. All others are not touched."""

    removed: tuple[str, ...]
    replaced: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def ending(self) -> tuple[str, ...]:
        """Whose units end."""
        return self.removed + self.replaced


def change(before: Config, after: Config) -> Change:
    """What a new configuration means for recorders. Schedules, limits and retention alone leave a recording alone."""
    old = {recorder.name: _capture_settings(recorder) for recorder in before.recorders}
    new = {recorder.name: _capture_settings(recorder) for recorder in after.recorders}
    return Change(
        removed=tuple(name for name in old if name not in new),
        replaced=tuple(name for name in old if name in new and old[name] != new[name]),
        added=tuple(name for name in new if name not in old),
    )


def needs_restart(before: Config, after: Config) -> list[str]:
    """Key paths, as the file has them, of changes that a running daemon cannot take over."""
    changed = (path for name in _FIXED for path in _differences(getattr(before, name), getattr(after, name), name))
    return [_as_written(path) for path in changed if path not in _LIVE]


def _capture_settings(recorder: Recorder) -> RecorderSettings:
    """What the unit goes by; when to record is the conductor's business."""
    return replace(recorder_settings(recorder), autostart=False, max_duration_s=None)


def _differences(before: object, after: object, path: str) -> Iterator[str]:
    if before == after:
        return
    if is_dataclass(before) and is_dataclass(after):
        for field in fields(before):
            yield from _differences(getattr(before, field.name), getattr(after, field.name), f"{path}.{field.name}")
    else:
        yield path


def _as_written(path: str) -> str:
    for suffix in _SUFFIXES:
        path = path.removesuffix(suffix)
    return path


class Reloader:
    """Belongs to the loop. One reload at a time."""

    def __init__(
        self,
        path: Path,
        recorders: Recorders,
        conductor: Conductor,
        publisher: Publisher,
        *,
        make_unit: Callable[[Recorder], RecorderController],
        set_limits: Callable[[Config], None],
    ) -> None:
        """
        Args:
            path: of the configuration file.
            make_unit: for one `[[recorder]]`; it does nothing yet.
            set_limits: makes the storage keep the limits of a new configuration.
        """
        self._path = path
        self._recorders = recorders
        self._conductor = conductor
        self._publisher = publisher
        self._make_unit = make_unit
        self._set_limits = set_limits
        self._lock = asyncio.Lock()
        self._asked = False
        self.ready = asyncio.Event()  # the daemon has started; nothing is reloaded before
        self._ending: asyncio.Future[list[None]] | None = None
        self.leaving: list[RecorderController] = []  # units whose recordings are being finished

    async def by_signal(self) -> None:
        """SIGHUP: any number of them while one waits for its turn are one."""
        if self._asked:
            return
        self._asked = True
        try:
            await self.reload()
        except CommandError:
            pass  # it has been reported
        finally:
            self._asked = False

    async def reload(self) -> bool:
        """Read the configuration again; False when it means the same as before.

        Raises:
            CommandError: bad_args: the new configuration is not valid or needs a restart; the old one stays in force.
        """
        await self.ready.wait()
        async with self._lock:
            self._asked = False  # who asks from here on has changed the file since
            systemd.notify("RELOADING=1", f"MONOTONIC_USEC={SYSTEM_CLOCK.monotonic_ns() // 1000}")
            try:
                return await self._reload()
            except CommandError as exc:
                log.error("%s", exc.message)  # each time: a client waits for the answer
                self._publisher.report_error(exc.code, exc.message, logged=True)
                raise
            finally:
                systemd.notify("READY=1")

    async def settled(self, name: str) -> None:
        """Wait while a reload replaces this recorder, so that a command finds the new one."""
        if name not in self._recorders.units and self._recorders.config.recorder(name) is not None:
            async with self._lock:
                pass

    async def _reload(self) -> bool:
        recorders = self._recorders
        before = recorders.config
        try:
            config = await asyncio.to_thread(load, self._path, checks=config_checks())
        except ConfigError as exc:
            raise CommandError("bad_args", f"the configuration is not valid and was not loaded: {exc}") from exc
        if config.hash == before.hash:
            return False
        if paths := needs_restart(before, config):
            raise CommandError(
                "bad_args",
                f"the configuration was not loaded: {', '.join(paths)} cannot change while the service runs; "
                "restart it: systemctl restart msrecd",
            )
        todo = change(before, config)
        try:
            planners = self._conductor.prepare(config)
        except ScheduleError as exc:
            raise CommandError("bad_args", f"the configuration was not loaded: {exc}") from exc
        fresh = {r.name: self._make_unit(r) for r in config.recorders if r.name in (*todo.replaced, *todo.added)}
        # From here on nothing is refused, and there is no state in between up to the first await.
        self.leaving = [recorders.units.pop(name) for name in todo.ending]
        recorders.config = config
        self._conductor.adopt(planners)
        self._set_limits(config)
        # All end before one begins: the new ones may want their devices. A shutdown does not interrupt it.
        self._ending = asyncio.gather(*(self._end(unit) for unit in self.leaving))
        await asyncio.shield(self._ending)
        self.leaving = []
        recorders.units.update(fresh)
        for name in todo.removed:
            self._publisher.forget(name)
        for unit in fresh.values():
            self._publisher.recorder_state(unit)
            unit.arm()
        self._conductor.wake()
        self._publisher.publish_daemon()
        log.info("configuration loaded: %s", config.hash[:12])
        return True

    async def _end(self, unit: RecorderController) -> None:
        try:
            await unit.close("reload")
        except Exception:  # whatever it is, the new configuration holds already
            log.exception("%s: its recording could not be ended properly; it is recovered later", unit.name)
