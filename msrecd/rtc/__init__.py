"""WebRTC over aiortc (extra `rtc`), in a thread and a loop of its own. Only `aio/` imports aiortc and aioice."""
