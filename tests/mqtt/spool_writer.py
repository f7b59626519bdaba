"""A process to be killed: puts numbered events into a spool and says which ones are safe.

usage: spool_writer.py PATH FIRST LAST
"""

from __future__ import annotations

import sys
from pathlib import Path

from msrecd.mqtt.spool import SpoolStore


def main() -> None:
    path, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    store = SpoolStore(path, "pi-test/1")
    for number in range(first, last):
        store.append([("t", {"n": number})])
        if not store.flush():
            sys.exit("not written")
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


main()
