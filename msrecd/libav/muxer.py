"""Containers being written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import av
import av.error
from av.container.input import InputContainer
from av.container.output import OutputContainer

from msrecd.flow.units import Presentation
from msrecd.libav.colors import describe
from msrecd.libav.common import NS, Writer, close_quietly, open_template
from msrecd.libav.values import LibavError

_MAX_DURATION = (1 << 31) - 1  # PyAV before 15 refuses longer ones, whatever the time base
_FLUSH_PACKETS = 0x200
_WRITE_BUFFER = 1 << 16


class Muxer:
    """One container being written through `write`, packet by packet. Belongs to one thread; always close it.

    `write(bytes)` gets the file in order, never seeks, and must not raise (an exception would pass through C code);
    a sink that fails latches its error and is asked by the owner.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        format: str,
        headers: Sequence[bytes],
        presentations: Sequence[Presentation] = (),
        options: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            headers: of the streams (StreamParameters.header).
            presentations: of the streams, in the same order; sound has UPRIGHT. The rotation is not written here.
        """
        templates: list[InputContainer] = []
        try:
            self._container: OutputContainer = av.open(
                Writer(write), "w", format=format, options=dict(options or {}), buffer_size=_WRITE_BUFFER
            )
            try:
                self._container.flags |= _FLUSH_PACKETS
                self._streams: list[Any] = []
                for index, header in enumerate(headers):
                    template = open_template(header)
                    templates.append(template)
                    stream: Any = self._container.add_stream_from_template(template.streams[0], opaque=True)
                    if format == "mp4":
                        _adapt_to_mp4(stream.codec_context)
                    if index < len(presentations) and template.streams[0].type == "video":
                        describe(stream.codec_context, presentations[index])
                    self._streams.append(stream)
                self._container.start_encoding()
                bases = [stream.time_base for stream in self._streams]
                self._scales = [(base.denominator, base.numerator * NS) for base in bases]
            except BaseException:
                close_quietly(self._container)
                raise
        except (av.error.FFmpegError, ValueError, TypeError) as exc:
            raise LibavError(f"cannot write {format}: {exc}") from exc
        finally:
            for template in templates:
                close_quietly(template)

    def write(
        self, stream: int, data: bytes | memoryview, *, pts_ns: int, dts_ns: int, duration_ns: int, is_keyframe: bool
    ) -> None:
        """Mux one packet; times are ns from the container's zero, dts rising per stream.

        Raises:
            LibavError: the muxer refused it; the container can only be closed now.
        """
        packet = av.Packet(data)  # type: ignore[arg-type]
        packet.stream = self._streams[stream]
        scale_n, scale_d = self._scales[stream]  # in its own base: libav's fractions cost four calls a packet
        half = scale_d // 2
        packet.pts = (pts_ns * scale_n + half) // scale_d
        packet.dts = (dts_ns * scale_n + half) // scale_d
        packet.duration = min((duration_ns * scale_n + half) // scale_d, _MAX_DURATION)
        if is_keyframe:
            packet.is_keyframe = True
        try:
            self._container.mux_one(packet)
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"muxing failed: {exc}") from exc

    def close(self) -> None:
        """Write what is pending and the trailer.

        Raises:
            LibavError: the trailer could not be written; the container is closed all the same.
        """
        try:
            self._container.close()
        except (av.error.FFmpegError, ValueError, OSError) as exc:
            raise LibavError(f"closing the container failed: {exc}") from exc


def _adapt_to_mp4(context: Any) -> None:
    if context.name.endswith("vp9"):
        context.pix_fmt = "yuv420p"  # without it vpcC stays empty, and no browser takes it
    if context.name.startswith("hevc"):
        context.codec_tag = "hvc1"  # what the type says; libav's hev1 is nothing for Apple's players
