"""Whether the kernel's clock is being kept right, by whatever program does that.

chrony, ntpd and timesyncd all tell the kernel when they have set its clock, and adjtimex(2) says so to everyone. A
virtual machine whose host sets its clock tells nothing: there the kernel answers unsynchronised, as it does after a
start and after every setting by hand, and that is the answer here. A service that knows better makes a marker file.
The unit's sandbox forbids the call, also for reading: timedated is asked then, which gives the same answer.
"""

from __future__ import annotations

import ctypes
import errno
import logging

from msrecd.clock.timedate import TimedateClock

log = logging.getLogger(__name__)

_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
_MAX_ERROR_US = 16_000_000  # where the kernel gives up


class _Timex(ctypes.Structure):
    """struct timex of <sys/timex.h>, as far as it is read here, and its room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def judge(state: int, status: int, max_error_us: int) -> bool:
    """Whether this answer of adjtimex means: synchronised. -1 as the state (no answer) does not."""
    return 0 <= state < _TIME_ERROR and not status & _STA_UNSYNC and 0 <= max_error_us < _MAX_ERROR_US


class KernelClock:
    """Asks the kernel, or, where that is forbidden (ProtectClock=), timedated; belongs to one thread.

    The question needs no privilege, and nothing is set. timedated's answer is that of the call before, for the question
    takes its time.
    """

    def __init__(self, timedated: TimedateClock | None = None) -> None:
        self._adjtimex = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
        self._timedated = timedated or TimedateClock()

    def wait(self) -> bool:
        """The answer of now; blocks for as long as timedated may take."""
        return self() or (self._adjtimex is None and self._timedated.wait())

    def __call__(self) -> bool:
        if self._adjtimex is None:
            return self._timedated()
        answer = _Timex()
        state = self._adjtimex(ctypes.byref(answer))
        if state < 0:
            code = ctypes.get_errno()
            if code in (errno.EPERM, errno.EACCES, errno.ENOSYS):
                self._adjtimex = None
                return self._timedated()
            log.debug("the kernel does not say whether its clock is synchronised: errno %d", code)
            return False
        return judge(state, answer.status, answer.maxerror)
