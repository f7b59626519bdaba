// Record: what each recorder does, in words, and what one may do about it.

import { button, el, put, say } from "./dom.js";
import { command, get, isOperator, kinds, names, now, on, state } from "./state.js";
import { dayWord, minuteText, timeText } from "./times.js";
import { cause, remedies, size, span, w } from "./words.js";

const REFRESH_MS = 5000, PROTECT_S = 300;

export function record(root) {
  const cards = new Map();
  const list = el("div", { class: "cards" });
  put(root, el("h1", { class: "hidden" }, w.record.heading), list);
  const update = () => {
    const known = names();
    if ([...cards.keys()].join() !== known.join()) {
      for (const name of known) if (!cards.has(name)) cards.set(name, makeCard(name));
      for (const name of cards.keys()) if (!known.includes(name)) cards.delete(name);
      put(list, known.map(name => cards.get(name).root));
    }
    for (const card of cards.values()) card.update();
  };
  update();
  const ends = ["recorder", "daemon", "states"].map(type => on(type, update));
  const timer = setInterval(update, REFRESH_MS);
  return () => { clearInterval(timer); ends.forEach(end => end()); };
}

function makeCard(name) {
  const lamp = el("span", { class: "lamp", "aria-hidden": "true" });
  const what = el("p", { class: "what", role: "status" });
  const details = el("div", { class: "details" });
  const said = el("p", { class: "said", role: "status" });
  const shot = el("div", { class: "shot" });
  const duration = el("select", { "aria-label": w.record.duration }, w.record.durations.map(([value, text]) => el("option", { value }, text)));
  const does = (verb, args) => async event => {
    const pressed = event.currentTarget;
    pressed.disabled = true;
    say(said, w.record.working);
    said.classList.remove("bad");
    try {
      const reply = await command(name, verb, typeof args === "function" ? args() : args);
      if (verb === "protect" && reply.data?.chunks !== undefined) say(said, reply.data.warning || w.record.protectedData(reply.data.chunks, reply.data.bytes));
      else say(said, (!reply.changed && w.record.unchanged[verb]) || w.record.done[verb]);
      if (verb === "snapshot") await showShot();
    } catch (error) {
      say(said, w.record.failed(error.message));
      said.classList.add("bad");
    }
    pressed.disabled = false;
  };
  async function showShot() {
    const response = await get(`api/recorders/${encodeURIComponent(name)}/live.jpg`);
    const url = URL.createObjectURL(await response.blob());
    const stamp = new Date(now()).toISOString().slice(0, 19).replaceAll(/[-:]/g, "");
    put(shot, el("img", { src: url, alt: w.record.snapshotOf(name) }), el("a", { href: url, download: `${name}_${stamp}Z.jpg`, class: "button" }, w.record.save));
  }
  const buttons = {
    start: button(w.record.start, does("start", () => (duration.value ? { duration_s: Number(duration.value) } : undefined)), { class: "main go" }),
    stop: button(w.record.stop, does("stop"), { class: "main stop" }),
    pause: button(w.record.pause, does("pause")),
    resume: button(w.record.resume, does("resume"), { class: "main go" }),
    split: button(w.record.split, does("split")),
    snapshot: button(w.record.snapshot, does("snapshot")),
    protect: button(w.record.protect, does("protect", { last_s: PROTECT_S })),
  };
  const row = el("div", { class: "buttons" }, duration, Object.values(buttons));
  const root = el("section", { class: "card recorder" }, el("div", { class: "row" }, lamp, el("h2", {}, name)), what, details, isOperator() ? row : null, said, shot);
  let last = "";

  return {
    root,
    update() {
      const recorder = state.recorders[name];
      if (!recorder) return;
      const is = recorder.state === "inactive" && recorder.armed ? "armed" : recorder.state;
      const isWanted = ["recording", "paused", "error"].includes(recorder.state);
      root.dataset.state = is;
      const key = JSON.stringify([recorder, state.daemon?.schedule?.[name], Math.floor(now() / REFRESH_MS)]);
      if (key === last) return;
      last = key;
      const parts = [w.record.states[is] || is];
      if (isWanted) {
        const since = Date.parse(recorder.since);
        parts.push(w.record.since(timeText(since), span((now() - since) / 1000)));
        parts.push(recorder.until ? w.record.until(timeText(Date.parse(recorder.until)), span((Date.parse(recorder.until) - now()) / 1000)) : w.record.untilStopped);
      }
      const [first, ...rest] = parts;
      say(what, `${[[first, rest.shift()].filter(Boolean).join(" "), ...rest].join(", ")}.`);
      const lines = [];
      if (recorder.error) {
        const [why, todo] = remedies[recorder.error.code] || remedies.internal;
        lines.push(el("p", { class: "warning bad" }, el("strong", {}, why), ` ${todo} `, el("span", { class: "dim" }, `${w.record.message}: ${recorder.error.message}`)));
      }
      if (isWanted) {
        if (recorder.cause) lines.push(el("p", { class: "dim" }, w.record.by(cause(recorder.cause))));
        const tracks = (recorder.tracks || []).map(track => [track.label, settingsText(track)].filter(Boolean).join(", "));
        if (tracks.length) lines.push(el("p", { class: "dim" }, tracks.join(" · ")));
        const written = [w.record.written(recorder.chunks || 0, recorder.bytes || 0)];
        if (recorder.dropped_frames) written.push(w.record.dropped(recorder.dropped_frames));
        lines.push(el("p", { class: recorder.dropped_frames ? "warn" : "dim" }, written.join(", ")));
      }
      for (const unmet of recorder.unmet || []) lines.push(el("p", { class: "warn" }, w.record.unmet(unmet.constraint, text(unmet.asked), text(unmet.got))));
      lines.push(el("p", { class: "next" }, next(name)));
      put(details, lines);
      const has = verb => ({ start: !isWanted, stop: isWanted, pause: recorder.state === "recording", resume: recorder.state === "paused", split: recorder.state === "recording", snapshot: kinds(name).video, protect: isWanted }[verb]);
      for (const [verb, one] of Object.entries(buttons)) one.hidden = !has(verb);
      duration.hidden = isWanted;
    },
  };
}

const text = value => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

function settingsText(track) {
  const { width, height, frame_rate: rate, sample_rate: hertz, channel_count: channels } = track.settings || track;
  if (width) return `${width} × ${height}${rate ? `, ${Math.round(rate * 100) / 100}/s` : ""}`;
  return hertz ? `${hertz / 1000} kHz${channels ? `, ${channels} ch` : ""}` : "";
}

function next(name) {
  const plan = state.daemon?.schedule?.[name];
  if (!plan) return w.record.noSchedule;
  if (plan.waiting_for_clock) return w.record.waitingForClock;
  const parts = [[plan.next_start, w.record.nextStart], [plan.next_stop, w.record.nextStop]]
    .filter(([at]) => at).map(([at, say_]) => [Date.parse(at), say_]).sort((a, b) => a[0] - b[0])
    .map(([at, say_]) => say_(dayWord(at), minuteText(at)));
  return parts.length ? `${w.record.next}: ${parts.join(", ")}` : w.record.noSchedule;
}
