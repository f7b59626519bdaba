"""Two sites, three RabbitMQ nodes, PostgreSQL and 200 devices; nodes are killed, lines are cut, and nothing is lost.

MSRECD_CHAOS_S is how long (600 in the acceptance; 60 without it), MSRECD_CHAOS_SEED what happens. Prints what it did.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from broker import Certificates
from network import CONFIG, PASSWORD, ROOT, WAIT_S, Cluster, Database, Host, Network, Site, eventually, tail

from msrecd.storage import manifest
from msrecd.storage.manifest_lines import ManifestLine

CHAOS_S = float(os.environ.get("MSRECD_CHAOS_S") or 60)
SEED = int(os.environ.get("MSRECD_CHAOS_SEED") or time.time())
DEVICES_OF_SITE = 100
CHUNK_S = 5.0
FLOOD = 20_000  # events, to see how many a second are taken
SITES = ("north", "south")
CONSUMER = str(ROOT / "examples" / "fleet" / "events_to_postgres.py")


class Consumers:
    """Two for the events, of which one takes over from the other; one for the states."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.hosts = [fleet.network.host(f"consumer{number}") for number in (1, 2)]
        self._processes: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        self.password = fleet.folder / "consumer-password"
        self.password.write_text(PASSWORD + "\n")

    def start(self, host: Host, queue: str) -> None:
        nodes = ",".join(node.name for node in self._fleet.cluster.nodes)
        self._processes[host.name, queue] = host.start(
            sys.executable, CONSUMER, "--amqp", f"amqps://consumer@{nodes}", "--queue", queue, "--ca-file",
            str(self._fleet.certificates.ca), "--password-file", str(self.password),
            "--dsn", f"host={self._fleet.database.host.address} user=consumer dbname=postgres", log=f"{queue}.log",
        )  # fmt: skip

    def kill(self, host: Host, queue: str) -> None:
        host.end(self._processes.pop((host.name, queue)), signal.SIGKILL)


class Fleet:
    """All of it, in one network."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.certificates = Certificates.make(folder / "certificates")
        self.network = stack.enter_context(Network(folder))
        self.cluster = Cluster(self.network, self.certificates, ("rabbit1", "rabbit2", "rabbit3"))
        self.database = Database(self.network)
        self.consumers = Consumers(self)
        self.sites = [Site(self.network, self.certificates, name, self.cluster) for name in SITES]
        self.console_host = self.network.host("console")
        self._devices: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.database.make()
        self.database.start()
        self.database.load_schema()
        self.sql("CREATE ROLE consumer LOGIN IN ROLE msrecd_consumer")
        self.cluster.start()
        for host in self.consumers.hosts:
            self.consumers.start(host, "msrecd.events")
        self.consumers.start(self.consumers.hosts[0], "msrecd.states")
        for site in self.sites:
            site.start()
            folder = site.host.folder / "devices"
            folder.mkdir()
            self._devices[site.name] = site.host.start(
                sys.executable, str(ROOT / "fleet-tests" / "devices.py"), "--prefix", site.name, "--count",
                str(DEVICES_OF_SITE), "--folder", str(folder), "--chunk-s", str(CHUNK_S), log="devices.log",
                stdin=subprocess.PIPE,
            )  # fmt: skip

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.dsn, autocommit=True, connect_timeout=10) as database:
            cursor = database.execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def command(self, topic: str, payload: dict[str, Any]) -> None:
        """From the centre: to whichever node takes it, as the user `console`."""
        for node in self.cluster.nodes:
            done = subprocess.run(
                self.console_host.command(
                    "mosquitto_pub", "-V", "mqttv5", "-q", "1", "-h", node.name, "-p", "8883", "--cafile",
                    str(self.certificates.ca), "-u", "console", "-P", PASSWORD, "-t", topic, "-m", json.dumps(payload),
                ), capture_output=True, check=False, timeout=WAIT_S,
            )  # fmt: skip
            if done.returncode == 0:
                return
        raise AssertionError(f"no node takes the command: {done.stderr!r}")

    def end_devices(self) -> dict[str, list[str]]:
        """All stop; what each told, in its order."""
        for process in self._devices.values():
            assert process.stdin is not None
            process.stdin.close()
        told: dict[str, list[str]] = {}
        for site in self.sites:
            process = self._devices[site.name]
            process.wait(600)
            log = tail(site.host.folder / "devices.log")
            assert process.returncode == 0, log
            left = json.loads((site.host.folder / "devices" / "left.json").read_text())
            assert not any(health["spooled"] or health["dropped"] for health in left.values()), left
            told |= json.loads((site.host.folder / "devices" / "told.json").read_text())
        return told


class Chaos:
    """What goes wrong, one thing at a time, from a list drawn by chance; each is over before the next begins."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        acts: list[Callable[[], str]] = [
            self._kill_node, self._cut_off_node, self._cut_pair, self._kill_consumer, self._kill_database,
            self._restart_site,
        ]  # fmt: skip
        while time.monotonic() < until:
            self._random.shuffle(acts)
            for act in acts:
                if time.monotonic() > until:
                    break
                began = time.monotonic()
                what = act()
                self.done[act.__name__.strip("_")] += 1
                print(f"  {what} ({time.monotonic() - began:.0f} s)", flush=True)
                time.sleep(self._random.uniform(1, 5))

    def _pause(self, low: float, high: float) -> None:
        time.sleep(self._random.uniform(low, high))

    def _kill_node(self) -> str:
        node = self._random.choice(self._fleet.cluster.nodes)
        self._fleet.cluster.kill_node(node)
        self._pause(2, 15)
        self._fleet.cluster.start_node(node)
        self._fleet.cluster.wait(node)
        return f"killed {node.name}, started again"

    def _cut_off_node(self) -> str:
        one, *others = self._random.sample(self._fleet.cluster.nodes, 3)
        for other in others:
            one.cut(other)
        self._pause(5, 45)
        for other in others:
            one.heal(other)
        self._fleet.cluster.wait(one)
        return f"cut {one.name} off from the others"

    def _cut_pair(self) -> str:
        one, other, _ = self._random.sample(self._fleet.cluster.nodes, 3)
        one.cut(other)
        self._pause(5, 45)
        one.heal(other)
        for node in (one, other):
            self._fleet.cluster.wait(node)
        return f"cut between {one.name} and {other.name}"

    def _kill_consumer(self) -> str:
        host = self._random.choice(self._fleet.consumers.hosts)
        self._fleet.consumers.kill(host, "msrecd.events")
        self._pause(0, 5)
        self._fleet.consumers.start(host, "msrecd.events")
        return f"killed the consumer on {host.name}"

    def _kill_database(self) -> str:
        self._fleet.database.kill()
        self._pause(1, 10)
        self._fleet.database.start()
        return "killed PostgreSQL"

    def _restart_site(self) -> str:
        """In order: what a broker has taken and not passed on is on its disk then."""
        site = self._random.choice(self._fleet.sites)
        site.stop()
        self._pause(0, 5)
        site.start()
        return f"restarted the broker of {site.name}"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    folder = Path("/srv/run/sites")
    folder.mkdir()
    with ExitStack() as stack:
        made = Fleet(folder, stack)
        made.start()
        yield made
    shutil.rmtree(folder)


