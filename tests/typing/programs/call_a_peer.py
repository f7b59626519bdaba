"""A peer: tracks both ways, a channel, statistics."""

import msrecd


async def call(stream: msrecd.MediaStream) -> msrecd.RTCPeerConnection:
    configuration: msrecd.RTCConfiguration = {"ice_servers": [{"urls": "stun:192.0.2.1"}]}
    connection = msrecd.RTCPeerConnection(configuration)

    def came(event: msrecd.RTCTrackEvent) -> None:
        recorder = msrecd.MediaRecorder(msrecd.MediaStream([event.track]))
        recorder.start()

    connection.ontrack = came
    for track in stream.get_tracks():
        sender: msrecd.RTCRtpSender = connection.add_track(track, stream)
        await sender.replace_track(None)
    connection.add_transceiver("audio", {"direction": "recvonly"})
    channel = connection.create_data_channel("talk", {"ordered": False})
    channel.onopen = lambda _: channel.send("hello")
    offer = await connection.create_offer()
    await connection.set_local_description(offer)
    await connection.set_remote_description({"type": "answer", "sdp": "…"})
    await connection.add_ice_candidate(msrecd.RTCIceCandidate({"candidate": "", "sdp_mid": "0"}))
    for one in (await connection.get_stats()).values():
        print(one["type"])
    return connection
