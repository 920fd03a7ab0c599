import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { count, duration, partitionPath, perSecond, short, topicPath } from "./format.js";
import { WORDS, dot, empty, head, list, table, topicLink } from "./parts.js";

let status = null;
on("status", (fresh) => ((status = fresh), draw()));
addEventListener("resize", () => status && draw());

const isTopic = (name) => status.topics.some((t) => t.name === name);

function draw() {
  render(main, [
    head("Agents"),
    status.agents.length ? h("section", { class: "card topology", "aria-label": "Topology", tabindex: 0, role: "region" }, topology()) : empty("No agents", "Write one: ", h("code", null, "@app.agent(topic)")),
    status.agents.map(agent),
  ]);
}

function agent(a) {
  const finding = status.why.find((f) => f.agent === a.name);
  const fact = (word, value, tone) => h("span", { class: `tag ${value && tone ? tone : ""}` }, `${word} ${short(value ?? 0)}`);
  return h("section", { class: "card flush", key: a.name, id: `agent-${a.name}`, "aria-label": a.name },
    h("h2", null, h("span", { class: "chips" }, dot(finding?.level ?? "empty"), a.name, h("span", { class: "tag" }, WORDS[finding?.level] ?? "–")),
      h("span", { class: "chips" }, fact("events", a.events_total), h("span", { class: "tag" }, perSecond(status.rates.agents[a.name])), fact("errors", a.errors_total, "warn"), fact("dead letters", a.dead_letters_total, "warn"), fact("late", a.late_total, "warn"))),
    a.help && h("p", { style: { padding: "0 14px" } }, a.help),
    h("p", { class: "dim", style: { padding: "0 14px" } }, "reads ", list(a.topics.map(topicLink)), a.sinks.length > 0 && [" · sends to ", list(a.sinks.map((sink) => (isTopic(sink) ? topicLink(sink) : sink)))]),
    table([
      { title: "partition", cell: (p) => count(p.partition) },
      { title: "state", cell: (p) => h("span", { class: `tag ${p.state === "stopped" || p.state === "retrying" ? "bad" : p.state === "recovering" ? "warn" : p.state === "running" ? "ok" : ""}` }, p.state) },
      { title: "done up to", cls: "n", cell: (p) => list(p.inputs.map((i) => h("a", { href: `${partitionPath(i.topic, p.partition)}?offset=${Math.max(0, i.done_offset ?? 0)}`, title: i.topic }, count(i.done_offset)))) },
      { title: "lag", cls: "n", cell: (p) => count(p.inputs.reduce((s, i) => s + (i.lag ?? 0), 0)) },
      { title: "in flight", cls: "n wide", cell: (p) => count(p.in_flight) },
      { title: "watermark", cls: "n wide", cell: (p) => (p.watermark_ms === null ? "–" : `${duration(status.now_ms - p.watermark_ms)} behind`) },
    ], a.partitions, { key: (p) => p.partition, label: `Partitions of ${a.name}` }));
}

