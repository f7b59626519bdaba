// All words of the page. To translate it, translate this file: every text is here, and nothing else is.

export const locale = "en-GB";

const number = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const count = (n, one, many) => `${number.format(n)} ${n === 1 ? one : many}`;

// A length of time in words, two units at most.
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return count(s, "second", "seconds");
  if (s < 3600) return count(Math.round(s / 60), "minute", "minutes");
  if (s < 48 * 3600) {
    const minutes = Math.round((s % 3600) / 60);
    return `${Math.floor(s / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
  }
  return count(Math.round(s / 86400), "day", "days");
}

export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes, at = 0;
  while (value >= 1000 && at < units.length - 1) { value /= 1000; at += 1; }
  return `${value < 10 && at ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

export const decibels = value => (value <= -80 ? "silent" : `${value.toFixed(1)} dB`);

const causes = {
  schedule: "by the schedule", autostart: "when the device started", web: "from this page", mqtt: "over MQTT",
  ctl: "by a command on the device", homeassistant: "by Home Assistant", reload: "after a new configuration",
};
export function cause(text) {
  if (!text) return "";
  const [kind, rest] = [text.split(":")[0], text.split(":").slice(1).join(":")];
  if (kind === "trigger") return rest === "motion" ? "by motion" : rest === "sound" ? "by a sound" : "by a trigger";
  return causes[kind] || `by ${text}`;
}

const reasons = {
  not_recorded: "not recorded", between_chunks: "missing between two chunks", power: "power cut or crash",
  no_space: "no space", no_frames: "the camera gave no frames", lost_sound: "sound was lost", encoder: "the encoder failed",
  slow_consumer: "the device was too slow", device_missing: "the device was away", missing_file: "the file is missing",
};
export function reason(text) {
  if (text.startsWith("deleted:")) return `deleted (${text.slice(8).replaceAll("_", " ")})`;
  return reasons[text] || text.replaceAll("_", " ");
}

// What is wrong, by the code of an error: what it means, and what to do.
export const remedies = {
  device_missing: ["The device is not there.", "Check the cable, the plug and the power of the USB hub. It is tried again by itself."],
  device_busy: ["Another program uses the device.", "Stop that program. It is tried again by itself."],
  no_space: ["The storage takes nothing.", "Free space on the card, lower max_total, or put the card back. Recording resumes by itself, with a gap."],
  internal: ["A fault of the program.", "It is tried again by itself. Keep the journal: journalctl -u msrecd."],
  bad_args: ["The configuration asks for something that this device cannot do.", "See the message, and correct the configuration."],
};

export const w = {
  title: "msrecd",
  views: { aim: "Aim", listen: "Listen", record: "Record", back: "Look back", health: "Health" },
  viewsLabel: "Views",
  recorder: "Recorder",
  noRecorders: "No recorder is configured. Add one to /etc/msrecd/msrecd.toml.",
  loading: "Loading …",
  yes: "yes", no: "no", unknown: "unknown", none: "none",
  close: "Close",
  until: "until",
  connection: {
    on: "connected", off: "No connection to the device. Trying again …",
    wifi: "Stay connected to this Wi-Fi even if the phone says that it has no internet.",
  },
  login: {
    heading: "Log in", password: "Password", button: "Log in", wrong: "The password is wrong.",
    wait: "Too many tries. Wait ten seconds.", out: "Log out", failed: "The device does not answer.",
  },
  viewer: "You may look and listen. Starting and stopping needs the operator's password.",

  aim: {
    heading: "Aim and focus",
    noCamera: name => `${name} has no camera.`,
    starting: "Waiting for the first frame …",
    live: lag => `Live, ${lag.toFixed(1)} s behind the newest frame`,
    jpeg: "Single frames, one after the other",
    webrtc: "Live over WebRTC",
    lost: "The picture stopped. Trying again …",
    refused: message => `No picture: ${message}`,
    picture: "Live picture",
    grid: "Grid", actual: "Zoom 1:1", whole: "Whole picture", sound: "Sound", full: "Full screen",
    focus: "Focus", best: value => `best ${value}`, reset: "New peak", focusHelp: "Turn the lens until the bar is as long as it was at its best. Tap the picture to choose the place.",
    way: "How the picture comes", ways: { auto: "Automatic", stream: "Stream", webrtc: "WebRTC", jpeg: "Single frames" },
    exposure: "Brightness", bright: share => `${share} % too bright`, dark: share => `${share} % black`,
    exposureFine: "nothing is lost in bright or dark parts",
    histogram: "Histogram of the brightness, from black to white",
    camera: (figure, best, focus, metres) => `${["The camera's own figure:", figure === undefined ? "" : `${figure}, best ${best}`, w.aim.focusStates[focus] || "", metres && metres < 100 ? `at ${number.format(metres)} m` : ""].filter(Boolean).join(" ")}`,
    focusStates: { scanning: "(searching)", focused: "(in focus)", failed: "(no focus found)" },
    exposed: (ms, iso) => `Exposure ${number.format(ms)} ms${iso ? `, ISO ${Math.round(iso)}` : ""}`,
    size: (width, height) => `${width} × ${height}`,
    sharpness: value => `Focus ${value}`,
  },

  listen: {
    heading: "Listen",
    noSound: "No recorder records sound.",
    play: "Listen", stop: "Stop listening", playing: "Playing", refused: message => `No sound: ${message}`,
    waiting: "No level yet.",
    channel: (index, channels) => (channels === 1 ? "Mono" : channels === 2 ? ["Left", "Right"][index] : `Channel ${index + 1}`),
    peak: "peak", rms: "mean",
    clip: "CLIP", clipped: "Too loud: the sound was clipped. Lower the gain. Press to reset.", notClipped: "No clipping",
    verdicts: { silent: "Silence: is the microphone plugged in and not muted?", quiet: "Quiet", good: "Good level", loud: "Loud: leave more room for peaks" },
    meter: (name, rms, peak) => `${name}: mean ${decibels(rms)}, peak ${decibels(peak)}`,
  },

  record: {
    heading: "Record",
    states: { inactive: "Not recording", armed: "Ready; the last seconds are kept", recording: "Recording", paused: "Paused", error: "Not recording: something is wrong" },
    since: (time, ago) => `since ${time} (${ago})`,
    until: (time, left) => `until ${time} (${left} left)`,
    untilStopped: "until it is stopped",
    by: cause => `Started ${cause}.`,
    next: "Next", nextStart: (day, time) => `starts ${day}, ${time}`, nextStop: (day, time) => `stops ${day}, ${time}`,
    waitingForClock: "The schedule waits until the clock is set.",
    noSchedule: "No schedule",
    start: "Start", stop: "Stop", pause: "Pause", resume: "Resume", split: "New file", snapshot: "Snapshot", protect: "Protect last 5 min",
    duration: "For how long",
    durations: [["", "until stopped"], ["60", "1 minute"], ["600", "10 minutes"], ["3600", "1 hour"], ["14400", "4 hours"]],
    done: { start: "Recording started.", stop: "Recording stopped.", pause: "Paused.", resume: "Resumed.", split: "The next file begins at the next key frame.", snapshot: "Snapshot taken.", protect: "Protected." },
    unchanged: { start: "It is recording already.", stop: "It is not recording." },
    protectedData: (chunks, bytes) => `Protected: ${count(chunks, "file", "files")}, ${size(bytes)}. Rotation leaves them alone.`,
    failed: message => `That did not work: ${message}`,
    working: "…",
    written: (chunks, bytes) => `${count(chunks, "file", "files")}, ${size(bytes)}`,
    dropped: frames => `${count(frames, "frame", "frames")} dropped`,
    snapshotOf: name => `Snapshot of ${name}`,
    save: "Save the picture",
    confirmStop: "Stop the recording?",
    today: "today", tomorrow: "tomorrow",
    unmet: (key, asked, got) => `Asked for ${key} ${asked}, got ${got}.`,
    message: "Message",
  },

  back: {
    heading: "Look back",
    day: "Day", before: "Earlier day", after: "Later day", newest: "Newest",
    nothing: "Nothing was recorded on this day.",
    nothingAtAll: "Nothing is recorded yet.",
    unsure: "The clock was not set when some of this was recorded: those times are not the real ones.",
    bar: "Time bar", zoomIn: "Zoom in", zoomOut: "Zoom out", earlier: "Earlier", later: "Later",
    barHelp: "Arrow keys move by 10 seconds, page keys by 5 minutes.",
    at: time => `Position ${time}`, atGap: (time, why) => `Position ${time}, nothing recorded${why ? `: ${why}` : ""}`,
    overGap: (time, why, at) => `At ${time}: ${why}. The player is at ${at}, where the recording continues.`,
    behindEnd: (time, why, at) => `At ${time}: ${why}. The player is at the end, ${at}.`,
    lapse: played => `a time-lapse that is played in ${played}`,
    triggers: "Triggers", kinds: { motion: "motion", sound: "sound" }, trigger: (time, kind, length) => `${time}: ${kind}, ${length}`,
    legend: { recorded: "recorded", open: "being recorded", gap: "gap", protected: "protected", trigger: "trigger", chosen: "chosen range" },
    play: "Play", pause: "Pause", speed: "Speed", pictures: "Pictures", hidePictures: "Hide pictures", wave: "Waveform",
    thumbnail: time => `Picture at ${time}`,
    player: "Player", loading: "Loading …", cannot: "This browser cannot play this format. Download the file instead.",
    failed: message => `That did not work: ${message}`,
    chunk: (seq, length, bytes) => `File ${seq}: ${length}, ${size(bytes)}`,
    here: "At this position",
    download: "Download this file", manifest: "Download its manifest", hash: "SHA-256 by the manifest",
    recovered: "recovered after a crash",
    from: "Mark begin", to: "Mark end", clear: "Clear", range: "Chosen range",
    chosen: (from, to, length) => `${from} to ${to} (${length})`,
    noRange: "Choose a range: move to its begin and press Mark begin, then to its end and press Mark end.",
    export: "Download the range as one file", exporting: bytes => `about ${size(bytes)}`,
    holes: text => `Missing in it: ${text}`,
    rangeManifests: "Its manifests",
    protect: "Protect the range", protected: chunks => `Protected: ${count(chunks, "file", "files")}.`,
    list: "Recordings of this day",
    columns: ["Begin", "Length", "Size"],
    jump: time => `Show the recording of ${time}`,
    gaps: "Gaps", gap: (time, length, why) => `${time}, ${length}: ${why}`,
    more: n => `and ${n} more`,
    waveform: "Waveform", spectrogram: top => `Spectrogram, 0 to ${top} kHz`,
    tooLong: "This file is too large for a waveform in the browser.",
    noSound: "This file has no sound.",
    clockOf: zone => `Times are of ${zone}.`,
  },

  health: {
    heading: "Health", storage: "Storage", room: "Space", machine: "Machine", time: "Clock", network: "Broker", devices: "Devices", errors: "Last errors",
    free: (free, total) => `${free} of ${total} free`, recordings: "Recordings", full: "Full in", ring: "never: the oldest recordings make room", early: "not known yet", idle: "nothing is recorded now",
    diskUnknown: "The disk does not answer.",
    temperature: "Temperature", hot: "hot: shade and air", supply: "Power supply", supplyOk: "fine", supplyUnknown: "no complaint", underVoltage: "under-voltage now", underVoltageBefore: "under-voltage since the start",
    load: "Load", memory: "Memory free", uptime: "Running for", version: "Version",
    clock: "Clock", set: "set and kept right", unset: "not set", difference: "Your clock",
    same: "the same", ahead: text => `${text} ahead of the device`, behind: text => `${text} behind the device`,
    deviceTime: "Device time",
    broker: "MQTT broker", connected: "connected", disconnected: "not connected", noBroker: "none is configured", waiting: "Events waiting",
    store: "Store", sending: "Sending", backlog: "Not sent yet", fault: "Fault", files: (n, bytes) => `${count(n, "file", "files")}, ${bytes}`,
    offload: { idle: "all is sent", sending: "now", closed: "waits for its time of day", metered: "waits: the network connection is metered", failing: "does not work; it is tried again" },
    states: { free: "free", busy: "in use", missing: "missing" }, kinds: { videoinput: "camera", audioinput: "microphone" },
    noDevices: "No camera and no microphone was found.",
    noErrors: "None since the recorder program started.",
    times: n => count(n, "time", "times"),
    table: ["Device", "Kind", "State"],
    rates: "Recorders", fps: value => count(value, "frame/s", "frames/s"), rate: value => (value < 1e6 ? `${Math.round(value / 1000)} kbit/s` : `${number.format(value / 1e6)} Mbit/s`), queue: value => `${number.format(value)} ms behind`,
    measured: time => `Measured ${time}`,
  },

  warnings: {
    heading: "Warnings",
    clock: ["The clock of the device is not set.", "Recording works; files are named by boots instead of days until it is set. Connect it to a network or set a clock."],
    voltage: ["The supply voltage is too low.", "Check the power supply and its cable: it destroys cards."],
    hot: temperature => [`The processor has ${Math.round(temperature)} °C.`, "Give it shade and air."],
    throttled: ["The processor is slowed down.", "Heat or supply: see Health."],
    full: text => [`The storage is full in ${text}.`, "Take recordings home, or set max_total so that the oldest make room."],
    disk: ["The disk does not answer.", "Check the card; see the journal for mmc or usb errors."],
    broker: ["The MQTT broker is not reached.", "Recording goes on; events wait on the card."],
    recorder: (name, what, message, todo) => [`${name}: ${what}`, `${todo}${message ? ` (${message})` : ""}`],
  },
};
