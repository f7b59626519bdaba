"""The audio filters of a recorder: a small graph of Web Audio between its microphone and its MediaRecorder.

The filters are those of one recorder: another one on the same microphone hears it as it is, or through filters of its
own. They work at the microphone's own sample rate.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from msrecd import AudioContext, AudioNode, BiquadFilterNode, ChannelSplitterNode, DOMException, GainNode, MediaStream
from msrecd.recorder.settings import AudioFilter

# The Q of low- and high-pass filters is in dB in Web Audio: this one is 3 dB down at `frequency`, without a hump.
_FLAT_Q = 20 * math.log10(math.sqrt(0.5))
_DEFAULT_RATE = 48_000


class FilteredSound:
    """A stream whose sound goes through filters. Lives on the loop; `close` it."""

    def __init__(self, stream: MediaStream, filters: Sequence[AudioFilter]) -> None:
        """
        Args:
            stream: with a sound track; its video is taken over as it is.

        Raises:
            DOMException: it cannot be filtered; nothing runs then.
        """
        (sound, *_) = stream.get_audio_tracks()
        settings = sound.get_settings()
        channels = int(settings.get("channel_count") or 2)
        self._context = AudioContext({"sample_rate": settings.get("sample_rate") or _DEFAULT_RATE})
        self._closing: asyncio.Task[None] | None = None
        try:
            node: AudioNode = self._context.create_media_stream_source(stream)
            for one in filters:
                node, channels = _appended(node, one, channels)
            end = self._context.create_media_stream_destination()
            end.channel_count = channels
            node.connect(end)
        except BaseException:
            self.close()
            raise
        self.stream = MediaStream([*stream.get_video_tracks(), *end.stream.get_audio_tracks()])

    def close(self) -> None:
        """End the graph, and with it the track."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        try:
            await self._context.close()
        except DOMException:
            return  # it has failed, and is closed


def _appended(node: AudioNode, one: AudioFilter, channels: int) -> tuple[AudioNode, int]:
    """The graph with one filter more, and how many channels it has then."""
    context = node.context
    match one.type:
        case "highpass" | "lowpass":
            options = {"type": one.type, "frequency": one.frequency, "Q": _FLAT_Q}
            return node.connect(BiquadFilterNode(context, options)), channels
        case "notch":
            return node.connect(BiquadFilterNode(context, {"type": "notch", "frequency": one.frequency, "Q": one.q})), (
                channels
            )
        case "gain":
            return node.connect(GainNode(context, {"gain": 10 ** (one.gain_db / 20)})), channels
        case "mono":
            if channels <= 2:
                return node.connect(GainNode(context, {"channel_count": 1, "channel_count_mode": "explicit"})), 1
            # Of six channels the mix of loudspeakers is no mean; the sum of so many parts is.
            splitter = node.connect(ChannelSplitterNode(context, {"number_of_outputs": channels}))
            mixed = GainNode(context, {"gain": 1 / channels, "channel_count": 1, "channel_count_mode": "explicit"})
            for output in range(channels):
                splitter.connect(mixed, output)
            return mixed, 1
