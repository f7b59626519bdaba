"""Without `[web]` nothing listens and nothing is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from config_text import camera, configuration
from daemon import DaemonProcess
from pageclient import PageClient, web_table
from ports import free_port
from waiting import until

LOADED = """
import asyncio, sys
from pathlib import Path
from msrecd.config.load import load
from msrecd.daemon.checks import config_checks
from msrecd.daemon.daemon import Daemon
config = load(Path(sys.argv[1]), checks=config_checks())

async def main():
    daemon = Daemon(config, Path(sys.argv[1]))
    print(*[adapter.name for adapter in daemon._make_adapters(config)])

asyncio.run(main())
print(*sorted(name for name in sys.modules if name.startswith(("msrecd.web", "h11", "msrecd.vocabulary.listen"))))
"""


def listening(pid: int) -> list[str]:
    """Addresses of TCP sockets (hexadecimal, as the kernel shows them) at which a process listens; UDP ones, too."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table, states in (("tcp", ("0A",)), ("tcp6", ("0A",)), ("udp", ("07",)), ("udp6", ("07",))):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] in states and fields[9] in inodes:
                found.append(f"{table} {fields[1]}")
    return found


@pytest.mark.promise("page-absent", "page-needs-web")
def test_without_web_nothing_listens(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=camera(autostart=True))) as daemon:
        daemon.wait_for_part()
        assert listening(daemon.pid) == []


@pytest.mark.promise("page-absent")
def test_without_web_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "msrecd.toml"
    path.write_text(configuration(tmp_path, port=None, recorders=camera()))
    done = subprocess.run([sys.executable, "-c", LOADED, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    adapters, modules = done.stdout.split("\n")[:2]
    assert adapters == "ctl"
    assert modules in ("", "msrecd.vocabulary.listen")  # which reads the key in the configuration


def test_the_walk_sees_a_socket(page_daemon: tuple[DaemonProcess, int]) -> None:
    daemon, port = page_daemon
    assert listening(daemon.pid) == [f"tcp 0100007F:{port:04X}"]


@pytest.mark.alone
def test_a_page_without_viewers_costs_little_memory(tmp_path: Path) -> None:
    taken = []
    for name in ("without", "with"):
        folder = tmp_path / name
        folder.mkdir()
        port = free_port()
        table = web_table(port, folder) if name == "with" else ""
        with DaemonProcess(
            folder, configuration(folder, port=None, recorders=table + camera(autostart=True))
        ) as daemon:
            if table:
                until(lambda port=port: _answers(port), "no page")  # type: ignore[misc]
            daemon.wait_for_chunks(1)
            taken.append(daemon.status("VmRSS"))
    assert taken[1] - taken[0] < 5 << 20, taken


def _answers(port: int) -> bool:
    try:
        return PageClient(port).get("/").status == 200
    except OSError:
        return False