def started(fleet: Fleet, cause: str) -> int:
    rows = fleet.sql(
        "SELECT count(DISTINCT device) FROM msrecd.event WHERE event_type = 'started' AND body->>'cause' LIKE %s",
        f"%{cause}",
    )
    return int(rows[0][0])


def reach_all(fleet: Fleet, id_: str) -> float:
    """A start of all devices, until the database has everybody's event; seconds."""
    began = time.monotonic()
    fleet.command("msrecd/v1/group/all/cmd/recorder/cam0/start", {"id": id_})
    eventually(f"all started by {id_}", lambda: started(fleet, id_) == len(SITES) * DEVICES_OF_SITE)
    return time.monotonic() - began


@pytest.mark.promise("fleet-stores-once", "fleet-keeps-order", "fleet-newest-state")
@pytest.mark.promise("fleet-numbered-anew")
def test_every_event_is_stored_once_and_in_order_whatever_breaks(fleet: Fleet) -> None:
    print(f"\nchaos of {CHAOS_S:g} s, seed {SEED}", flush=True)
    count = len(SITES) * DEVICES_OF_SITE
    eventually(
        "all devices are online in the database",
        lambda: fleet.sql("SELECT count(*) FROM msrecd.device WHERE availability = 'online'") == [(count,)],
    )
    for site in fleet.sites:
        fleet.sql("UPDATE msrecd.device SET site = %s WHERE device LIKE %s", site.name, f"{site.name}-%")
    print(f"group start: all {count} devices' events are in the database after {reach_all(fleet, 'begin'):.1f} s")

    chaos = Chaos(fleet, SEED)
    line = threading.Thread(target=break_line, args=(fleet.sites[0], CHAOS_S))
    line.start()
    chaos.run(CHAOS_S)
    line.join()
    for node in fleet.cluster.nodes:
        fleet.cluster.wait(node)
    eventually(
        "both bridges are connected", lambda: fleet.sql("SELECT count(*) FROM msrecd.site WHERE connected") == [(2,)]
    )

    fleet.command("msrecd/v1/group/all/cmd/recorder/cam0/stop", {"id": "pause"})
    stopped = "SELECT count(*) FROM msrecd.state WHERE path = 'recorder/cam0' AND body->>'state' = 'inactive'"
    eventually("all have stopped", lambda: fleet.sql(stopped) == [(count,)], 2 * WAIT_S)
    print(f"group start after it: {reach_all(fleet, 'again'):.1f} s", flush=True)

    began = time.monotonic()
    told = fleet.end_devices()
    total = sum(map(len, told.values()))
    eventually(
        "all events are in the database",
        lambda: fleet.sql("SELECT count(*) FROM msrecd.event") >= [(total,)],
        5 * WAIT_S,
    )
    print(f"{total} events, the last in the database {time.monotonic() - began:.1f} s after the devices' end")
    print(f"what was done: {dict(chaos.done)}")
    assert_exactly_once(fleet, told)
    assert_coverage(fleet)
    assert_states(fleet, told)
    assert fleet.sql("SELECT count(*) FROM msrecd.refused") == [(0,)]
    assert fleet.sql("SELECT count(*) FROM msrecd.numbered_anew") == [(0,)]


