"""The bounds that docs/architecture.md gives for the queues are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrecd.codecs import audio, video
from msrecd.control import commands, reports
from msrecd.devices.camera import packets
from msrecd.local import server
from msrecd.media import options
from msrecd.mqtt import client, outbox, spool, wire
from msrecd.muxing import viewing, worker
from msrecd.web import http11, mirror, recordings, webserver

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def mib(size: int) -> str:
    return f"{size >> 20} MiB"


def number(count: int) -> str:
    return f"{count:,}".replace(",", " ") if count >= 10_000 else str(count)


# How a row of the table begins -> what its column "bound" must say.
BOUNDS = {
    "`UnitQueue` before a video encoder": [f"{video._MAX_FRAMES} frames", mib(video._MAX_BYTES)],
    "`UnitQueue` before an audio encoder": [f"{audio._MAX_BLOCKS} blocks", mib(audio._MAX_BYTES)],
    "`UnitQueue` of a camera's packets": [f"{packets._MAX_UNITS} packets", mib(packets._MAX_BYTES)],
    "`UnitQueue` of a recorder": [f"{number(worker._MAX_UNITS)} packets", f"({mib(options.DEFAULT_MAX_BUFFERED)})"],
    "`Inbox` of MQTT messages": [number(wire.INBOX_LIMIT)],
    "commands of one recorder": [number(commands.QUEUE_LIMIT)],
    "thumbnails of the page": [f"{recordings.THUMBNAILS_WAITING} requests"],
    "clients of the local socket": [number(server.CLIENTS_LIMIT)],
    "connections of the page": [
        f"{webserver.CONNECTIONS_LIMIT} ({webserver.PEER_CONNECTIONS_LIMIT} of one address)",
        f"{http11.HEADER_LIMIT_BYTES >> 10} KiB of header",
        f"{http11.BODY_LIMIT_BYTES >> 10} KiB of body",
    ],
    "states and events on their way to the page": [number(mirror.HANDOVER_LIMIT)],
    "fragments that a viewer has not read": [
        f"{viewing.VIEWER_LIMIT_NS // 10**9} s",
        mib(viewing.VIEWER_LIMIT_BYTES),
    ],
    "packets on their way to viewers": [number(viewing._MAX_PACKETS), mib(viewing._MAX_BYTES)],
    "events that a browser has not read": [
        number(mirror.CLIENT_LIMIT_MESSAGES),
        f"{mirror.CLIENT_LIMIT_BYTES >> 10} KiB",
    ],
    "replies while the broker is away": [number(outbox.REPLY_LIMIT)],
    "messages that paho has not got acknowledged": [number(client.OUTSTANDING_LIMIT)],
    "handover to the spool": [f"{number(spool.HANDOVER_LIMIT)} events"],
    "event spool on disk": [f"{number(spool.EVENT_LIMIT)} events", mib(spool.BYTES_LIMIT)],
    "different errors of the daemon": [number(reports.KINDS_LIMIT), f"{reports.MESSAGES_LIMIT} messages"],
}


@pytest.mark.parametrize("beginning", BOUNDS)
def test_a_bound_in_the_page_is_that_of_the_code(beginning: str) -> None:
    table = PAGE.read_text().partition("## Bounded queues")[2].partition("\n## ")[0]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {beginning}")]
    bound = row.split("|")[2]
    assert not [text for text in BOUNDS[beginning] if text not in bound], row
