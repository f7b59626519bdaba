"""msrecd: W3C MediaStreams and MediaRecorders on asyncio, and the recorder daemon made of them.

The names of the object model are imported when they are first used: `msrecd check-config` needs none of them, and
libav alone costs a small board a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "msrecd.dom.blob": ("Blob",),
    "msrecd.dom.events": ("AbortController", "AbortSignal", "ErrorEvent", "Event", "EventTarget"),
    "msrecd.dom.exceptions": (
        "AbortError",
        "DOMException",
        "IndexSizeError",
        "InvalidAccessError",
        "InvalidModificationError",
        "InvalidStateError",
        "NotAllowedError",
        "NotFoundError",
        "NotReadableError",
        "NotSupportedError",
        "OperationError",
        "OverconstrainedError",
        "UnknownError",
    ),
    "msrecd.media.canvas": ("Canvas", "CanvasCaptureMediaStreamTrack"),
    "msrecd.media.devices": ("MediaDevices",),
    "msrecd.media.element": ("MediaElement",),
    "msrecd.media.events": ("BlobEvent", "DeviceChangeEvent", "GapEvent", "MediaStreamTrackEvent"),
    "msrecd.media.generators": ("AudioData", "MediaStreamTrackGenerator", "VideoFrame", "VideoTrackGenerator"),
    "msrecd.media.imagecapture": ("ImageCapture",),
    "msrecd.media.infos": ("InputDeviceInfo", "MediaDeviceInfo"),
    "msrecd.media.inits": (
        "AudioContextOptions",
        "ConstrainBooleanOrDOMStringParameters",
        "ConstrainBooleanParameters",
        "ConstrainDOMStringParameters",
        "ConstrainDoubleRange",
        "ConstrainULongRange",
        "MediaElementOptions",
        "MediaRecorderOptions",
        "MediaStreamConstraints",
        "MediaTrackConstraintSet",
        "MediaTrackConstraints",
        "PhotoSettings",
        "RTCConfiguration",
        "RTCDataChannelInit",
        "RTCIceServer",
        "RTCRtpTransceiverInit",
    ),
    "msrecd.media.reader": ("FrameData", "MediaStreamTrackReader", "SoundData"),
    "msrecd.media.recorder": ("MediaRecorder",),
    "msrecd.media.stream": ("MediaStream",),
    "msrecd.media.track": ("MediaStreamTrack",),
    "msrecd.media.view": ("StreamView",),
    "msrecd.rtc.channel": ("MessageEvent", "RTCDataChannel", "RTCDataChannelEvent"),
    "msrecd.rtc.peerconnection": ("RTCPeerConnection",),
    "msrecd.rtc.descriptions": (
        "RTCIceCandidate",
        "RTCPeerConnectionIceEvent",
        "RTCSessionDescription",
        "RTCTrackEvent",
    ),
    "msrecd.rtc.transceiver": ("RTCRtpReceiver", "RTCRtpSender", "RTCRtpTransceiver"),
    "msrecd.webaudio.context": (
        "AudioDestinationNode",
        "BaseAudioContext",
        "OfflineAudioCompletionEvent",
        "OfflineAudioContext",
    ),
    "msrecd.webaudio.generators": (
        "AudioBuffer",
        "AudioBufferSourceNode",
        "ConstantSourceNode",
        "OscillatorNode",
        "PeriodicWave",
    ),
    "msrecd.webaudio.node": ("AudioNode",),
    "msrecd.webaudio.nodes": (
        "AnalyserNode",
        "AudioWorkletNode",
        "BiquadFilterNode",
        "ChannelMergerNode",
        "ChannelSplitterNode",
        "DelayNode",
        "DynamicsCompressorNode",
        "GainNode",
        "StereoPannerNode",
    ),
    "msrecd.webaudio.param": ("AudioParam",),
    "msrecd.webaudio.realtime": (
        "AudioContext",
        "MediaElementAudioSourceNode",
        "MediaStreamAudioDestinationNode",
        "MediaStreamAudioSourceNode",
    ),
    "msrecd.muxing.facts": ("ChunkInfo",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from msrecd.dom.blob import Blob
    from msrecd.dom.events import AbortController, AbortSignal, ErrorEvent, Event, EventTarget
    from msrecd.dom.exceptions import (
        AbortError,
        DOMException,
        IndexSizeError,
        InvalidAccessError,
        InvalidModificationError,
        InvalidStateError,
        NotAllowedError,
        NotFoundError,
        NotReadableError,
        NotSupportedError,
        OperationError,
        OverconstrainedError,
        UnknownError,
    )
    from msrecd.media.canvas import Canvas, CanvasCaptureMediaStreamTrack
    from msrecd.media.devices import MediaDevices
    from msrecd.media.element import MediaElement
    from msrecd.media.events import BlobEvent, DeviceChangeEvent, GapEvent, MediaStreamTrackEvent
    from msrecd.media.generators import AudioData, MediaStreamTrackGenerator, VideoFrame, VideoTrackGenerator
    from msrecd.media.imagecapture import ImageCapture
    from msrecd.media.infos import InputDeviceInfo, MediaDeviceInfo
    from msrecd.media.inits import (
        AudioContextOptions,
        ConstrainBooleanOrDOMStringParameters,
        ConstrainBooleanParameters,
        ConstrainDOMStringParameters,
        ConstrainDoubleRange,
        ConstrainULongRange,
        MediaElementOptions,
        MediaRecorderOptions,
        MediaStreamConstraints,
        MediaTrackConstraints,
        MediaTrackConstraintSet,
        PhotoSettings,
        RTCConfiguration,
        RTCDataChannelInit,
        RTCIceServer,
        RTCRtpTransceiverInit,
    )
    from msrecd.media.reader import FrameData, MediaStreamTrackReader, SoundData
    from msrecd.media.recorder import MediaRecorder
    from msrecd.media.stream import MediaStream
    from msrecd.media.track import MediaStreamTrack
    from msrecd.media.view import StreamView
    from msrecd.muxing.facts import ChunkInfo
    from msrecd.rtc.channel import MessageEvent, RTCDataChannel, RTCDataChannelEvent
    from msrecd.rtc.descriptions import (
        RTCIceCandidate,
        RTCPeerConnectionIceEvent,
        RTCSessionDescription,
        RTCTrackEvent,
    )
    from msrecd.rtc.peerconnection import RTCPeerConnection
    from msrecd.rtc.transceiver import RTCRtpReceiver, RTCRtpSender, RTCRtpTransceiver
    from msrecd.webaudio.context import (
        AudioDestinationNode,
        BaseAudioContext,
        OfflineAudioCompletionEvent,
        OfflineAudioContext,
    )
    from msrecd.webaudio.generators import (
        AudioBuffer,
        AudioBufferSourceNode,
        ConstantSourceNode,
        OscillatorNode,
        PeriodicWave,
    )
    from msrecd.webaudio.node import AudioNode
    from msrecd.webaudio.nodes import (
        AnalyserNode,
        AudioWorkletNode,
        BiquadFilterNode,
        ChannelMergerNode,
        ChannelSplitterNode,
        DelayNode,
        DynamicsCompressorNode,
        GainNode,
        StereoPannerNode,
    )
    from msrecd.webaudio.param import AudioParam
    from msrecd.webaudio.realtime import (
        AudioContext,
        MediaElementAudioSourceNode,
        MediaStreamAudioDestinationNode,
        MediaStreamAudioSourceNode,
    )

__all__ = [
    "AbortController",
    "AbortError",
    "AbortSignal",
    "AnalyserNode",
    "AudioBuffer",
    "AudioBufferSourceNode",
    "AudioContext",
    "AudioContextOptions",
    "AudioData",
    "AudioDestinationNode",
    "AudioNode",
    "AudioParam",
    "AudioWorkletNode",
    "BaseAudioContext",
    "BiquadFilterNode",
    "Blob",
    "BlobEvent",
    "Canvas",
    "CanvasCaptureMediaStreamTrack",
    "ChannelMergerNode",
    "ChannelSplitterNode",
    "ChunkInfo",
    "ConstantSourceNode",
    "ConstrainBooleanOrDOMStringParameters",
    "ConstrainBooleanParameters",
    "ConstrainDOMStringParameters",
    "ConstrainDoubleRange",
    "ConstrainULongRange",
    "DOMException",
    "DelayNode",
    "DeviceChangeEvent",
    "DynamicsCompressorNode",
    "ErrorEvent",
    "Event",
    "EventTarget",
    "FrameData",
    "GainNode",
    "GapEvent",
    "ImageCapture",
    "IndexSizeError",
    "InputDeviceInfo",
    "InvalidAccessError",
    "InvalidModificationError",
    "InvalidStateError",
    "MediaDeviceInfo",
    "MediaDevices",
    "MediaElement",
    "MediaElementAudioSourceNode",
    "MediaElementOptions",
    "MediaRecorder",
    "MediaRecorderOptions",
    "MediaStream",
    "MediaStreamAudioDestinationNode",
    "MediaStreamAudioSourceNode",
    "MediaStreamConstraints",
    "MediaStreamTrack",
    "MediaStreamTrackEvent",
    "MediaStreamTrackGenerator",
    "MediaStreamTrackReader",
    "MediaTrackConstraintSet",
    "MediaTrackConstraints",
    "MessageEvent",
    "NotAllowedError",
    "NotFoundError",
    "NotReadableError",
    "NotSupportedError",
    "OfflineAudioCompletionEvent",
    "OfflineAudioContext",
    "OperationError",
    "OscillatorNode",
    "OverconstrainedError",
    "PeriodicWave",
    "PhotoSettings",
    "RTCConfiguration",
    "RTCDataChannel",
    "RTCDataChannelEvent",
    "RTCDataChannelInit",
    "RTCIceCandidate",
    "RTCIceServer",
    "RTCPeerConnection",
    "RTCPeerConnectionIceEvent",
    "RTCRtpReceiver",
    "RTCRtpSender",
    "RTCRtpTransceiver",
    "RTCRtpTransceiverInit",
    "RTCSessionDescription",
    "RTCTrackEvent",
    "SoundData",
    "StereoPannerNode",
    "StreamView",
    "UnknownError",
    "VideoFrame",
    "VideoTrackGenerator",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "devices":  # `msrecd.devices.virtual` is part of the product, and found without an import of its own
        return importlib.import_module("msrecd.devices.virtual") and importlib.import_module("msrecd.devices")
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'msrecd' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
