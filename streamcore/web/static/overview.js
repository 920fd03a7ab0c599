import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { calmDuration, count, duration, perSecond, scaled, short } from "./format.js";
import { History, WORDS, dot, empty, head, kpi, list, table, topicLink } from "./parts.js";
import { spark } from "./charts.js";

const history = new History();
on("history", (ticks) => history.reset(ticks));
on("status", (status) => {
  history.add(status.rates);
  render(main, page(status));
});

function page(status) {
  const [events, unit] = scaled(status.rates.events);
  const total = status.agents.reduce((sum, a) => sum + (a.events_total ?? 0), 0);
  const errors = status.agents.reduce((sum, a) => sum + (a.errors_total ?? 0), 0);
  const dead = status.agents.reduce((sum, a) => sum + (a.dead_letters_total ?? 0), 0);
  const topics = status.topics.filter((t) => !t.internal);
  const behind = status.summary.behind_ms;
  const span = Math.min(300_000, Math.max(60_000, status.now_ms - (history.ticks[0]?.at_ms ?? status.now_ms)));
  const findings = new Map(status.why.map((f) => [f.agent, f]));
  return [
    head("Overview", h("span", { class: "dim" }, `${status.state} for ${calmDuration(status.now_ms - status.started_ms)} · ${status.broker}`)),
    !status.healthy && h("div", { class: "card finding bad", role: "alert" }, h("b", null, "Not healthy"), h("p", null, status.unhealthy_reason ?? "")),
    h("section", { class: "kpis", "aria-label": "Summary" },
      kpi("events", events, `${unit}/s`, `${short(total)} since the start`),
      kpi("lag", status.summary.lag_ms === null ? count(status.summary.lag) : duration(status.summary.lag_ms), "", status.summary.lag_group ? `${count(status.summary.lag)} records, most in ${status.summary.lag_group}` : "nothing waits"),
      kpi("watermark", behind === null ? "–" : duration(behind), "", behind === null ? "no input yet" : "behind the clock"),
      kpi("errors", count(errors), "", `${count(dead)} dead letters`, errors ? "warn-ink" : ""),
      kpi("tables", count(status.tables.reduce((sum, t) => sum + (t.keys ?? 0), 0)), "keys", `in ${count(status.tables.length)} tables`)),
    h("section", { class: "card", "aria-label": "Events per second" },
      h("h2", null, h("span", null, "Events per second"), h("span", null, `last ${span >= 120_000 ? `${Math.round(span / 60_000)} minutes` : "minute"}`)),
      spark(history.events(), { label: `Events per second, now ${short(status.rates.events)}`, height: 90, min: 0, from: status.now_ms - span, to: status.now_ms })),
    h("div", { class: "columns" },
      h("section", { class: "card flush" }, h("h2", null, h("span", null, "Agents"), h("a", { href: "/why" }, "why nothing?")),
        status.agents.length
          ? table([
              { title: "agent", cell: (a) => h("span", { class: "chips" }, dot(findings.get(a.name)?.level ?? "empty", WORDS[findings.get(a.name)?.level]), a.name) },
              { title: "reads", cls: "wide", cell: (a) => list(a.topics.map(topicLink)) },
              { title: "events", cls: "n", cell: (a) => short(a.events_total) },
              { title: "rate", cls: "n", cell: (a) => perSecond(status.rates.agents[a.name]) },
            ], status.agents, { key: (a) => a.name, label: "Agents" })
          : empty("No agents", "This worker runs none. Write one: ", h("code", null, "@app.agent(topic)"))),
      h("section", { class: "card flush" }, h("h2", null, h("span", null, "Topics"), h("a", { href: "/topics" }, "all")),
        topics.length
          ? table([
              { title: "topic", cls: "name", cell: (t) => topicLink(t.name) },
              { title: "written", cls: "wide", cell: (t) => spark(history.of("topics", t.name), { label: `${t.name}: records per second`, height: 26, min: 0 }) },
              { title: "records", cls: "n", cell: (t) => short(t.partitions.reduce((s, p) => s + p.log_end_offset - p.log_start_offset, 0)) },
              { title: "rate", cls: "n", cell: (t) => perSecond(status.rates.topics[t.name]) },
            ], topics, { key: (t) => t.name, label: "Topics" })
          : empty("No topics yet", "An agent's topics are created when the worker starts."))),
  ];
}
