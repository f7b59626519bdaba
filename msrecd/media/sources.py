"""Which tracks use which source, and when a source is closed.

Sources report from threads of their own; here their facts come to the loop and become states of tracks.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msrecd.dom.exceptions import NotSupportedError
from msrecd.flow.forgotten import WhenForgotten, call_on
from msrecd.flow.source import Source
from msrecd.media.space import MODE_OF, with_modes
from msrecd.tasks import running_loop

if TYPE_CHECKING:
    from msrecd.media.track import MediaStreamTrack

log = logging.getLogger(__name__)


@runtime_checkable
class Controllable(Protocol):
    """A source whose controls (exposure, focus, …) can change while it runs."""

    def apply_controls(self, settings: Mapping[str, object]) -> None:
        """Take settings under their W3C names; any thread."""


class SharedSource:
    """A source and the live tracks that use it; when the last of them has ended, `on_last_ended` is called once.

    A track that nobody can reach any more counts as ended: what no program can stop must not keep a device open. One
    with listeners can still be heard of and is kept, as the DOM keeps it.

    Belongs to the loop's thread, except for the callbacks that are given to the source and to the garbage collector.
    """

    def __init__(
        self, source: Source, on_last_ended: Callable[[], None], controls: Mapping[str, object] | None = None
    ) -> None:
        """
        Args:
            source: opened.
            on_last_ended: called on the loop.
            controls: those that the source has, as in `DeviceDescription.controls`.
        """
        self.source = source
        self.ended = False
        self._available = controls or {}
        self._controls: dict[str, Any] = {}  # as they stand; all tracks of the source have the same
        self._altered: frozenset[str] = frozenset()
        self._on_last_ended = on_last_ended
        self._users: list[WhenForgotten[MediaStreamTrack]] = []
        self._kept: list[MediaStreamTrack] = []  # those with listeners
        self._loop = running_loop()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that the tracks live on; None if they were only used outside of one so far."""
        if self._loop is None or self._loop.is_closed():
            self._loop = running_loop()
        return self._loop

    def listen(self) -> None:
        """Become the receiver of the source's own end, muting and restarts; one that has ended meanwhile is told of."""
        self.source.on_ended = self._ended_in_thread
        self.source.on_muted = self._muted_in_thread
        self.source.on_restarted = self._restarted_in_thread
        self.source.on_silence = self._silence_in_thread
        try:
            feed = self.source.raw()
        except NotSupportedError:
            return  # encoded units only: a played input, which begins later
        if feed.ended:  # nobody listened when it said so
            self._ended_in_thread(feed.error)

    def attach(self, user: MediaStreamTrack) -> None:
        self._users.append(WhenForgotten(user, self._forgotten))

    def keep(self, user: MediaStreamTrack) -> None:
        """Hold `user` until it is detached: somebody listens to it."""
        if all(known is not user for known in self._kept):
            self._kept.append(user)

    def detach(self, user: MediaStreamTrack) -> None:
        """`user` has ended; the last one closes the source."""
        self._kept = [known for known in self._kept if known is not user]
        for known in self._users:
            if known.owner() is user:
                known.cancel()
                self._last_ended()
                return

    def _last_ended(self) -> None:
        """Close the source unless somebody still uses it."""
        users, self._users = self._users, [user for user in self._users if user.pending]
        if users and not self._users:
            self.ended = True
            self._on_last_ended()

    def _forgotten(self) -> None:
        """The garbage collector has taken a track."""
        call_on(self._loop, self._last_forgotten)

    def _last_forgotten(self) -> None:
        if self.source.device_id and self._users and not any(user.pending for user in self._users):
            log.warning("%s is closed: its tracks were forgotten without stop()", self.source.label or "a source")
        self._last_ended()

    def _reachable(self) -> list[MediaStreamTrack]:
        return [track for user in self._users if (track := user.owner()) is not None]

    def settings(self, of_track: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a track with the controls as they stand now, whichever track has set them."""
        return {**of_track, **self._controls}

    def take_controls(
        self, settings: Mapping[str, Any], mentioned: frozenset[str], *, already_sent: bool = False
    ) -> dict[str, Any]:
        """Send what `settings` say of controls to the source, and return the rest.

        Only what somebody asked for is sent: everything else is the automatic's affair.

        Args:
            settings: chosen.
            mentioned: names of the properties that were constrained.
            already_sent: the source was opened with them.
        """
        controls = {name: value for name, value in settings.items() if name in self._available}
        agreed = with_modes(controls, self._available, mentioned)
        wanted = frozenset(mentioned & agreed.keys())
        touched = wanted | self._altered
        modes = {MODE_OF[name] for name in touched if name in MODE_OF}
        send = {name: value for name, value in agreed.items() if name in touched | modes}
        if send and not already_sent and isinstance(self.source, Controllable):
            self.source.apply_controls(send)
        self._controls, self._altered = agreed, wanted
        return {name: value for name, value in settings.items() if name not in self._available}

    def stop_all(self) -> None:
        """End all tracks as `stop()` does, without events."""
        for user in self._reachable():
            user.stop()
        self._last_ended()  # also of tracks that were collected a moment ago

    def _ended_in_thread(self, error: BaseException | None) -> None:
        if error is None:
            log.info("%s was removed; its tracks end", self.source.label or "a source")
        else:
            log.warning("%s failed; its tracks end: %s", self.source.label or "a source", error)
        self._post(self._end_all)

    def _muted_in_thread(self, muted: bool) -> None:
        self._post(lambda: self.mute_all(muted))

    def _restarted_in_thread(self, silent_s: float) -> None:
        self._post(lambda: self._restart_all(silent_s))

    def _silence_in_thread(self, is_silent: bool) -> None:
        self._post(lambda: self._silence_all(is_silent))

    def _post(self, task: Callable[[], None]) -> None:
        if self._loop is None:
            return  # nobody has looked at the tracks on a loop yet; they read `source.muted` when somebody does
        try:
            self._loop.call_soon_threadsafe(task)
        except RuntimeError:
            return  # the loop is closed: no track has listeners any more

    def _end_all(self) -> None:
        self.ended = True
        for user in self._reachable():
            user._end_by_implementation()

    def mute_all(self, muted: bool) -> None:
        """The source has nothing to give for now, or has again. On the loop."""
        for user in self._reachable():
            user._mute_by_implementation(muted)

    def _silence_all(self, is_silent: bool) -> None:
        for user in self._reachable():
            user._silence_by_implementation(is_silent)

    def _restart_all(self, silent_s: float) -> None:
        for user in self._reachable():
            user._restart_by_implementation(silent_s)


def close_in_worker(source: Source) -> asyncio.Future[None] | None:
    """Close `source` without blocking the loop; outside of a loop, in this thread. None: nothing to wait for.

    The work is handed to the executor at once, so that it is done even when the loop ends right afterwards.
    """
    loop = running_loop()
    if loop is None:
        _close(source)
        return None
    try:
        return loop.run_in_executor(None, _close, source)
    except RuntimeError:  # the loop is about to end and takes no more
        threading.Thread(target=_close, args=(source,), name="close").start()
        return None


def _close(source: Source) -> None:
    try:
        source.close()
    except Exception as exc:  # whatever a driver raises at the end must not take anything else with it
        log.error("closing %s failed: %s", source.label or type(source).__name__, exc)
