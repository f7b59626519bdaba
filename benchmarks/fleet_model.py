"""What a fleet of N devices costs at each stage, up to a million, and which stage ends first: a model, no measurement.

    python benchmarks/fleet_model.py [--measure] [--chunk-s 60]

The table multiplies costs that were measured on one machine with two cores (MEASURED below says by what) with what a
device tells. It assumes that costs grow in proportion, and that each stage may use half of what it could.
--measure measures again what needs nothing but mosquitto: a message, a connection, a handshake of TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from broker import Broker, Certificates
from fleet import used_s
from fleet_broker import Connection

CORES = 2  # of each machine of the model, as of the one that was measured
FLEETS = (1_000, 10_000, 100_000, 1_000_000)
HEALTH_S = 60  # how often a device tells its health
RECOVERY_S = 30  # devices wait at most this long between two attempts
SITE_DEVICES = 1_000  # of one site's broker
OUTAGE_S = 3_600  # of the centre, after which everything that waited comes at once


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured: seconds of one processor, bytes, events a second."""

    message_s: float = 16e-6  # mosquitto, one message in and out: fleet_broker.py, 12 to 20 us
    connection_s: float = 353e-6  # mosquitto, connect and subscribe, at 10 000 connections: fleet_broker.py
    handshake_s: float = 0.85e-3  # mosquitto, TLS 1.3 with a P-256 certificate: --measure
    connection_bytes: float = 2_500  # mosquitto's memory: fleet_broker.py
    event_bytes: float = 600  # a chunk event with its topic: fleet-tests/flood.py
    state_bytes: float = 700  # health; a recorder's state is smaller
    backbone_events_s: float = 800.0  # three RabbitMQ nodes on two cores, quorum queue, TLS: make fleet-test
    stored_events_s: float = 350.0  # one consumer and PostgreSQL beside them: make fleet-test
    stored_event_bytes: float = 1_500.0  # with chunk, sums and indexes: make fleet-test


MEASURED = Costs()


async def connect_all(broker: Broker, count: int, context: ssl.SSLContext | None) -> float:
    """Seconds of the broker's processor for each connection with its subscription."""
    loop = asyncio.get_running_loop()
    used, limit = used_s(broker.pid), asyncio.Semaphore(50)

    async def one(number: int) -> Connection:
        async with limit:
            _, connection = await loop.create_connection(
                lambda: Connection(number, lambda: None), "localhost", broker.port, ssl=context
            )
            await connection.begin()
            return connection

    connections = await asyncio.gather(*(one(number) for number in range(count)))
    spent = used_s(broker.pid) - used
    for connection in connections:
        connection.close()
    return spent / count


def measure() -> None:
    with tempfile.TemporaryDirectory(prefix="msrecd-fleet-") as name:
        certificates = Certificates.make(Path(name) / "certificates")
        context = ssl.create_default_context(cafile=str(certificates.ca))
        for what, options, tls in (("plain", None, None), ("TLS", certificates, context)):
            with Broker(Path(name) / what, certificates=options, log_type="error") as broker:
                spent = asyncio.run(connect_all(broker, 500, tls))
            print(f"measured here: mosquitto needs {spent * 1e6:.0f} us of a processor for a connection, {what}")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage at one size: how much of a machine with CORES it takes, and what to add where it takes too much."""

    name: str
    machines: float
    why: str
    add: str


def stages(devices: int, costs: Costs, chunk_s: float) -> list[Stage]:
    """In the order of the way that an event takes."""
    events_s = devices / chunk_s
    messages_s = events_s * 2 + devices / HEALTH_S  # a chunk changes the recorder's state, too
    half = 0.5
    sites = max(1.0, devices / SITE_DEVICES)
    of_site = devices / sites
    storm = of_site * (costs.connection_s + costs.handshake_s) / RECOVERY_S  # processors, while all come back
    backlog = events_s * OUTAGE_S
    database = messages_s / costs.stored_events_s / half
    spare_s = max(1.0, database) * costs.stored_events_s - messages_s  # with as many machines as quiet times need
    bytes_s = events_s * costs.event_bytes + (events_s + devices / HEALTH_S) * costs.state_bytes
    return [
        Stage("a site's broker", max(storm, 2 * messages_s / sites * costs.message_s),
              f"{of_site:.0f} devices; {storm:.2f} of a processor while all come back within {RECOVERY_S} s",
              "another site's broker"),
        Stage("one broker for all, instead", devices * (costs.connection_s + costs.handshake_s) / RECOVERY_S,
              f"{devices * costs.connection_bytes / 2**20:.0f} MiB for connections; mosquitto uses one processor",
              "sites: more brokers"),
        Stage("the backbone", messages_s / costs.backbone_events_s / half,
              f"{messages_s:.0f} messages a second, {bytes_s * 8 / 1e6:.1f} Mbit/s to each node",
              "another queue and consumer for a part of the devices (bind by site), then another cluster"),
        Stage("consumer and database", database,
              f"{events_s * 86_400 * costs.stored_event_bytes / 1e9:.1f} GB a day, "
              f"{events_s * 86_400 * costs.stored_event_bytes * 365 / 1e12:.2f} TB a year",
              "states into a database of their own, events by site into several; forget() raw events after a month"),
        Stage("hours to take in what waited, after an hour without the centre", backlog / spare_s / 3600,
              f"{backlog / 1e6:.2f} million events, {backlog * costs.event_bytes / 1e9:.2f} GB wait on the sites",
              "the same as for the database; nothing is lost while the sites' disks hold it"),
    ]  # fmt: skip


def table(costs: Costs, chunk_s: float) -> None:
    print(f"modelled: machines of {CORES} processors, a chunk every {chunk_s:g} s, health every {HEALTH_S} s\n")
    for row in stages(1_000, costs, chunk_s)[:4]:
        carries = f"{1_000 / row.machines / 1_000:.0f} 000 devices"
        if row.name == "a site's broker":
            carries = f"{SITE_DEVICES} devices, {row.machines:.2f} of what it can"
        print(f"one machine as {row.name}: {carries}")
    print("\n| devices | stage | machines, or hours | because | when it is more than 1, add |\n|---|---|---|---|---|")
    for devices in FLEETS:
        rows = stages(devices, costs, chunk_s)
        first = max(rows[:1] + rows[2:4], key=lambda row: row.machines)  # the one broker is another way, not a stage
        for row in rows:
            mark = " **first limit**" if row is first and row.machines > 1 else ""
            size = f"{devices:,}".replace(",", " ")
            print(f"| {size} | {row.name}{mark} | {row.machines:.2f} | {row.why} | {row.add} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--chunk-s", type=float, default=60.0)
    options = parser.parse_args()
    began = time.monotonic()
    if options.measure:
        measure()
        print(f"({time.monotonic() - began:.0f} s)\n")
    table(MEASURED, options.chunk_s)


if __name__ == "__main__":
    main()
