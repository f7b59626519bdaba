// Elements without a framework. Texts are only ever set as text.

// Children may be nested lists, and what is not there.
const there = children => children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false);

export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key in node && key !== "list" && key !== "role") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...there(children));
  return node;
}

export const button = (text, onclick, properties = {}) => el("button", { type: "button", onclick, ...properties }, text);

// Set a text only if it changed: screen readers announce what is set.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Replace what is in a node. The keyboard's focus stays at its place: what stands there now has it.
export function put(node, ...children) {
  const takers = () => [...node.querySelectorAll("a[href], button, select, input, summary")];
  const at = node.contains(document.activeElement) ? takers().indexOf(document.activeElement) : -1;
  node.replaceChildren(...there(children));
  if (at >= 0) takers()[at]?.focus({ preventScroll: true });
}

export const pressed = (node, on) => node.setAttribute("aria-pressed", String(on));

// A canvas that is as sharp as the screen: its context, scaled so that one unit is one CSS pixel.
export function sharp(canvas, width, height) {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

export const color = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
