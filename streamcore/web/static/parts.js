// Pieces that several pages show.
import { h } from "./vdom.js";
import { topicPath } from "./format.js";

export const kpi = (label, value, unit, note, tone = "") =>
  h("div", { class: "card kpi" }, h("small", null, label), h("strong", { class: tone }, value, unit && h("i", null, unit)), h("span", null, note));

export const dot = (level, word = null) => h("i", { class: `dot ${level}`, role: word ? "img" : null, "aria-label": word });

export const empty = (title, ...more) => h("div", { class: "blank" }, h("b", null, title), ...more);

export const topicLink = (topic) => h("a", { href: topicPath(topic) }, topic);

export const list = (nodes, separator = ", ") => nodes.flatMap((node, i) => (i ? [separator, node] : [node]));

export const head = (title, ...tools) => h("div", { class: "head" }, h("h1", null, title), h("div", { class: "tools" }, ...tools));

export const crumbs = (...links) => h("p", { class: "crumbs" }, list(links, " › "));

/** A table: columns [{title, cls, cell: row => node}], rows with keys. */
export function table(columns, rows, { key, label, rowClass } = {}) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h("table", null,
      h("thead", null, h("tr", null, columns.map((c) => h("th", { class: c.cls, scope: "col" }, c.title)))),
      h("tbody", null, rows.map((row) => h("tr", { key: key(row), class: rowClass?.(row) },
        columns.map((c, i) => h(i ? "td" : "th", { class: c.cls, scope: i ? null : "row" }, c.cell(row))))))));
}

export const WORDS = { bad: "stuck", wait: "behind", empty: "no input", ok: "current" };

/** JSON text with its parts coloured, without ever becoming markup. */
export function json(text) {
  const out = [];
  const pattern = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  let last = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > last) out.push(text.slice(last, match.index));
    out.push(h("span", { class: match[2] ? "k" : match[1] ? "s" : "v" }, match[1] ?? match[0]));
    if (match[2]) out.push(match[2]);
    last = match.index + match[0].length;
    if (out.length > 3000) break; // colour ends, the text goes on
  }
  out.push(text.slice(last));
  return h("pre", { class: "json" }, out);
}

/** Rates of the last minutes for one name, from the feed's history and what came since. */
export class History {
  constructor(size = 300) {
    this.size = size;
    this.ticks = [];
  }
  reset(ticks) {
    this.ticks = ticks.slice(-this.size);
  }
  add(rates) {
    if (rates.events === null || this.ticks.at(-1)?.at_ms === rates.at_ms) return;
    this.ticks.push(rates);
    if (this.ticks.length > this.size) this.ticks.shift();
  }
  of(kind, name) {
    return this.ticks.map((t) => [t.at_ms, t[kind][name] ?? null]);
  }
  events() {
    return this.ticks.map((t) => [t.at_ms, t.events]);
  }
}

export async function get(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  const body = await answer.json().catch(() => ({ error: `the worker answered ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error ?? `the worker answered ${answer.status}`);
  return body;
}
