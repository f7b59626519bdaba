// What a person should know at once, with what to do about it.

import { names, state } from "./state.js";
import { remedies, span, w } from "./words.js";

const HOT_C = 80, SOON_S = 12 * 3600;

export function warnings() {
  const found = [];
  const add = (level, [what, todo]) => found.push({ level, what, todo });
  const { health, daemon } = state;
  for (const name of names()) {
    const { error } = state.recorders[name];
    if (!error) continue;
    const [what, todo] = remedies[error.code] || remedies.internal;
    add("bad", w.warnings.recorder(name, what, error.message, todo));
  }
  if (health) {
    if (health.throttled?.now?.includes("under_voltage")) add("bad", w.warnings.voltage);
    else if (health.throttled?.now?.length) add("warn", w.warnings.throttled);
    if (health.cpu_temp_c >= HOT_C) add("warn", w.warnings.hot(health.cpu_temp_c));
    if (health.disk === null) add("bad", w.warnings.disk);
    else if (Number.isFinite(health.disk?.seconds_left_estimate) && health.disk.seconds_left_estimate < SOON_S) add("warn", w.warnings.full(span(health.disk.seconds_left_estimate)));
    if (health.mqtt && !health.mqtt.connected) add("warn", w.warnings.broker);
  }
  if ((daemon?.clock || health?.clock) === "unsynchronized") add("warn", w.warnings.clock);
  return found;
}
