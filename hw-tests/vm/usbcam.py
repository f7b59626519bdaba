#!/usr/bin/python3
"""A USB camera made of nothing, for a kernel that has vhci_hcd and uvcvideo.

A USB Video Class 1.0 device with one bulk endpoint and pictures in one format, served over USB/IP on a socket pair; its
other end is handed to vhci_hcd. One process is one camera: end it to pull the plug, start it to put the camera back.
SIGUSR1 stops the pictures while the device stays, and lets them go on.

Along the top edge of every picture are 32 cells (most significant bit first, black 0, white 1): the number of the
picture since the camera was started, counted as they fall due, so that one that was lost is a hole.

    usbcam.py [--name NAME] [--port N] [--rates 10,15,30] [--format i420|yuy2|mjpeg]

Needs root. The first rate is the default.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import signal
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SIZES = ((160, 120), (320, 240), (640, 480), (1280, 720))
PAYLOAD_BYTES = 16384
BYTES_PER_2_PIXELS = {"i420": 3, "yuy2": 4}
UNITS_PER_S = 10_000_000  # UVC counts frame intervals in 100 ns
ATTACH = Path("/sys/devices/platform/vhci_hcd.0/attach")
HIGH_SPEED = 3
BULK_IN = 0x81

# --- USB/IP: https://docs.kernel.org/usb/usbip_protocol.html --------------------------------------------------------
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
HEADER = struct.Struct(">5I28s")
REPLY = struct.Struct(">5IiI12s8x")

# --- USB and UVC request codes --------------------------------------------------------------------------------------
GET_STATUS, CLEAR_FEATURE, GET_DESCRIPTOR, GET_CONFIGURATION, GET_INTERFACE = 0, 1, 6, 8, 10
SET_CUR, GET_CUR, GET_MIN, GET_MAX, GET_LEN, GET_INFO = 0x01, 0x81, 0x82, 0x83, 0x85, 0x86
VS_PROBE, VS_COMMIT = 1, 2


def le16(value: int) -> bytes:
    return struct.pack("<H", value)


def le32(value: int) -> bytes:
    return struct.pack("<I", value)


def largest_picture(coding: str, width: int, height: int) -> int:
    """In bytes."""
    return width * height * BYTES_PER_2_PIXELS.get(coding, 4) // 2


def descriptor(*parts: bytes) -> bytes:
    """A descriptor with its length in front."""
    body = b"".join(parts)
    return bytes([len(body) + 1]) + body


class Descriptors:
    """What the device says about itself; https://www.usb.org/document-library/video-class-v15-document-set"""

    def __init__(self, name: str, serial: str, rates: tuple[int, ...], coding: str) -> None:
        self._coding = coding
        self.strings = {1: "msrecd hardware tests", 2: name, 3: serial}
        self.device = descriptor(
            b"\x01", le16(0x200), bytes([0xEF, 2, 1, 64]), le16(0x1D6B), le16(0x0102), le16(0x0100), bytes([1, 2, 3, 1])
        )
        self.qualifier = descriptor(b"\x06", le16(0x200), bytes([0xEF, 2, 1, 64, 1, 0]))
        self.configuration = self._configuration(rates)

    def string(self, index: int) -> bytes | None:
        if index == 0:
            return bytes([4, 3, 9, 4])  # US English
        text = self.strings.get(index)
        return None if text is None else descriptor(b"\x03", text.encode("utf-16le"))

    def _configuration(self, rates: tuple[int, ...]) -> bytes:
        camera_terminal = descriptor(bytes([0x24, 2, 1]), le16(0x0201), bytes(8), bytes([2, 0, 0]))
        output_terminal = descriptor(bytes([0x24, 3, 2]), le16(0x0101), bytes([0, 1, 0]))
        units = camera_terminal + output_terminal
        control = descriptor(bytes([0x24, 1]), le16(0x0100), le16(13 + len(units)), le32(48_000_000), bytes([1, 1]))
        if self._coding == "mjpeg":
            formats = descriptor(bytes([0x24, 6, 1, len(SIZES), 0, 1, 0, 0, 0, 0]))
        else:
            guid = self._coding.upper().encode() + bytes.fromhex("00001000800000aa00389b71")
            bits = BYTES_PER_2_PIXELS[self._coding] * 4
            formats = descriptor(bytes([0x24, 4, 1, len(SIZES)]), guid, bytes([bits, 1, 0, 0, 0, 0]))
        formats += b"".join(self._frame(index, *size, rates) for index, size in enumerate(SIZES, 1))
        formats += descriptor(bytes([0x24, 0x0D, 1, 1, 4]))
        streaming = descriptor(bytes([0x24, 1, 1]), le16(14 + len(formats)), bytes([BULK_IN, 0, 2, 0, 0, 0, 1, 0]))
        body = b"".join(
            (
                descriptor(bytes([11, 0, 2, 14, 3, 0, 0])),  # interfaces 0 and 1 are one video function
                descriptor(bytes([4, 0, 0, 0, 14, 1, 0, 2])),
                control,
                units,
                descriptor(bytes([4, 1, 0, 1, 14, 2, 0, 0])),
                streaming,
                formats,
                descriptor(bytes([5, BULK_IN, 2]), le16(512), b"\0"),
            )
        )
        return descriptor(b"\x02", le16(9 + len(body)), bytes([2, 1, 0, 0x80, 250])) + body

    def _frame(self, index: int, width: int, height: int, rates: tuple[int, ...]) -> bytes:
        intervals = [UNITS_PER_S // rate for rate in sorted(rates, reverse=True)]
        largest = largest_picture(self._coding, width, height)
        bits = largest * 8
        return descriptor(
            bytes([0x24, 7 if self._coding == "mjpeg" else 5, index, 0]),
            le16(width),
            le16(height),
            le32(bits * min(rates)),
            le32(bits * max(rates)),
            le32(largest),
            le32(UNITS_PER_S // rates[0]),
            bytes([len(intervals)]),
            *map(le32, intervals),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """What probe and commit agree on: the number of the size (from 1), the interval in 100 ns."""

    size: int
    interval: int
    coding: str

    def pack(self) -> bytes:
        largest = largest_picture(self.coding, *SIZES[self.size - 1])
        return struct.pack("<HBBIHHHHHII", 1, 1, self.size, self.interval, 0, 0, 0, 0, 0, largest, PAYLOAD_BYTES)


class Picture:
    """Paints I420 pictures of one size."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        row = bytes(16 + x * 219 // width for x in range(width))
        self._base = row * height + b"\x60" * (width * height // 4) + b"\xa0" * (width * height // 4)
        self._cell = (width // 32, height // 16)

    def paint(self, number: int) -> bytearray:
        """A bright bar that moves down, and the number of the picture in the cells along the top."""
        picture = bytearray(self._base)
        width, (cell, cell_height) = self._width, self._cell
        span = self._height - cell_height - 32
        top = (cell_height + 16 + number * 4 % span) * width
        picture[top : top + 16 * width] = b"\xeb" * (16 * width)
        cells = b"".join((b"\xeb" if number >> (31 - bit) & 1 else b"\x10") * cell for bit in range(32))
        row = cells.ljust(width, b"\x10")
        picture[: cell_height * width] = row * cell_height
        return picture


def coded(picture: bytes | bytearray, coding: str, width: int, height: int) -> bytes | bytearray:
    """An I420 picture in the camera's format."""
    if coding == "i420":
        return picture
    luma, half = width * height, width // 2
    planes = [picture[luma : luma + luma // 4], picture[luma + luma // 4 :]]
    if coding == "yuy2":
        lines = bytearray(2 * luma)
        lines[0::2] = picture[:luma]
        for first, plane in zip((1, 3), planes, strict=True):
            lines[first::4] = b"".join(plane[row // 2 * half : (row // 2 + 1) * half] for row in range(height))
        return lines
    from PIL import Image  # only where there are JPEGs to make

    colours = [Image.frombytes("L", (half, height // 2), bytes(plane)).resize((width, height)) for plane in planes]
    image = Image.merge("YCbCr", [Image.frombytes("L", (width, height), bytes(picture[:luma])), *colours])
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


class Camera:
    """The device side of one USB/IP connection."""

    def __init__(
        self, connection: socket.socket, descriptors: Descriptors, rates: tuple[int, ...], coding: str
    ) -> None:
        self._coding = coding
        self._socket = connection
        self._send_lock = threading.Lock()
        self._descriptors = descriptors
        self._rates = rates
        self._probe = Mode(size=1, interval=UNITS_PER_S // rates[0], coding=coding)
        self._changed = threading.Condition()  # guards the three below
        self._waiting: list[tuple[int, int]] = []  # (sequence number, length) of reads of the bulk endpoint
        self._running: Mode | None = None
        self._generation = 0
        self.is_stalled = False

    def serve(self) -> None:
        """Answer the kernel until it hangs up."""
        threading.Thread(target=self._stream, name="pictures", daemon=True).start()
        while True:
            header = self._receive(HEADER.size)
            if header is None:
                return
            command, sequence, _device, direction, endpoint, rest = HEADER.unpack(header)
            if command == CMD_UNLINK:
                self._unlink(sequence, struct.unpack(">I", rest[:4])[0])
                continue
            length = struct.unpack(">I", rest[4:8])[0]
            data = self._receive(length) if direction == 0 and length else b""
            if data is None:
                return
            if endpoint:
                with self._changed:
                    self._waiting.append((sequence, length))
                    self._changed.notify_all()
                continue
            answer = self._control(rest[20:28], data)
            if answer is None:
                self._reply(sequence, status=-errno.EPIPE)
            elif direction:
                self._reply(sequence, answer[:length])
            else:
                self._reply(sequence, length=length)

    def _receive(self, count: int) -> bytes | None:
        data = bytearray()
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                return None
            data += part
        return bytes(data)

    def _reply(
        self, sequence: int, data: bytes = b"", *, status: int = 0, length: int | None = None, command: int = RET_SUBMIT
    ) -> None:
        size = len(data) if length is None else length
        with self._send_lock:
            self._socket.sendall(REPLY.pack(command, sequence, 0, 0, 0, status, size, bytes(12)) + data)

    def _unlink(self, sequence: int, victim: int) -> None:
        with self._changed:
            before = len(self._waiting)
            self._waiting = [entry for entry in self._waiting if entry[0] != victim]
            found = len(self._waiting) != before
        self._reply(sequence, status=-errno.ECONNRESET if found else 0, command=RET_UNLINK)

    def _control(self, setup: bytes, data: bytes) -> bytes | None:
        """The answer to a request on endpoint 0; None stalls it."""
        kind, request, value, index, _length = struct.unpack("<BBHHH", setup)
        if kind == 0x80 and request == GET_DESCRIPTOR:
            return self._descriptor(value >> 8, value & 0xFF)
        if kind & 0x60 == 0:
            if request == CLEAR_FEATURE and kind == 2:  # the halt of the bulk endpoint: uvcvideo stops a stream so
                self._run(None)
            return {GET_STATUS: b"\0\0", GET_CONFIGURATION: b"\1", GET_INTERFACE: b"\0"}.get(request, b"")
        selector = value >> 8
        if kind & 0x60 == 0x20 and index & 0xFF == 1 and selector in (VS_PROBE, VS_COMMIT):
            return self._negotiate(selector, request, data)
        return None

    def _descriptor(self, kind: int, index: int) -> bytes | None:
        match kind:
            case 1:
                return self._descriptors.device
            case 2:
                return self._descriptors.configuration
            case 3:
                return self._descriptors.string(index)
            case 6:
                return self._descriptors.qualifier
        return None

    def _negotiate(self, selector: int, request: int, data: bytes) -> bytes:
        if request == SET_CUR:
            size = min(max(data[3], 1), len(SIZES))
            wanted = struct.unpack("<I", data[4:8])[0]
            interval = min((UNITS_PER_S // rate for rate in self._rates), key=lambda one: abs(one - wanted))
            self._probe = Mode(size=size, interval=interval, coding=self._coding)
            if selector == VS_COMMIT:
                self._run(self._probe)
            return b""
        size = self._probe.size
        answers = {
            GET_LEN: le16(26),
            GET_INFO: b"\3",
            GET_MIN: Mode(size=size, interval=UNITS_PER_S // max(self._rates), coding=self._coding).pack(),
            GET_MAX: Mode(size=size, interval=UNITS_PER_S // min(self._rates), coding=self._coding).pack(),
        }
        return answers.get(request, self._probe.pack())

    def _run(self, mode: Mode | None) -> None:
        with self._changed:
            self._running = mode
            self._generation += 1
            self._changed.notify_all()

    def _next_read(self, generation: int) -> tuple[int, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._generation != generation)
            return self._waiting.pop(0) if self._generation == generation else None

    def _stream(self) -> None:
        toggle = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running is not None)
                mode, generation = self._running, self._generation
            assert mode is not None
            size = SIZES[mode.size - 1]
            picture = Picture(*size)
            interval = mode.interval / UNITS_PER_S
            begin = time.monotonic()
            number = 0
            while self._generation == generation:
                due = begin + (number + 1) * interval
                late = time.monotonic() - due
                if late < 0:
                    time.sleep(-late)
                elif late > 1:  # the machine stood still: go on from now, with a hole in the numbers
                    number += int(late / interval)
                if not self.is_stalled:
                    data = coded(picture.paint(number), self._coding, *size)
                    toggle ^= self._send_picture(data, toggle, generation)
                number += 1

    def _send_picture(self, picture: bytes | bytearray, toggle: int, generation: int) -> bool:
        position = 0
        while position < len(picture):
            read = self._next_read(generation)
            if read is None:
                return False
            sequence, length = read
            part = picture[position : position + length - 2]
            position += len(part)
            last = 2 if position >= len(picture) else 0
            self._reply(sequence, bytes([2, 0x80 | toggle | last]) + part)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description="a USB camera made of nothing")
    parser.add_argument("--name", default="Virtual USB Camera")
    parser.add_argument("--port", type=int, default=0, help="port of the virtual USB controller")
    parser.add_argument("--rates", default="10,15,30", help="frames a second; the first is the default")
    parser.add_argument("--format", default="i420", choices=["i420", "yuy2", "mjpeg"], help="of the pictures")
    args = parser.parse_args()
    rates = tuple(int(rate) for rate in args.rates.split(","))
    ours, theirs = socket.socketpair()
    with theirs:
        ATTACH.write_text(f"{args.port} {theirs.fileno()} {0x10000 + args.port + 1} {HIGH_SPEED}")
    camera = Camera(ours, Descriptors(args.name, f"{args.port + 1:04}", rates, args.format), rates, args.format)

    def toggle_stall(_number: int, _frame: object) -> None:
        camera.is_stalled = not camera.is_stalled

    signal.signal(signal.SIGUSR1, toggle_stall)
    with ours, contextlib.suppress(OSError):
        camera.serve()
    os._exit(0)  # the thread of the pictures may wait for ever


if __name__ == "__main__":
    main()
