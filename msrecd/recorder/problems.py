"""From exceptions to the codes of the contract. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from msrecd.clock import SYSTEM_CLOCK
from msrecd.codecs.table import Unsupported
from msrecd.dom.exceptions import (
    DOMException,
    NotAllowedError,
    NotFoundError,
    NotReadableError,
    NotSupportedError,
    OverconstrainedError,
)
from msrecd.errors import CommandError, StorageError


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a recorder does not record: a code of the contract and a sentence for people; since_ns on CLOCK_MONOTONIC."""

    code: str
    message: str
    since_ns: int | None = None

    def begun(self, before: Problem | None = None) -> Problem:
        """The same with its beginning: that of the problem before if it is the same one."""
        if before is not None and before.code == self.code and before.since_ns is not None:
            return replace(self, since_ns=before.since_ns)
        return replace(self, since_ns=SYSTEM_CLOCK.monotonic_ns())


def problem_of(error: BaseException) -> Problem:
    """The code and message for whatever went wrong."""
    if isinstance(error, CommandError):
        return Problem(error.code, error.message)
    if isinstance(error, StorageError):
        code = "no_space" if error.code == "no_space" else "internal"
        return Problem(code, str(error))
    if isinstance(error, OverconstrainedError):
        what = error.constraint or "the constraints together"
        return Problem("device_missing", error.message or f"no device satisfies {what}")
    if isinstance(error, NotFoundError):
        return Problem("device_missing", error.message or "the device is missing")
    if isinstance(error, NotReadableError):
        return Problem("device_busy", error.message or "the device cannot be read")
    if isinstance(error, NotAllowedError):
        return Problem("device_busy", error.message or "access to the device is denied")
    if isinstance(error, (NotSupportedError, Unsupported)):
        return Problem("bad_args", str(error))
    if isinstance(error, DOMException):
        return Problem("internal", str(error))
    if isinstance(error, TimeoutError):
        return Problem("device_busy", str(error) or "the device did not answer in time")
    return Problem("internal", f"{type(error).__name__}: {error}")
