// The live picture: fragmented MP4 over fetch into a media source, kept near the newest frame; WebRTC (WHEP) where that is
// chosen or the browser has no media source; single JPEGs otherwise.

import { failure, get, state } from "./state.js";

const AHEAD_S = 0.25; // more than this behind the newest frame: play a little faster
const NEAR_S = 0.1;
const JUMP_S = 1.0; // more than this: jump
const KEEP_S = 10;
const SILENCE_MS = 8000;
const AGAIN_MS = 1500;
const JPEG_MS = 250;
const GATHER_MS = 1500;
const Source = window.ManagedMediaSource || window.MediaSource;
const TRIES = 3; // of one way, before the next one is taken

// The ways that there are here, the first one first. `wanted`: "auto", or one of them.
export function ways(wanted = "auto") {
  const there = [Source && "stream", state.session?.webrtc && window.RTCPeerConnection && "webrtc", "jpeg"].filter(Boolean);
  return there.includes(wanted) ? [wanted, ...(wanted === "jpeg" ? [] : there.filter(one => one !== wanted))] : there;
}

export class Live {
  // `video` and `image` show one or the other; `tell(kind, text)`: starting, live, webrtc, jpeg, lost, refused.
  constructor(video, image, tell) {
    Object.assign(this, { video, image, tell, name: null, run: 0, failures: 0, wanted: "auto", jpegUrl: "", peer: null });
    if (video) video.disableRemotePlayback = true; // else a ManagedMediaSource does not open
  }

  start(name) {
    this.stop();
    this.name = name;
    this.failures = 0;
    this._go(this.run);
  }

  stop() {
    this.run += 1;
    this.abort?.abort();
    clearInterval(this.timer);
    clearTimeout(this.again);
    this._hangUp();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = "";
    if (this.video) { this.video.pause(); this.video.removeAttribute("src"); this.video.load(); }
    if (this.jpegUrl) URL.revokeObjectURL(this.jpegUrl);
    this.jpegUrl = "";
    if (this.image) this.image.hidden = true;
  }

  use(way) { this.wanted = way; if (this.name) this.start(this.name); }

  // What is behind the newest frame that has arrived, in seconds.
  get lag() {
    const { buffered, currentTime } = this.video;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0;
  }

  async _go(run) {
    if (run !== this.run) return;
    this.abort = new AbortController();
    const known = ways(this.wanted).filter(way => way !== "jpeg" || this.image);
    const way = known[Math.min(known.length - 1, Math.floor(this.failures / TRIES))];
    this.tell("starting");
    try {
      await { stream: () => this._stream(run), webrtc: () => this._webrtc(run), jpeg: () => this._jpegs(run) }[way]();
      if (run === this.run) this.tell("lost");
    } catch (error) {
      if (run !== this.run) return;
      this.tell(error.status ? "refused" : "lost", error.message);
      if (error.status === 401 || error.status === 404) return;
    }
    if (run !== this.run) return;
    this.failures += 1;
    clearInterval(this.timer);
    this._hangUp();
    this.abort.abort();
    this.again = setTimeout(() => this._go(run), AGAIN_MS);
  }

