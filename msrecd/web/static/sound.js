// The picture of a sound file: waveform and spectrogram, computed in the browser, so that the device has no work with it.

import { color, el, put, sharp } from "./dom.js";
import { get } from "./state.js";
import { w } from "./words.js";
import { fileUrl } from "./player.js";

const LIMIT_BYTES = 64e6, SIZE = 1024, LOW_DB = -100, HIGH_DB = -25, TALL = 160, WAVE = 72;

// Draw into `root`; `tell(share)` is called when the picture is tapped. Returns what moves the play head.
export async function soundPicture(root, chunk, signal, tell) {
  if (chunk.bytes > LIMIT_BYTES) { put(root, el("p", { class: "dim" }, w.back.tooLong)); return () => {}; }
  put(root, el("p", { class: "dim", role: "status" }, w.loading));
  const bytes = await (await get(fileUrl(chunk), { cache: "default", signal })).arrayBuffer();
  const rate = sampleRate(new Uint8Array(bytes, 0, Math.min(64, bytes.byteLength)));
  let decoded;
  try { decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes); } catch { put(root, el("p", { class: "dim" }, w.back.noSound)); return () => {}; }
  if (signal.aborted) return () => {};
  const samples = mixed(decoded);
  const wave = el("canvas", { role: "img", "aria-label": w.back.waveform });
  const spectrum = el("canvas", { role: "img", "aria-label": w.back.spectrogram(decoded.sampleRate / 2000) });
  const head = el("i", { class: "head" });
  const frame = el("div", { class: "sound" }, wave, spectrum, head);
  put(root, frame, el("p", { class: "dim" }, w.back.spectrogram(decoded.sampleRate / 2000)));
  frame.addEventListener("click", event => { const box = frame.getBoundingClientRect(); tell((event.clientX - box.left) / box.width); });
  const width = Math.max(100, Math.floor(frame.clientWidth));
  drawWave(wave, samples, width);
  await drawSpectrum(spectrum, samples, width, signal);
  return share => { head.style.left = `${100 * Math.max(0, Math.min(1, share))}%`; };
}

// From the header, so that nothing of what bat detectors record is lost by converting.
function sampleRate(head) {
  const name = String.fromCharCode(...head.slice(0, 4));
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  let rate = 48000;
  if (name === "fLaC" && head.length > 21) rate = (view.getUint32(18) >>> 12);
  else if (name === "RIFF" && head.length > 28) rate = view.getUint32(24, true);
  return rate >= 8000 && rate <= 768000 ? rate : 48000;
}

function mixed(buffer) {
  const first = buffer.getChannelData(0);
  if (buffer.numberOfChannels < 2) return first;
  const second = buffer.getChannelData(1), all = new Float32Array(first.length);
  for (let i = 0; i < all.length; i += 1) all[i] = (first[i] + second[i]) / 2;
  return all;
}

function drawWave(canvas, samples, width) {
  canvas.style.height = `${WAVE}px`;
  const context = sharp(canvas, width, WAVE);
  context.fillStyle = color("recorded");
  for (let x = 0; x < width; x += 1) {
    let low = 0, high = 0;
    for (let i = Math.floor(x * samples.length / width); i < (x + 1) * samples.length / width; i += 1) { const value = samples[i]; if (value < low) low = value; else if (value > high) high = value; }
    context.fillRect(x, WAVE / 2 * (1 - high), 1, Math.max(1, WAVE / 2 * (high - low)));
  }
}

async function drawSpectrum(canvas, samples, width, signal) {
  const bins = SIZE / 2;
  canvas.width = width; canvas.height = bins;
  canvas.style.height = `${TALL}px`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(1, bins);
  const window_ = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / SIZE));
  const re = new Float32Array(SIZE), im = new Float32Array(SIZE);
  for (let x = 0; x < width; x += 1) {
    const begin = Math.floor(x / width * Math.max(0, samples.length - SIZE));
    for (let i = 0; i < SIZE; i += 1) { re[i] = (samples[begin + i] || 0) * window_[i]; im[i] = 0; }
    fft(re, im);
    for (let k = 0; k < bins; k += 1) {
      const power = (re[k] * re[k] + im[k] * im[k]) / (SIZE * SIZE / 16);
      const share = Math.max(0, Math.min(1, (10 * Math.log10(power + 1e-14) - LOW_DB) / (HIGH_DB - LOW_DB)));
      paint(image.data, 4 * (bins - 1 - k), share);
    }
    context.putImageData(image, x, 0);
    if (x % 64 === 63) { await new Promise(resolve => setTimeout(resolve)); if (signal.aborted) return; }
  }
}

// Black, violet, orange, white.
function paint(data, at, share) {
  data[at] = 255 * Math.min(1, share * 1.8);
  data[at + 1] = 255 * Math.max(0, share * 1.9 - 0.9);
  data[at + 2] = 255 * (share < 0.45 ? share * 1.3 : share < 0.75 ? Math.max(0.1, 0.585 - (share - 0.45) * 1.6) : 0.1 + (share - 0.75) * 3.6);
  data[at + 3] = 255;
}

// In place, radix 2.
export function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i += 1) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
  }
  for (let length = 2; length <= n; length <<= 1) {
    const angle = -2 * Math.PI / length, cos = Math.cos(angle), sin = Math.sin(angle);
    for (let i = 0; i < n; i += length) {
      let wr = 1, wi = 0;
      for (let k = i; k < i + length / 2; k += 1) {
        const m = k + length / 2, tr = re[m] * wr - im[m] * wi, ti = re[m] * wi + im[m] * wr;
        re[m] = re[k] - tr; im[m] = im[k] - ti; re[k] += tr; im[k] += ti;
        [wr, wi] = [wr * cos - wi * sin, wr * sin + wi * cos];
      }
    }
  }
}
