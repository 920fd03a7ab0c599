import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { clean, count, duration, groupPath, partitionPath, plural } from "./format.js";
import { empty, head, table } from "./parts.js";

on("status", (status) => render(main, page(status)));

function page(status) {
  const groups = [...status.groups].sort((a, b) => (b.lag ?? 0) - (a.lag ?? 0) || a.group.localeCompare(b.group));
  return [
    head("Groups", h("span", { class: "dim" }, "lag = records written but not yet committed as done")),
    groups.length ? groups.map(group) : empty("No groups yet", "A group appears when it commits its first offset: ", h("code", null, "streamcore consume TOPIC --group NAME")),
  ];
}

function group(g) {
  const most = Math.max(1, ...g.partitions.map((p) => p.lag ?? 0));
  return h("section", { class: "card flush", key: g.group, "aria-label": g.group },
    h("h2", null, h("a", { href: groupPath(g.group) }, clean(g.group)), h("span", null, g.lag ? `${plural(g.lag, "record")} behind${g.lag_ms === null || g.lag_ms === undefined ? "" : ` · ${duration(g.lag_ms)}`}` : "up to date")),
    table([
      { title: "partition", cls: "name", cell: (p) => h("a", { href: `${partitionPath(p.topic, p.partition)}?offset=${Math.max(0, p.committed_offset ?? 0)}` }, `${p.topic}-${p.partition}`) },
      { title: "committed", cls: "n", cell: (p) => count(p.committed_offset) },
      { title: "log end", cls: "n wide", cell: (p) => count(p.log_end_offset) },
      { title: "lag", cls: "n", cell: (p) => count(p.lag) },
      { title: "time", cls: "n", cell: (p) => (p.lag ? duration(p.lag_ms) : "–") },
      { title: "", cls: "wide", cell: (p) => h("div", { class: "meter" }, h("i", { class: p.lag_ms > 60_000 ? "bad" : p.lag_ms > 5000 ? "warn" : "", style: { width: `${((p.lag ?? 0) / most) * 100}%` } })) },
    ], g.partitions, { key: (p) => `${p.topic}-${p.partition}`, label: `Partitions of ${g.group}` }));
}
