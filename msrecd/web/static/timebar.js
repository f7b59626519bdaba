// The time bar: what of a day is recorded, drawn; a slider for mouse, finger and keyboard.

import { color, el, sharp } from "./dom.js";
import { minuteText, timeText } from "./times.js";

const STEPS_S = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14400];
const SPANS_MS = [86400e3, 43200e3, 21600e3, 7200e3, 3600e3, 1200e3, 300e3, 60e3];

export class TimeBar {
  // `tell`: {onseek(ms), onwindow()}; `words`: {label, help, at(ms)}.
  constructor(tell, words) {
    this.tell = tell;
    this.words = words;
    this.chunks = []; this.gaps = []; this.triggers = []; this.open = null; // open: {from, to} of what is being recorded
    this.from = 0; this.to = 1; this.dayFrom = 0; this.dayTo = 1;
    this.position = null; this.chosen = [null, null];
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.node = el("div", { class: "timebar", tabIndex: 0, role: "slider", "aria-label": words.label, title: words.help }, this.canvas);
    this.node.addEventListener("pointerdown", event => {
      if (event.button) return;
      this.node.setPointerCapture(event.pointerId);
      this.isDragged = true;
      this.position = this._timeAt(event);
      this.draw();
    });
    this.node.addEventListener("pointermove", event => { if (this.isDragged) { this.position = this._timeAt(event); this.draw(); } });
    this.node.addEventListener("pointerup", () => { if (this.isDragged) { this.isDragged = false; this.tell.onseek(this.position); } });
    this.node.addEventListener("pointercancel", () => { this.isDragged = false; });
    this.node.addEventListener("keydown", event => {
      if (event.key === "+" || event.key === "-") { event.preventDefault(); this.zoom(event.key === "+" ? 1 : -1); return; }
      const step = { ArrowLeft: -10e3, ArrowRight: 10e3, PageDown: -300e3, PageUp: 300e3, ArrowDown: -60e3, ArrowUp: 60e3 }[event.key];
      const to = event.key === "Home" ? this.first : event.key === "End" ? this.last : step && (this.position ?? this.from) + step;
      if (to === undefined) return;
      event.preventDefault();
      this.tell.onseek(Math.max(this.dayFrom, Math.min(this.dayTo, to)));
    });
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.node);
  }

  close() { this.resized.disconnect(); }
  get first() { return this.chunks[0]?.from ?? this.dayFrom; }
  get last() { return this.chunks.at(-1)?.to ?? this.dayTo; }

  setDay(from, to) { Object.assign(this, { dayFrom: from, dayTo: to, from, to }); this._moved(); }

  // Show what is recorded, with some room around.
  fit() {
    if (!this.chunks.length) return;
    const length = this.last - this.first;
    const span = SPANS_MS.filter(one => one >= length * 1.1).at(-1) || SPANS_MS[0];
    this._window((this.first + this.last) / 2, span);
  }
  zoom(direction) {
    const at = SPANS_MS.findIndex(one => one <= (this.to - this.from) * 1.01);
    const span = SPANS_MS[Math.max(0, Math.min(SPANS_MS.length - 1, (at < 0 ? SPANS_MS.length - 1 : at) + direction))];
    this._window(this.position !== null && this.position >= this.from && this.position <= this.to ? this.position : (this.from + this.to) / 2, span);
  }
  shift(parts) { const span = this.to - this.from; this._window((this.from + this.to) / 2 + parts * span, span); }
  show(ms) { if (ms < this.from || ms > this.to) this._window(ms, this.to - this.from); }
  _window(middle, span) {
    const length = Math.min(span, this.dayTo - this.dayFrom);
    this.from = Math.max(this.dayFrom, Math.min(this.dayTo - length, middle - length / 2));
    this.to = this.from + length;
    this._moved();
  }
  _moved() { this.tell.onwindow(); this.draw(); }

  _timeAt(event) {
    const box = this.node.getBoundingClientRect();
    return this.from + Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * (this.to - this.from);
  }

  draw() {
    const [width, height] = [this.node.clientWidth, this.node.clientHeight];
    if (!width) return;
    const context = sharp(this.canvas, width, height);
    const x = ms => (ms - this.from) / (this.to - this.from) * width;
    const [top, tall] = [8, height - 30];
    context.fillStyle = color("sunk");
    context.fillRect(0, top, width, tall);
    const visible = list => list.filter(one => one.to >= this.from && one.from <= this.to);
    context.fillStyle = color("recorded");
    if (this.open) { context.globalAlpha = 0.4; for (const one of visible([this.open])) context.fillRect(x(one.from), top, Math.max(1, x(one.to) - x(one.from)), tall); context.globalAlpha = 1; }
    for (const one of visible(this.chunks)) context.fillRect(x(one.from), top, Math.max(1, x(one.to) - x(one.from) + 0.5), tall);
    for (const one of visible(this.gaps)) {
      const [left, wide] = [x(one.from), Math.max(2, x(one.to) - x(one.from))];
      context.fillStyle = color("page");
      context.fillRect(left, top, wide, tall);
      context.save();
      context.beginPath(); context.rect(left, top, wide, tall); context.clip();
      context.strokeStyle = color("bad"); context.lineWidth = 2;
      for (let at = left - tall; at < left + wide; at += 7) { context.beginPath(); context.moveTo(at, top + tall); context.lineTo(at + tall, top); context.stroke(); }
      context.restore();
    }
    context.fillStyle = color("protected");
    for (const one of visible(this.chunks)) if (one.protected) context.fillRect(x(one.from), top + tall - 6, Math.max(1, x(one.to) - x(one.from) + 0.5), 6);
    context.fillStyle = color("trigger");
    for (const one of visible(this.triggers)) {
      const at = x(one.from);
      context.fillRect(at, top, Math.max(1, x(one.to) - at), 4);
      context.beginPath(); context.moveTo(at - 5, 0); context.lineTo(at + 5, 0); context.lineTo(at, 9); context.fill();
    }
    const [from, to] = this.chosen;
    if (from !== null || to !== null) {
      const [left, right] = [x(from ?? to), x(to ?? from)];
      context.globalAlpha = 0.3; context.fillStyle = color("accent"); context.fillRect(left, top, Math.max(2, right - left), tall); context.globalAlpha = 1;
      context.fillRect(left - 1, top - 4, 3, tall + 8);
      if (to !== null && from !== null) context.fillRect(right - 2, top - 4, 3, tall + 8);
    }
    this._ticks(context, x, width, top + tall);
    if (this.position !== null) {
      const at = x(this.position);
      context.fillStyle = color("page"); context.fillRect(at - 2.5, 2, 5, top + tall);
      context.fillStyle = color("ink"); context.fillRect(at - 1, 2, 2, top + tall);
      context.beginPath(); context.arc(at, 5, 5, 0, 7); context.fill();
    }
    Object.assign(this.node.dataset, { from: Math.round(this.from), to: Math.round(this.to) }); // what is seen of the day
    this.node.setAttribute("aria-valuemin", String(Math.round(this.dayFrom / 1000)));
    this.node.setAttribute("aria-valuemax", String(Math.round(this.dayTo / 1000)));
    this.node.setAttribute("aria-valuenow", String(Math.round((this.position ?? this.from) / 1000)));
    this.node.setAttribute("aria-valuetext", this.words.at(this.position ?? this.from));
  }

  _ticks(context, x, width, y) {
    const span = (this.to - this.from) / 1000;
    const step = STEPS_S.find(one => span / one <= width / 74) || STEPS_S.at(-1);
    const zone = new Date(this.from).getTimezoneOffset() * 60;
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "center";
    for (let at = Math.ceil((this.from / 1000 - zone) / step) * step + zone; at * 1000 <= this.to; at += step) {
      const left = x(at * 1000);
      context.fillStyle = color("line");
      context.fillRect(left, y, 1, 5);
      context.fillStyle = color("dim");
      const text = step < 60 ? timeText(at * 1000) : minuteText(at * 1000);
      const half = context.measureText(text).width / 2;
      if (left - half > 0 && left + half < width) context.fillText(text, left, y + 17);
    }
  }
}
