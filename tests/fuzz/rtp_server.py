"""An RTSP server that announces any of thirty-odd payload types and sends packets that pretend to be of them.

`rtsp://127.0.0.1:<port>/<number>`: the number is the seed of what this client gets. The names of encodings are those
that libav's depacketisers listen to (libavformat/rtpdec*.c, FFmpeg 7) and IANA lists (RTP payload formats).
"""

from __future__ import annotations

import base64
import contextlib
import random
import socket
import struct

from tests.fuzz.seeds import spoiled
from tests.inputs.cameras import Server

_SETS = ",".join(base64.b64encode(bytes.fromhex(unit)).decode() for unit in ("6742c00ad9014108", "68cb83cb"))
_AAC_HBR = "mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190"
# Kind, rtpmap, fmtp, the first bytes of a payload that a depacketiser takes for a beginning.
PAYLOADS: tuple[tuple[str, str, str, bytes], ...] = (
    ("video", "H264/90000", f"packetization-mode=1;sprop-parameter-sets={_SETS}", b"\x65\x88"),
    ("video", "H264/90000", "packetization-mode=1", b"\x7c\x85"),  # FU-A without an end
    ("video", "H264/90000", "packetization-mode=1", b"\x78\x00\x04\x67\x42\xc0\x0a"),  # STAP-A
    ("video", "H265/90000", "", b"\x40\x01"),
    ("video", "H265/90000", "", b"\x62\x01\x93"),
    ("video", "H263/90000", "", b"\x00\x00\x00\x00"),
    ("video", "H263-1998/90000", "", b"\x04\x00"),
    ("video", "H263-2000/90000", "", b"\x04\x00"),
    ("video", "H261/90000", "", b"\x00\x00\x00\x00"),
    ("video", "JPEG/90000", "", b"\x00\x00\x00\x00\x01\x46\x14\x0f"),
    ("video", "MP4V-ES/90000", "config=000001b001000001b58913000001000000012000c48d8800", b"\0\0\1\xb6"),
    ("video", "MPV/90000", "", b"\x00\x00\x00\x00\0\0\1\xb3"),
    ("video", "MP2T/90000", "", b"\x47\x40\x00\x10"),
    ("video", "VP8/90000", "", b"\x10\x00\x00\x9d\x01\x2a\xa0\x00\x78\x00"),
    ("video", "VP9/90000", "", b"\x8c\x00\x00"),
    ("video", "AV1/90000", "", b"\x10\x0a\x0b"),
    ("video", "raw/90000", "sampling=YCbCr-4:2:0;width=160;height=120;depth=8", b"\0\0\0\x50\0\0\0\0"),
    ("video", "vc2/90000", "", b"\0\0\0\0"),
    ("video", "DV/90000", "encode=SD-VCR/525-60;audio=bundled", b"\x1f\x07\x00\x3f"),
    ("video", "theora/90000", "sampling=YCbCr-4:2:0;width=160;height=120;configuration=AAAAAXh4eAAC", b"\0\0\0\x01"),
    ("video", "X-SV3V-ES/90000", "", b"\x80\x00"),
    ("video", "X-QT/90000", "", b"\x10\x00\x00\x00"),
    ("video", "x-asf-pf/1000", "", b"\x80\x00\x00\x00"),
    ("audio", "MPEG4-GENERIC/48000/2", _AAC_HBR, b"\0\x10\x08\0"),
    ("audio", "MP4A-LATM/48000/1", "cpresent=0;config=400023103fc0", b"\x20"),
    ("audio", "mpa-robust/90000", "", b"\x00\x20"),
    ("audio", "MPA/90000", "", b"\x00\x00\x00\x00\xff\xfd"),
    ("audio", "AC3/48000/2", "", b"\x00\x01\x0b\x77"),
    ("audio", "AMR/8000/1", "octet-align=1", b"\xf0\x3c"),
    ("audio", "AMR-WB/16000/1", "octet-align=1", b"\xf0\x44"),
    ("audio", "opus/48000/2", "", b"\x78"),
    ("audio", "vorbis/44100/2", "configuration=AAAAAXh4eAAC", b"\0\0\0\x01"),
    ("audio", "PCMU/8000/1", "", b""),
    ("audio", "PCMA/8000/1", "", b""),
    ("audio", "L16/44100/2", "", b""),
    ("audio", "L24/48000/2", "", b""),
    ("audio", "G726-32/8000", "", b""),
    ("audio", "iLBC/8000", "mode=20", b""),
    ("audio", "QCELP/8000", "", b"\x00\x04"),
    ("audio", "speex/16000", "", b""),
    ("audio", "x-pn-realaudio/1000", "", b"\x00"),
    ("audio", "X-QDM/44100", "", b"\x80\xff\x20\x01"),
    ("audio", "telephone-event/8000", "0-15", b"\x01\x0a\x00\xa0"),
)  # fmt: skip


