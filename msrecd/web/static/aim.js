// Aim and focus: the live picture, and figures that this page computes from it.

import { button, color, el, pressed, put, say, sharp } from "./dom.js";
import { Live, ways } from "./live.js";
import { getJson, kinds } from "./state.js";
import { w } from "./words.js";

const PATCH = [320, 180]; // of the picture's own pixels, for the focus figure: scaled ones would hide what is not sharp
const WHOLE = [160, 90];
const LOOK_MS = 200, CAMERA_MS = 500;
let wantedWay = "auto"; // kept from view to view

export function aim(root, name) {
  if (!kinds(name).video) {
    put(root, el("h1", {}, w.aim.heading), el("p", {}, w.aim.noCamera(name)));
    return undefined;
  }
  const video = el("video", { muted: true, playsInline: true, autoplay: true, "aria-label": w.aim.picture });
  const image = el("img", { alt: w.aim.picture, hidden: true });
  const over = el("canvas", { class: "over", "aria-hidden": "true" });
  const frame = el("div", { class: "frame" }, video, image, over);
  const stage = el("div", { class: "stage", tabIndex: 0, role: "group", "aria-label": w.aim.picture }, frame);
  const status = el("p", { class: "status", role: "status" });
  const focusBar = el("div", { class: "bar" }, el("i"), el("b"));
  const focusText = el("output", { class: "figure" });
  const best = el("span", { class: "dim" });
  const light = el("p", { class: "dim", role: "status" });
  const histogram = el("canvas", { class: "histogram", role: "img", "aria-label": w.aim.histogram });
  const size = el("span", { class: "dim" });
  const camera = el("p", { hidden: true }), settings = el("p", { class: "dim", hidden: true });
  let peak = 0, cameraPeak = 0, isShown = false, spot = [0.5, 0.5], grid = true, lastText = 0;

  const live = new Live(video, image, (kind, detail) => {
    if (kind === "live" && performance.now() - lastText < 1000) return;
    lastText = kind === "live" ? performance.now() : 0;
    isShown = ["live", "webrtc", "jpeg"].includes(kind);
    status.classList.toggle("bad", kind === "lost" || kind === "refused");
    say(status, { starting: w.aim.starting, jpeg: w.aim.jpeg, webrtc: w.aim.webrtc, lost: w.aim.lost }[kind] || (kind === "live" ? w.aim.live(detail) : w.aim.refused(detail)));
  });

  const gridButton = button(w.aim.grid, () => { grid = !grid; pressed(gridButton, grid); draw(); });
  const actual = button(w.aim.actual, () => {
    const on = !stage.classList.contains("actual");
    stage.classList.toggle("actual", on);
    pressed(actual, on);
    fit();
    if (on) stage.scrollTo((frame.scrollWidth - stage.clientWidth) * spot[0], (frame.scrollHeight - stage.clientHeight) * spot[1]);
  });
  const way = el("select", { "aria-label": w.aim.way, onchange: () => { wantedWay = way.value; live.use(wantedWay); } }, ["auto", ...ways()].map(one => el("option", { value: one, selected: one === wantedWay }, w.aim.ways[one])));
  const sound = button(w.aim.sound, () => { video.muted = !video.muted; pressed(sound, !video.muted); });
  const full = button(w.aim.full, () => (document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen?.()?.catch(() => {})));
  const reset = button(w.aim.reset, () => { peak = cameraPeak = 0; });
  pressed(gridButton, grid);
  [actual, sound].forEach(one => pressed(one, false));

  put(root, el("h1", { class: "hidden" }, w.aim.heading), stage, status,
    el("div", { class: "cards" },
      el("section", { class: "card focus" }, el("h2", {}, w.aim.focus), el("div", { class: "row" }, focusText, best, reset), focusBar, camera, el("p", { class: "dim" }, w.aim.focusHelp)),
      el("section", { class: "card" }, el("div", { class: "row" }, el("h2", {}, w.aim.exposure), size), histogram, light, settings)),
    el("div", { class: "buttons" }, gridButton, actual, way, kinds(name).audio ? sound : null, full));

  const shown = () => (image.hidden ? [video, video.videoWidth, video.videoHeight] : [image, image.naturalWidth, image.naturalHeight]);

  // The frame takes the picture's own pixels at 1:1, else what the stage has.
  function fit() {
    const [, width, height] = shown();
    const ratio = window.devicePixelRatio || 1;
    if (stage.classList.contains("actual") && width) {
      frame.style.width = `${width / ratio}px`;
      frame.style.height = `${height / ratio}px`;
    } else { frame.style.width = frame.style.height = ""; }
    if (width) { stage.style.aspectRatio = `${width} / ${height}`; say(size, w.aim.size(width, height)); }
    draw();
  }

  function draw() {
    const [width, height] = [frame.clientWidth, frame.clientHeight];
    if (!width) return;
    const context = sharp(over, width, height);
    context.lineWidth = 1;
    if (grid) {
      for (const [style, shift] of [["rgba(0,0,0,.45)", 1], ["rgba(255,255,255,.65)", 0]]) {
        context.strokeStyle = style;
        context.beginPath();
        for (const part of [1 / 3, 2 / 3]) {
          const [x, y] = [Math.round(width * part) + 0.5 + shift, Math.round(height * part) + 0.5 + shift];
          context.moveTo(x, 0); context.lineTo(x, height);
          context.moveTo(0, y); context.lineTo(width, y);
        }
        context.stroke();
      }
    }
    const [, natural, tall] = shown();
    if (!natural) return;
    const [w_, h_] = [Math.min(PATCH[0], natural) / natural * width, Math.min(PATCH[1], tall) / tall * height];
    const [x, y] = [clamp(spot[0] * width - w_ / 2, 0, width - w_), clamp(spot[1] * height - h_ / 2, 0, height - h_)];
    context.strokeStyle = "#000"; context.lineWidth = 4; corners(context, x, y, w_, h_);
    context.strokeStyle = "#fd0"; context.lineWidth = 2; corners(context, x, y, w_, h_);
  }

  const patch = el("canvas", { width: PATCH[0], height: PATCH[1] }).getContext("2d", { willReadFrequently: true });
  const whole = el("canvas", { width: WHOLE[0], height: WHOLE[1] }).getContext("2d", { willReadFrequently: true });
  let said = 0;

  function look() {
    const [source, width, height] = shown();
    if (!width || document.hidden) return;
    const [pw, ph] = [Math.min(PATCH[0], width), Math.min(PATCH[1], height)];
    const x = clamp(Math.round(spot[0] * width - pw / 2), 0, width - pw), y = clamp(Math.round(spot[1] * height - ph / 2), 0, height - ph);
    patch.drawImage(source, x, y, pw, ph, 0, 0, pw, ph);
    const value = sharpness(luma(patch.getImageData(0, 0, pw, ph).data), pw, ph);
    peak = Math.max(peak, value);
    say(focusText, value.toFixed(1));
    say(best, w.aim.best(peak.toFixed(1)));
    const share = peak ? value / peak : 0;
    focusBar.firstChild.style.transform = `scaleX(${share.toFixed(3)})`;
    focusBar.classList.toggle("good", share > 0.95);
    whole.drawImage(source, 0, 0, ...WHOLE);
    const bins = counted(luma(whole.getImageData(0, 0, ...WHOLE).data));
    drawHistogram(histogram, bins);
    if (performance.now() - said > 1500) {
      said = performance.now();
      const total = WHOLE[0] * WHOLE[1];
      const part = bins_ => Math.round(100 * bins_.reduce((sum, n) => sum + n, 0) / total);
      const [dark, bright] = [part(bins.slice(0, 5)), part(bins.slice(251))];
      say(light, [bright >= 1 ? w.aim.bright(bright) : "", dark >= 1 ? w.aim.dark(dark) : ""].filter(Boolean).join(", ") || w.aim.exposureFine);
      light.classList.toggle("warn", bright >= 1);
    }
  }

  // What the camera itself says (libcamera's metadata), beside what this page computes.
  let asks = false, asked = 0, isSilent = true;
  async function ask() {
    if (asks || !isShown || document.hidden) return;
    asked += 1;
    if (isSilent && asked > 4 && asked % 20) return; // a camera that says nothing is asked every ten seconds
    asks = true;
    try {
      const of = await getJson(`api/recorders/${encodeURIComponent(name)}/camera`);
      isSilent = !Object.keys(of).length;
      camera.hidden = of.focus_figure === undefined && !of.focus_state;
      cameraPeak = Math.max(cameraPeak, of.focus_figure || 0);
      if (!camera.hidden) say(camera, w.aim.camera(of.focus_figure, cameraPeak, of.focus_state, of.focus_distance));
      settings.hidden = !of.exposure_time;
      if (!settings.hidden) say(settings, w.aim.exposed(of.exposure_time / 10, of.iso));
    } catch (error) {
      camera.hidden = settings.hidden = true;
      if (error.status) clearInterval(asking);
    }
    asks = false;
  }
  const asking = setInterval(ask, CAMERA_MS);

  stage.addEventListener("click", event => {
    const box = frame.getBoundingClientRect();
    spot = [clamp((event.clientX - box.left) / box.width, 0, 1), clamp((event.clientY - box.top) / box.height, 0, 1)];
    peak = 0;
    draw();
  });
  const resized = new ResizeObserver(fit);
  resized.observe(stage);
  video.addEventListener("resize", fit);
  image.addEventListener("load", fit);
  document.addEventListener("visibilitychange", seen);
  function seen() { if (document.hidden) live.stop(); else live.start(name); }
  const timer = setInterval(look, LOOK_MS);
  live.use(wantedWay);
  live.start(name);
  return () => {
    clearInterval(timer);
    clearInterval(asking);
    resized.disconnect();
    document.removeEventListener("visibilitychange", seen);
    live.stop();
  };
}

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

