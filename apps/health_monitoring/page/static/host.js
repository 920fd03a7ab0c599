import { h, render } from "/static/vdom.js";
import { main, on } from "/static/frame.js";
import { crumbs, empty, head } from "/static/parts.js";
import { chart } from "/static/plot.js";
import { bytes, calmDuration, clean, count, percent, time } from "/static/format.js";
import { board, follow } from "./state.js";
import { TITLES, alarmCard, logLines, processes, severityTone } from "./story.js";

const name = new URLSearchParams(location.search).get("name") ?? "";
let host = null;
on("host", (fresh) => (host = fresh));
follow(draw);

function draw() {
  const path = crumbs(h("a", { href: "/" }, "Health"), clean(name));
  if (!host) return render(main, [path, empty(`Nothing is known of ${clean(name) || "this host"}`, "It has not reported in the last hour, or its name is spelled differently. ", h("a", { href: "/" }, "See the hosts there are"))]);
  const card = board.hosts.find((each) => each.host === name);
  const m = host.metrics;
  const facts = [
    m.cores && `${count(m.cores)} cores`, m.memory_total && `${bytes(m.memory_total)} memory`, m.load1 !== null && m.load1 !== undefined && `load ${[m.load1, m.load5, m.load15].filter((v) => v !== null).map((v) => v.toFixed(2)).join(" · ")}`,
    `last reading ${card?.silent_ms ? `${calmDuration(board.now - host.seen_ms)} ago` : time(host.seen_ms)}`,
  ].filter(Boolean).join(" · ");
  render(main, [
    path,
    head(clean(name), card && h("span", { class: `tag ${card.tone === "gone" ? "" : card.tone}` }, card.label), h("span", { class: "dim" }, facts)),
    h("div", { class: "host-page" },
      h("div", { class: "charts" }, charts()),
      h("div", { class: "stack" },
        host.alarms.length > 0 && h("section", { class: "card", "aria-label": "Alarms" }, h("h2", null, "Alarms"), h("div", { class: "alarms" }, host.alarms.map((a) => alarmCard({ ...a, points: pointsOf(a) }, { now: board.now, withHost: false })))),
        h("section", { class: "card flush", "aria-label": "Log lines" }, h("h2", null, h("span", null, "Log lines"), h("span", null, count(host.lines.length))),
          logLines([...host.lines].reverse(), "Log lines, newest first") ?? h("p", { class: "dim", style: { padding: "0 14px 12px" } }, "None has come from this host. Point its rsyslog here, or try: logger -n ADDRESS -P PORT message")),
        Object.keys(host.disks).length > 0 && h("section", { class: "card", "aria-label": "Disks" }, h("h2", null, "Disks"), Object.entries(host.disks).map(disk)),
        host.top.length > 0 && h("section", { class: "card flush", "aria-label": "Processes" }, processes(host.top)))),
  ]);
}

const pointsOf = (alarm) => board.alarms.find((a) => a.id === alarm.id)?.points ?? alarm.points;

function disk([mount, d]) {
  const tone = d.percent >= 95 ? "bad" : d.percent >= 85 ? "warn" : "";
  return h("div", { class: "disk", key: mount }, h("span", { title: clean(mount) }, clean(mount)),
    h("div", { class: "meter", role: "img", "aria-label": `${percent(d.percent)} full` }, h("i", { class: tone, style: { width: `${Math.min(100, d.percent)}%` } })),
    h("span", { class: tone && `${tone}-ink` }, `${percent(d.percent, 1)} of ${bytes(d.total)}`));
}

const GROUPS = [
  { title: "CPU", metrics: ["cpu", "cpu_mean"], unit: " %", yrange: [0, 101] },
  { title: "Memory and disk", metrics: ["memory_percent", "disk_percent", "swap_percent"], unit: " %", yrange: [0, 101] },
  { title: "Load per core", metrics: ["load_per_core"] },
  { title: "Network", metrics: ["network"], unit: "B/s" },
];

function charts() {
  const at = host.columns.at_ms;
  const marks = host.lines.filter((l) => l.at_ms >= (at[0] ?? 0)).map((l) => ({ at: l.at_ms, tone: severityTone(l.severity) }));
  const alarming = (group) => host.alarms.some((a) => a.state !== "resolved" && group.metrics.includes(a.metric));
  return [...GROUPS].sort((a, b) => alarming(b) - alarming(a)).map((group) => {
    const shown = group.metrics.filter((metric) => host.columns[metric]);
    if (!shown.length) return null;
    const alarm = host.alarms.find((a) => a.metric && group.metrics.includes(a.metric));
    const level = host.levels.find((l) => group.metrics.includes(l.metric));
    return h("section", { class: "card", key: group.title, "aria-label": group.title },
      h("h2", null, h("span", null, group.title), h("span", { class: "hint" }, "drag to zoom, double click to reset")),
      chart({
        label: `${group.title} of ${clean(name)} over ten minutes`, height: 220, unit: group.unit, yrange: group.yrange, marks: group.title === "CPU" ? marks : [], version: `${host.version}`, range: [host.seen_ms - board.window, host.seen_ms],
        series: shown.map((metric) => ({ name: TITLES[metric], points: at.map((t, i) => [t, host.columns[metric][i]]) })),
        threshold: alarm?.threshold ?? level?.threshold, clear: alarm?.clear ?? level?.clear,
        shades: host.alarms.filter((a) => a.metric && group.metrics.includes(a.metric) && a.fired_ms).map((a) => [a.fired_ms, a.resolved_ms ?? at.at(-1)]),
      }));
  });
}
