"""The private seams of aiortc that msrecd/rtc/aio uses are where they were; unused, WebRTC costs nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

aiortc = pytest.importorskip("aiortc")

UNUSED = """
import asyncio, sys, threading
import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera

async def main():
    canvas = msrecd.Canvas(160, 96)
    recorder = msrecd.MediaRecorder(canvas.capture_stream(5))
    recorder.start()
    canvas.fill((1, 2, 3))
    await asyncio.sleep(0.3)
    recorder.stop()
    await recorder.stopped
    msrecd.RTCSessionDescription({"type": "offer", "sdp": ""})  # a value needs no connection

asyncio.run(main())
loaded = [name for name in ("aiortc", "aioice", "pylibsrtp", "OpenSSL", "cryptography", "dns") if name in sys.modules]
print(loaded, [thread.name for thread in threading.enumerate() if thread.name == "webrtc"])
"""


def test_seams() -> None:
    sender, receiver = aiortc.RTCRtpSender, aiortc.RTCRtpReceiver
    assert list(inspect.signature(sender._next_encoded_frame).parameters) == ["self", "codec"]
    assert inspect.iscoroutinefunction(sender._next_encoded_frame)
    assert list(inspect.signature(sender._send_keyframe).parameters) == ["self"]
    assert list(inspect.signature(sender._send_rtcp).parameters) == ["self", "packets"]
    assert list(inspect.signature(receiver._send_rtcp_pli).parameters) == ["self", "media_ssrc"]
    assert list(inspect.signature(receiver._handle_rtcp_packet).parameters) == ["self", "packet"]
    assert list(inspect.signature(receiver._handle_disconnect).parameters) == ["self"]
    source = inspect.getsource(sys.modules[sender.__module__])
    for name in (
        *("__ntp_timestamp", "__rtp_timestamp", "__octet_count", "__packet_count", "__lsr", "__lsr_time", "__mid"),
        *("__rtp_header_extensions_map", "__rtp_history.get(", "self._enabled", "RTP_HISTORY_SIZE"),
        *("self._send_keyframe()", "await self._retransmit(", "await self.transport._send_rtp("),
    ):
        assert name in source
    assert list(inspect.signature(sender._retransmit).parameters) == ["self", "sequence_number"]
    source = inspect.getsource(sys.modules[receiver.__module__])
    assert "self.__jitter_buffer.add(packet)" in source
    assert "packet._data = depayload(" in source
    source = inspect.getsource(sys.modules[aiortc.RTCIceTransport.__module__])
    for name in (
        *("self._recv = self._connection.recv", "self._send = self._connection.send", "def __setState(self, state"),
        *("self.__iceGatherer = ", "self.__monitor_task = asyncio.ensure_future(self._monitor())"),
    ):
        assert name in source
    source = inspect.getsource(sys.modules[aiortc.RTCDtlsTransport.__module__])
    assert "await self.transport._recv()" in source
    assert "await self.transport._send(data)" in source
    assert "def __updateIceGatheringState(self" in inspect.getsource(aiortc.RTCPeerConnection)


def test_seams_of_aioice() -> None:
    import aioice.ice

    source = inspect.getsource(aioice.ice.Connection)
    for name in ("create_task(self.query_consent())", "self._query_consent_task = None", "self._nominated.values()"):
        assert name in source
    assert list(inspect.signature(aioice.ice.Connection.build_request).parameters) == ["self", "pair", "nominate"]
    request = inspect.signature(aioice.ice.StunProtocol.request).parameters
    assert {"integrity_key", "retransmissions"} <= set(request)


def test_unused_it_is_not_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", UNUSED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "[] []"
