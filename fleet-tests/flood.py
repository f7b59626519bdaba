"""Publishes COUNT chunk events to a broker over TLS, as a bridge does, and prints how long until all were acknowledged.

python flood.py HOST CA_FILE USER PASSWORD COUNT INFLIGHT
"""

from __future__ import annotations

import json
import sys
import time

import paho.mqtt.client as paho

SHA256 = "0" * 64


def event(number: int) -> tuple[str, bytes]:
    device, nth = f"flood-{number % 100:03d}", number // 100 + 1
    body = {
        "event_type": "chunk", "event_id": f"{device}/1/{nth:06d}", "ts": "2026-11-30T12:00:00.000Z",
        "recorder": "cam0",
        "recording_id": "20261130T120000Z-cam0-0000", "seq": nth, "bytes": 30_000_000, "sha256": SHA256,
        "file": f"cam0/2026/11/30/20261130T120000Z-cam0-0000-{nth:04d}.mp4", "mime_type": "video/mp4", "final": False,
        "started": "2026-11-30T12:00:00.000Z", "ended": "2026-11-30T12:01:00.000Z", "duration_s": 60.0,
        "clock": "synchronized", "tracks": {"video": {"frames": 1800, "dropped": 0}},
    }  # fmt: skip
    return f"msrecd/v1/{device}/event/recorder/cam0", json.dumps(body).encode()


def main() -> None:
    host, ca_file, user, password, count, inflight = sys.argv[1:]
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "bridge-north-flood", protocol=paho.MQTTv5)
    client.tls_set(ca_file)
    client.username_pw_set(user, password)
    client.max_inflight_messages_set(int(inflight))
    client.max_queued_messages_set(0)
    client.connect(host, 8883)
    client.loop_start()
    began = time.monotonic()
    sent = [client.publish(*event(number), qos=1) for number in range(int(count))]
    for info in sent:
        info.wait_for_publish(300)
    print(time.monotonic() - began, len(event(1)[1]))
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
