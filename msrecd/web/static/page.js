// The frame of the page: log in, choose a view, show warnings.

import { aim } from "./aim.js";
import { button, el, put, say } from "./dom.js";
import { health } from "./health.js";
import { listenView } from "./listen.js";
import { back } from "./lookback.js";
import { record } from "./record.js";
import { emit, hangUp, isOperator, listen, names, on, openSession, post, state } from "./state.js";
import { warnings } from "./warnings.js";
import { w } from "./words.js";

const views = { aim, listen: listenView, record, back, health };
const head = document.getElementById("head"), main = document.getElementById("main"), nav = document.getElementById("nav"), foot = document.getElementById("foot");
let leave = () => {}, shown = "", isOpen = false;

// The address says what is shown: #view/recorder.
export function place() {
  let hash = location.hash.slice(1);
  try { hash = decodeURIComponent(hash); } catch { /* a torn link */ }
  const [view, recorder] = hash.split("/");
  const known = names();
  return { view: Object.hasOwn(views, view) ? view : "aim", recorder: known.includes(recorder) ? recorder : known[0] || "" };
}
const go = (view, recorder) => { location.hash = recorder ? `${view}/${recorder}` : view; };

function frame() {
  nav.setAttribute("aria-label", w.viewsLabel);
  put(nav, Object.entries(w.views).map(([name, text]) => el("a", { href: `#${name}`, data: { view: name } }, text)));
  const online = el("span", { class: "online", role: "status" });
  const picker = el("select", { id: "recorder", onchange: () => go(place().view, picker.value) });
  const chooser = el("label", { class: "chooser" }, el("span", {}, w.recorder), picker);
  const warned = el("section", { class: "warnings", "aria-label": w.warnings.heading, "aria-live": "polite" });
  const out = state.session.login ?? state.session.needs_login ? button(w.login.out, logOut, { class: "quiet" }) : null;
  put(head, el("div", { class: "top" }, el("strong", { class: "device" }, state.session.device || w.title), online, chooser), warned,
    isOperator() ? null : el("p", { class: "note" }, w.viewer));
  put(foot, out);
  const update = () => {
    const known = names();
    if ([...picker.options].map(option => option.value).join() !== known.join()) put(picker, known.map(name => el("option", { value: name }, name)));
    picker.value = place().recorder;
    chooser.hidden = known.length < 2 || !["aim", "back"].includes(place().view);
    say(online, state.online ? w.connection.on : w.connection.off);
    online.classList.toggle("bad", !state.online);
    const found = warnings();
    const key = JSON.stringify(found);
    if (warned.dataset.key !== key) {
      warned.dataset.key = key;
      put(warned, found.map(one => el("details", { class: `warning ${one.level}`, open: one.level === "bad" }, el("summary", {}, one.what), one.todo)));
    }
  };
  const ends = ["recorder", "health", "daemon", "online", "states", "devices"].map(type => on(type, update));
  ends.push(on("place", update));
  update();
  return () => ends.forEach(end => end());
}

function show() {
  if (!isOpen) return;
  const { view, recorder } = place();
  const key = `${view}/${["aim", "back"].includes(view) ? recorder : names().length > 0}`;
  emit("place");
  for (const link of nav.children) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    link.href = `#${link.dataset.view}${recorder ? `/${recorder}` : ""}`;
  }
  if (key === shown) return;
  const isFirst = shown === "";
  shown = key;
  leave();
  document.title = `${w.views[view]} – ${state.session.device || w.title}`;
  const root = el("div", { class: `view ${view}` });
  put(main, root);
  if (!names().length && view !== "health") { put(root, el("p", {}, w.noRecorders)); leave = () => {}; return; }
  leave = views[view](root, recorder) || (() => {});
  window.scrollTo(0, 0);
  if (!isFirst) main.focus({ preventScroll: true });
}

let closeFrame = () => {};
async function open() {
  try {
    await openSession();
  } catch (error) {
    if (error.status === 401) return logIn();
    put(main, el("p", { class: "warning bad" }, w.login.failed));
    setTimeout(open, 3000);
    return undefined;
  }
  isOpen = true;
  shown = "";
  closeFrame();
  closeFrame = frame();
  listen();
  show();
  return undefined;
}

function lock() {
  if (!isOpen) return;
  isOpen = false;
  shown = "";
  leave();
  leave = () => {};
  closeFrame();
  closeFrame = () => {};
  hangUp();
  logIn();
}

async function logOut() {
  try { await post("api/logout"); } catch { /* the session may have ended already */ }
  lock();
}

function logIn() {
  put(head, el("div", { class: "top" }, el("strong", { class: "device" }, w.title)));
  put(nav);
  put(foot);
  document.title = `${w.login.heading} – ${w.title}`;
  const field = el("input", { type: "password", id: "password", autocomplete: "current-password", required: true });
  const said = el("p", { class: "said", role: "alert" });
  const form = el("form", { class: "login", onsubmit: async event => {
    event.preventDefault();
    say(said, "");
    try {
      await post("api/login", { password: field.value });
      field.value = "";
      await open();
    } catch (error) {
      say(said, error.status === 401 ? w.login.wrong : error.status === 429 ? w.login.wait : error.status ? error.message : w.login.failed);
      field.select();
    }
  } }, el("h1", {}, w.login.heading), el("label", { htmlFor: "password" }, w.login.password), field,
  el("button", { type: "submit", class: "main" }, w.login.button), said);
  put(main, form);
  field.focus();
}

window.addEventListener("hashchange", show);
window.addEventListener("pagehide", () => { leave(); leave = () => {}; shown = ""; }); // what was opened for this page is closed
window.addEventListener("pageshow", event => { if (event.persisted) show(); });
on("locked", lock);
on("states", () => { if (isOpen) show(); });
on("recorder", () => { if (isOpen) show(); }); // the one that is shown may have gone
open();
