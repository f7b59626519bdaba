"""Network cameras that do what they are told, faults included: RTSP with RTP over TCP or UDP, and HTTP.

The rules they keep: RTSP 1.0 (RFC 2326: methods, status codes, interleaving in 10.12), RTP and sender reports (RFC
3550: 5.1, 6.4.1), H.264 (RFC 6184: single units, FU-A in 5.8), AAC-hbr (RFC 3640: 3.3.6), multipart
JPEG (RFC 2046, 5.1; as Axis cameras send it).
"""

from __future__ import annotations

import base64
import contextlib
import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any

import av
import numpy as np

RATE = 25
GOP = 25
NTP = 2_208_988_800  # seconds from 1900 to 1970
STAMPS = {1: 12_345, 2: 0xFFFF_F000}  # the times of RTP at which frames and sound begin


@dataclass(frozen=True)
class Clip:
    """A second or more of media, sent again and again: NAL units of each frame, AAC frames."""

    frames: list[list[bytes]]
    sound: list[bytes]
    config: bytes
    sound_rate: int = 48000
    codec: str = "h264"


ENCODERS = {
    "h264": ("libx264", {"preset": "ultrafast", "bf": "0", "sc_threshold": "0"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "bframes=0:scenecut=0:pools=none:log-level=none"}),
}


def clip(width: int = 320, height: int = 240, seconds: int = 2, codec: str = "h264") -> Clip:
    encoder, options = ENCODERS[codec]
    memory = io.BytesIO()
    with av.open(memory, "w", format="matroska") as out:
        video: Any = out.add_stream(encoder, rate=RATE)
        video.width, video.height, video.pix_fmt, video.gop_size = width, height, "yuv420p", GOP
        video.options = options
        audio: Any = out.add_stream("aac", rate=48000, layout="mono")
        for number in range(seconds * RATE):
            picture = np.full((height, width, 3), 40 + number % 25 * 8, np.uint8)
            picture[:, number * 5 % width :][:, :20] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        tone = (np.sin(np.arange(seconds * 48000) * 0.06) * 8000).astype(np.int16)
        for at in range(0, len(tone), 1024):
            block = av.AudioFrame.from_ndarray(tone[None, at : at + 1024], format="s16", layout="mono")
            block.sample_rate, block.pts = 48000, at
            out.mux(audio.encode(block))
        out.mux(audio.encode(None))
    memory.seek(0)
    with av.open(memory) as made:
        config = bytes(made.streams.audio[0].codec_context.extradata or b"")
        annexb = av.BitStreamFilterContext(f"{codec}_mp4toannexb", made.streams.video[0])
        frames, sound = [], []
        for packet in made.demux():
            if packet.size and packet.stream.type == "audio":
                sound.append(bytes(packet))
            elif packet.size:
                for one in annexb.filter(packet):
                    units = [unit.rstrip(b"\0") for unit in bytes(one).split(b"\0\0\1")[1:]]
                    frames.append([unit for unit in units if unit and kind_of(unit, codec) not in NO_PICTURE[codec]])
    return Clip(frames, sound, config, codec=codec)


NO_PICTURE = {"h264": (6, 9), "hevc": (35, 39, 40)}  # additional information, delimiters


def kind_of(unit: bytes, codec: str) -> int:
    """The type of a NAL unit."""
    return unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63


