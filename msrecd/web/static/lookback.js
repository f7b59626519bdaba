// Look back: a day of a recorder on a time bar, playback, pictures, and what to take home.

import { button, el, pressed, put, say } from "./dom.js";
import { chunkUrl, fileUrl, pace, Player } from "./player.js";
import { soundPicture } from "./sound.js";
import { command, get, getJson, heardTime, isOperator, now, on, state } from "./state.js";
import { TimeBar } from "./timebar.js";
import { dayStart, dayText, momentText, timeText, utc, zoneName } from "./times.js";
import { reason, size, span, w } from "./words.js";

const AGAIN_MS = 20_000, PICTURES = 6, GAPS = 20, SPEEDS = [0.5, 1, 2, 4];

export function back(root, recorder) {
  const words = w.back;
  let day = 0, recordings = [], chunks = [], gaps = [], triggers = [], position = null, isOpen = true, shownChunk = "", rangeSaid = "", showsPictures = false, showsWave = null;
  let picture = new AbortController(), moveHead = () => {};

  const dayName = el("h2", { class: "day", "aria-live": "polite" });
  const newest = button(words.newest, () => load(null));
  const note = el("p", { class: "warn", role: "status" });
  const bar = new TimeBar({ onseek: ms => { seek(ms); }, onwindow: () => drawPictures() }, { label: words.bar, help: words.barHelp, at: describe });
  const media = el("video", { playsInline: true, "aria-label": words.player });
  const said = el("p", { class: "said", role: "status" });
  const hole = el("p", { class: "said", role: "status" });
  const clock = el("output", { class: "figure" });
  const playButton = button(words.play, () => (player.wants ? player.pause() : play()), { class: "main" });
  const speed = el("select", { "aria-label": words.speed, onchange: () => { media.defaultPlaybackRate = media.playbackRate = Number(speed.value); } }, SPEEDS.map(value => el("option", { value: String(value), selected: value === 1 }, `${value}×`)));
  const picturesButton = button(words.pictures, () => { showsPictures = !showsPictures; pressed(picturesButton, showsPictures); drawPictures(); });
  const waveButton = button(words.wave, () => { showsWave = !showsWave; pressed(waveButton, showsWave); shownChunk = ""; update(); });
  const pictures = el("div", { class: "pictures" });
  const sound = el("div", {});
  const here = el("section", { class: "card", hidden: true }), range = el("section", { class: "card", hidden: true }), list = el("section", { class: "card" });
  pressed(picturesButton, false);

  const legend = el("ul", { class: "legend" }, ["recorded", "open", "gap", "protected", "trigger"].map(kind => el("li", {}, el("i", { class: kind }), words.legend[kind])));
  const playing = el("div", { class: "playing" }, media, el("div", { class: "buttons" }, playButton, speed, clock), said, hole);
  put(root, el("h1", { class: "hidden" }, words.heading),
    el("div", { class: "row days" }, button("‹", () => otherDay(-1), { "aria-label": words.before }), dayName, button("›", () => otherDay(1), { "aria-label": words.after }), newest),
    note, playing, bar.node, legend,
    el("div", { class: "buttons" }, button("−", () => bar.zoom(-1), { "aria-label": words.zoomOut }), button("+", () => bar.zoom(1), { "aria-label": words.zoomIn }),
      button("◀", () => bar.shift(-0.5), { "aria-label": words.earlier }), button("▶", () => bar.shift(0.5), { "aria-label": words.later }), picturesButton, waveButton),
    pictures, sound, el("div", { class: "cards" }, here, range, list), el("p", { class: "dim" }, words.clockOf(zoneName)));

  const player = new Player(media, {
    onmove: () => { const wall = player.wall; if (wall !== null) { position = wall; bar.position = wall; bar.show(wall); update(); } },
    onstate: (kind, text) => {
      say(playButton, player.wants ? words.pause : words.play);
      playing.dataset.state = kind;
      say(said, kind === "loading" ? words.loading : kind === "failed" ? (media.error?.code === 4 ? words.cannot : words.failed(text)) : "");
      said.classList.toggle("bad", kind === "failed");
    },
  });

  function chunkAt(ms) { return chunks.find(one => ms >= one.from && ms < one.to) || null; }
  function gapAt(ms) { return gaps.find(one => ms >= one.from && ms < one.to); }
  const share = (chunk, ms) => (ms - chunk.from) / 1000 / pace(chunk) / chunk.duration_s;
  function describe(ms) { return chunkAt(ms) ? words.at(timeText(ms)) : words.atGap(timeText(ms), gapAt(ms) && reason(gapAt(ms).reason)); }

  async function play() {
    player.wants = true;
    say(playButton, words.pause);
    if (player.wall === null) await seek(position ?? bar.first); else await player.play();
  }

  async function seek(ms) {
    position = bar.position = ms;
    bar.show(ms);
    update();
    say(hole, "");
    if (!chunks.length) return;
    const why = chunkAt(ms) ? null : gapAt(ms)?.reason ?? "not_recorded", next = chunks.find(one => one.from > ms);
    await player.seek(ms);
    if (why && position !== null) say(hole, (next ? words.overGap : words.behindEnd)(timeText(ms), reason(why), timeText(position)));
  }

  async function otherDay(days) {
    const to = dayStart(day, days);
    await load(to);
  }

  // Show a day; null: the newest on which something was recorded.
  async function load(wanted) {
    put(list, el("p", {}, words.loading));
    try {
      const known = await getJson(`api/days?recorder=${encodeURIComponent(recorder)}`);
      heardTime(known.now);
      if (!isOpen) return;
      const last = known.recordings.length ? Math.max(...known.recordings.map(one => Date.parse(one.ended))) : now();
      day = dayStart(wanted ?? last - 1);
      player.unload();
      position = bar.position = null;
      bar.chosen = [null, null];
      bar.setDay(day, dayStart(day, 1));
      await refresh();
      if (!known.recordings.length) say(note, words.nothingAtAll);
      bar.fit();
      await showLast();
    } catch (error) { if (isOpen) { say(said, words.failed(error.message)); put(list); } }
  }

  async function showLast() { if (chunks.length) await seek(Math.max(bar.first, bar.last - 30_000)); }

  async function refresh() {
    const of = day;
    const found = await getJson(`api/recordings?recorder=${encodeURIComponent(recorder)}&from=${utc(of)}&to=${utc(dayStart(of, 1))}`);
    if (!isOpen || of !== day) return;
    heardTime(found.now);
    recordings = found.recordings.map(one => ({ ...one, from: Date.parse(one.started), to: Date.parse(one.ended), chunks: one.chunks.map(chunk => ({ ...chunk, recording_id: one.recording_id, from: Date.parse(chunk.started), to: Date.parse(chunk.ended) })) }));
    chunks = recordings.flatMap(one => one.chunks).sort((a, b) => a.from - b.from || a.seq - b.seq);
    gaps = recordings.flatMap(one => one.gaps.map(gap => ({ ...gap, from: Date.parse(gap.started), to: Date.parse(gap.started) + gap.duration_s * 1000 })));
    bar.chunks = chunks;
    bar.gaps = gaps;
    triggers = recordings.flatMap(one => one.triggers.map(found => ({ ...found, from: Date.parse(found.started), to: Date.parse(found.ended) })));
    const latest = Math.max(0, ...triggers.map(one => one.to));
    for (const one of state.triggers) if (one.recorder === recorder && one.at > latest) triggers.push({ kind: one.kind, score: one.score, from: one.at, to: one.at }); // no manifest has them yet
    triggers.sort((a, b) => a.from - b.from);
    bar.triggers = triggers;
    drawOpen();
    const isThere = [chunks.length, bar.open, gaps.length, chunks.some(chunk => chunk.protected), triggers.length];
    [...legend.children].forEach((item, i) => { item.hidden = !isThere[i]; });
    player.setChunks(chunks);
    say(dayName, dayText(day));
    say(note, !chunks.length ? words.nothing : chunks.some(chunk => chunk.clock === "unsynchronized") ? words.unsure : "");
    const isVideo = chunks.some(chunk => chunk.mime_type.startsWith("video/"));
    media.classList.toggle("soundonly", chunks.length > 0 && !isVideo);
    picturesButton.hidden = !isVideo;
    if (showsWave === null) { showsWave = chunks.length > 0 && !isVideo; pressed(waveButton, showsWave); }
    bar.draw();
    update();
    drawList();
    drawPictures();
  }

  // What is being recorded and is no finished file yet.
  function drawOpen() {
    const of = state.recorders[recorder] || {}, to = now();
    const last = Math.max(Date.parse(of.since) || 0, ...chunks.filter(one => one.recording_id === of.recording_id).map(one => one.to));
    bar.open = of.state === "recording" && last < dayStart(day, 1) && to > day ? { from: last, to: Math.min(to, dayStart(day, 1)) } : null;
  }

  function update() {
    say(clock, position === null ? "" : timeText(position));
    const chunk = position === null ? null : player.chunk || chunkAt(position);
    if (chunk) moveHead(share(chunk, position));
    const key = chunk ? `${chunk.recording_id}/${chunk.seq}/${chunk.protected}` : describe(position ?? 0);
    if (key !== shownChunk) { shownChunk = key; drawHere(chunk); drawSound(chunk); }
    bar.draw();
  }

  function drawHere(chunk) {
    here.hidden = range.hidden = !chunks.length;
    drawRange();
    if (!chunk) { put(here, el("h2", {}, words.here), el("p", {}, position === null ? "" : describe(position))); return; }
    const hash = el("code", {});
    put(here, el("h2", {}, words.here), el("p", {}, `${timeText(chunk.from)} – ${timeText(chunk.to)}. ${words.chunk(chunk.seq, span(chunk.time_lapse ? (chunk.to - chunk.from) / 1000 : chunk.duration_s), chunk.bytes)}${chunk.time_lapse ? `, ${words.lapse(span(chunk.duration_s))}` : ""}${chunk.protected ? `, ${words.legend.protected}` : ""}${chunk.recovered ? `, ${words.recovered}` : ""}`),
      el("div", { class: "buttons" }, el("a", { class: "button", href: `${fileUrl(chunk)}?download`, download: "" }, words.download),
        el("a", { class: "button", href: `api/recordings/${encodeURIComponent(chunk.recording_id)}/manifest`, download: "" }, words.manifest)),
      el("p", { class: "dim" }, `${words.hash}: `, hash));
    get(chunkUrl(chunk), { method: "HEAD" }).then(response => say(hash, (response.headers.get("ETag") || "").replaceAll('"', "")), () => say(hash, w.unknown));
  }

  function drawSound(chunk) {
    picture.abort();
    picture = new AbortController();
    moveHead = () => {};
    if (!chunk || !showsWave) { put(sound); return; }
    soundPicture(sound, chunk, picture.signal, part => seek(chunk.from + part * chunk.duration_s * 1000 * pace(chunk)))
      .then(move => { moveHead = move; if (position !== null) move(share(chunk, position)); }, error => { if (error.name !== "AbortError") put(sound, el("p", { class: "dim" }, words.failed(error.message))); });
  }

  function mark(which) {
    const chosen = [...bar.chosen];
    rangeSaid = "";
    chosen[which] = position;
    if (chosen[0] !== null && chosen[1] !== null && chosen[0] >= chosen[1]) chosen[1 - which] = null;
    bar.chosen = chosen;
    bar.draw();
    drawRange();
  }

  function drawRange() {
    const [from, to] = bar.chosen;
    const parts = [el("h2", {}, words.range), el("div", { class: "buttons" }, button(words.from, () => mark(0)), button(words.to, () => mark(1)),
      from !== null || to !== null ? button(words.clear, () => { bar.chosen = [null, null]; bar.draw(); drawRange(); }, { class: "quiet" }) : null)];
    if (from === null || to === null) parts.push(el("p", { class: "dim" }, from !== null ? `${words.from}: ${timeText(from)}` : to !== null ? `${words.to}: ${timeText(to)}` : words.noRange));
    else {
      const inside = chunks.filter(one => one.to > from && one.from < to);
      const bytes = inside.reduce((sum, one) => sum + one.bytes * (Math.min(to, one.to) - Math.max(from, one.from)) / Math.max(1, one.to - one.from), 0);
      const holes = gaps.filter(one => one.to > from && one.from < to).map(one => `${span(one.duration_s)} (${reason(one.reason)})`);
      const ids = [...new Set(inside.map(one => one.recording_id))];
      const result = el("p", { class: "said", role: "status" }, rangeSaid);
      parts.push(el("p", {}, words.chosen(timeText(from), timeText(to), span((to - from) / 1000))));
      if (inside.length) {
        const query = `recorder=${encodeURIComponent(recorder)}&from=${utc(from)}&to=${utc(to)}`;
        parts.push(el("div", { class: "buttons" }, el("a", { class: "button main export", href: `api/export?${query}`, download: "" }, words.export), el("span", { class: "dim" }, words.exporting(bytes))));
        if (holes.length) parts.push(el("p", { class: "warn" }, words.holes(holes.join(", "))));
        parts.push(el("p", {}, `${words.rangeManifests}: `, ids.map((id, i) => [i ? ", " : "", el("a", { href: `api/recordings/${encodeURIComponent(id)}/manifest`, download: "" }, id)])));
        if (isOperator()) {
          parts.push(el("div", { class: "buttons" }, button(words.protect, async () => {
            try {
              const reply = await command(recorder, "protect", { from: utc(from), to: utc(to) });
              rangeSaid = words.protected(reply.data.chunks);
              await refresh();
            } catch (error) { rangeSaid = words.failed(error.message); }
            drawRange();
          })), result);
        }
      } else parts.push(el("p", {}, words.nothing));
    }
    put(range, parts);
  }

  function drawList() {
    list.hidden = !recordings.length;
    const beginText = ms => (ms >= day ? timeText(ms) : momentText(ms));
    const rows = recordings.map(one => el("tr", {},
      el("td", {}, one.chunks.length ? button(beginText(one.from), () => seek(one.chunks[0].from + 1), { class: "quiet", "aria-label": words.jump(timeText(one.from)) }) : beginText(one.from)),
      el("td", {}, span(one.chunks.reduce((sum, chunk) => sum + chunk.duration_s * pace(chunk), 0))), el("td", {}, size(one.bytes))));
    const known = [...gaps].sort((a, b) => a.from - b.from);
    put(list, el("h2", {}, words.list), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, words.columns.map(one => (one ? el("th", { scope: "col" }, one) : el("td", {}))))), el("tbody", {}, rows))),
      known.length ? [el("h3", {}, words.gaps), el("ul", { class: "gaps" }, known.slice(0, GAPS).map(gap => el("li", {}, words.gap(timeText(gap.from), span(gap.duration_s), reason(gap.reason)))),
        known.length > GAPS ? el("li", {}, words.more(known.length - GAPS)) : null)] : null,
      triggers.length ? [el("h3", {}, words.triggers), el("ul", { class: "triggers" }, triggers.slice(0, GAPS).map(one => el("li", {}, button(words.trigger(timeText(one.from), words.kinds[one.kind] || one.kind, span((one.to - one.from) / 1000)), () => seek(one.from), { class: "quiet" }))),
        triggers.length > GAPS ? el("li", {}, words.more(triggers.length - GAPS)) : null)] : null);
  }

  function drawPictures() {
    if (!showsPictures || !chunks.length) { put(pictures); return; }
    const many = Math.max(3, Math.min(PICTURES, Math.floor(root.clientWidth / 140)));
    const seen = new Set(), nodes = [];
    for (let i = 0; i < many; i += 1) {
      const at = bar.from + (i + 0.5) / many * (bar.to - bar.from);
      const near = chunks.filter(one => one.to >= bar.from && one.from <= bar.to).reduce((best, one) => (!best || Math.abs(one.from - at) < Math.abs(best.from - at) ? one : best), null);
      if (!near || seen.has(near) || !near.mime_type.startsWith("video/")) continue;
      seen.add(near);
      nodes.push(el("button", { type: "button", onclick: () => seek(near.from + 1) }, el("img", { src: `${chunkUrl(near)}.jpg`, alt: words.thumbnail(timeText(near.from)), loading: "lazy" }), el("span", { "aria-hidden": "true" }, timeText(near.from))));
    }
    put(pictures, nodes);
  }

  const ends = [on("event", event => { if (event.recorder === recorder && ["chunk", "trigger"].includes(event.event_type) && day === dayStart(now())) later(); })];
  let timer = 0;
  async function again() {
    await refresh();
    if (position !== null || !chunks.length) return; // the first file of the day has come
    bar.fit();
    await showLast();
  }
  function later() {
    if (timer) return;
    timer = setTimeout(() => { timer = 0; again().catch(() => {}); }, AGAIN_MS / 10);
  }
  load(null);
  const tick = setInterval(() => { drawOpen(); bar.draw(); }, 2000);
  return () => { isOpen = false; clearTimeout(timer); clearInterval(tick); ends.forEach(end => end()); picture.abort(); bar.close(); player.close(); };
}
