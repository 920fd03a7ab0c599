import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { bytes, clean, count, partitionPath, perSecond, plural, short } from "./format.js";
import { History, crumbs, empty, head, table } from "./parts.js";
import { chart } from "./plot.js";

const name = decodeURIComponent(location.pathname.split("/")[2]);
const history = new History();
const before = new Map();
document.title = `${name} · topic`;
on("history", (ticks) => history.reset(ticks));
on("status", (status) => {
  history.add(status.rates);
  render(main, page(status));
});

function page(status) {
  const topic = status.topics.find((t) => t.name === name);
  const path = crumbs(h("a", { href: "/topics" }, "Topics"), clean(name));
  if (!topic) return [path, empty(`There is no topic ${clean(name)}`, h("a", { href: "/topics" }, "See those there are"))];
  const total = topic.partitions.reduce((sum, p) => sum + p.log_end_offset - p.log_start_offset, 0);
  const size = topic.partitions.reduce((sum, p) => sum + (p.size_bytes ?? 0), 0);
  const most = Math.max(1, ...topic.partitions.map((p) => p.log_end_offset - p.log_start_offset));
  const rates = new Map();
  for (const p of topic.partitions) {
    const last = before.get(p.partition);
    if (last && status.now_ms > last.at) rates.set(p.partition, ((p.log_end_offset - last.end) * 1000) / (status.now_ms - last.at));
    before.set(p.partition, { at: status.now_ms, end: p.log_end_offset });
  }
  const config = Object.entries(topic.config ?? {});
  const readers = status.groups.filter((g) => g.partitions.some((p) => p.topic === name));
  return [
    path,
    head(topic.name, h("span", { class: "dim" }, `${plural(topic.partitions.length, "partition")} · ${plural(total, "record")} · ${bytes(size)} · ${perSecond(status.rates.topics[name])}`)),
    h("section", { class: "card" }, h("h2", null, h("span", null, "Records written per second"), h("span", { class: "hint" }, "drag to zoom, double click to reset")),
      chart({ label: `Records per second written to ${name}, now ${short(status.rates.topics[name])}`, height: 240, series: [{ name: "records/s", points: history.of("topics", name) }] })),
    h("div", { class: "columns" },
      h("section", { class: "card flush" }, h("h2", null, "Partitions"),
        table([
          { title: "partition", cell: (p) => h("a", { href: partitionPath(name, p.partition), "aria-label": `Records of partition ${p.partition}` }, `${name}-${p.partition}`) },
          { title: "from", cls: "n wide", cell: (p) => count(p.log_start_offset) },
          { title: "to", cls: "n", cell: (p) => count(p.log_end_offset) },
          { title: "rate", cls: "n", cell: (p) => perSecond(rates.get(p.partition)) },
          { title: "size", cls: "n", cell: (p) => bytes(p.size_bytes) },
          { title: "share", cls: "wide", cell: (p) => p.offline ? h("span", { class: "tag bad", title: p.offline }, `offline: ${p.offline}`) : h("div", { class: "meter" }, h("i", { style: { width: `${((p.log_end_offset - p.log_start_offset) / most) * 100}%` } })) },
        ], topic.partitions, { key: (p) => p.partition, label: "Partitions", rowClass: (p) => (p.offline ? "bad" : "") })),
      h("div", { class: "stack" },
        h("section", { class: "card" }, h("h2", null, "Read by"),
          readers.length ? h("p", { class: "chips" }, readers.map((g) => h("a", { class: "chip", href: "/groups" }, h("span", null, `${g.group} · lag ${count(g.partitions.filter((p) => p.topic === name).reduce((s, p) => s + (p.lag ?? 0), 0))}`))))
            : h("p", { class: "dim" }, "No group has committed an offset here.")),
        h("section", { class: "card" }, h("h2", null, "Configuration"),
          config.length ? h("p", { class: "chips" }, config.sort().map(([k, v]) => h("code", { key: k }, `${k}=${v}`)))
            : h("p", { class: "dim" }, "All defaults.")))),
  ];
}
