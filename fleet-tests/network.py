"""A network of namespaces on one machine, and the servers in it: each host has its own addresses, ports and folders.

    with Network(folder) as network:
        rabbit = Cluster(network, 3)
        rabbit.start()

Runs as root inside a network namespace of its own (scripts/fleet-test.sh makes it), so the names and addresses meet
nobody else's. Hosts hang on one bridge. A cut is a route into nothing, on both sides, or a host's link that is down.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from broker import Certificates

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "fleet"
WAIT_S = 120.0  # how long a busy machine may take for what should be done in seconds
PASSWORD = "fleet-test"


def eventually(what: str, holds: Callable[[], bool], timeout_s: float = WAIT_S, every_s: float = 0.5) -> None:
    """Until `holds()`. Raises: AssertionError: it does not."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(every_s)


def run(*command: str, timeout_s: float = 120.0) -> str:
    """Its output. Raises: AssertionError: it fails; the message has all it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


class Host:
    """One network namespace with an address, and the processes that were started in it."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.network = network
        self.name = name
        self.address = address
        self.folder = network.folder / name
        self.folder.mkdir()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._cuts: set[str] = set()
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"v-{name}", "master", "hub", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def command(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout_s: float = 120.0) -> str:
        return run(*self.command(*command), timeout_s=timeout_s)

    def start(
        self, *command: str, log: str, environment: dict[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """A process in this namespace, in a session of its own; its output goes to `log` in the host's folder."""
        with (self.folder / log).open("ab") as file:
            process = subprocess.Popen(
                self.command(*command), stdout=file, stderr=file, start_new_session=True,
                env={**os.environ, **(environment or {})}, **options,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM, timeout_s: float = 60.0) -> None:
        """A process and what it started."""
        self._processes.remove(process)
        end_group(process, number, timeout_s)

    def end_all(self) -> None:
        for process in self._processes:
            end_group(process, signal.SIGKILL, 20)
        self._processes.clear()

    def link(self, state: str) -> None:
        """`up` or `down`."""
        run("ip", "link", "set", f"v-{self.name}", state)

    def cut(self, other: Host) -> None:
        """Nothing passes between the two from now on, and neither is told."""
        for one, two in ((self, other), (other, self)):
            one.run("ip", "route", "add", "blackhole", f"{two.address}/32")

    def heal(self, other: Host) -> None:
        for one, two in ((self, other), (other, self)):
            one.run("ip", "route", "del", "blackhole", f"{two.address}/32")


def end_group(process: subprocess.Popen[bytes], number: int, timeout_s: float) -> None:
    for attempt in (number, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, attempt)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            continue
        break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Network:
    """The hub and its hosts; a context manager that ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        run("ip", "link", "add", "hub", "type", "bridge")
        run("ip", "address", "add", "10.77.0.1/24", "dev", "hub")
        run("ip", "link", "set", "hub", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            host.end_all()
        for name in self.hosts:
            run("ip", "netns", "del", name)
        run("ip", "link", "del", "hub")

    def host(self, name: str) -> Host:
        """A new host; all hosts know all names."""
        made = self.hosts[name] = Host(self, name, f"10.77.0.{10 + len(self.hosts)}")
        lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in self.hosts.values())]
        Path("/etc/hosts").write_text("\n".join(lines) + "\n")
        return made


class Cluster:
    """RabbitMQ with the configuration of config/fleet: TLS for bridges and consumers, a folder for each node."""

    USERS = ("bridge-north", "bridge-south", "consumer", "console")

    def __init__(self, network: Network, certificates: Certificates, names: Sequence[str]) -> None:
        self.nodes = [network.host(name) for name in names]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for node in self.nodes:
            certs = node.folder / "certs"
            certs.mkdir()
            certificate, key = certificates.issue(node.name, node.name, f"subjectAltName=DNS:{node.name}")
            for path, name in ((certificate, "node.crt"), (key, "node.key"), (certificates.ca, "ca.crt")):
                shutil.copy(path, certs / name)
            text = (CONFIG / "rabbitmq.conf").read_text()
            text = text.replace("/etc/rabbitmq/", f"{node.folder}/").replace("5GB", "100MB")
            (node.folder / "rabbitmq.conf").write_text(text)
            for name in ("definitions.json", "enabled_plugins"):
                shutil.copy(CONFIG / name, node.folder / name)
            cookie = node.folder / ".erlang.cookie"
            cookie.write_text("fleet-test-cookie")
            cookie.chmod(0o400)

    def _environment(self, node: Host) -> dict[str, str]:
        folder = node.folder
        return {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"rabbit@{node.name}",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # One scheduler that does not spin: three nodes share two processors with everything else.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def start_node(self, node: Host) -> None:
        """Begin to start it; `wait` waits."""
        self._processes[node.name] = node.start(
            "/usr/lib/rabbitmq/bin/rabbitmq-server", log="server.log", environment=self._environment(node)
        )

    def kill_node(self, node: Host) -> None:
        """SIGKILL: as if the machine lost its power."""
        node.end(self._processes.pop(node.name), signal.SIGKILL)

    def ctl(self, node: Host, *arguments: str, timeout_s: float = 120.0, program: str = "rabbitmqctl") -> str:
        command = node.command(f"/usr/lib/rabbitmq/bin/{program}", "-q", *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False,
            env={**os.environ, **self._environment(node)},
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def wait(self, node: Host, timeout_s: float = 2 * WAIT_S) -> None:
        def listens() -> bool:
            return bool(re.search(r":8883\b", node.run("ss", "-ltn")))

        eventually(f"{node.name} listens: {tail(node.folder / 'server.log')}", listens, timeout_s)

    def start(self) -> None:
        """All nodes at once, as they look for each other; then users' passwords, and queues on all three."""
        for node in self.nodes:
            self.start_node(node)
        for node in self.nodes:
            self.wait(node)
        first = self.nodes[0]
        self.ctl(first, "enable_feature_flag", "--opt-in", "khepri_db")
        for user in self.USERS:
            done = subprocess.run(
                first.command("sh", str(CONFIG / "rabbitmq-user.sh"), user), input=PASSWORD + "\n", text=True,
                capture_output=True, timeout=WAIT_S, check=False,
                env={**os.environ, **self._environment(first), "RABBITMQCTL": "/usr/lib/rabbitmq/bin/rabbitmqctl"},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        for node in self.nodes[1:]:
            self.ctl(node, "grow", f"rabbit@{node.name}", "all", program="rabbitmq-queues")

    def queues(self, node: Host) -> dict[str, dict[str, Any]]:
        rows = json.loads(self.ctl(node, "list_queues", "--formatter", "json", "name", "messages", "members", "type"))
        return {row["name"]: row for row in rows}


class Site:
    """A mosquitto with the shipped configuration for a site and its bridge, on 127.0.0.1 and the host's address."""

    def __init__(self, network: Network, certificates: Certificates, name: str, cluster: Cluster) -> None:
        self.host = network.host(f"site-{name}")
        self.name = name
        bridge = (CONFIG / "bridge.conf").read_text()
        bridge = re.sub(
            r"^address .*", "address " + " ".join(f"{node.name}:8883" for node in cluster.nodes), bridge, flags=re.M
        )
        bridge = bridge.replace("/etc/mosquitto/certs/ca.crt", str(certificates.ca)).replace("change-me", PASSWORD)
        bridge = re.sub(r"\bnorth\b", name, bridge)
        folder = self.host.folder
        lines = ["user root", "persistence true", f"persistence_location {folder}/", "log_type error",
                 "log_type warning", "log_type notice", "listener 1883 0.0.0.0", "allow_anonymous true",
                 bridge]  # fmt: skip
        (folder / "mosquitto.conf").write_text("\n".join(lines))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = self.host.start(
            "mosquitto", "-c", str(self.host.folder / "mosquitto.conf"), log="mosquitto.log"
        )

    def kill(self) -> None:
        """SIGKILL: it loses what it took since it last wrote its disk."""
        assert self._process is not None
        self.host.end(self._process, signal.SIGKILL)

    def stop(self) -> None:
        """In order: mosquitto writes what waits for the line to its disk."""
        assert self._process is not None
        self.host.end(self._process)


class Database:
    """PostgreSQL with the schema of config/fleet."""

    def __init__(self, network: Network, name: str = "database") -> None:
        self.host = network.host(name)
        self._data = self.host.folder / "data"
        (programs,) = Path("/usr/lib/postgresql").glob("*/bin")
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self.dsn = f"host={self.host.address} user=postgres dbname=postgres"

    def make(self) -> None:
        shutil.chown(self.host.folder, "postgres")
        run("runuser", "-u", "postgres", "--", str(self._programs / "initdb"), "-D", str(self._data), "-A", "trust",
            "-E", "UTF8", "--locale=C.UTF-8", "-U", "postgres")  # fmt: skip
        with (self._data / "pg_hba.conf").open("a") as rights:
            rights.write("host all all 10.77.0.0/24 trust\n")
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(
                "listen_addresses = '*'\nunix_socket_directories = ''\nshared_buffers = 256MB\nmax_wal_size = 4GB\n"
                "tcp_keepalives_idle = 10\ntcp_keepalives_interval = 5\ntcp_keepalives_count = 3\n"
            )

    def start(self) -> None:
        """Again and again, until it answers: after a kill its children may take a moment to notice, and it refuses."""
        command = ["runuser", "-u", "postgres", "--", str(self._programs / "postgres"), "-D", str(self._data)]
        probe = self.host.command(str(self._programs / "pg_isready"), "-q", "-h", self.host.address)

        def answers() -> bool:
            if self._process is None or self._process.poll() is not None:
                self._process = self.host.start(*command, log="postgres.log")
            return subprocess.run(probe, check=False).returncode == 0

        eventually("PostgreSQL answers", answers, every_s=1.0)

    def kill(self) -> None:
        """SIGKILL for all of it, as if the machine lost its power."""
        assert self._process is not None
        self.host.end(self._process, signal.SIGKILL)
        self._process = None

    def load_schema(self) -> None:
        self.host.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.dsn, "-f", str(CONFIG / "schema.sql"))


def tail(path: Path, size: int = 1500) -> str:
    return path.read_text(errors="replace")[-size:] if path.exists() else ""


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes], host: Host) -> Iterator[None]:
    try:
        yield
    finally:
        host.end(process)
