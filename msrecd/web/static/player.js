// Plays chunks one after the other as if they were one file: MP4 through a media source, by the playlist of each chunk,
// so that it can begin anywhere without reading what is before; other formats file by file.

import { once } from "./live.js";
import { get } from "./state.js";

const AHEAD_S = 12, KEEP_S = 20, HOLE_S = 600, PIECE_BYTES = 2_000_000;
const Source = window.ManagedMediaSource || window.MediaSource;

// Of a time-lapse: how many seconds were captured in one that is played; else 1.
export const pace = chunk => (chunk.time_lapse && chunk.duration_s ? (chunk.to - chunk.from) / 1000 / chunk.duration_s : 1);
export const chunkUrl = chunk => `api/recordings/${encodeURIComponent(chunk.recording_id)}/${chunk.seq}`;
export const fileUrl = chunk => `${chunkUrl(chunk)}${suffixes[chunk.mime_type.split(";")[0]] || ""}`;
const suffixes = { "video/mp4": ".mp4", "audio/mp4": ".m4a", "video/webm": ".webm", "audio/webm": ".webm", "video/x-matroska": ".mkv", "audio/x-matroska": ".mka", "audio/ogg": ".ogg", "audio/flac": ".flac", "audio/wav": ".wav" };

// A playlist (RFC 8216), as far as ours go: the initialisation segment, and the segments with their times and bytes.
export function parsePlaylist(text) {
  const found = [];
  let map = null, date = null, duration = 0, range = null, at = 0;
  for (const line of text.split("\n").map(one => one.trim())) {
    if (line.startsWith("#EXT-X-MAP:")) {
      const [, uri] = /URI="([^"]*)"/.exec(line), [, length, offset] = /BYTERANGE="(\d+)@(\d+)"/.exec(line);
      map = { uri, offset: Number(offset), length: Number(length) };
    } else if (line.startsWith("#EXT-X-PROGRAM-DATE-TIME:")) date = Date.parse(line.slice(25));
    else if (line.startsWith("#EXTINF:")) duration = parseFloat(line.slice(8));
    else if (line.startsWith("#EXT-X-BYTERANGE:")) { const [length, offset] = line.slice(17).split("@").map(Number); range = { length, offset }; }
    else if (line && !line.startsWith("#")) {
      found.push({ uri: line, start: at, duration, date, map, ...range });
      at += duration;
      date = null;
    }
  }
  return found;
}

const mseType = mime => {
  const [essence, codecs] = mime.split(";codecs=");
  return ["video/mp4", "audio/mp4"].includes(essence) && codecs ? `${essence}; codecs="${codecs.replaceAll('"', "")}"` : "";
};

export class Player {
  // `tell`: {onmove(), onstate(kind, text)}; kinds: loading, playing, paused, ended, failed.
  constructor(media, tell) {
    Object.assign(this, { media, tell, chunks: [], run: 0, index: -1, wants: false, span: null });
    media.addEventListener("timeupdate", () => this.tell.onmove());
    media.addEventListener("playing", () => this.tell.onstate("playing"));
    media.addEventListener("pause", () => { if (!this.wants) this.tell.onstate("paused"); });
    media.addEventListener("waiting", () => { if (this.wants) this._overHole(); });
    media.addEventListener("ended", () => this._ended());
    media.addEventListener("error", () => { if (media.error && media.src) this.tell.onstate("failed", media.error.message); });
    this.timer = setInterval(() => { this._fill(); this._overHole(); }, 300);
  }

  close() { this.unload(); clearInterval(this.timer); }

  unload() {
    this.run += 1;
    this.abort?.abort();
    this.span = null;
    this.index = -1;
    this.wants = false;
    this.media.pause();
    this.media.removeAttribute("src");
    this.media.load();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = "";
  }

  // Chunks in the order of recording, each with `from` and `to` in ms since 1970. What is played goes on: a span keeps the
  // list that it was made of, of which rotation may have taken the first ones meanwhile.
  setChunks(chunks) {
    const playing = this.chunk;
    this.chunks = chunks;
    if (!playing || this.span) return;
    this.index = this._find(playing);
    if (this.index < 0) this.unload();
  }

  _find(chunk) { return this.chunks.findIndex(one => one.recording_id === chunk.recording_id && one.seq === chunk.seq); }

  get _shown() { return (this.span ? this.span.chunks : this.chunks)[this._now()[0]] || null; }

  get chunk() {
    const shown = this._shown;
    return shown && (this.chunks[this._find(shown)] || shown);
  }

  // The wall clock's time of what is shown, null while nothing is loaded.
  get wall() {
    const shown = this._shown;
    return shown ? Math.min(shown.to, shown.from + this._now()[1] * 1000 * pace(shown)) : null;
  }

