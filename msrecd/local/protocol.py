"""The local socket's place and its messages.

One exchange a connection, each message one line of JSON:

    daemon:  {"device": "pi-7f3a", "config": "/etc/msrecd/msrecd.toml", "version": "1.0.0"}
    client:  {"command": "recorder/cam0/start", "payload": "{\\"id\\": \\"42\\"}"}   or   {"states": true}
    daemon:  the reply, as over MQTT                                             or   {"recorder/cam0": {…}, …}

    client:  {"look": "cam0", "jpeg": true}
    daemon:  a reply whose data are the tracks (msrecd.recorder.looking)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

REQUEST_LIMIT_BYTES = 40 * 1024  # a payload of 16 KiB, with a backslash before every other character
ANSWER_LIMIT_BYTES = 4 * 1024 * 1024


def socket_path(environment: Mapping[str, str] = os.environ) -> Path:
    """`control.sock` in $RUNTIME_DIRECTORY (the first of them), else in /run/msrecd."""
    folder = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(folder or "/run/msrecd") / "control.sock"
