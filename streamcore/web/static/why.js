import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { count, duration, plural, time } from "./format.js";
import { WORDS, dot, empty, head } from "./parts.js";

let status = null;
on("status", (fresh) => ((status = fresh), draw()));

function draw() {
  render(main, [
    head("Why is nothing coming out?", h("span", { class: "dim" }, "most urgent first")),
    !status.healthy && h("div", { class: "card finding bad" }, h("b", null, "The worker is not healthy."), h("p", null, status.unhealthy_reason ?? "")),
    status.state !== "running" && h("div", { class: "card finding wait" }, h("b", null, `The worker is ${status.state}.`), h("p", { class: "dim" }, "Agents start when every table has been read back."), (status.recovery ?? []).map(recovery)),
    status.why.length ? status.why.map(finding) : empty("No agents", "This worker runs none, so nothing can come out. Write one: ", h("code", null, "@app.agent(topic)")),
  ]);
}

function recovery(r) {
  const share = r.total ? Math.min(1, r.done / r.total) : 1;
  return h("p", { class: "dim", key: `${r.table}-${r.partition}` }, `${r.table}-${r.partition}: ${count(r.done)} of ${count(r.total)} rows`, h("span", { class: "meter", style: { display: "block" } }, h("i", { style: { width: `${share * 100}%` } })));
}

function finding(f) {
  const agent = status.agents.find((a) => a.name === f.agent);
  const urgent = f.partitions.filter((p) => p.level === "bad" || p.level === "wait");
  const quiet = f.partitions.filter((p) => p.level !== "bad" && p.level !== "wait");
  return h("section", { class: `card finding ${f.level}`, key: f.agent, "aria-label": f.agent },
    h("div", { class: "head" }, h("h3", { class: "chips" }, dot(f.level), f.agent, h("span", { class: `tag ${f.level === "wait" ? "warn" : f.level === "empty" ? "" : f.level}` }, WORDS[f.level])),
      h("span", { class: "dim" }, `${plural(agent?.events_total ?? 0, "event")} so far`)),
    h("p", null, f.headline),
    f.notes.length > 0 && h("ul", { class: "dim" }, f.notes.map((note) => h("li", null, note))),
    h("div", { class: "parts" }, urgent.map((p) => part(p, agent))),
    quiet.length > 0 && h("details", null,
      h("summary", { class: "dim" }, plural(quiet.length, urgent.length ? "other partition" : "partition"), quietly(quiet, agent)),
      h("div", { class: "parts" }, quiet.map((p) => part(p, agent)))));
}

/** What partitions without a finding have in common. */
function quietly(quiet, agent) {
  const states = agent?.partitions.filter((each) => quiet.some((p) => p.partition === each.partition)) ?? [];
  const marks = states.filter((s) => s.watermark_ms !== null && !s.inputs.every((i) => i.idle)).map((s) => s.watermark_ms);
  const empties = quiet.filter((p) => p.level === "empty").length;
  return [
    empties === quiet.length ? ", never written to" : empties ? `, ${count(empties)} of them never written to` : ", all read to the end",
    marks.length > 0 && ` · watermark at most ${duration(status.now_ms - Math.min(...marks))} behind`,
  ];
}

function part(p, agent) {
  const state = agent?.partitions.find((each) => each.partition === p.partition);
  const lag = state?.inputs.reduce((sum, i) => sum + (i.lag ?? 0), 0);
  const idle = state?.inputs.length > 0 && state.inputs.every((i) => i.idle);
  const facts = [lag > 0 && `lag ${count(lag)}`, idle && "idle", state?.watermark_ms != null && `watermark ${time(state.watermark_ms)} (${duration(status.now_ms - state.watermark_ms)} behind)`];
  return h("div", { class: "part", key: p.partition }, dot(p.level, WORDS[p.level]), h("b", null, p.partition),
    h("span", null, p.sentence, p.todo && [" ", h("span", { class: "dim" }, p.todo)]), h("small", null, facts.filter(Boolean).join(" · ")));
}
