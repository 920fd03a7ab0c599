// An alarm and how it came about: value, levels, chart, log lines, processes, and the very records.
import { h } from "/static/vdom.js";
import { dot } from "/static/parts.js";
import { spark } from "/static/charts.js";
import { bytes, calmDuration, clean, count, iso, percent, recordPath, short, time } from "/static/format.js";

export const TITLES = {
  cpu: "CPU", cpu_mean: "CPU, mean of the minute", memory_percent: "memory", memory_mean: "memory, mean of the minute", disk_percent: "disk",
  load_per_core: "load per core", network: "network", swap_percent: "swap", cpu_unusual: "CPU against its usual", network_unusual: "network against its usual",
};
export const isPercent = (metric) => /percent|^cpu$|_mean$/.test(metric ?? "");

/** A metric's value with its unit. */
export function reading(metric, value, places = 1) {
  if (value === null || value === undefined) return "–";
  if (isPercent(metric)) return percent(value, places);
  if (metric === "network") return `${bytes(value)}/s`;
  if (metric?.endsWith("_unusual")) return `${value.toFixed(1)} σ`;
  return metric === null ? calmDuration(value * 1000) : value.toFixed(2);
}

export const hostPath = (host) => `/health/host?name=${encodeURIComponent(host)}`;
export const severityTone = (severity) =>
  ["emerg", "alert", "crit", "err", "error"].includes(severity) ? "bad" : severity === "warning" ? "warn" : severity === "debug" ? "debug" : "";
const MARKS = { bad: "✗", warn: "!", debug: "·", "": "·" };

export function logLines(lines, label) {
  if (!lines.length) return null;
  return h("ol", { class: "loglines", "aria-label": label, tabindex: 0, role: "list" }, lines.map((line, i) => {
    const tone = severityTone(line.severity);
    return h("li", { key: `${line.at_ms}-${i}`, class: tone, title: line.severity },
      h("time", { datetime: iso(line.at_ms) }, time(line.at_ms).slice(-8)),
      h("span", { class: "mark", role: "img", "aria-label": line.severity }, MARKS[tone]),
      h("span", { class: "app" }, clean(line.app ?? ""), line.pid && h("span", { class: "pid" }, `[${clean(line.pid)}]`)),
      h("span", null, clean(line.message)));
  }));
}

export function processes(top) {
  if (!top.length) return null;
  const hasIo = top.some((p) => p.io > 0);
  return h("table", null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "top processes"), hasIo && h("th", { class: "n", scope: "col" }, "I/O"), h("th", { class: "n", scope: "col" }, "memory"), h("th", { class: "n", scope: "col" }, "CPU"))),
    h("tbody", null, top.map((p, i) => h("tr", { key: i }, h("td", { class: "name" }, clean(p.name), " ", h("span", { class: "dim" }, count(p.pid))),
      hasIo && h("td", { class: "n" }, `${bytes(p.io)}/s`), h("td", { class: "n" }, bytes(p.memory)), h("td", { class: "n" }, percent(p.cpu, 0))))));
}

/** Records of one partition that follow each other become one link. */
export function origins(records) {
  const runs = [];
  for (const [topic, partition, offset] of [...records].sort((a, b) => a[0].localeCompare(b[0]) || a[1] - b[1] || a[2] - b[2])) {
    const last = runs.at(-1);
    if (last && last.topic === topic && last.partition === partition && offset - last.to <= 1) last.to = offset;
    else runs.push({ topic, partition, from: offset, to: offset });
  }
  return runs.map((r, i) => h("span", { key: i }, i > 0 && ", ",
    h("a", { href: recordPath(r.topic, r.partition, r.from, r.to) }, `${r.topic}-${r.partition} @ ${count(r.from)}${r.to > r.from ? ` … ${count(r.to)}` : ""}`)));
}

const STAT_OF = { cpu: "cpu", cpu_mean: "cpu", memory_percent: "memory", memory_mean: "memory", disk_percent: "disk", load_per_core: "load", network: "network" };

/** "above 90 % since 14:02:11 (3 min); clears below 80 %" */
export function saying(alarm, now) {
  const m = alarm.metric;
  const where = m === "disk_percent" ? alarm.labels.mount ?? TITLES[m] : TITLES[m] ?? alarm.metric;
  const up = (alarm.comparison || ">").startsWith(">");
  const parts = [];
  if (m === null && alarm.measure) {
    const plain = (value) => (value === null ? "–" : Number.isInteger(value) ? String(value) : value.toFixed(2));
    if (alarm.state === "resolved") return [`${alarm.measure}: peaked at `, h("b", null, plain(alarm.peak ?? alarm.value)), `, back at ${plain(alarm.value)}.`];
    parts.push(`${alarm.measure}: `, h("b", { class: alarm.state === "firing" ? "bad-ink" : "" }, plain(alarm.value)));
    if (alarm.threshold !== null) parts.push(`; fires ${up ? "above" : "below"} ${plain(alarm.threshold)}`);
    return [parts, "."];
  }
  if (alarm.state === "no_data" || m === null) {
    const since = alarm.state === "resolved" ? alarm.started_ms : alarm.since_ms;
    parts.push(alarm.state === "resolved" ? `Silent from ${time(since)}` : ["No readings for ", h("b", null, calmDuration(Math.max(0, now - since)))]);
    if (alarm.threshold !== null) parts.push(`; one is due every ${calmDuration(alarm.threshold * 1000)}`);
    return [parts, "."];
  }
  if (alarm.state === "resolved") return [`${where} peaked at `, h("b", null, reading(m, alarm.peak ?? alarm.value)), `, back at ${reading(m, alarm.value)}.`];
  const now_value = alarm.points?.at(-1)?.[1] ?? alarm.value;
  parts.push(`${where} at `, h("b", { class: alarm.state === "firing" ? "bad-ink" : "" }, reading(m, now_value)));
  if (alarm.threshold !== null) parts.push(`; fires ${up ? "above" : "below"} ${reading(m, alarm.threshold, 0)}`);
  if (alarm.clear !== null && alarm.clear !== alarm.threshold) parts.push(`, clears ${up ? "below" : "above"} ${reading(m, alarm.clear, 0)}`);
  return [parts, "."];
}