def break_line(site: Site, chaos_s: float) -> None:
    """The line of a site is down for 30 % of the time, from 20 % of it on."""
    time.sleep(0.2 * chaos_s)
    site.host.link("down")
    print(f"  the line of {site.name} is down", flush=True)
    time.sleep(0.3 * chaos_s)
    site.host.link("up")
    print(f"  the line of {site.name} is up after {0.3 * chaos_s:.0f} s", flush=True)


def assert_exactly_once(fleet: Fleet, told: dict[str, list[str]]) -> None:
    """What each device told, in the order in which it was told: by number, and by arrival."""
    by_number: dict[str, list[tuple[int, str]]] = defaultdict(list)
    by_arrival: dict[str, list[int]] = defaultdict(list)
    for device, number, kind, nth in fleet.sql(
        "SELECT device, number, event_type, (body->>'nth')::int FROM msrecd.event ORDER BY device, number"
    ):
        by_number[device].append((nth, kind))
        assert number == nth, (device, number, nth)
    for device, number in fleet.sql("SELECT device, number FROM msrecd.event ORDER BY arrival"):
        by_arrival[device].append(number)
    assert dict(by_number) == {device: list(enumerate(events, 1)) for device, events in told.items()}
    wrong = {device: inversions(numbers) for device, numbers in by_arrival.items() if inversions(numbers)}
    assert not wrong, f"{len(wrong)} devices' events out of order; where each: {list(wrong.items())[:10]}"


def inversions(numbers: list[int]) -> list[tuple[int, int]]:
    return [(one, other) for one, other in pairwise(numbers) if other < one]


def lines(fleet: Fleet) -> Iterator[tuple[str, ManifestLine]]:
    for site in fleet.sites:
        for path in sorted((site.host.folder / "devices").glob("*/recordings/*.jsonl")):
            with path.open("rb") as file:
                contents = manifest.read_file(file)
            assert not contents.edited, path
            for line in manifest.live_chunks(contents):
                yield path.parts[-3], line


