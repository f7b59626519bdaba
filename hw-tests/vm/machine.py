"""The machine as a process: boots, or goes on from where it was saved, and is switched off.

Booting takes an emulated processor minutes. So it is done once: when the system is up, msrecd installed and the
hardware there, the machine's state is saved (`prepare`). A run that goes on from there (`start(prepared=True)`) gets
its disks plugged in afterwards: they are no part of that state, and what a power cut does to them is real.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "vm"
PREPARED = CACHE / "prepared.qcow2"
_MADE = CACHE / "prepared.qcow2.made"
_SLOWER = 8  # an emulated machine on a busy host against its own clock
_PATIENCE_S = 120  # of the emulator's monitor


class MachineError(Exception):
    """The machine does not do what it should; the message says what."""


def is_emulated() -> bool:
    """Whether there is no KVM, and the machine's time is counted in instructions."""
    done = subprocess.run([HERE / "boot.sh", "accel"], check=True, capture_output=True, text=True)
    return done.stdout.strip() == "tcg"


@contextlib.contextmanager
def start(
    share: Path, disks: Sequence[Path], timeout_s: float, *, prepared: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A machine with these disks (made where they are missing) that sees `share` as /mnt/host; it may be killed.

    timeout_s: of the machine's own time.

    Raises:
        MachineError: it does not come up from its saved state.
    """
    how = {"STATE": "use", "MONITOR": str(share / "monitor")} if prepared else {}
    with _boot(share, disks, timeout_s, how) as machine:
        if prepared:
            with _Monitor(share / "monitor", machine) as monitor:
                for number, disk in enumerate(disks):
                    node = {"driver": "raw", "node-name": f"disk{number}"}
                    monitor.ask("blockdev-add", **node, file={"driver": "file", "filename": str(disk)})
                    monitor.ask("device_add", driver="virtio-blk-pci", drive=f"disk{number}", id=f"plugged{number}")
        yield machine


def prepare(share: Path, timeout_s: float) -> None:
    """Boot and save the state that `start(prepared=True)` goes on from, unless there is one of the same things.

    share: filled as for a run; guest.sh in it does what is to be done once.

    Raises:
        MachineError: it did not get that far.
    """
    made_of = hashlib.sha256((CACHE / "disk.img.made").read_bytes())
    for name in ("boot.sh", "guest.sh", "hardware.sh", "usbcam.py"):  # another msrecd is installed on top
        made_of.update((HERE / name).read_bytes())
    if PREPARED.exists() and _MADE.exists() and _MADE.read_text() == made_of.hexdigest():
        return
    _MADE.unlink(missing_ok=True)
    PREPARED.unlink(missing_ok=True)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(CACHE / "disk.img"), "-F", "raw", str(PREPARED)]
    subprocess.run(create, check=True)
    with (share / "settings").open("a") as file:
        file.write("PREPARE=yes\n")
    with _boot(share, [], timeout_s, {"STATE": "make", "MONITOR": str(share / "monitor")}) as machine:
        ready = share / "results" / "prepared"
        while not ready.exists():
            if machine.poll() is not None:
                raise MachineError(f"the machine did not get ready to be saved: see {share}")
            time.sleep(0.5)
        with _Monitor(share / "monitor", machine) as monitor:
            deadline = time.monotonic() + _PATIENCE_S
            # Refused while the machine has the host's folder mounted, which it is about to let go of.
            while (said := monitor.ask("human-monitor-command", **{"command-line": "savevm prepared"})) != "":
                if time.monotonic() > deadline:
                    raise MachineError(f"the machine's state cannot be saved: {said}")
                time.sleep(0.5)
            monitor.ask("quit")
        machine.wait(_PATIENCE_S)
    _MADE.write_text(made_of.hexdigest())


@contextlib.contextmanager
def _boot(
    share: Path, disks: Sequence[Path], timeout_s: float, how: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    (share / "monitor").unlink(missing_ok=True)
    limit_s = timeout_s * (_SLOWER if is_emulated() else 1)
    environment = os.environ | {"TIMEOUT": f"{limit_s:.0f}"} | how
    process = subprocess.Popen([HERE / "boot.sh", share, *disks], env=environment, stdin=subprocess.DEVNULL)
    with process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


class _Monitor:
    """The emulator's monitor: https://www.qemu.org/docs/master/interop/qmp-spec.html"""

    def __init__(self, path: Path, machine: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            if machine.poll() is not None or time.monotonic() > deadline:
                raise MachineError("the emulator did not start")
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                # A path may be longer than the 107 bytes of an address.
                with _inside(path.parent):
                    self._socket.connect(path.name)
                self._socket.settimeout(_PATIENCE_S)
                self._lines = self._socket.makefile("rwb")
                self._lines.readline()  # its greeting
                break
            except OSError:
                self._socket.close()
                time.sleep(0.1)
        self.ask("qmp_capabilities")

    def __enter__(self) -> _Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """
        Raises:
            MachineError: it refuses.
        """
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._lines.flush()
        for line in self._lines:
            answer = json.loads(line)
            if "error" in answer:
                raise MachineError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                found = answer["return"]
                return found.strip() if isinstance(found, str) else found
        raise MachineError(f"{command}: the emulator has gone")


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
