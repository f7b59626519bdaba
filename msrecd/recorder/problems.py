"""From exceptions to the codes of the contract. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from msrecd import (
    DOMException,
    NotAllowedError,
    NotFoundError,
    NotReadableError,
    NotSupportedError,
    OverconstrainedError,
)
from msrecd.clock import SYSTEM_CLOCK
from msrecd.errors import CommandError, StorageError


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a recorder does not record.

    code: of the contract. message: a sentence for people. since_ns: on CLOCK_MONOTONIC. cause: what makes two problems
    of one code the same, where the message differs from one time to the next (it names a file).
    """

    code: str
    message: str
    since_ns: int | None = None
    cause: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Equal for problems that need not be reported twice."""
        return self.code, self.cause or self.message

    def begun(self, before: Problem | None = None) -> Problem:
        """The same with its beginning: that of the problem before if that has the same code."""
        if before is not None and before.code == self.code and before.since_ns is not None:
            return replace(self, since_ns=before.since_ns)
        return replace(self, since_ns=SYSTEM_CLOCK.monotonic_ns())

    def error(self) -> CommandError:
        """The same as the answer to a command."""
        return CommandError(self.code, self.message)


def problem_of(error: BaseException, *, is_input: bool = False) -> Problem:
    """The code and message for whatever went wrong.

    Args:
        is_input: what cannot be read is a file or network stream. One that does not answer is missing; only a device
            that is there and refuses is busy.
    """
    unreadable = "device_missing" if is_input else "device_busy"
    if isinstance(error, CommandError):
        return Problem(error.code, error.message)
    if isinstance(error, StorageError):
        # The message says whether the medium is full, read-only, missing or failing: none is a fault of the program.
        code = "internal" if error.code == "internal" else "no_space"
        return Problem(code, str(error), cause=error.code)
    if isinstance(error, OverconstrainedError):
        what = error.constraint or "the constraints together"
        return Problem("device_missing", error.message or f"no device satisfies {what}")
    if isinstance(error, NotFoundError):
        return Problem("device_missing", error.message or "the device is missing")
    if isinstance(error, NotReadableError):
        return Problem(unreadable, error.message or "the device cannot be read")
    if isinstance(error, NotAllowedError):
        return Problem("device_busy", error.message or "access to the device is denied")
    if isinstance(error, NotSupportedError):
        return Problem("bad_args", str(error))
    if isinstance(error, DOMException):
        return Problem("internal", str(error))
    if isinstance(error, TimeoutError):
        return Problem(unreadable, str(error) or "the device did not answer in time")
    return Problem("internal", f"internal error: {type(error).__name__}: {error}")