  async _stream(run) {
    const { video } = this;
    const response = await get(`api/recorders/${encodeURIComponent(this.name)}/live.mp4`, { signal: this.abort.signal });
    const type = response.headers.get("Content-Type");
    if (!Source.isTypeSupported(type)) { this.failures += TRIES - 1; throw new Error(type); }
    const source = new Source();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(source);
    video.hidden = false;
    if (this.image) this.image.hidden = true;
    video.src = this.url;
    await once(source, "sourceopen", this.abort.signal);
    const buffer = source.addSourceBuffer(type);
    const reader = response.body.getReader();
    const waiting = [];
    let heard = performance.now(), ended = false, broken = null, isShown = false;
    const pump = () => {
      if (buffer.updating || source.readyState !== "open") return;
      const { buffered } = buffer;
      if (buffered.length && video.currentTime - buffered.start(0) > 2 * KEEP_S) { buffer.remove(0, video.currentTime - KEEP_S); return; }
      if (!waiting.length) return;
      const parts = waiting.splice(0);
      try { buffer.appendBuffer(parts.length === 1 ? parts[0] : joined(parts)); } catch (error) { broken = error; }
    };
    buffer.addEventListener("updateend", () => { this._follow(); pump(); });
    buffer.addEventListener("error", () => { broken = new Error("MSE"); });
    const read = (async () => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        heard = performance.now();
        waiting.push(value);
        if (waiting.length > 200) throw new Error("MSE");
        pump();
      }
    })().then(() => { ended = true; }, error => { broken = error; });
    await new Promise((resolve, reject) => {
      clearInterval(this.timer);
      this.timer = setInterval(() => {
        if (run !== this.run) { resolve(); return; }
        this._follow();
        if (!isShown && video.readyState >= 2 && !video.paused) {
          isShown = true;
          this.failures = 0;
          if (this.lag > AHEAD_S) video.currentTime += this.lag - NEAR_S; // what came while the element started
        }
        if (isShown) this.tell("live", this.lag);
        if (broken || video.error) reject(broken || new Error(video.error.message));
        else if (ended) resolve();
        else if (performance.now() - heard > SILENCE_MS && !document.hidden) reject(new Error("timeout"));
      }, 200);
    }).finally(() => { clearInterval(this.timer); reader.cancel().catch(() => {}); });
    await read;
  }

  // draft-ietf-wish-whep: an offer is posted, the answer comes back, DELETE ends it.
  async _webrtc(run) {
    const { video } = this;
    const peer = this.peer = new RTCPeerConnection(), stream = new MediaStream();
    for (const kind of ["video", "audio"]) peer.addTransceiver(kind, { direction: "recvonly" });
    peer.addEventListener("track", event => stream.addTrack(event.track));
    await peer.setLocalDescription();
    if (peer.iceGatheringState !== "complete") {
      await Promise.race([new Promise(resolve => peer.addEventListener("icegatheringstatechange", () => { if (peer.iceGatheringState === "complete") resolve(); })),
        new Promise(resolve => setTimeout(resolve, GATHER_MS))]);
    }
    if (run !== this.run) return;
    const response = await fetch(`api/recorders/${encodeURIComponent(this.name)}/whep`, { method: "POST", headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp, signal: this.abort.signal });
    if (response.status === 501) this.failures += TRIES - 1;
    if (!response.ok) throw await failure(response);
    peer.place = response.headers.get("Location");
    if (run !== this.run) { this._end(peer); return; }
    await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
    video.hidden = false;
    if (this.image) this.image.hidden = true;
    video.removeAttribute("src");
    video.playbackRate = 1;
    video.srcObject = stream;
    let heard = performance.now(), frames = -1;
    await new Promise((resolve, reject) => {
      this.timer = setInterval(() => {
        if (run !== this.run) { resolve(); return; }
        if (video.paused) video.play().catch(() => {});
        const { totalVideoFrames } = video.getVideoPlaybackQuality();
        if (totalVideoFrames !== frames || document.hidden) { frames = totalVideoFrames; heard = performance.now(); }
        if (video.readyState >= 2) { this.failures = 0; this.tell("webrtc"); }
        if (["failed", "closed"].includes(peer.connectionState)) resolve();
        else if (performance.now() - heard > SILENCE_MS) reject(new Error("timeout"));
      }, 200);
    }).finally(() => clearInterval(this.timer));
  }

  _hangUp() {
    const { peer } = this;
    this.peer = null;
    if (peer) this._end(peer);
    if (this.video?.srcObject) this.video.srcObject = null;
  }

  _end(peer) {
    if (peer.place) fetch(peer.place, { method: "DELETE", keepalive: true }).catch(() => {}).finally(() => peer.close());
    else peer.close();
    peer.place = null;
  }

  // Keep the element near the newest frame.
  _follow() {
    const { video } = this;
    const { buffered } = video;
    if (!buffered.length) return;
    const start = buffered.start(buffered.length - 1), end = buffered.end(buffered.length - 1);
    const lag = end - video.currentTime;
    if (lag > JUMP_S || video.currentTime < start - 0.01) video.currentTime = Math.max(start, end - NEAR_S);
    video.playbackRate = lag > 2 * AHEAD_S ? 1.25 : lag > AHEAD_S ? 1.1 : lag < NEAR_S ? 1 : Math.min(1.1, video.playbackRate);
    if (video.paused) video.play().catch(() => {}); // muted video may always play; sound needs a touch first
  }

  async _jpegs(run) {
    const { image } = this;
    this.video.hidden = true;
    let failures = 0;
    while (run === this.run) {
      const begun = performance.now();
      try {
        const response = await get(`api/recorders/${encodeURIComponent(this.name)}/live.jpg`, { signal: this.abort.signal });
        const url = URL.createObjectURL(await response.blob());
        image.src = url;
        await image.decode();
        if (this.jpegUrl) URL.revokeObjectURL(this.jpegUrl);
        this.jpegUrl = url;
        image.hidden = false;
        failures = 0;
        this.tell("jpeg");
      } catch (error) {
        failures += 1;
        if (run !== this.run || failures > 3 || error.status) throw error;
      }
      await new Promise(resolve => setTimeout(resolve, Math.max(20, JPEG_MS - (performance.now() - begun))));
    }
  }
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

export function once(target, type, signal) {
  return new Promise((resolve, reject) => {
    target.addEventListener(type, resolve, { once: true });
    signal?.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
  });
}
