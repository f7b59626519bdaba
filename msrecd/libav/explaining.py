"""What libav's errors mean for a person who wants to read an input."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import av.error

_EXPLAINED: tuple[tuple[Callable[[BaseException], bool], str], ...] = (
    (lambda exc: isinstance(exc, av.error.HTTPUnauthorizedError), "it refused the user name or password (401)"),
    (lambda exc: isinstance(exc, av.error.HTTPForbiddenError), "access is forbidden (403)"),
    (lambda exc: isinstance(exc, av.error.HTTPNotFoundError), "it has no such stream (404): check the path"),
    (lambda exc: isinstance(exc, av.error.HTTPClientError), "it refused the request (4xx)"),
    (lambda exc: isinstance(exc, av.error.HTTPServerError), "it failed to answer (5xx)"),
    (lambda exc: isinstance(exc, av.error.ProtocolNotFoundError), "libav on this machine cannot read this kind of URL"),
    (lambda exc: isinstance(exc, av.error.DemuxerNotFoundError), "libav on this machine cannot read this format"),
    (lambda exc: isinstance(exc, av.error.InvalidDataError), "what came is no media that is known"),
    (lambda exc: errno_of(exc) == errno.ECONNREFUSED, "connection refused: is it on, and is the port right?"),
    (lambda exc: errno_of(exc) in (errno.EHOSTUNREACH, errno.ENETUNREACH), "not reachable from this network"),
    (lambda exc: errno_of(exc) in (errno.ETIMEDOUT, errno.EAGAIN), "no answer in time"),
    (lambda exc: errno_of(exc) in (errno.ECONNRESET, errno.EPIPE), "it closed the connection"),
    (lambda exc: errno_of(exc) == errno.EPROTONOSUPPORT, "it refused this transport: try another `transport`"),
    (lambda exc: errno_of(exc) == errno.EACCES, "reading it is not permitted"),
    (lambda exc: errno_of(exc) == errno.EIO, "the connection failed: check the address and the network"),
)


def errno_of(exc: BaseException) -> int | None:
    return getattr(exc, "errno", None)


def explain(exc: BaseException) -> str:
    """What an error of libav's means for a person who wants to read this input; never holds the address."""
    for fits, words in _EXPLAINED:
        if fits(exc):
            return words
    number = errno_of(exc)
    if number is not None and 0 < number < 200:
        return os.strerror(number).lower()
    return str(getattr(exc, "strerror", None) or type(exc).__name__)


def refuses_transport(exc: BaseException) -> bool:
    """461 Unsupported Transport, or what cameras answer in its place: 400, 405, 501, another transport than asked."""
    if isinstance(exc, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, av.error.HTTPNotFoundError)):
        return False
    return errno_of(exc) in (errno.EPROTONOSUPPORT, errno.ENOSYS) or isinstance(
        exc, (av.error.HTTPClientError, av.error.HTTPServerError, av.error.InvalidDataError)
    )
