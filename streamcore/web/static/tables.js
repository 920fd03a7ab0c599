import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { count, tablePath } from "./format.js";
import { empty, head, table, topicLink } from "./parts.js";

on("status", (status) => render(main, page(status)));
const sum = (t, field) => t.partitions.reduce((total, p) => total + (p[field] ?? 0), 0);

function page(status) {
  return [
    head("Tables", h("span", { class: "dim" }, "keys are estimates")),
    status.tables.length
      ? h("section", { class: "card flush" }, table([
          { title: "table", cls: "name", cell: (t) => [h("a", { href: tablePath(t.name) }, t.name), t.help && h("span", { class: "dim" }, ` ${t.help}`)] },
          { title: "window", cell: (t) => t.window ?? h("span", { class: "dim" }, "none") },
          { title: "keys", cls: "n", cell: (t) => count(t.keys) },
          { title: "open windows", cls: "n wide", cell: (t) => (t.window ? count(sum(t, "open_windows")) : "–") },
          { title: "closed", cls: "n wide", cell: (t) => (t.window ? count(sum(t, "closed_windows_total")) : "–") },
          { title: "late", cls: "n", cell: (t) => h("span", { class: sum(t, "late_total") ? "warn-ink" : "" }, count(sum(t, "late_total"))) },
          { title: "changelog", cls: "wide name", cell: (t) => t.changelog && topicLink(t.changelog) },
        ], status.tables, { key: (t) => t.name, label: "Tables" }))
      : empty("No tables", "Keep state per key: ", h("code", null, 'app.Table("counts", default=int)')),
  ];
}
