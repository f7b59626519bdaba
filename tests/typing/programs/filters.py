"""A graph between microphone and recorder."""

import msrecd


def filtered(stream: msrecd.MediaStream) -> msrecd.MediaStream:
    context = msrecd.AudioContext({"sample_rate": 48_000})
    source = context.create_media_stream_source(stream)
    low_cut = msrecd.BiquadFilterNode(context, {"type": "highpass", "frequency": 200})
    gain = context.create_gain()
    gain.gain.value = 2.0
    gain.gain.linear_ramp_to_value_at_time(1.0, context.current_time + 1)
    end = context.create_media_stream_destination()
    source.connect(low_cut).connect(gain).connect(end)
    return end.stream


async def rendered() -> int:
    offline = msrecd.OfflineAudioContext(2, 48_000, 48_000)
    oscillator = offline.create_oscillator()
    oscillator.connect(offline.destination)
    oscillator.start()
    buffer = await offline.start_rendering()
    return buffer.length