function when(alarm, now) {
  const start = alarm.fired_ms ?? alarm.since_ms ?? alarm.started_ms;
  if (alarm.state === "resolved")
    return h("span", { class: "since" }, h("time", { datetime: iso(start) }, time(start)), " – ", time(alarm.resolved_ms ?? alarm.at_ms), ` · ${calmDuration((alarm.resolved_ms ?? alarm.at_ms) - start)}`);
  if (alarm.state === "pending") return h("span", { class: "since" }, `for ${calmDuration(Math.max(0, now - alarm.since_ms))}`);
  return h("span", { class: "since" }, "since ", h("time", { datetime: iso(start) }, time(start)), ` · ${calmDuration(Math.max(0, now - start))}`);
}

function picture(alarm, lines) {
  const points = alarm.points ?? [];
  const values = points.map((p) => p[1]).filter((v) => v !== null);
  if (values.length < 2) return null;
  const levels = [alarm.threshold, alarm.clear].filter((v) => v !== null);
  let low = Math.min(...values, ...levels), high = Math.max(...values, ...levels);
  const room = (high - low || Math.abs(high) || 1) * 0.14;
  [low, high] = [Math.max(low - room, low >= 0 ? 0 : -Infinity), high + room];
  if (isPercent(alarm.metric)) high = Math.min(high, 100 + room / 3);
  const from = points[0][0], to = points.at(-1)[0];
  const start = alarm.fired_ms ?? alarm.started_ms;
  const at = (v) => ({ top: `${8 + 116 * (1 - (v - low) / (high - low))}px` });
  const label = (v, cls) => v !== null && h("span", { class: `axis ${cls}`, style: at(v) }, reading(alarm.metric, v, 0));
  const apart = alarm.clear !== null && alarm.threshold !== null && (Math.abs(alarm.threshold - alarm.clear) / (high - low)) * 116 > 11;
  return [
    h("div", { class: "picture" },
      spark(points, {
        from, to, min: low, max: high, height: 116, threshold: alarm.threshold, clear: alarm.clear === alarm.threshold ? null : alarm.clear,
        shade: start && [start, alarm.resolved_ms ?? null], area: false,
        ticks: lines.map((l) => ({ at: l.at_ms, tone: severityTone(l.severity) })),
        label: `${TITLES[alarm.metric] ?? alarm.metric} of ${clean(alarm.host)} around the alarm, threshold ${reading(alarm.metric, alarm.threshold, 0)}; ${lines.length} log lines are marked below`,
      }),
      label(alarm.threshold, "threshold"), apart && label(alarm.clear, "clear")),
    h("div", { class: "times", "aria-hidden": "true" }, h("span", null, time(from)), lines.length > 0 && h("span", null, "ticks: log lines"), h("span", null, time(to))),
  ];
}

function facts(alarm) {
  const s = alarm.stats?.[STAT_OF[alarm.metric]];
  if (!s?.count) return null;
  const fact = (word, value) => h("div", null, h("dt", null, word), h("dd", null, reading(alarm.metric, value)));
  return h("dl", { class: "facts", "aria-label": "The window's statistics" }, fact(`mean of ${count(s.count)}`, s.mean), fact("lowest", s.min), fact("highest", s.max), fact("last", s.last));
}

const SAME = new Set(["summary", "description"]);

export function alarmCard(alarm, { now, open = false, withHost = true }) {
  const lines = alarm.lines ?? [];
  const text = alarm.annotations.summary ?? alarm.annotations.description;
  const runbook = alarm.annotations.runbook_url;
  const more = () => h("div", { class: "story" }, h("div", null, picture(alarm, lines), facts(alarm), processes(alarm.top ?? [])), h("div", null,
    logLines(lines, `Log lines of ${clean(alarm.host)} around the alarm`),
    Object.entries(alarm.annotations).filter(([name]) => !SAME.has(name)).map(([name, value]) => h("p", { class: "origin", key: name }, `${clean(name)}: ${clean(value)}`)),
    alarm.records.length > 0 && h("p", { class: "origin" }, "made from ", origins(alarm.records))));
  return h("article", { class: `alarm ${alarm.state}`, key: alarm.id, "aria-label": `${alarm.rule} on ${clean(alarm.host)}, ${alarm.state}` },
    h("div", { class: "top" },
      h("span", { class: `sev ${alarm.state}` }, dot(alarm.state === "resolved" ? "ok" : alarm.state === "firing" ? "bad" : alarm.state === "no_data" ? "empty" : "wait"), alarm.state.replace("_", " ")),
      h("b", null, clean(alarm.rule)), withHost && h("a", { class: "chip", href: hostPath(alarm.host) }, h("span", null, clean(alarm.host))),
      alarm.severity && h("span", { class: `tag ${alarm.severity === "critical" && alarm.state !== "resolved" ? "bad" : ""}` }, clean(alarm.severity)),
      Object.entries(alarm.labels).map(([name, value]) => h("span", { class: "tag", key: name }, `${clean(name)} ${clean(value)}`)), when(alarm, now)),
    h("p", { class: "saying" }, saying(alarm, now)),
    text && h("p", { class: "dim" }, clean(text)),
    alarm.state === "pending" && !open ? null : h("details", { open }, h("summary", { class: "dim" }, "its story"), more()));
}
