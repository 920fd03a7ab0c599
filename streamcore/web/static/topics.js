import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { bytes, count, perSecond } from "./format.js";
import { History, empty, head, table, topicLink } from "./parts.js";
import { spark } from "./charts.js";

const history = new History();
let internal = localStorage.getItem("topics.internal") === "1";
let sort = "name";
let status = null;

on("history", (ticks) => history.reset(ticks));
on("status", (fresh) => {
  history.add(fresh.rates);
  status = fresh;
  draw();
});

const records = (t) => t.partitions.reduce((sum, p) => sum + p.log_end_offset - p.log_start_offset, 0);
const size = (t) => t.partitions.reduce((sum, p) => sum + (p.size_bytes ?? 0), 0);
const orders = {
  name: (a, b) => a.name.localeCompare(b.name),
  records: (a, b) => records(b) - records(a),
  size: (a, b) => size(b) - size(a),
  rate: (a, b) => (status.rates.topics[b.name] ?? 0) - (status.rates.topics[a.name] ?? 0),
};

function draw() {
  const hidden = status.topics.filter((t) => t.internal).length;
  const shown = status.topics.filter((t) => internal || !t.internal).sort(orders[sort]);
  const choose = (name) => h("button", { type: "button", "aria-pressed": String(sort === name), onclick: () => ((sort = name), draw()) }, name);
  render(main, [
    head("Topics",
      h("span", { class: "dim" }, "order by"), ["name", "rate", "records", "size"].map(choose),
      h("label", null, h("input", { type: "checkbox", checked: internal, onchange: (e) => {
        internal = e.target.checked;
        localStorage.setItem("topics.internal", internal ? "1" : "0");
        draw();
      } }), `internal (${hidden})`)),
    shown.length
      ? h("section", { class: "card flush" }, table([
          { title: "topic", cls: "name", cell: (t) => [topicLink(t.name), " ", tags(t)] },
          { title: "written, last 5 min", cls: "wide", cell: (t) => spark(history.of("topics", t.name), { label: `${t.name}: records per second`, height: 26, min: 0 }) },
          { title: "rate", cls: "n", cell: (t) => perSecond(status.rates.topics[t.name]) },
          { title: "partitions", cls: "n wide", cell: (t) => count(t.partitions.length) },
          { title: "records", cls: "n", cell: (t) => count(records(t)) },
          { title: "size", cls: "n", cell: (t) => bytes(size(t)) },
        ], shown, { key: (t) => t.name, label: "Topics", rowClass: (t) => (t.partitions.some((p) => p.offline) ? "bad" : "") }))
      : empty("No topics yet", "Make one: ", h("code", null, "streamcore topics create NAME --partitions 8")),
  ]);
}

function tags(t) {
  const offline = t.partitions.filter((p) => p.offline).length;
  return [
    offline > 0 && h("span", { class: "tag bad" }, `${offline} offline`), " ",
    t.internal && h("span", { class: "tag" }, "internal"), " ",
    (t.config?.["cleanup.policy"] ?? "").includes("compact") && h("span", { class: "tag" }, "compacted"),
  ];
}