class Server:
    """Listens on loopback; one thread for each connection. Use as a context manager."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.stopping = threading.Event()
        self._open: list[socket.socket] = []

    def __enter__(self: Any) -> Any:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._guarded, args=(connection,), daemon=True).start()

    def _guarded(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.serve(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def serve(self, connection: socket.socket) -> None:
        raise NotImplementedError


@dataclass
class Faults:
    """What an RTSP camera does besides what it should.

    login: user and password it wants. refuses: "tcp" or "udp". closes_after_s, silent_after_s: of playing. reports:
    whether sender reports are sent. sound_late_s: how much later sound is sent than the frames of its time.
    sound_begins_s: from when on sound is sent. rtp_info: of the answer to PLAY, for the address of the session.
    changes: clip that is sent from this second on, and described then. hangs: never answers DESCRIBE.
    """

    login: tuple[str, str] | None = None
    refuses: str = ""
    closes_after_s: float = 1e9
    silent_after_s: float = 1e9
    reports: bool = True
    sound_late_s: float = 0.0
    sound_begins_s: float = 0.0
    rtp_info: Callable[[str], str] | None = None
    changes: tuple[float, Clip] | None = None
    hangs: bool = False
    loses: Callable[[int], bool] = field(default=lambda number: False)  # by the number of the RTP packet of frames
    stamp_s: Callable[[float], float] = field(default=lambda at: at)
    junk: bytes = b""  # before each sender report over TCP: neither packet nor message


class RtspCamera(Server):
    """`rtsp://127.0.0.1:<port>/cam`"""

    def __init__(self, media: Clip, faults: Faults | None = None, *, has_sound: bool = True) -> None:
        super().__init__()
        self.media = media
        self.faults = faults or Faults()
        self.has_sound = has_sound
        self.has_changed = False
        self.requests: list[str] = []
        self.url = f"rtsp://127.0.0.1:{self.port}/cam"

    @property
    def _sent(self) -> Clip:
        """What the camera sends at present."""
        return self.faults.changes[1] if self.has_changed and self.faults.changes is not None else self.media

    def _description(self) -> str:
        media = self._sent
        sets = ",".join(base64.b64encode(unit).decode() for unit in media.frames[0] if unit[0] & 31 in (7, 8))
        coding = (
            ["a=rtpmap:96 H265/90000"]  # its parameter sets stand before each key frame
            if media.codec == "hevc"
            else ["a=rtpmap:96 H264/90000", f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}"]
        )
        lines = [
            "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "t=0 0", "a=control:*",
            "m=video 0 RTP/AVP 96", "a=control:track1", *coding,
        ]  # fmt: skip
        if self.has_sound:
            lines += [
                "m=audio 0 RTP/AVP 97", f"a=rtpmap:97 MPEG4-GENERIC/{self.media.sound_rate}/1",
                "a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;"
                f"config={self.media.config.hex()}", "a=control:track2",
            ]  # fmt: skip
        return "\r\n".join(lines) + "\r\n"

    def serve(self, connection: socket.socket) -> None:
        lock = threading.Lock()
        channels: dict[int, Callable[[bytes, bool], None]] = {}
        waiting = b""
        while data := connection.recv(65536):
            waiting += data
            while waiting:
                if waiting[:1] == b"$":
                    if len(waiting) < 4 or len(waiting) < 4 + struct.unpack(">H", waiting[2:4])[0]:
                        break
                    waiting = waiting[4 + struct.unpack(">H", waiting[2:4])[0] :]
                elif b"\r\n\r\n" in waiting:
                    request, waiting = waiting.split(b"\r\n\r\n", 1)
                    self._answer(connection, lock, channels, request.decode())
                else:
                    break

    def _answer(
        self,
        connection: socket.socket,
        lock: threading.Lock,
        channels: dict[int, Callable[[bytes, bool], None]],
        request: str,
    ) -> None:
        first, *lines = request.split("\r\n")
        method, url = first.split()[:2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.requests.append(f"{method} {headers.get('transport', '')}".strip())

        def reply(status: str, *extra: str, body: str = "") -> None:
            head = [f"RTSP/1.0 {status}", f"CSeq: {headers.get('cseq', '0')}", *extra, f"Content-Length: {len(body)}"]
            with lock:
                connection.sendall(("\r\n".join(head) + "\r\n\r\n" + body).encode())

        if self.faults.login is not None and method != "OPTIONS":
            wanted = "Basic " + base64.b64encode(":".join(self.faults.login).encode()).decode()
            if headers.get("authorization") != wanted:
                reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"')
                return
        if method == "OPTIONS":
            reply("200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER")
        elif method == "DESCRIBE":
            if not self.faults.hangs:
                reply("200 OK", f"Content-Base: {url}/", "Content-Type: application/sdp", body=self._description())
        elif method == "SETUP":
            self._set_up(connection, lock, channels, int(url[-1]), headers.get("transport", ""), reply)
        elif method == "PLAY":
            said = [] if self.faults.rtp_info is None else [f"RTP-Info: {self.faults.rtp_info(self.url)}"]
            reply("200 OK", "Session: 77", "Range: npt=0.000-", *said)
            threading.Thread(target=self._play, args=(connection, channels), daemon=True).start()
        else:
            reply("200 OK", "Session: 77")

    def _set_up(
        self,
        connection: socket.socket,
        lock: threading.Lock,
        channels: dict[int, Callable[[bytes, bool], None]],
        track: int,
        transport: str,
        reply: Callable[..., None],
    ) -> None:
        is_tcp = "interleaved=" in transport
        if self.faults.refuses == ("tcp" if is_tcp else "udp"):
            reply("461 Unsupported Transport")
        elif is_tcp:
            channel = int(transport.split("interleaved=")[1].split("-")[0])

            def send(packet: bytes, is_report: bool) -> None:
                junk = self.faults.junk if is_report else b""
                with lock:
                    connection.sendall(junk + b"$" + struct.pack(">BH", channel + is_report, len(packet)) + packet)

            channels[track] = send
            reply(
                "200 OK",
                f"Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1}",
                "Session: 77;timeout=60",
            )
        else:
            port = int(transport.split("client_port=")[1].split("-")[0])
            ours = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
            for one in ours:
                one.bind(("127.0.0.1", 0))
                self._open.append(one)

            def send_datagram(packet: bytes, is_report: bool) -> None:
                ours[is_report].sendto(packet, ("127.0.0.1", port + is_report))

            channels[track] = send_datagram
            own = "-".join(str(one.getsockname()[1]) for one in ours)
            reply(
                "200 OK", f"Transport: RTP/AVP;unicast;client_port={port}-{port + 1};server_port={own}", "Session: 77"
            )

    def _units(self) -> Iterator[tuple[float, float, int, list[bytes]]]:
        """(when to send, media time, track, payloads before packetisation), in the order of sending."""
        frame = sound = 0
        late = self.faults.sound_late_s
        while True:
            frame_at, sound_at = frame / RATE, sound * 1024 / self.media.sound_rate
            if frame_at <= sound_at + late or not self.has_sound:
                if self.faults.changes is not None and frame_at >= self.faults.changes[0]:
                    self.has_changed = True
                media = self._sent
                yield frame_at, frame_at, 1, media.frames[frame % len(media.frames)]
                frame += 1
            else:
                yield sound_at + late, sound_at, 2, [self.media.sound[sound % len(self.media.sound)]]
                sound += 1

    def _play(self, connection: socket.socket, channels: dict[int, Callable[[bytes, bool], None]]) -> None:
        begun, wall = time.monotonic(), time.time()
        sequence, count, octets = {1: 100, 2: 500}, {1: 0, 2: 0}, {1: 0, 2: 0}
        reported = {1: -10.0, 2: -10.0}
        rates, bases = {1: 90_000, 2: self.media.sound_rate}, STAMPS
        with contextlib.suppress(OSError):
            for due, at, track, units in self._units():
                if self.stopping.wait(max(0.0, begun + due - time.monotonic())):
                    return
                if due >= self.faults.closes_after_s:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                if due >= self.faults.silent_after_s or track not in channels:
                    continue
                if track == 2 and due < self.faults.sound_begins_s:
                    continue
                stamp = (bases[track] + round(self.faults.stamp_s(at) * rates[track])) & 0xFFFF_FFFF
                if self.faults.reports and due - reported[track] >= 1.0:
                    reported[track] = due
                    ntp = wall + at + NTP
                    channels[track](
                        struct.pack(
                            ">BBHIIIIII", 0x80, 200, 6, track, int(ntp), int(ntp % 1 * 2**32), stamp, count[track],
                            octets[track],
                        ),
                        True,
                    )  # fmt: skip
                payloads = [(_aac(units[0]), True)]
                if track == 1:
                    payloads = list((_hevc if self._sent.codec == "hevc" else _h264)(units))
                for payload, is_last in payloads:
                    kind = (0x80 if is_last else 0) | (96 if track == 1 else 97)
                    head = struct.pack(">BBHII", 0x80, kind, sequence[track] & 0xFFFF, stamp, track)
                    sequence[track] += 1
                    count[track] += 1
                    octets[track] += len(payload)
                    if track == 2 or not self.faults.loses(count[track]):
                        channels[track](head + payload, False)


def _aac(frame: bytes) -> bytes:
    return struct.pack(">HH", 16, len(frame) << 3) + frame


def _h264(units: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    for unit in units:
        is_last = unit is units[-1]
        if len(unit) <= 1300:
            yield unit, is_last
            continue
        body = unit[1:]
        for at in range(0, len(body), 1200):
            ends = at + 1200 >= len(body)
            marks = (0x80 if at == 0 else 0) | (0x40 if ends else 0) | unit[0] & 31
            yield bytes([unit[0] & 0xE0 | 28, marks]) + body[at : at + 1200], is_last and ends


def _hevc(units: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    for unit in units:
        is_last = unit is units[-1]
        if len(unit) <= 1300:
            yield unit, is_last
            continue
        head = bytes([unit[0] & 0x81 | 49 << 1, unit[1]])
        for at in range(2, len(unit), 1200):
            ends = at + 1200 >= len(unit)
            marks = (0x80 if at == 2 else 0) | (0x40 if ends else 0) | unit[0] >> 1 & 63
            yield head + bytes([marks]) + unit[at : at + 1200], is_last and ends


class RtspScript(Server):
    """Answers DESCRIBE with whatever it is given; for descriptions that no camera would send."""

    def __init__(self, description: bytes, server: str = "camera", repeat: int = 1) -> None:
        super().__init__()
        self._description = description
        self._repeat = repeat
        self._name = server
        self.url = f"rtsp://127.0.0.1:{self.port}/x"

    def serve(self, connection: socket.socket) -> None:
        waiting = b""
        while data := connection.recv(65536):
            waiting += data
            while b"\r\n\r\n" in waiting:
                request, waiting = waiting.split(b"\r\n\r\n", 1)
                number = next(
                    line.split(b":")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"cseq")
                )
                is_describe = request.startswith(b"DESCRIBE")
                size = len(self._description) * self._repeat if is_describe else 0
                connection.sendall(
                    b"RTSP/1.0 200 OK\r\nCSeq:" + number + f"\r\nServer: {self._name}\r\n".encode()
                    + b"Public: DESCRIBE, SETUP, PLAY\r\nContent-Type: application/sdp\r\n"
                    + f"Content-Length: {size}\r\n\r\n".encode()
                )  # fmt: skip
                for _ in range(self._repeat if is_describe else 0):
                    connection.sendall(self._description)


class HttpCamera(Server):
    """`http://127.0.0.1:<port>/stream`: JPEGs, so many a second, without end (or until `closes_after_s`)."""

    def __init__(self, rate: float = 5.0, closes_after_s: float = 1e9, grows_after_s: float = 1e9) -> None:
        super().__init__()
        self._rate, self._closes_after_s, self._grows_after_s = rate, closes_after_s, grows_after_s
        self.url = f"http://127.0.0.1:{self.port}/stream"
        self._jpeg, self._larger = self._made(160, 120), self._made(320, 240)

    @staticmethod
    def _made(width: int, height: int) -> bytes:
        codec: Any = av.CodecContext.create("mjpeg", "w")
        codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj420p", Fraction(1, 25)
        picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), 120, np.uint8), format="rgb24")
        return bytes(codec.encode(picture.reformat(format="yuvj420p"))[0])

    def serve(self, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        begun = time.monotonic()
        number = 0
        while not self.stopping.wait(max(0.0, begun + number / self._rate - time.monotonic())):
            if time.monotonic() - begun > self._closes_after_s:
                return
            jpeg = self._jpeg if time.monotonic() - begun < self._grows_after_s else self._larger
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            connection.sendall(head.encode() + jpeg + b"\r\n")
            number += 1


class FileServer(Server):
    """`http://127.0.0.1:<port>/file.mp4`: all of a file, whatever part is asked for, as Python's http.server."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content
        self.url = f"http://127.0.0.1:{self.port}/file.mp4"

    def serve(self, connection: socket.socket) -> None:
        connection.recv(65536)
        head = f"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {len(self._content)}\r\n\r\n"
        connection.sendall(head.encode() + self._content)