def assert_coverage(fleet: Fleet) -> None:
    """Against the devices' manifests, added up here; planned are 23:30 to 00:45 in the devices' own time."""
    begins, ends = datetime(2026, 11, 29, 23, 30, tzinfo=UTC), datetime(2026, 11, 30, 0, 45, tzinfo=UTC)
    window = [{"recorder": "cam0", "start": begins.isoformat(), "stop": ends.isoformat()}]
    for (device,) in fleet.sql("SELECT device FROM msrecd.device"):
        fleet.sql("SELECT msrecd.set_plan(%s, %s, '2026-11-01')", device, json.dumps(window))
    expected: dict[tuple[str, date], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for device, line in lines(fleet):
        start, stop = (datetime.fromisoformat(line[key]) for key in ("started", "ended"))  # type: ignore[literal-required]
        while start < stop:
            midnight = datetime.combine(start.date() + timedelta(days=1), datetime.min.time(), UTC)
            end = min(stop, midnight)
            planned = max(timedelta(), min(end, ends) - max(start, begins))
            of_day = expected[device, start.date()]
            of_day[0] += (end - start).total_seconds()
            of_day[1] += planned.total_seconds()
            start = end
    rows = fleet.sql("SELECT device, day, recorded_s, in_plan_s, planned_s, coverage FROM msrecd.coverage")
    found = {(device, day): (recorded, in_plan) for device, day, recorded, in_plan, _, _ in rows if recorded or in_plan}
    assert found.keys() == expected.keys()
    for key, (recorded, in_plan) in expected.items():
        assert found[key] == pytest.approx((recorded, in_plan), abs=0.01), key
    for device, day, _, in_plan, planned, coverage in rows:
        assert planned == {29: 1800.0, 30: 2700.0}[day.day], (device, day)
        assert coverage == pytest.approx(in_plan / planned)
    gaps = fleet.sql("SELECT sum(gaps) FROM msrecd.gaps_by_reason")[0][0]
    assert gaps == fleet.sql("SELECT count(*) FROM msrecd.event WHERE event_type = 'gap'")[0][0]
    total_s = sum(recorded for recorded, _ in expected.values())
    print(f"coverage of {len(expected)} device days is that of the manifests, {total_s:.0f} s")


def assert_states(fleet: Fleet, told: dict[str, list[str]]) -> None:
    """The last state of each device is there, and all have left in order."""
    eventually(
        "all are offline",
        lambda: fleet.sql("SELECT count(*) FROM msrecd.device WHERE availability = 'offline'") == [(len(told),)],
    )
    assert fleet.sql("SELECT count(*) FROM msrecd.silent_devices WHERE site_connected") == [(len(told),)]
    rows = fleet.sql("SELECT body->>'state' FROM msrecd.state WHERE path = 'recorder/cam0'")
    assert Counter(state for (state,) in rows) == {"inactive": len(told)}
    assert fleet.sql("SELECT count(*) FROM msrecd.storage_left WHERE free_bytes > 0") == [(len(told),)]
    assert fleet.sql("SELECT count(*) FROM msrecd.clock_trust WHERE clock = 'synchronized'") == [(len(told),)]


@pytest.mark.promise("fleet-power")
def test_a_site_that_loses_its_power_keeps_what_is_on_its_disk(fleet: Fleet) -> None:
    """While its line is down: what mosquitto wrote ten seconds after it took it is passed on later."""
    site, count = fleet.sites[0], 300
    site.host.link("down")
    lines = "".join(
        json.dumps({"event_type": "resumed", "event_id": f"power/1/{number:06d}", "ts": "2026-11-30T12:00:00Z"}) + "\n"
        for number in range(count)
    )
    pub = [
        "mosquitto_pub",
        "-V",
        "mqttv5",
        "-q",
        "1",
        "-h",
        "127.0.0.1",
        "-t",
        "msrecd/v1/power/event/recorder/cam0",
        "-l",
    ]
    subprocess.run(site.host.command(*pub), input=lines, text=True, check=True, timeout=WAIT_S)
    taken, disk = time.time(), site.host.folder / "mosquitto.db"
    eventually("the broker writes its disk", lambda: disk.exists() and disk.stat().st_mtime > taken)
    site.kill()
    site.start()
    site.host.link("up")
    stored = "SELECT count(*) FROM msrecd.event WHERE device = 'power'"
    eventually("all are in the database", lambda: fleet.sql(stored) == [(count,)])


def test_what_the_backbone_and_the_database_take(fleet: Fleet) -> None:
    """Events a second, for the model in docs/fleet.md; nodes, consumer and database share this machine's processors."""
    for host in fleet.consumers.hosts:
        fleet.consumers.kill(host, "msrecd.events")
    node, site = fleet.cluster.nodes[0], fleet.sites[0].host
    for inflight in (50, 500):
        count = FLOOD if inflight == 500 else FLOOD // 10
        took, size = site.run(
            sys.executable, str(ROOT / "fleet-tests" / "flood.py"), node.name, str(fleet.certificates.ca),
            "bridge-north", PASSWORD, str(count), str(inflight), timeout_s=600,
        ).split()  # fmt: skip
        print(f"\nRabbitMQ took {count / float(took):.0f} events of {size} bytes a second, {inflight} under way")
    fleet.consumers.start(fleet.consumers.hosts[0], "msrecd.events")
    stored = "SELECT count(*) FROM msrecd.event WHERE device LIKE 'flood-%'"
    eventually("the first is there", lambda: fleet.sql(stored) > [(0,)], every_s=0.05)
    began, ((first,),) = time.monotonic(), fleet.sql(stored)
    eventually("all are there", lambda: fleet.sql(stored) == [(FLOOD,)], 600)
    rate = (FLOOD - first) / (time.monotonic() - began)
    print(f"one consumer stored {rate:.0f} events a second, each once: {FLOOD // 10} came twice")


@pytest.mark.promise("fleet-dashboard")
def test_the_dashboard_asks_what_the_database_answers(fleet: Fleet) -> None:
    """Each query of the Grafana dashboard, with its macros replaced as Grafana does, asked by the reader."""
    board = json.loads((CONFIG / "dashboard.json").read_text())
    queries = [target["rawSql"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) >= 8
    for query in queries:
        for macro, value in (
            ("$__timeFilter(day)", "day BETWEEN '2026-11-01' AND '2026-12-01'"),
            ("$__timeFrom()", "'2026-11-01'::timestamptz"),
            ("$__timeTo()", "'2026-12-01'::timestamptz"),
        ):
            query = query.replace(macro, value)
        assert "$" not in query, query
        with psycopg.connect(fleet.database.dsn) as database:
            database.execute("SET ROLE msrecd_reader")
            assert database.execute(query).description
