// Times and days as the person at the page reads them: in the browser's zone, from the device's clock.

import { now } from "./state.js";
import { locale, w } from "./words.js";

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const exact = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(locale, { weekday: "short", day: "numeric", month: "short", year: "numeric" });
const both = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const zoneName = zone;
export const minuteText = ms => clock.format(ms);
export const timeText = ms => exact.format(ms);
export const dayText = ms => date.format(ms);
export const momentText = ms => both.format(ms);
export const utc = ms => new Date(Math.round(ms)).toISOString();

// The beginning of the local day of a moment, `days` later.
export function dayStart(ms, days = 0) {
  const at = new Date(ms);
  return new Date(at.getFullYear(), at.getMonth(), at.getDate() + days).getTime();
}

export function dayWord(ms) {
  const days = Math.round((dayStart(ms) - dayStart(now())) / 86400000);
  return days === 0 ? w.record.today : days === 1 ? w.record.tomorrow : dayText(ms);
}