  // The index of the chunk that is shown, and the time in it.
  _now() {
    if (this.index < 0) return [-1, 0];
    if (!this.span) return [this.index, this.media.currentTime];
    const { first, starts } = this.span, time = this.pending ?? this.media.currentTime;
    let index = first;
    while (index < this.span.last && starts[index + 1 - first] <= time + 0.001) index += 1;
    return [index, time - starts[index - first]];
  }

  async seek(wall) {
    let index = this.chunks.findIndex(chunk => wall < chunk.to);
    if (index < 0) index = this.chunks.length - 1;
    if (index < 0) return;
    const chunk = this.chunks[index];
    await this._to(index, Math.max(0, Math.min((wall - chunk.from) / 1000 / pace(chunk), chunk.duration_s - 0.05)));
  }

  play() { this.wants = true; return this.media.play().catch(() => {}); }
  pause() { this.wants = false; this.media.pause(); }

  async _to(index, at) {
    const run = this.run += 1;
    this.abort?.abort();
    this.abort = new AbortController();
    this.tell.onstate("loading");
    try {
      const chunk = this.chunks[index];
      const type = mseType(chunk.mime_type);
      if (Source && type && Source.isTypeSupported(type)) await this._toSource(run, index, at, type);
      else await this._toFile(run, index, at);
      if (run !== this.run) return;
      this.tell.onmove();
      if (this.wants) await this.play();
      else this.tell.onstate("paused");
    } catch (error) {
      if (run === this.run && error.name !== "AbortError") this.tell.onstate("failed", error.message);
    }
  }

  async _toFile(run, index, at) {
    const { media } = this;
    const url = fileUrl(this.chunks[index]);
    const isBroken = media.error || (at < 0.05 && media.currentTime > at); // Chromium cannot go back to the start of some FLAC files
    if (this.span || this.index !== index || !media.src.endsWith(url) || isBroken) {
      this.span = null;
      media.src = url;
      this.index = index;
      await Promise.race([once(media, "loadedmetadata", this.abort.signal), once(media, "error", this.abort.signal).then(() => { throw new Error(media.error?.message || ""); })]);
    }
    if (run === this.run) media.currentTime = at;
  }

  // A span is a row of chunks of one type: one media source.
  async _toSource(run, index, at, type) {
    const { media, chunks } = this;
    let span = this.span;
    if (!span || index < span.first || index > span.last || span.source.readyState === "closed" || span.chunks !== chunks) {
      let [first, last] = [index, index];
      while (first > 0 && chunks[first - 1].mime_type === chunks[index].mime_type) first -= 1;
      while (last < chunks.length - 1 && chunks[last + 1].mime_type === chunks[index].mime_type) last += 1;
      const starts = [0];
      for (let i = first; i <= last; i += 1) starts.push(starts.at(-1) + chunks[i].duration_s);
      const source = new Source();
      if (this.url) URL.revokeObjectURL(this.url);
      this.url = URL.createObjectURL(source);
      this.span = null;
      media.src = this.url;
      await once(source, "sourceopen", this.abort.signal);
      const buffer = source.addSourceBuffer(type);
      source.duration = starts.at(-1);
      span = { first, last, starts, source, buffer, chunks, cursor: null, tables: new Map(), isBusy: false, initOf: -1 };
      buffer.addEventListener("updateend", () => this._fill());
      if (run !== this.run) return;
      this.span = span;
    }
    this.index = index;
    const target = span.starts[index - span.first] + at;
    this.pending = target;
    try {
      if (!isBuffered(media, target)) {
        while (span.isBusy) await new Promise(resolve => setTimeout(resolve, 10));
        if (run !== this.run) return;
        span.isBusy = true;
        try {
          if (span.source.readyState === "open") span.buffer.abort();
          await settled(span.buffer, () => span.buffer.remove(0, Infinity));
          const table = await this._table(span, index);
          let segment = table.findIndex(one => at < one.start + one.duration);
          if (segment < 0) segment = table.length - 1;
          span.cursor = { index, segment: Math.max(0, segment - 1) }; // the segment may begin a little before its key frame
        } finally { span.isBusy = false; }
        if (run !== this.run) return;
      }
      media.currentTime = target;
      await this._fill();
      for (let tries = 0; run === this.run && !isBuffered(media, target) && tries < 400; tries += 1) {
        await new Promise(resolve => setTimeout(resolve, 25));
        await this._fill();
      }
      if (run === this.run && media.currentTime < target - 0.05) media.currentTime = target; // it may play already
    } finally { this.pending = null; }
  }

