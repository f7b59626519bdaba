// Listen: levels of every recorder with sound, and the sound itself.

import { button, el, put, say } from "./dom.js";
import { Live } from "./live.js";
import { kinds, listen, names, on } from "./state.js";
import { decibels, w } from "./words.js";

const FLOOR_DB = -60, CLIP_DB = -0.1, HOLD_MS = 1500, FALL_DB_S = 20, QUIET_MS = 2500, SPEAK_MS = 2000;
const share = db => Math.max(0, Math.min(1, (db - FLOOR_DB) / -FLOOR_DB));

export function listenView(root) {
  const cards = new Map();
  const list = el("div", { class: "cards" });
  put(root, el("h1", { class: "hidden" }, w.listen.heading), list);
  const video = el("video", { playsInline: true, hidden: true });
  root.append(video);
  let playing = "";
  const live = new Live(video, null, (kind, detail) => {
    const card = cards.get(playing);
    if (!card) return;
    say(card.status, kind === "live" ? w.listen.playing : kind === "starting" ? w.loading : kind === "refused" ? w.listen.refused(detail) : w.aim.lost);
  });

  function toggle(name) {
    const before = playing;
    live.stop();
    playing = "";
    for (const card of cards.values()) { say(card.play, w.listen.play); card.play.setAttribute("aria-pressed", "false"); say(card.status, ""); }
    if (before === name) return;
    playing = name;
    const card = cards.get(name);
    say(card.play, w.listen.stop);
    card.play.setAttribute("aria-pressed", "true");
    video.muted = false;
    live.start(name);
  }

  function update() {
    const wanted = names().filter(name => kinds(name).audio);
    if ([...cards.keys()].join() === wanted.join() && list.childElementCount) return;
    for (const name of cards.keys()) if (!wanted.includes(name)) cards.delete(name);
    for (const name of wanted) if (!cards.has(name)) cards.set(name, makeCard(name, () => toggle(name)));
    listen(wanted);
    put(list, wanted.length ? wanted.map(name => cards.get(name).root) : el("p", {}, w.listen.noSound));
  }
  update();
  const ends = [on("recorder", update), on("states", update), on("level", level => cards.get(level.recorder)?.take(level))];
  let raf = 0, last = performance.now();
  const step = time => {
    for (const card of cards.values()) card.move((time - last) / 1000);
    last = time;
    raf = requestAnimationFrame(step);
  };
  raf = requestAnimationFrame(step);
  return () => { cancelAnimationFrame(raf); ends.forEach(end => end()); live.stop(); listen([]); };
}

function makeCard(name, onplay) {
  const meters = el("div", { class: "meters" });
  const verdict = el("p", { class: "verdict" });
  const status = el("p", { class: "dim", role: "status" });
  const play = button(w.listen.play, onplay, { "aria-pressed": "false" });
  const root = el("section", { class: "card level" }, el("div", { class: "row" }, el("h2", {}, name), play), meters, verdict, status);
  let channels = [], heard = 0, spoken = 0;
  put(meters, el("p", { class: "dim" }, w.listen.waiting));

  function make(count) {
    channels = Array.from({ length: count }, (_, index) => {
      const label = w.listen.channel(index, count);
      const bar = el("div", { class: "meter", role: "meter", "aria-label": `${name} ${label}`, "aria-valuemin": String(FLOOR_DB), "aria-valuemax": "0", "aria-valuenow": String(FLOOR_DB) }, el("i"), el("u"), el("b"));
      const text = el("span", { class: "figure" });
      const lamp = button(w.listen.clip, () => { channel.clipped = false; }, { class: "lamp", "aria-label": w.listen.notClipped, disabled: true });
      const channel = { label, bar, text, lamp, peak: -120, rms: -120, hold: -120, held: 0, clipped: false, wasClipped: null };
      return channel;
    });
    put(meters, channels.map(one => el("div", { class: "channel" }, el("span", { class: "label" }, one.label), one.bar, one.lamp, one.text)),
      el("div", { class: "scale", "aria-hidden": "true" }, [-60, -48, -36, -24, -12, 0].map(db => el("span", {}, String(db)))));
  }

  return {
    root, play, status,
    take(level) {
      const given = level.rms.map((rms, index) => ({ rms, peak: level.peak[index], clipped: level.clipped?.[index] }));
      if (given.length !== channels.length) make(given.length);
      heard = performance.now();
      given.forEach((value, index) => {
        const channel = channels[index];
        channel.rms = value.rms;
        channel.peak = Math.max(value.peak, channel.peak);
        if (value.peak >= channel.hold) { channel.hold = value.peak; channel.held = heard; }
        if (value.peak >= CLIP_DB || value.clipped) channel.clipped = true;
      });
    },
    move(seconds) {
      if (!channels.length) return;
      const time = performance.now();
      if (time - heard > QUIET_MS) { channels = []; put(meters, el("p", { class: "dim" }, w.listen.waiting)); say(verdict, ""); return; }
      for (const one of channels) {
        const [rmsBar, peakBar, holdBar] = one.bar.children;
        rmsBar.style.transform = `scaleX(${share(one.rms).toFixed(4)})`;
        peakBar.style.transform = `scaleX(${share(one.peak).toFixed(4)})`;
        holdBar.style.left = `${(100 * share(one.hold)).toFixed(2)}%`;
        one.peak -= FALL_DB_S * seconds;
        if (time - one.held > HOLD_MS) one.hold -= FALL_DB_S * seconds;
        if (one.clipped !== one.wasClipped) {
          one.wasClipped = one.clipped;
          one.lamp.disabled = !one.clipped;
          one.lamp.classList.toggle("on", one.clipped);
          one.lamp.setAttribute("aria-label", one.clipped ? w.listen.clipped : w.listen.notClipped);
        }
      }
      if (time - spoken < SPEAK_MS) return;
      spoken = time;
      for (const one of channels) {
        one.bar.setAttribute("aria-valuenow", String(Math.round(one.rms)));
        one.bar.setAttribute("aria-valuetext", w.listen.meter(one.label, one.rms, one.hold));
        say(one.text, `${w.listen.peak} ${decibels(one.hold)}`);
      }
      const loudest = Math.max(...channels.map(one => one.hold));
      const kind = loudest <= -80 ? "silent" : loudest < -40 ? "quiet" : loudest > -3 ? "loud" : "good";
      say(verdict, w.listen.verdicts[kind]);
      verdict.className = `verdict ${kind}`;
    },
  };
}