// Layers from left to right (from top to bottom where it is narrow): topics nobody here writes, agents, what they send to.
function topology() {
  const nodes = new Map();
  const edges = [];
  const node = (kind, name) => {
    const id = `${kind}:${name}`;
    if (!nodes.has(id)) nodes.set(id, { id, kind, name, layer: 0 });
    return nodes.get(id);
  };
  for (const a of status.agents) {
    const me = node("agent", a.name);
    for (const t of a.topics) edges.push([node("topic", t), me]);
    for (const t of a.sinks.filter(isTopic)) edges.push([me, node("topic", t)]);
  }
  // Longest path from a source; a cycle stops after as many rounds as there are nodes.
  for (let round = 0; round < nodes.size; round++) {
    let moved = false;
    for (const [from, to] of edges)
      if (to.layer < from.layer + 1 && from.layer + 1 < nodes.size) (to.layer = from.layer + 1), (moved = true);
    if (!moved) break;
  }
  // An edge over several layers gets a place in each, so that it passes between the nodes and not behind them.
  const layers = [];
  for (const n of nodes.values()) (layers[n.layer] ??= []).push(n);
  const routes = edges.map(([from, to]) => {
    const route = [from];
    for (let layer = from.layer + 1; layer < to.layer; layer++) {
      const place = { id: `${from.id}>${to.id}${layer}`, kind: "passage", layer, before: route.at(-1) };
      layers[layer].push(place);
      route.push(place);
    }
    return { from, to, route: [...route, to] };
  });
  // Each node stands near those it comes from.
  for (const row of layers.slice(1)) {
    for (const n of row) {
      const sources = n.before ? [n.before] : edges.filter(([, to]) => to === n).map(([from]) => from);
      n.wish = sources.reduce((sum, each) => sum + (each.index ?? 0), 0) / (sources.length || 1);
    }
    row.sort((a, b) => a.wish - b.wish);
    row.forEach((n, i) => (n.index = i));
  }
  const narrow = innerWidth < 720;
  const room = main.clientWidth - (narrow ? 48 : 78);
  const most = Math.max(...layers.map((row) => row.length));
  const H = 46;
  const across = narrow ? Math.max(104, Math.min(160, (room + 10) / most - 10)) : H;
  const gapAcross = narrow ? 10 : 16;
  const gapAlong = narrow ? 38 : Math.max(34, Math.min(80, (room - layers.length * 150) / Math.max(1, layers.length - 1)));
  const W = narrow ? across : Math.max(130, Math.min(200, (room + gapAlong) / layers.length - gapAlong));
  const size = most * (across + gapAcross) - gapAcross;
  layers.forEach((row, layer) => {
    const span = row.length * (across + gapAcross) - gapAcross;
    row.forEach((n, i) => {
      const side = (size - span) / 2 + i * (across + gapAcross);
      const along = layer * ((narrow ? H : W) + gapAlong);
      [n.x, n.y] = narrow ? [side, along] : [along, side];
    });
  });
  const width = narrow ? size : layers.length * (W + gapAlong) - gapAlong;
  const height = narrow ? layers.length * (H + gapAlong) - gapAlong : size;
  const findings = new Map(status.why.map((f) => [f.agent, f.level]));
  const rate = (n) => (n.kind === "agent" ? status.rates.agents[n.name] : status.rates.topics[n.name]);
  const curve = (a, b) => {
    const [x1, y1, x2, y2] = narrow ? [a.x + W / 2, a.y + H, b.x + W / 2, b.y] : [a.x + W, a.y + H / 2, b.x, b.y + H / 2];
    const bend = narrow ? `C${x1} ${(y1 + y2) / 2} ${x2} ${(y1 + y2) / 2} ${x2} ${y2}` : `C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}`;
    const through = b.kind === "passage" ? (narrow ? `V${b.y + H}` : `H${b.x + W}`) : "";
    return `M${x1} ${y1}${bend}${through}`;
  };
  const letters = Math.floor(W / 7.4);
  const cut = (text) => (text.length > letters ? text.slice(0, letters - 1) + "…" : text);
  return h("svg", { width: width + 8, height: height + 8, viewBox: `-4 -4 ${width + 8} ${height + 8}`, role: "group", "aria-label": "How topics and agents are connected" },
    routes.map(({ from, to, route }) => h("path", { class: `edge ${rate(from.kind === "agent" ? from : to) > 0 ? "busy" : ""}`, d: route.slice(1).map((b, i) => curve(route[i], b)).join(""), "aria-hidden": "true" })),
    [...nodes.values()].map((n) =>
      h("a", { key: n.id, href: n.kind === "agent" ? `#agent-${encodeURIComponent(n.name)}` : topicPath(n.name), class: `node ${n.kind} ${n.kind === "agent" && findings.get(n.name) === "bad" ? "bad" : ""}`, "aria-label": `${n.kind} ${n.name}` },
        h("title", null, n.name),
        h("rect", { x: n.x, y: n.y, width: W, height: H, rx: n.kind === "agent" ? 23 : 7 }),
        h("text", { x: n.x + W / 2, y: n.y + 20, "text-anchor": "middle" }, cut(n.name)),
        h("text", { class: "small", x: n.x + W / 2, y: n.y + 35, "text-anchor": "middle" }, W > 120 ? `${n.kind} · ${perSecond(rate(n))}` : perSecond(rate(n))))));
}
