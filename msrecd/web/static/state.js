// What the device says: states and events by server-sent events, commands by POST. The browser's clock is never used:
// times are the device's, counted on by performance.now().

export const state = { session: null, recorders: {}, health: null, daemon: null, devices: [], errors: [], triggers: [], online: true };
const bus = new EventTarget();
const ERRORS = 30, TRIGGERS = 500;

export function on(type, handler) {
  const listener = event => handler(event.detail);
  bus.addEventListener(type, listener);
  return () => bus.removeEventListener(type, listener);
}
export const emit = (type, detail) => bus.dispatchEvent(new CustomEvent(type, { detail }));

let zero_ms = Date.now() - performance.now();
export const heardTime = text => { const at = Date.parse(text); if (Number.isFinite(at)) zero_ms = at - performance.now(); };
export const now = () => zero_ms + performance.now();
export const difference = () => Date.now() - now();

export class ApiError extends Error {
  constructor(status, code, message) { super(message); this.status = status; this.code = code; }
}

export async function failure(response) {
  let value = {};
  try { value = await response.json(); } catch { /* no JSON: the status says enough */ }
  const error = value.error || {};
  if (response.status === 401) emit("locked");
  return new ApiError(response.status, error.code || "", error.message || `HTTP ${response.status}`);
}

export async function get(path, options = {}) {
  const response = await fetch(path, { cache: "no-store", ...options });
  if (!response.ok) throw await failure(response);
  return response;
}
export const getJson = async path => (await get(path)).json();

export async function post(path, value) {
  const response = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value ?? {}),
  });
  if (!response.ok) throw await failure(response);
  return response.status === 204 ? null : response.json();
}
export const command = (recorder, verb, args) => post(`api/recorders/${encodeURIComponent(recorder)}/${verb}`, args ? { args } : {});

export const isOperator = () => (state.session?.role || state.session?.access) === "operator";

export async function openSession() {
  state.session = await getJson("api/session");
  if (state.session.now) heardTime(state.session.now);
  const [recorders, health, daemon, devices, errors] = await Promise.all(["recorders", "health", "daemon", "devices", "errors"].map(name => getJson(`api/${name}`)));
  Object.assign(state, { recorders, health: health?.ts ? health : null, daemon, devices, errors });
}

let source = null, timer = 0, wanted = [];
// `levels`: the recorders whose inputs are to be open, so that there are levels of idle ones, too.
export function listen(levels = wanted) {
  wanted = levels;
  source?.close();
  clearTimeout(timer);
  const there = levels.filter(name => state.recorders[name]); // the whole stream is refused for one that has gone
  source = new EventSource(there.length ? `api/events?level=${there.map(encodeURIComponent).join(",")}` : "api/events");
  source.onopen = () => setOnline(true);
  source.onerror = () => {
    setOnline(false);
    if (source.readyState !== EventSource.CLOSED) return; // it comes again by itself
    timer = setTimeout(async () => {
      try { await openSession(); emit("states"); } catch (error) { if (error.status === 401) return; }
      listen();
    }, 3000);
  };
  source.addEventListener("state", event => takeState(JSON.parse(event.data)));
  source.addEventListener("health", event => { state.health = JSON.parse(event.data); emit("health"); });
  source.addEventListener("level", event => emit("level", JSON.parse(event.data)));
  source.addEventListener("event", event => takeEvent(JSON.parse(event.data)));
}
export function hangUp() { source?.close(); clearTimeout(timer); source = null; wanted = []; }

function setOnline(online) {
  if (state.online === online) return;
  state.online = online;
  emit("online");
}

function takeState(value) {
  if (value.recorder) {
    if (value.gone) delete state.recorders[value.recorder];
    else state.recorders[value.recorder] = value;
    emit("recorder", value.recorder);
  } else if (value.path === "daemon") { state.daemon = value; emit("daemon"); }
  else if (value.path === "devices") { state.devices = value.devices || []; emit("devices"); }
}

function takeEvent(value) {
  if (value.ts) heardTime(value.ts);
  if (value.event_type === "error") {
    const error = value.error || value;
    const last = state.errors[0];
    if (last && last.message === error.message && last.recorder === value.recorder) Object.assign(last, { ts: value.ts, count: last.count + (value.count || 1) });
    else state.errors.unshift({ ts: value.ts, recorder: value.recorder, code: error.code, message: error.message, count: value.count || 1 });
    state.errors.length = Math.min(state.errors.length, ERRORS);
    emit("errors");
  }
  if (value.event_type === "trigger" && value.recorder) {
    state.triggers.push({ recorder: value.recorder, at: Date.parse(value.at || value.ts), kind: value.kind, score: value.score });
    if (state.triggers.length > TRIGGERS) state.triggers.shift();
  }
  emit("event", value);
}

// --- recorders ---

export const names = () => Object.keys(state.recorders).sort();
// What a recorder can have: by its tracks while it records, else by its type.
export function kinds(name) {
  const recorder = state.recorders[name] || {};
  const tracks = (recorder.tracks || []).map(track => track.kind);
  if (tracks.length) return { video: tracks.includes("video"), audio: tracks.includes("audio") };
  const type = recorder.mime_type || "video/";
  return { video: !type.startsWith("audio/"), audio: true };
}
