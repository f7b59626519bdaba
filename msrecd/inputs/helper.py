"""The processes that read and decode inputs. `python -m msrecd.inputs.helper FD`: their parent, forked for each.

The first process imports libav once and waits; for each input it forks one that opens and demuxes it, so they share
their memory. It has one thread, for a fork in a program with more is not safe, which is why the daemon does not fork
itself. Each reading process has one input: one that crashes, hangs or eats memory takes no other with it.

The daemon sends requests over the socket FD: a byte, with the two ends of a socket and of a pipe for the new process;
the request proper (with its secrets) goes over that socket, never onto a command line. The answer is the process's
pidfd. Over the pipe comes how it ended, written by its parent. When the socket ends, everything ends.
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msrecd.inputs import wire
from msrecd.inputs.confine import confine, give_back_memory, narrow
from msrecd.inputs.decoder import FAILED, decode_flac, decode_input
from msrecd.inputs.places import stay_on
from msrecd.inputs.rtspinput import NAP_S, RtspInput, open_rtsp
from msrecd.inputs.shared import place_of, serve_inputs
from msrecd.inputs.syscalls import INTERNET, LOCAL, Rights
from msrecd.libav.demuxer import Demuxer, load_rest
from msrecd.libav.values import Demuxed, LibavError, NoMedia

if TYPE_CHECKING:
    from msrecd.inputs.httpjpegs import JpegInput

_UDP_NAP_S = 0.02  # the kernel keeps less of UDP
_DRAINED_S = 0.004  # a packet that was waited for so long was the newest
_LIVE_BATCH_S = 0.25
_FIRST_BATCH_S = 1.0
_BATCH_BYTES = 1 << 20
_FILE_BATCH = 64
_IDLE_S = 120.0  # longer than any pause between two attempts
_WITHOUT_FILES = Rights(families=INTERNET, may_open=False)
REWIND, GO = b"R", b"G"


def batches(demuxer: Demuxer, indexes: list[int]) -> Iterator[list[Demuxed]]:
    """The packets of an opened input, those together that came together."""
    nap_s = 0.0 if demuxer.times == "arrival" else _UDP_NAP_S if demuxer.transport == "udp" else NAP_S
    batch: list[Demuxed] = []
    size = 0
    is_live, longest = demuxer.is_live, _FIRST_BATCH_S
    begun = asked = time.monotonic()
    try:
        for packet in demuxer.packets(indexes):
            batch.append(packet)
            size += len(packet.data)
            if len(batch) >= wire.MAX_BATCH:
                drained = False
            elif is_live:
                now = time.monotonic()
                drained = now - asked > _DRAINED_S
                if not drained and now - begun < longest and size < _BATCH_BYTES * (8 if longest > 0.5 else 1):
                    asked = now
                    continue
            elif len(batch) < _FILE_BATCH and size < _BATCH_BYTES // 4:
                continue
            yield batch
            batch, size, longest = [], 0, _LIVE_BATCH_S
            if is_live:
                if drained and nap_s:
                    time.sleep(nap_s)
                begun = asked = time.monotonic()
    except LibavError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def read_input(connection: socket.socket) -> None:
    """In the new process: one request, then what it asks for until the end."""
    line, fds = _request(connection)
    request = json.loads(line)
    if "decode" in request or "flac" in request:
        try:
            if "flac" in request:
                decode_flac(connection, fds[0])
            else:
                decode_input(connection, request, fds[0] if fds else None)
        except OSError:
            pass  # the program wants no more
        except Exception as exc:
            connection.sendall(wire.frame(FAILED, f"internal error of its process ({place_of(exc)})".encode()))
        return
    if "share" in request:
        serve_inputs(connection, fds[0])
        return
    if request["network"]:
        confine(rights=Rights(families=_families(request["url"]), may_fork=True))
    else:
        confine(file=request["url"])
    demuxer: Demuxer | JpegInput | RtspInput | None = None
    try:
        try:
            if request["network"]:
                _stay_on_host(request, connection)
            demuxer = open_rtsp(request)
            if demuxer is None:
                if request["network"]:
                    narrow(_rights_of_libav(request))
                demuxer = _opened(request)
                if request["network"] and demuxer.is_live and not demuxer.looks_up_names:
                    load_rest()
                    narrow(_WITHOUT_FILES)
            connection.sendall(wire.description(_described(demuxer)))
            give_back_memory()
            indexes = json.loads(_line(connection))
            if request["may_share"] and isinstance(demuxer, RtspInput):
                given = demuxer.hand_over(indexes)
                if given is not None:
                    wire.send_parts(connection, [wire.HEADER.pack(wire.HANDOVER, len(given[1])), given[1]])
                    socket.send_fds(connection, [b"c"], [given[0]])
                    demuxer = None  # its camera plays on
                    return
            while True:
                own = batches(demuxer, indexes) if isinstance(demuxer, Demuxer) else demuxer.batches(indexes)
                for batch in own:
                    wire.send_parts(connection, wire.packets(batch))
                connection.sendall(wire.text(wire.END, {"error": None}))
                if connection.recv(1) != REWIND:
                    return
                demuxer.rewind()
        except LibavError as exc:
            connection.sendall(wire.text(wire.END, {"error": str(exc)}))
        except MemoryError:
            connection.sendall(wire.text(wire.END, {"error": "it needs more memory than an input may have"}))
    except OSError:
        pass  # nobody reads any more
    except Exception as exc:  # whatever it is, the program has to hear of it
        connection.sendall(wire.text(wire.END, {"error": f"internal error of its reading process ({place_of(exc)})"}))
    finally:
        if demuxer is not None:
            demuxer.close()  # a camera that is told frees its session


def _families(url: str) -> tuple[int, ...]:
    """Of sockets. Names of the local network are asked for over a socket of this machine (Avahi's)."""
    is_local_name = (urlsplit(url).hostname or "").rstrip(".").endswith(".local")
    return (*INTERNET, LOCAL) if is_local_name else INTERNET


def _rights_of_libav(request: dict[str, Any]) -> Rights:
    """From here on libav reads what comes from the network: no processes, and no files if no name is to be looked up.

    An RTSP camera may send to a name of its own.
    """
    parts = urlsplit(request["url"])
    is_address = False
    with contextlib.suppress(ValueError):
        is_address = bool(ipaddress.ip_address((parts.hostname or "").partition("%")[0]))
    if is_address and parts.scheme not in ("rtsp", "rtsps") and not request["any_host"]:
        import msrecd.inputs.httpjpegs
        import msrecd.inputs.redirects  # noqa: F401  # they could not be loaded later

        load_rest()
        return _WITHOUT_FILES
    return Rights(families=_families(request["url"]))


def _stay_on_host(request: dict[str, Any], connection: socket.socket) -> None:
    def refuse(words: str) -> None:
        """Inside libav, which would take no exception."""
        with contextlib.suppress(OSError):
            connection.sendall(wire.text(wire.END, {"error": words}))
        os._exit(0)

    stay_on(request["url"], any_host=request["any_host"], refuse=refuse)


def _opened(request: dict[str, Any]) -> Demuxer | JpegInput:
    """
    Raises:
        LibavError: it cannot be opened, or leads to another host.
    """
    url, timeout_s = request["url"], request["timeout_s"]
    if not url.startswith(("http:", "https:")):
        return Demuxer(url, timeout_s=timeout_s, transport=request["transport"], kinds=request["kinds"])
    try:
        return _opened_http(url, request)
    except LibavError:
        from msrecd.inputs.redirects import target_of  # with its libraries, which are seldom wanted

        target = target_of(url, timeout_s, any_host=request["any_host"])
        if target is None:
            raise
        return _opened_http(target, request)


def _opened_http(url: str, request: dict[str, Any]) -> Demuxer | JpegInput:
    """
    Raises:
        LibavError: it cannot be opened.
    """
    try:
        demuxer = Demuxer(url, timeout_s=request["timeout_s"], kinds=request["kinds"])
    except NoMedia:
        with contextlib.suppress(LibavError):
            return _jpegs(url, request)
        raise
    if not demuxer.sends_bare_jpegs:
        return demuxer
    demuxer.close()
    return _jpegs(url, request)


def _jpegs(url: str, request: dict[str, Any]) -> JpegInput:
    """
    Raises:
        LibavError: it sends none, or only one.
    """
    from msrecd.inputs.httpjpegs import JpegInput  # with its libraries, which are seldom wanted

    return JpegInput(url, request["timeout_s"])


def _described(demuxer: Demuxer | JpegInput | RtspInput) -> wire.Description:
    """As much as the program takes."""
    good = [info for info in demuxer.streams if len(info.extradata) <= wire.MAX_EXTRADATA]
    skipped = [*demuxer.skipped]
    if len(good) < len(demuxer.streams):
        skipped.insert(0, f"a stream whose description is longer than {wire.MAX_EXTRADATA >> 10} KiB")
    return wire.Description(
        streams=tuple(good[: wire.MAX_STREAMS]),
        is_live=demuxer.is_live,
        times=demuxer.times,
        skipped=tuple(text[:200] for text in skipped[: wire.MAX_STREAMS]),
        absent=tuple(demuxer.absent) if isinstance(demuxer, RtspInput) else (),
    )


def _request(connection: socket.socket) -> tuple[bytes, list[int]]:
    """What is to be done, and the file that came with it; what lies behind it in the socket stays there."""
    head, fds, _, _ = socket.recv_fds(connection, wire.HEADER.size, 1)
    if len(head) < wire.HEADER.size:
        raise OSError("the program has gone")
    _, size = wire.HEADER.unpack(head)
    return connection.recv(size, socket.MSG_WAITALL), fds


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if not (part := connection.recv(65536)):
            raise OSError("nobody asks any more")
        line += part
    return line


class _Forker:
    """Lives in the first process."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._ends: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, where to say how it ended)

    def serve(self) -> None:
        """Ends with the program, or when nothing is read for a while: another one is started when one is wanted."""
        while True:
            ready, _, _ = select.select([self._control.fileno(), *self._ends], [], [], _IDLE_S)
            if not ready and not self._ends:
                break
            for number in ready:
                if number in self._ends:
                    self._reap(number)
            if self._control.fileno() in ready and not self._fork():
                break
        for pidfd in self._ends:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _fork(self) -> bool:
        byte, fds, _, _ = socket.recv_fds(self._control, 1, 2)
        if not byte:
            return False
        connection, status = fds
        pid = os.fork()
        if pid == 0:
            self._become_reader(connection, status)
        pidfd = os.pidfd_open(pid)
        os.close(connection)
        self._ends[pidfd] = (pid, status)
        socket.send_fds(self._control, [b"p"], [pidfd])
        return True

    def _become_reader(self, connection: int, status: int) -> None:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._control.close()
            os.close(status)
            for pidfd, (_, other) in self._ends.items():
                os.close(pidfd)
                os.close(other)
            gc.disable()  # nothing here makes circles, and looking for them would touch what is shared
            read_input(socket.socket(fileno=connection))
            code = 0
        except OSError:
            code = 0
        finally:
            os._exit(code)

    def _reap(self, pidfd: int) -> None:
        pid, status = self._ends.pop(pidfd)
        _, code = os.waitpid(pid, 0)
        words = f"killed by {signal.Signals(os.WTERMSIG(code)).name}" if os.WIFSIGNALED(code) else ""
        if os.WIFEXITED(code) and os.WEXITSTATUS(code):
            words = "ended by a failure of its own"
        with contextlib.suppress(OSError):
            os.write(status, words.encode())
        os.close(status)
        os.close(pidfd)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the program's to handle
    control = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(OSError):  # where memory ends, an input goes before the recorders
        Path("/proc/self/oom_score_adj").write_text("500")
    gc.collect()
    gc.freeze()  # what is there now is shared with all that are forked, as long as the collector leaves it alone
    _Forker(control).serve()


if __name__ == "__main__":
    main()