_REPORTS = (200, 201, 203, 204)


def _header(request: bytes, name: bytes) -> bytes:
    return next((line for line in request.split(b"\r\n") if line.lower().startswith(name)), b"")


class RtpFuzzer(Server):
    """See above."""

    def serve(self, connection: socket.socket) -> None:
        chance = random.Random(0)
        streams: list[tuple[str, str, str, bytes]] = []
        waiting = b""
        while data := connection.recv(65536):
            waiting += data
            while waiting[:1] == b"$" and len(waiting) >= 4:
                waiting = waiting[4 + struct.unpack(">H", waiting[2:4])[0] :]
            while b"\r\n\r\n" in waiting:
                request, waiting = waiting.split(b"\r\n\r\n", 1)
                words = request.split()
                number = next(
                    (
                        line.split(b":")[1].strip()
                        for line in request.split(b"\r\n")
                        if line.lower().startswith(b"cseq")
                    ),
                    b"0",
                )
                body, extra = b"", b""
                if words[0] == b"DESCRIBE":
                    seed = int(words[1].rsplit(b"/", 1)[1])
                    chance = random.Random(seed)
                    streams = [PAYLOADS[seed % len(PAYLOADS)], *chance.sample(PAYLOADS, chance.choice((0, 0, 1, 3)))]
                    body = self._description(streams)
                    if chance.random() < 0.3:
                        body = spoiled(body, chance)
                    extra = b"Content-Type: application/sdp\r\n"
                elif words[0] == b"SETUP":
                    asked = next(
                        (line for line in request.split(b"\r\n") if line.lower().startswith(b"transport")), b""
                    )
                    extra = asked + b"\r\nSession: 7\r\n" if b"interleaved" in asked else b"Session: 7\r\n"
                connection.sendall(
                    b"RTSP/1.0 200 OK\r\nCSeq: " + number + b"\r\n" + extra
                    + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
                )  # fmt: skip
                if words[0] == b"PLAY":
                    self._play(connection, streams, chance)
                    return

    @staticmethod
    def _description(streams: list[tuple[str, str, str, bytes]]) -> bytes:
        lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 0.0.0.0", "t=0 0"]
        for number, (kind, encoding, parameters, _) in enumerate(streams):
            lines += [f"m={kind} 0 RTP/AVP {96 + number}", f"a=rtpmap:{96 + number} {encoding}"]
            lines += [f"a=fmtp:{96 + number} {parameters}"] if parameters else []
            lines += [f"a=control:track{number}"]
        return ("\r\n".join(lines) + "\r\n").encode()

    def _play(
        self, connection: socket.socket, streams: list[tuple[str, str, str, bytes]], chance: random.Random
    ) -> None:
        """A few hundred packets in a second, then silence or the end."""
        for count in range(chance.choice((20, 200, 600))):
            track = chance.randrange(len(streams))
            size = chance.choice((0, 1, 3, 12, 60, 300, 1200, 1400, 8000))
            payload = streams[track][3] + chance.randbytes(size)
            if chance.random() < 0.5:
                payload = spoiled(payload, chance)
            head = struct.pack(
                ">BBHII",
                0x80 if chance.random() < 0.9 else chance.randrange(256),
                96 + track | (0x80 if chance.random() < 0.3 else 0),
                count if chance.random() < 0.95 else chance.randrange(65536),
                count * 3600 if chance.random() < 0.9 else chance.getrandbits(32),
                track,
            )
            packet = (head + payload)[:65535]
            if chance.random() < 0.05:  # a report, or what stands in the place of one
                packet = struct.pack(
                    ">BBH", 0x80, chance.choice((200, 201, 203, 204)), chance.randrange(64)
                ) + chance.randbytes(40)
            channel = 2 * track + (packet[1] in _REPORTS)
            connection.sendall(b"$" + struct.pack(">BH", channel, len(packet)) + packet)
            if count % 40 == 39 and self.stopping.wait(0.03):
                return
        if chance.random() < 0.5:
            self.stopping.wait(2.0)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