function corners(context, x, y, width, height) {
  const arm = Math.min(18, width / 4, height / 4);
  context.beginPath();
  for (const [cx, cy, dx, dy] of [[x, y, 1, 1], [x + width, y, -1, 1], [x, y + height, 1, -1], [x + width, y + height, -1, -1]]) {
    context.moveTo(cx + dx * arm, cy); context.lineTo(cx, cy); context.lineTo(cx, cy + dy * arm);
  }
  context.stroke();
}

// Brightness of pixels (Rec. 601), 0 to 255.
export function luma(data) {
  const values = new Uint8Array(data.length / 4);
  for (let i = 0, j = 0; j < values.length; i += 4, j += 1) values[j] = (77 * data[i] + 150 * data[i + 1] + 29 * data[i + 2]) >> 8;
  return values;
}

// The standard deviation of the Laplacian: large where neighbouring pixels differ, so largest at the best focus.
export function sharpness(values, width, height) {
  let sum = 0, squares = 0, count = 0;
  for (let y = 1; y < height - 1; y += 1) {
    for (let x = 1, i = y * width + 1; x < width - 1; x += 1, i += 1) {
      const value = 4 * values[i] - values[i - 1] - values[i + 1] - values[i - width] - values[i + width];
      sum += value; squares += value * value; count += 1;
    }
  }
  return count ? Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2)) : 0;
}

export function counted(values) {
  const bins = new Array(256).fill(0);
  for (const value of values) bins[value] += 1;
  return bins;
}

function drawHistogram(canvas, bins) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  const context = sharp(canvas, width, height);
  const most = Math.max(1, ...bins.map(Math.sqrt));
  const step = width / bins.length;
  bins.forEach((n, i) => {
    context.fillStyle = i > 250 || i < 5 ? color("bad") : color("ink");
    const tall = Math.sqrt(n) / most * height;
    context.fillRect(i * step, height - tall, Math.ceil(step), tall);
  });
}
