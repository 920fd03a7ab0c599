// How numbers, times and foreign text are shown.
const THIN = "\u202f"; // narrow no-break space

/** 1 234 567 */
export function count(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return Math.round(value).toString().replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
}

/** Three digits and a unit: 18.4 k, 41.0 M. Returns [number, unit]. */
export function scaled(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return ["–", ""];
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(value) >= size * 10 || (Math.abs(value) >= size && unit !== "k")) return [digits(value / size), unit];
  return [Math.abs(value) >= 1000 ? count(value) : digits(value), ""];
}

export function short(value) {
  const [number, unit] = scaled(value);
  return unit ? `${number}${THIN}${unit}` : number;
}

function digits(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1000) return String(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 1 : size === 0 ? 0 : 2);
}

export const percent = (value, places = 0) => (value === null || value === undefined ? "–" : `${value.toFixed(places)}${THIN}%`);

export function bytes(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  let size = value;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (Math.abs(size) < 1000 || unit === "TB") return `${unit === "B" ? Math.round(size) : digits(size)}${THIN}${unit}`;
    size /= 1000;
  }
}

export const perSecond = (value) => (value === null || value === undefined ? "–" : `${short(value)}/s`);

/** 0.3 s, 48 s, 3 min, 5 h, 12 d */
export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  const seconds = Math.abs(ms) / 1000;
  if (seconds < 0.1) return `${Math.round(Math.abs(ms))}${THIN}ms`;
  if (seconds < 10) return `${seconds.toFixed(1)}${THIN}s`;
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= 2 * size) return `${Math.round(seconds / size)}${THIN}${unit}`;
  return `${Math.round(seconds)}${THIN}s`;
}

/** duration() without fractions of a second, which would flicker. */
export const calmDuration = (ms) => (Math.abs(ms) < 10_000 ? `${Math.max(0, Math.round(ms / 1000))}${THIN}s` : duration(ms));

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const yearFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** 14:02:11, with the day in front when it is not today. */
export function time(ms, { millis = false } = {}) {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return "–";
  const now = new Date();
  let clock = clockFormat.format(at);
  if (millis) clock += "." + String(at.getMilliseconds()).padStart(3, "0");
  if (at.toDateString() === now.toDateString()) return clock;
  return `${(at.getFullYear() === now.getFullYear() ? dayFormat : yearFormat).format(at)} ${clock}`;
}

export const iso = (ms) => {
  const at = new Date(ms);
  return Number.isNaN(at.getTime()) ? "" : at.toISOString();
};

/** Foreign text made harmless to the eye: control characters are shown, marks that reverse the reading order are not obeyed. */
export function clean(text) {
  return String(text ?? "")
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** A long name without its middle: what tells names of programs apart is often their end. */
export const middle = (text, most) => (text.length <= most ? text : `${text.slice(0, most >> 1)}…${text.slice(1 - (most - (most >> 1)))}`);

export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

export const topicPath = (topic) => `/topics/${encodeURIComponent(topic)}`;
export const partitionPath = (topic, partition) => `${topicPath(topic)}/${partition}`;
export const recordPath = (topic, partition, offset, last = null) =>
  `${partitionPath(topic, partition)}?at=${offset}${last !== null && last !== offset ? `&to=${last}` : ""}`;
export const tablePath = (table) => `/tables/${encodeURIComponent(table)}`;
export const groupPath = (group) => `/groups/${encodeURIComponent(group)}`;
