// Health: the figures of the machine, in words.

import { el, put, say } from "./dom.js";
import { difference, names, now, on, state } from "./state.js";
import { momentText, timeText } from "./times.js";
import { size, span, w } from "./words.js";

const EARLY_BYTES = 1e6; // with less on the card it is no full ring: the rate is not known yet

export function health(root) {
  const cards = el("div", { class: "cards" });
  put(root, el("h1", { class: "hidden" }, w.health.heading), cards);
  let last = "";
  const update = () => {
    const key = JSON.stringify([state.health, state.daemon, state.devices, state.errors, Math.floor(now() / 10000)]);
    if (key === last) return;
    last = key;
    put(cards, storage(state.health), machine(state.health), time(), broker(state.health), store(state.health), recorders(state.health), devices(), errors());
  };
  update();
  const ends = ["health", "daemon", "devices", "errors", "states"].map(type => on(type, update));
  const timer = setInterval(update, 10000);
  return () => { clearInterval(timer); ends.forEach(end => end()); };
}

const card = (heading, ...content) => el("section", { class: "card" }, el("h2", {}, heading), content);
const facts = pairs => el("dl", {}, pairs.filter(Boolean).map(([name, value, kind]) => [el("dt", {}, name), el("dd", { class: kind || "" }, value)]));

function storage(of) {
  if (!of) return card(w.health.storage, el("p", {}, w.loading));
  if (!of.disk) return card(w.health.storage, el("p", { class: "warning bad" }, w.health.diskUnknown));
  const { free_bytes: free, total_bytes: total, recordings_bytes: taken, seconds_left_estimate: left } = of.disk;
  const used = total ? 1 - free / total : 0;
  const bar = el("div", { class: `bar ${used > 0.9 ? "warn" : ""}`, role: "img", "aria-label": w.health.free(size(free), size(total)) }, el("i"));
  bar.firstChild.style.transform = `scaleX(${used.toFixed(3)})`;
  return card(w.health.storage, bar, facts([
    [w.health.room, w.health.free(size(free), size(total))],
    [w.health.recordings, size(taken)],
    [w.health.full, Number.isFinite(left) ? span(left) : names().some(name => state.recorders[name].state === "recording") ? (taken > EARLY_BYTES ? w.health.ring : w.health.early) : w.health.idle, Number.isFinite(left) && left < 43200 ? "warn" : ""],
  ]));
}

function machine(of) {
  if (!of) return null;
  const { raw, now: is = [], since_boot: was = [] } = of.throttled || {};
  const supply = is.includes("under_voltage") ? [w.health.underVoltage, "bad"] : was.includes("under_voltage") ? [w.health.underVoltageBefore, "warn"] : [raw ? w.health.supplyOk : w.health.supplyUnknown, ""];
  return card(w.health.machine, facts([
    of.cpu_temp_c !== null && [w.health.temperature, `${of.cpu_temp_c} °C${of.cpu_temp_c >= 80 ? `, ${w.health.hot}` : ""}`, of.cpu_temp_c >= 80 ? "warn" : ""],
    [w.health.supply, ...supply],
    of.load1 !== null && [w.health.load, String(of.load1)],
    of.mem_available_bytes !== null && [w.health.memory, size(of.mem_available_bytes)],
    of.uptime_s !== null && [w.health.uptime, span(of.uptime_s)],
    [w.health.version, state.session?.version || w.unknown],
  ]), el("p", { class: "dim" }, w.health.measured(timeText(Date.parse(of.ts)))));
}

function time() {
  const off = difference() / 1000;
  const isSet = (state.daemon?.clock || state.health?.clock) === "synchronized";
  const apart = Math.abs(off) < 2 ? w.health.same : off > 0 ? w.health.ahead(span(off)) : w.health.behind(span(-off));
  return card(w.health.time, facts([
    [w.health.deviceTime, momentText(now())],
    [w.health.clock, isSet ? w.health.set : w.health.unset, isSet ? "" : "warn"],
    [w.health.difference, apart, Math.abs(off) < 60 ? "" : "warn"],
  ]));
}

function broker(of) {
  const mqtt = of?.mqtt;
  return card(w.health.network, facts([
    [w.health.broker, !mqtt ? w.health.noBroker : mqtt.connected ? w.health.connected : w.health.disconnected, mqtt && !mqtt.connected ? "warn" : ""],
    mqtt && [w.health.waiting, String(mqtt.spooled)],
  ]));
}

function store(of) {
  const offload = of?.offload;
  if (!offload) return null;
  return card(w.health.store, facts([
    [w.health.sending, w.health.offload[offload.state] || offload.state, offload.state === "failing" ? "bad" : ""],
    offload.backlog_files !== null && [w.health.backlog, w.health.files(offload.backlog_files, size(offload.backlog_bytes))],
    offload.error && [w.health.fault, offload.error, "warn"],
  ]));
}

function recorders(of) {
  const pairs = names().map(name => {
    const rates = of?.recorders?.[name];
    const parts = rates ? [rates.fps && w.health.fps(rates.fps), rates.bitrate_bps && w.health.rate(rates.bitrate_bps), rates.queue_ms > 1000 && w.health.queue(rates.queue_ms)].filter(Boolean) : [];
    return [name, [w.record.states[state.recorders[name].state], ...parts].join(", "), state.recorders[name].state === "error" ? "bad" : ""];
  });
  return pairs.length ? card(w.health.rates, facts(pairs)) : null;
}

function devices() {
  if (!state.devices?.length) return card(w.health.devices, el("p", {}, w.health.noDevices));
  const rows = state.devices.map(device => el("tr", {}, el("td", {}, device.label, typeof device.detail === "string" ? el("div", { class: "dim" }, device.detail) : null),
    el("td", {}, w.health.kinds[device.kind] || device.kind), el("td", { class: device.state === "missing" ? "bad" : "" }, w.health.states[device.state] || device.state)));
  return card(w.health.devices, el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, w.health.table.map(one => el("th", { scope: "col" }, one)))), el("tbody", {}, rows))));
}

function errors() {
  const found = [...state.errors];
  for (const name of names()) {
    const { error } = state.recorders[name];
    if (error && !found.some(one => one.recorder === name && one.message === error.message)) found.unshift({ ts: error.since, recorder: name, message: error.message, count: 1 });
  }
  if (!found.length) return card(w.health.errors, el("p", { class: "dim" }, w.health.noErrors));
  return card(w.health.errors, el("ul", { class: "errors" }, found.map(one => {
    const item = el("li", {}, el("span", { class: "dim" }, one.ts ? momentText(Date.parse(one.ts)) : ""), " ", el("strong", {}, one.recorder ? `${one.recorder}: ` : ""), el("span", {}));
    say(item.lastChild, one.message + (one.count > 1 ? ` (${w.health.times(one.count)})` : ""));
    return item;
  })));
}
