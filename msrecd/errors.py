"""The program's own errors; what the W3C names is in `msrecd.dom.exceptions`.

MsrecdError
├── ConfigError     a key path and what is wrong with it
├── StorageError    a file or folder that does not do what it should
└── CommandError    a command that is refused, with a code of the contract
"""

from __future__ import annotations


class MsrecdError(Exception):
    """Whatever the program expects to go wrong: reported in one line, without a traceback."""


class ConfigError(MsrecdError):
    """A setting is missing or wrong; the message begins with its key path."""


class StorageError(MsrecdError):
    """The recordings or the state cannot be read or written.

    `code` is a stable name: `no_space`, `read_only`, `io_error`, `missing_mount`, `permission`, `too_large`, `exists`,
    `unsafe_path`, `empty` (nothing in the chunk can be played), `locked` (another process uses the state), `not_found`,
    `protected_limit` (of what may be protected).
    """

    def __init__(self, message: str, code: str = "io_error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class CommandError(MsrecdError):
    """A command is refused.

    `code` is one of the closed list of the contract; `message` is for people and holds no path and no secret;
    `retryable` says whether the same command may succeed later (None: what is usual for the code).
    """

    def __init__(self, code: str, message: str, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
