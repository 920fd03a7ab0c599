import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { clean, count, iso, tablePath, time } from "./format.js";
import { crumbs, empty, get, head, json, table } from "./parts.js";

const name = decodeURIComponent(location.pathname.split("/")[2]);
let status = null;
let answer = null;
let problem = "";
let asked = 0;
let prefix = new URLSearchParams(location.search).get("prefix") ?? "";
document.title = `${name} · table`;

on("status", (fresh) => ((status = fresh), draw()));

async function look() {
  const mine = ++asked;
  try {
    const found = await get(`/api${tablePath(name)}/rows?limit=100&prefix=${encodeURIComponent(prefix)}`);
    if (mine !== asked) return; // typing went on
    answer = found;
    problem = "";
  } catch (error) {
    if (mine !== asked) return;
    problem = error.message;
  }
  draw();
}

let timer = 0;
function typed(event) {
  prefix = event.target.value;
  window.history.replaceState(null, "", prefix ? `?prefix=${encodeURIComponent(prefix)}` : location.pathname);
  clearTimeout(timer);
  timer = setTimeout(look, 200);
}

const sum = (t, field) => t.partitions.reduce((total, p) => total + (p[field] ?? 0), 0);

function draw() {
  const path = crumbs(h("a", { href: "/tables" }, "Tables"), clean(name));
  const t = status?.tables.find((each) => each.name === name);
  if (status && !t) return render(main, [path, empty(`There is no table ${clean(name)}`, h("a", { href: "/tables" }, "See those there are"))]);
  if (!t) return;
  const rows = answer?.rows ?? [];
  const windowed = rows.some((r) => r.window_start_ms !== undefined && r.window_start_ms !== null);
  render(main, [
    path,
    head(t.name, h("span", { class: "dim" }, [`${count(t.keys)} keys`, t.window, t.window && `${count(sum(t, "open_windows"))} open windows`].filter(Boolean).join(" · "))),
    h("form", { role: "search", onsubmit: (e) => (e.preventDefault(), look()) },
      h("label", null, "key starts with", h("input", { type: "search", value: prefix, maxlength: 200, autocomplete: "off", spellcheck: "false", oninput: typed })),
      h("button", null, "Look up"), h("span", { class: "dim", role: "status" }, answer ? `${count(rows.length)}${answer.more ? " and more" : ""} rows` : "")),
    problem && h("p", { class: "bad-ink", role: "alert" }, problem),
    rows.length
      ? h("section", { class: "card flush" }, table([
          { title: "key", cls: "name mono", cell: (r) => clean(r.key.summary) },
          windowed && { title: "window", cell: (r) => h("time", { datetime: iso(r.window_start_ms) }, `${time(r.window_start_ms)} – ${time(r.window_end_ms)}`) },
          { title: "value", cell: (r) => r.value.text.length > 90 ? h("details", null, h("summary", { class: "mono" }, clean(r.value.summary.slice(0, 90)) + " …"), json(clean(r.value.text))) : h("span", { class: "mono" }, clean(r.value.summary)) },
        ].filter(Boolean), rows, { key: (r) => `${r.key.summary}|${r.window_start_ms ?? ""}|${r.partition ?? ""}`, label: "Rows" }))
      : answer && empty(prefix ? "No key starts with that" : "The table is empty", prefix ? "Keys are compared as they are written, upper and lower case apart." : "Rows appear when an agent writes the first one."),
  ]);
}

look();
