"""The only importers of aiortc and aioice: one peer connection, in the thread of WebRTC.

aiortc decodes whatever it receives and encodes whatever it sends. Frames pass through by these of its private seams,
the same from 1.11 to 1.16 (`tests/rtc/test_aiortc_seams.py` holds them):

- `RTCRtpSender._next_encoded_frame(codec)` gives the next frame to a loop that sends it; ours comes from an `Outgoing`,
  and is sent without that loop, by `transport._send_rtp`. So `_retransmit(number)` is ours as well.
- `RTCRtpSender._send_keyframe()` is called when the peer asks for a key frame; aiortc's own asks its encoder.
- `RTCRtpSender._send_rtcp(packets)` sends reports: theirs say when a packet was sent, and are zeros at first; ours say
  when it was captured.
- `RTCRtpReceiver.__jitter_buffer.add(packet)` is given each packet behind decryption and retransmission; ours gives
  aiortc no frame back, so that nothing is decoded.
- `RTCIceTransport._send`, `._recv` and `._connection` are its aioice connection; ours change to another one when ICE is
  restarted (`icerestart.py`), with its gatherer and the task that watches it.
"""
