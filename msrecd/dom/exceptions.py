"""The errors of the object model (https://webidl.spec.whatwg.org/#idl-DOMException).

Exception
└── DOMException
    ├── AbortError
    ├── IndexSizeError
    ├── InvalidAccessError
    ├── InvalidModificationError
    ├── InvalidStateError
    ├── NotAllowedError
    ├── NotFoundError
    ├── NotReadableError
    ├── NotSupportedError
    ├── OverconstrainedError
    └── UnknownError
"""

from __future__ import annotations

# Legacy codes: https://webidl.spec.whatwg.org/#dfn-error-names-table. Every other name has the code 0.
_CODES = {
    "IndexSizeError": 1,
    "HierarchyRequestError": 3,
    "WrongDocumentError": 4,
    "InvalidCharacterError": 5,
    "NoModificationAllowedError": 7,
    "NotFoundError": 8,
    "NotSupportedError": 9,
    "InUseAttributeError": 10,
    "InvalidStateError": 11,
    "SyntaxError": 12,
    "InvalidModificationError": 13,
    "NamespaceError": 14,
    "InvalidAccessError": 15,
    "TypeMismatchError": 17,
    "SecurityError": 18,
    "NetworkError": 19,
    "AbortError": 20,
    "URLMismatchError": 21,
    "QuotaExceededError": 22,
    "TimeoutError": 23,
    "InvalidNodeTypeError": 24,
    "DataCloneError": 25,
}


class DOMException(Exception):
    """An error with a stable `name` for programs and a `message` for people."""

    _name = "Error"

    def __init__(self, message: str = "", name: str | None = None) -> None:
        """
        Raises:
            TypeError: `message` or `name` is no str.
        """
        for what, value in (("message", message), ("name", "" if name is None else name)):
            if not isinstance(value, str):
                raise TypeError(f"{what} of a DOMException must be a str, not {type(value).__name__}")
        super().__init__(message)
        self._message = message
        if name is not None:
            self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def message(self) -> str:
        return self._message

    @property
    def code(self) -> int:
        """The legacy code of the name, 0 where it has none."""
        return _CODES.get(self.name, 0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {self.message})"

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


class _Named(DOMException):
    """A DOMException whose class fixes its name: that of the class below this one, for classes derived from it too."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if _Named in cls.__bases__:
            cls._name = cls.__name__

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class AbortError(_Named):
    """A device could not be opened for a reason that is none of the others."""


class IndexSizeError(_Named):
    """A number of an output, input or channel that there is not."""


class InvalidAccessError(_Named):
    """The object cannot be used here: it belongs to another context, or is not connected."""


class InvalidModificationError(_Named):
    """The set of tracks changed under a running recorder."""


class InvalidStateError(_Named):
    """The object is in a state that does not allow this call."""


class NotAllowedError(_Named):
    """The operating system or the configuration denies access to the device."""


class NotFoundError(_Named):
    """There is no device of the wanted kind."""


class NotReadableError(_Named):
    """The device is there but cannot be read: busy, or faulty."""


class NotSupportedError(_Named):
    """The format, the option or the combination cannot be recorded here."""


class OperationError(_Named):
    """An operation failed for a reason of its own: a session description that cannot be used."""


class UnknownError(_Named):
    """The recording could not go on, for a reason outside of the specification."""


class OverconstrainedError(DOMException):
    """No device satisfies the required constraint named in `constraint` ("" when no single one is to blame).

    https://www.w3.org/TR/mediacapture-streams/#overconstrainederror-interface
    """

    _name = "OverconstrainedError"

    def __init__(self, constraint: str, message: str = "") -> None:
        super().__init__(message)
        self._constraint = constraint

    @property
    def constraint(self) -> str:
        return self._constraint
