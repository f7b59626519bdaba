"""A viewer in a browser's page: it reads the frame numbers from the pixels that are shown, and hears the sound."""

from __future__ import annotations

_SHOW = """
const pc = new RTCPeerConnection();
const seen = window[name] = {pc, numbers: [], size: null, level: 0, states: []};
const video = document.createElement("video");
video.muted = true;
document.body.append(video);
const stream = new MediaStream();
pc.ontrack = event => {
    stream.addTrack(event.track);
    video.srcObject = stream;
    video.play().catch(() => {});
    if (event.track.kind === "audio") {
        const context = new AudioContext();
        const analyser = context.createAnalyser();
        context.createMediaStreamSource(new MediaStream([event.track])).connect(analyser);
        const samples = new Float32Array(analyser.fftSize);
        setInterval(() => {
            analyser.getFloatTimeDomainData(samples);
            seen.level = Math.max(seen.level, ...samples.map(Math.abs));
        }, 20);
    }
};
pc.onconnectionstatechange = () => seen.states.push(pc.connectionState);
const canvas = new OffscreenCanvas(16, 16);
const brush = canvas.getContext("2d", {willReadFrequently: true});
const look = () => {
    const width = video.videoWidth, height = video.videoHeight;
    seen.size = [width, height];
    canvas.width = width; canvas.height = height;
    brush.drawImage(video, 0, 0);
    const cell = Math.floor(width / 32), row = Math.floor(height / 32);
    const line = brush.getImageData(0, row, width, 1).data;
    let number = 0;
    for (let index = 0; index < 32; index++)
        number = number * 2 + (line[4 * (index * cell + Math.floor(cell / 2))] > 125 ? 1 : 0);
    seen.numbers.push(number);
    video.requestVideoFrameCallback(look);
};
video.requestVideoFrameCallback(look);
"""
GATHERED = """
await new Promise(resolve => {
    if (pc.iceGatheringState === "complete") resolve();
    else pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve();
});
"""

# Answers an offer; [offer, name of the viewer].
RECEIVE = f"""
const [offer, name] = args;
{_SHOW}
await pc.setRemoteDescription(offer);
await pc.setLocalDescription(await pc.createAnswer());
{GATHERED}
return pc.localDescription.toJSON();
"""

# Asks by WHEP; [address, name of the viewer, kinds]. The session's address is the result.
WHEP = f"""
const [address, name, kinds] = args;
{_SHOW}
for (const kind of kinds) pc.addTransceiver(kind, {{direction: "recvonly"}});
await pc.setLocalDescription(await pc.createOffer());
{GATHERED}
const response = await fetch(address, {{
    method: "POST", headers: {{"Content-Type": "application/sdp"}}, body: pc.localDescription.sdp,
}});
const text = await response.text();
if (response.status !== 201) throw new Error(`${{response.status}} ${{text}}`);
await pc.setRemoteDescription({{type: "answer", sdp: text}});
return response.headers.get("Location");
"""

# What a viewer has seen; [its name].
SEEN = """
const seen = window[args[0]];
const stats = {};
for (const one of (await seen.pc.getStats()).values())
    if (one.type === "inbound-rtp") stats[one.kind] = one;
return {numbers: seen.numbers, size: seen.size, level: seen.level, states: seen.states, stats};
"""
