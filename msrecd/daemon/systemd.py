"""The service manager and its journal; the only importer of `systemd`. Does nothing where there is no systemd."""

from __future__ import annotations

import logging
import os
import sys
from types import ModuleType

log = logging.getLogger(__name__)

_daemon: ModuleType | None
try:
    from systemd import daemon as _daemon
except ImportError:  # another init system, or a development machine without the bindings
    _daemon = None


_last_status = ""


def notify_status(text: str) -> None:
    """Set the line that `systemctl status` shows, when it is another one than before."""
    global _last_status
    if text != _last_status:
        _last_status = text
        notify(f"STATUS={text}")


def notify(*lines: str) -> None:
    """Notify the service manager, for example `notify("READY=1")`; see sd_notify(3)."""
    if _daemon is not None and "NOTIFY_SOCKET" in os.environ:
        try:
            _daemon.notify("\n".join(lines))
        except OSError as exc:  # the manager is being replaced, or was never there: no reason to stop recording
            log.debug("the service manager cannot be notified: %s", exc)


def is_managed() -> bool:
    """Whether a service manager waits for this process, and starts it again when it ends with an error."""
    return "NOTIFY_SOCKET" in os.environ


def watchdog_interval_s() -> float | None:
    """How often WATCHDOG=1 is due: half of what the unit allows; None without a watchdog (sd_watchdog_enabled(3))."""
    text = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not text.isdigit() or not int(text) or pid != str(os.getpid()) or _daemon is None:
        return None
    return int(text) / 2e6


def journal_handler() -> logging.Handler | None:
    """A handler that writes to the journal with our fields, when stderr is the journal's; None otherwise."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    if not stream:
        return None
    try:
        status = os.fstat(sys.stderr.fileno())
    except OSError:
        return None
    if stream != f"{status.st_dev}:{status.st_ino}":
        return None
    try:
        from systemd import journal  # here: half a megabyte that only a journal needs
    except ImportError:
        return None
    handler: logging.Handler = journal.JournalHandler(SYSLOG_IDENTIFIER="msrecd")
    return handler