  async _table(span, index) {
    if (!span.tables.has(index)) {
      if (span.tables.size > 50) span.tables.clear();
      const response = await get(`${chunkUrl(span.chunks[index])}.m3u8`, { cache: "default", signal: this.abort?.signal });
      span.tables.set(index, parsePlaylist(await response.text()));
    }
    return span.tables.get(index);
  }

  // Append what comes next, as long as there is less than AHEAD_S before the play head.
  async _fill() {
    const { span, media } = this;
    if (!span || span.isBusy || !span.cursor || span.buffer.updating || span.source.readyState === "closed") return;
    const time = this.pending ?? media.currentTime;
    if (ahead(media, time) > AHEAD_S) return;
    if (span.cursor.index > span.last) { if (span.source.readyState === "open") span.source.endOfStream(); return; }
    span.isBusy = true;
    const { cursor } = span;
    try {
      const { buffered } = span.buffer;
      if (buffered.length && buffered.start(0) < time - 2 * KEEP_S) await settled(span.buffer, () => span.buffer.remove(0, time - KEEP_S));
      const table = await this._table(span, cursor.index);
      const chunk = span.chunks[cursor.index], base = span.starts[cursor.index - span.first];
      const first = table[cursor.segment];
      let end = cursor.segment, bytes = 0; // several small segments are one request
      while (end < table.length && (bytes === 0 || bytes + table[end].length < PIECE_BYTES)) { bytes += table[end].length; end += 1; }
      const parts = [];
      if (span.initOf !== cursor.index) parts.push(await this._bytes(chunk, first.map.offset, first.map.length));
      parts.push(await this._bytes(chunk, first.offset, bytes));
      if (span !== this.span || cursor !== span.cursor) return;
      if (span.initOf !== cursor.index) {
        span.buffer.timestampOffset = base;
        await settled(span.buffer, () => span.buffer.appendBuffer(parts.shift()));
        span.initOf = cursor.index;
      }
      await settled(span.buffer, () => span.buffer.appendBuffer(parts[0]));
      if (cursor === span.cursor) span.cursor = end < table.length ? { index: cursor.index, segment: end } : { index: cursor.index + 1, segment: 0 };
    } catch (error) {
      if (error.name === "QuotaExceededError") await settled(span.buffer, () => span.buffer.remove(0, Math.max(0.1, time - 2))).catch(() => {});
      else if (error.name !== "AbortError" && span === this.span) {
        if (error.status === 404) span.cursor = { index: cursor.index + 1, segment: 0 }; // rotation has deleted it
        else this.tell.onstate("failed", error.message);
      }
    } finally { span.isBusy = false; }
  }

  async _bytes(chunk, offset, length) {
    const response = await get(fileUrl(chunk), { cache: "default", headers: { Range: `bytes=${offset}-${offset + length - 1}` }, signal: this.abort?.signal });
    return response.arrayBuffer();
  }

  // Chunks join within a frame; where data are missing there may be a hole, which the element would wait at for ever.
  _overHole() {
    const { media, span } = this;
    if (!span || media.seeking || this.pending !== null && this.pending !== undefined) return;
    const { buffered, currentTime } = media;
    for (let i = 0; i < buffered.length; i += 1) {
      const start = buffered.start(i);
      if (start > currentTime && start - currentTime < HOLE_S && ahead(media, currentTime) < 0.1) { media.currentTime = start + 0.01; return; }
    }
  }

  _ended() {
    const last = this.span ? this.span.chunks[this.span.last] : this.chunks[this.index];
    const next = last ? this.chunks.findIndex(one => one.from > last.from) : -1;
    if (this.wants && next >= 0) { this._to(next, 0); return; }
    this.wants = false;
    this.tell.onstate("ended");
  }
}

function ahead(media, time) {
  const { buffered } = media;
  for (let i = 0; i < buffered.length; i += 1) if (time >= buffered.start(i) - 0.05 && time < buffered.end(i)) return buffered.end(i) - time;
  return 0;
}
const isBuffered = (media, time) => ahead(media, time) > 0.04;

// Start an operation on a source buffer and wait for its end.
function settled(buffer, start) {
  return new Promise((resolve, reject) => {
    const done = () => { buffer.removeEventListener("error", failed); resolve(); };
    const failed = () => { buffer.removeEventListener("updateend", done); reject(new Error("MSE")); };
    buffer.addEventListener("updateend", done, { once: true });
    buffer.addEventListener("error", failed, { once: true });
    try { start(); } catch (error) {
      buffer.removeEventListener("updateend", done);
      buffer.removeEventListener("error", failed);
      reject(error);
    }
  });
}
