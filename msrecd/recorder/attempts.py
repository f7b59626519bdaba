"""Attempts: the attempts of one recorder, one after the other: opened, begun on the files, armed again, closed.

Whether there should be one, and what it means that one ended, the controller decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msrecd import MediaDevices
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.errors import CommandError
from msrecd.recorder.attempt import Attempt
from msrecd.recorder.files import RecordingFiles
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import Problem
from msrecd.recorder.settings import RecorderSettings
from msrecd.vocabulary.backoff import BackOff

if TYPE_CHECKING:
    from msrecd.recorder.controller import RecorderController


_LASTS_NS = 30 * NS  # inputs that were held open for so long


class Attempts:
    """Lives on the loop; one of its coroutines runs at a time.

    Attributes:
        current: armed, beginning or under way.
        is_beginning: what ends an attempt meanwhile is raised by `begin`.
        gave_nothing: the last attempt began, and ended without any media.
        back_off: between attempts that give nothing.
    """

    def __init__(
        self, settings: RecorderSettings, devices: MediaDevices, files: RecordingFiles, listener: RecorderController
    ) -> None:
        self.current: Attempt | None = None
        self.is_beginning = False
        self.gave_nothing = False
        self.back_off = BackOff()
        self._arming = BackOff()
        self._armed_ns = 0
        self._settings = settings
        self._devices = devices
        self._files = files
        self._listener = listener
        self._count = 0
        self._first = 1  # of the present recording

    @property
    def input(self) -> RecorderInput | None:
        """What is open."""
        return None if self.current is None else self.current.input

    @property
    def is_file(self) -> bool:
        """Whether a file is open, which waits until it is played."""
        return self.input is not None and self.input.is_file

    def begin_recording(self) -> None:
        """The next attempt, or the one that is armed, is the first of a recording."""
        self.reset()
        self._first = self._count + 1 if self.current is None else self.current.number

    def reset(self) -> None:
        """All is well: the next fault is the first one."""
        self.back_off.reset()
        self.gave_nothing = False

    def belongs(self, attempt: Attempt) -> bool:
        """Whether what an attempt gives is of the present recording: one that was replaced may finish its files."""
        return attempt is self.current or (self._files.is_open and attempt.number >= self._first)

    async def make(self, input: RecorderInput | None = None) -> Attempt:
        """Another attempt; it does not begin, and is not `current`.

        Args:
            input: open; None: it is opened.

        Raises:
            CommandError, DOMException, TypeError: nothing is open then.
        """
        if input is None:
            try:
                input = await RecorderInput.open(self._settings, self._devices, rests=True)
            except CommandError:
                self.gave_nothing = False
                raise
        self._count += 1
        try:
            return Attempt(self._count, self._settings, input, self._listener)
        except BaseException:
            input.close()
            raise

    async def begin(self, input: RecorderInput | None = None) -> Attempt:
        """Record into the present recording; begin that if there is none. What it returns may have ended already.

        Args:
            input: open; None: what is armed, else it is opened.

        Raises:
            CommandError, DOMException, StorageError, …: it could not begin; nothing is open, files excepted.
        """
        self._files.expect_data()
        self.is_beginning = True
        try:
            attempt = self.current
            if attempt is None:
                attempt = self.current = await self.make(input)
            await attempt.start()
            if not self._files.is_open and attempt.has_started:
                await self._files.open(attempt.file_type)
            if not attempt.is_active and not attempt.input.has_played_out:
                self.note_end(attempt)
                raise (attempt.problem or Problem("device_missing", "the device went away")).error()
        except BaseException:
            self.close()
            if not self._files.is_open:
                self._files.drop_pending()  # each try would leave its own behind
            raise
        finally:
            self.is_beginning = False
        self._files.expect_data()
        return attempt

    def arm(self, attempt: Attempt) -> None:
        """Hold the inputs of an attempt open; it is armed."""
        self.current, self._armed_ns = attempt, SYSTEM_CLOCK.monotonic_ns()

    def arming_back_off(self) -> BackOff:
        """What passes until inputs that were held open, and were lost, are opened again: it grows while they do not
        last."""
        if SYSTEM_CLOCK.monotonic_ns() - self._armed_ns > _LASTS_NS:
            self._arming.reset()
        return self._arming

    def note_end(self, attempt: Attempt) -> None:
        """An attempt has ended by itself."""
        if not attempt.has_media and not self.gave_nothing:
            self.back_off.reset()  # until now it could not be opened, or all was well
        self.gave_nothing = not attempt.has_media

    def arm_again(self, attempt: Attempt) -> bool:
        """Keep a pre-roll on the input of an attempt that was stopped; False: the input is not fit for that."""
        if attempt.input.is_file or attempt.problem is not None or attempt.input.has_lost_track:
            return False
        self._count += 1
        self.current = Attempt(self._count, self._settings, attempt.input, self._listener, before=attempt)
        return True

    def close(self) -> None:
        """Close what is open."""
        attempt, self.current = self.current, None
        if attempt is not None:
            attempt.close()
