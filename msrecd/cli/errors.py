"""How a command ends: exit codes, and the errors that choose one."""

from __future__ import annotations

from enum import IntEnum

from msrecd.errors import MsrecdError


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_ANSWER = 3
    INTERRUPTED = 130


class UsageError(MsrecdError):
    """Wrong arguments that argparse cannot see; ends with `Exit.USAGE`."""


class NoAnswerError(MsrecdError):
    """Nobody answered in time; ends with `Exit.NO_ANSWER`."""