class UdpCamera:
    """MPEG-TS over UDP: H.264 with a key frame every few seconds, and AAC. Use as a context manager.

    It is there before anybody listens, as a multicast sender is: what it sends first lies behind a key frame.
    """

    PACKETS = 7 * 188  # to a datagram

    def __init__(self, seconds: int = 16, key_frames_s: int = 4, joined_s: float = 1.0) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"udp://127.0.0.1:{self.port}"
        self._pieces = self._made(seconds, key_frames_s)
        self._joined_s = joined_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, name="UDP camera", daemon=True)

    @staticmethod
    def _made(seconds: int, key_frames_s: int) -> list[bytes]:
        """What is sent for each frame."""
        memory = io.BytesIO()
        pieces: list[bytes] = []
        with av.open(memory, "w", format="mpegts", options={"flush_packets": "1", "muxdelay": "0"}) as out:
            video: Any = out.add_stream("libx264", rate=RATE)
            video.width, video.height, video.pix_fmt, video.gop_size = 160, 120, "yuv420p", key_frames_s * RATE
            video.options = {"preset": "ultrafast", "tune": "zerolatency", "sc_threshold": "0"}
            audio: Any = out.add_stream("aac", rate=48000, layout="mono")
            for number in range(seconds * RATE):
                picture = np.full((120, 160, 3), 40 + number % 25 * 8, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                out.mux(video.encode(frame))
                block = av.AudioFrame.from_ndarray(np.zeros((1, 48000 // RATE), np.float32), "fltp", "mono")
                block.sample_rate, block.pts = 48000, number * 48000 // RATE
                out.mux(audio.encode(block))
                pieces.append(memory.getvalue())
                memory.seek(0)
                memory.truncate()
        return pieces

    def __enter__(self) -> UdpCamera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(10.0)

    def _send(self) -> None:
        begun = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for number, piece in enumerate(self._pieces[round(self._joined_s * RATE) :]):
                if self._stopping.wait(max(0.0, begun + number / RATE - time.monotonic())):
                    return
                for at in range(0, len(piece), self.PACKETS):
                    with contextlib.suppress(ConnectionRefusedError):  # nobody listens yet
                        out.sendto(piece[at : at + self.PACKETS], ("127.0.0.1", self.port))
