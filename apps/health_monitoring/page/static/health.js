import { h, memory, render } from "/static/vdom.js";
import { main } from "/static/frame.js";
import { dot, empty, kpi } from "/static/parts.js";
import { spark } from "/static/charts.js";
import { calmDuration, clean, count, duration, percent, plural, scaled, short } from "/static/format.js";
import { board, follow } from "./state.js";
import { TITLES, alarmCard, hostPath, isPercent, reading } from "./story.js";

const remember = memory();
follow(draw);

function draw(board, status) {
  if (!board.hosts.length && !board.alarms.length) return render(main, [h("h1", null, "Health"), numbers(board.kpis, status), waiting(status)]);
  const active = board.alarms.filter((a) => a.state !== "resolved");
  const over = board.alarms.filter((a) => a.state === "resolved").slice(0, Math.max(2, 5 - active.length));
  const first = active.find((a) => a.state !== "pending")?.id;
  const more = board.alarms.length - Math.min(active.length, 8) - over.length;
  render(main, [
    h("h1", { class: "skip" }, "Health"),
    numbers(board.kpis, status),
    h("div", { class: "health" },
      h("section", { "aria-label": "Hosts, most urgent first" },
        h("h2", null, h("span", null, "Hosts, most urgent first"), h("span", null, `last ${Math.round(board.span / 60_000)} min`)),
        h("div", { class: "hosts" }, board.hosts.map(card))),
      h("aside", { class: "stack" },
        h("section", { class: "card", "aria-label": "Alarms" }, h("h2", null, h("span", null, "Alarms"), h("a", { href: "/alarms" }, "all")),
          active.length === 0 && h("p", { class: "calm" }, dot("ok"), h("span", null, "Nothing is firing or pending.")),
          h("div", { class: "alarms" }, [...active.slice(0, 8), ...over].map((a) => alarmCard(a, { now: board.now, open: a.id === first }))),
          more > 0 && h("p", { class: "dim" }, h("a", { href: "/alarms" }, `${count(more)} more`))))),
  ]);
}

function numbers(k, status) {
  const [events, unit] = scaled(status.rates.events);
  const silent = k.hosts - k.reporting;
  const lag = status.summary.lag_ms;
  const firing = k.firing > 0;
  return h("section", { class: "kpis", "aria-label": "Summary" },
    kpi("hosts reporting", count(k.reporting), "", silent ? `of ${count(k.hosts)} · ${silent === 1 ? "one" : count(silent)} silent for ${calmDuration(k.silent_ms)}` : k.hosts ? "all of them" : "none yet"),
    kpi("alarms", count(k.firing), "firing", k.pending ? `${count(k.pending)} pending` : "none pending", firing ? "bad-ink" : ""),
    kpi("events", events, `${unit}/s`, `${short(status.events_total)} since the start`),
    kpi("reading to page", k.delay_p50_ms === null ? "–" : duration(k.delay_p50_ms), "", k.delay_p99_ms === null ? "no live readings" : `p50 · ${duration(k.delay_p99_ms)} p99`),
    kpi("lag", lag === null ? count(status.summary.lag) : duration(lag), "", status.summary.lag_group ? `worst: ${status.summary.lag_group}` : "nothing waits"));
}

function card(host) {
  const points = board.points.get(host.host) ?? [];
  // Silence moves without readings; everything else only when one came.
  const version = `${board.span}|${points.at(-1)?.[0]}|${points.length}|${host.tone}|${host.label}|${host.metric}|${host.more}|${host.threshold}|${host.silent_ms === null ? "" : Math.round(host.silent_ms / 1000)}`;
  return remember(host.host, version, () => {
    const label = host.silent_ms !== null && host.label === "silent" ? `silent ${calmDuration(host.silent_ms)}` : host.label;
    const value = (title, metric, text) => h("div", null, h("dt", null, title), h("dd", { class: metric === host.metric && host.tone === "bad" ? "bad-ink" : host.near.includes(metric) ? "warn-ink" : "" }, text));
    const scale = isPercent(host.metric) ? { min: 0, max: 100 } : { min: 0 };
    return h("a", { class: `card host ${host.tone}`, key: host.host, href: hostPath(host.host), "aria-label": `${clean(host.host)}, ${label}, CPU ${percent(host.cpu)}, memory ${percent(host.memory_percent)}, disk ${percent(host.disk_percent)}` },
      h("div", { class: "top" }, h("h3", { title: clean(host.host) }, clean(host.host)), h("span", { class: "label", title: label }, label)),
      h("div", { class: "what" }, h("span", null, TITLES[host.metric] ?? host.metric, host.metric === "disk_percent" && host.worst_disk && ` ${clean(host.worst_disk)}`), h("span", null, [host.note, host.more > 0 && `+${plural(host.more, "alarm")}`].filter(Boolean).join(" "))),
      spark(points, {
        ...scale, from: board.now - board.span, to: board.now, threshold: host.threshold, tone: host.tone === "ok" ? "" : host.tone,
        shade: host.tone === "bad" && host.shade_ms ? [host.shade_ms, null] : null,
        label: `${TITLES[host.metric] ?? host.metric} of ${clean(host.host)} over time, now ${reading(host.metric, points.at(-1)?.[1])}`,
      }),
      h("dl", null, value("CPU", "cpu", percent(host.cpu)), value("memory", "memory_percent", percent(host.memory_percent)), value("disk", "disk_percent", percent(host.disk_percent))));
  });
}

const waiting = (status) => empty("No host has reported yet",
  status.summary.level === "bad" && h("p", { class: "bad-ink" }, `Something is in the way: ${status.summary.text} `, h("a", { href: "/why" }, "Why?")),
  "Readings appear here within seconds of the first one.", h("br"),
  "Is the metrics agent running? ", h("code", null, "streamcore demo"), " starts one for this machine, and a small simulated fleet.", h("br"),
  h("a", { href: "/why" }, "Why is nothing coming out?"));
