"""Show a camera in browsers over WebRTC: a page, and one request for each viewer (WHEP). Needs the extra `rtc`.

python camera_to_browser.py [--port 8090] [--seconds 3600] [--virtual]
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import sys

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone

PAGE = b"""<!doctype html><title>Camera</title><video id=view autoplay muted controls></video><script>
const pc = new RTCPeerConnection();
pc.addTransceiver("video", {direction: "recvonly"});
pc.addTransceiver("audio", {direction: "recvonly"});
const stream = new MediaStream();
pc.ontrack = event => { stream.addTrack(event.track); view.srcObject = stream; };
(async () => {
    await pc.setLocalDescription();
    const answer = await fetch("/whep", {method: "POST", body: pc.localDescription.sdp});
    await pc.setRemoteDescription({type: "answer", sdp: await answer.text()});
})();
</script>"""
DEADLINE_S = 10


class Site:
    """The page and its viewers. For a trusted network: there is no password; the daemon's `[web]` has one."""

    def __init__(self, stream: msrecd.MediaStream) -> None:
        self._view = msrecd.StreamView(stream)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = head.split("\r\n")
                lengths = [line.split(":")[1] for line in lines if line.lower().startswith("content-length:")]
                body = await reader.readexactly(min(int(lengths[0]), 65536)) if lengths else b""
                status, kind, content = await self._answer(*lines[0].split(" ")[:2], body)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n".encode())
            writer.write(b"Connection: close\r\n\r\n" + content)
            await writer.drain()
        except (OSError, ValueError, TypeError, EOFError, TimeoutError):
            pass  # it was no request, or its sender has gone
        finally:
            writer.close()

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[str, str, bytes]:
        if (method, path) == ("GET", "/"):
            return "200 OK", "text/html", PAGE
        if (method, path) != ("POST", "/whep"):
            return "404 Not Found", "text/plain", b"not found"
        try:
            session = await self._view.answer(body.decode())  # it ends by itself when the viewer goes
        except msrecd.DOMException as exc:
            return "400 Bad Request", "text/plain", str(exc).encode()
        return "201 Created", "application/sdp", session.sdp.encode()


def open_devices(virtual: bool) -> msrecd.MediaDevices:
    if not virtual:
        return msrecd.MediaDevices()
    return msrecd.MediaDevices(
        backends=[VirtualBackend([VirtualCamera("Camera", modes=[(640, 360, 30)]), VirtualMicrophone("Microphone")])]
    )


async def main(arguments: argparse.Namespace) -> int:
    async with open_devices(arguments.virtual) as devices:
        try:
            stream = await devices.get_user_media({"video": True, "audio": True})
        except msrecd.DOMException as exc:
            print(exc, file=sys.stderr)
            return 1
        server = await asyncio.start_server(Site(stream).serve, arguments.host, arguments.port)
        async with server:
            print(f"http://{arguments.host}:{server.sockets[0].getsockname()[1]}/", flush=True)
            await asyncio.sleep(arguments.seconds)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--virtual", action="store_true", help="virtual devices instead of the machine's")
    sys.exit(asyncio.run(main(parser.parse_args())))
