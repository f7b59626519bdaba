"""Ports for servers that must be told theirs before they listen."""

from __future__ import annotations

import itertools
import os
import random
import socket

# Below the ports that Linux gives by itself (32768 on), and another block for each worker of a run: a port that was
# free a moment ago is not taken by a test beside this one.
_FIRST = 12_000
_BLOCK = 2_000
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw8").removeprefix("gw")
_ports = itertools.count(random.randrange(_BLOCK))


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens at, and that no other test of this run is given."""
    for number in itertools.islice(_ports, _BLOCK):
        port = _FIRST + int(_WORKER) % 9 * _BLOCK + number % _BLOCK
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"none of the {_BLOCK} ports from {_FIRST} on is free")
