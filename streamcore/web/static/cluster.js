import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { bytes, calmDuration, clean, count, groupPath, partitionPath, perSecond, plural, scaled, short } from "./format.js";
import { dot, empty, get, head, kpi, table } from "./parts.js";
import { Paged, poll } from "./paged.js";
import { lag, lagTime, state } from "./groupstate.js";

const ORDERS = { client: "client", newest: "newest", requests: "requests", bytes: "bytes", in_flight: "in flight" };
let overview = null;
let problem = null;
let now = 0;

const groups = new Paged("/api/cluster/groups", 20, { changed: () => again() });
const partitions = new Paged("/api/cluster/partitions", 25, { changed: () => again() });
const connections = new Paged("/api/cluster/connections", 25, { changed: () => again(), params: { order: "client" } });
on("status", (status) => (now = status.now_ms));

const again = poll(async () => {
  try {
    overview = await get("/api/cluster");
    now = overview.now_ms;
    problem = null;
  } catch (error) {
    problem = error.message;
  }
  if (!problem) await Promise.all([groups.ask(), partitions.ask(), connections.ask()]);
  render(main, page());
});

function page() {
  if (!overview) return [head("Cluster"), problem ? trouble(problem) : h("p", { class: "dim" }, "Asking the cluster …")];
  return [
    head("Cluster", h("span", { class: "dim" }, [overview.cluster_id && `id ${clean(overview.cluster_id)}`, clean(overview.url)].filter(Boolean).join(" · "))),
    problem && trouble(problem),
    numbers(),
    nodes(),
    groupTable(),
    partitionTable(),
    connectionTable(),
  ];
}

const trouble = (words) => h("div", { class: "card finding bad", role: "alert" }, h("b", null, "The cluster does not answer"), h("p", null, words));

function numbers() {
  const o = overview;
  const [rate, unit] = scaled(o.rate);
  const states = Object.entries(o.groups_by_state).sort().map(([state, n]) => `${count(n)} ${state}`);
  const alive = o.nodes.filter((n) => !n.problem).length;
  return h("section", { class: "kpis", "aria-label": "Summary" },
    kpi("nodes", o.is_private ? "–" : count(alive), "", o.is_private ? "this process alone" : alive < o.nodes.length ? `of ${count(o.nodes.length)}` : "all answer", alive < o.nodes.length ? "bad-ink" : ""),
    kpi("partitions", count(o.partitions), "", `of ${plural(o.topics, "topic")}`),
    kpi("offline", count(o.offline), "", `${count(o.under_replicated)} under-replicated`, o.offline ? "bad-ink" : o.under_replicated ? "warn-ink" : ""),
    kpi("written", rate, o.rate === null ? "" : `${unit}/s`, `${bytes(o.size_bytes)} on disk`),
    kpi("groups", count(o.groups), "", states.join(", ") || "none yet"),
    kpi("connections", o.connections === null ? "–" : count(o.connections), "", o.connections === null ? "not told" : "of clients"));
}

function nodes() {
  const shown = overview.nodes;
  if (!shown.length) return empty("No nodes", "This log lives in the worker's own process and does not listen: nobody else can reach it.");
  return h("section", { class: "card flush" }, h("h2", null, "Nodes"),
    table([
      { title: "node", cell: (n) => h("span", { class: "chips" }, dot(n.problem ? "bad" : "ok", n.problem ? "does not answer" : "answers"), count(n.node_id), n.node_id === overview.controller_id && h("span", { class: "tag" }, "controller")) },
      { title: "address", cls: "name", cell: (n) => n.problem ? [`${clean(n.host)}:${n.port} `, h("span", { class: "tag bad", title: clean(n.problem) }, "does not answer")] : `${clean(n.host)}:${n.port}` },
      { title: "rack", cls: "wide", cell: (n) => (n.rack ? clean(n.rack) : "–") },
      { title: "version", cls: "wide", cell: (n) => (n.version ? clean(n.version) : "not told") },
      { title: "leads", cls: "n wide", cell: (n) => count(n.leads) },
      { title: "replicas", cls: "n wide", cell: (n) => count(n.replicas) },
      { title: "log size", cls: "n", cell: (n) => bytes(n.size_bytes) },
      { title: "disk free", cls: "n wide", cell: (n) => bytes(n.free_bytes) },
    ], shown, { key: (n) => n.node_id, label: "Nodes", rowClass: (n) => (n.problem ? "bad" : "") }));
}

/** A card whose table comes in pages. */
function paged(title, it, noun, tools, body, nothing) {
  const fresh = !it.search && !it.rows.length;
  return h("section", { class: "card flush", key: title, "aria-label": title },
    h("h2", { class: "with-tools" }, h("span", null, title), !fresh && h("span", { class: "tools" }, tools)),
    it.problem ? h("p", { class: "note bad-ink" }, clean(it.problem)) : it.rows.length ? [body(), it.pager(noun)]
      : h("p", { class: "note dim" }, it.answer === null ? "Asking …" : it.search ? `Nothing has “${clean(it.search)}” in it.` : nothing));
}

function groupTable() {
  return paged("Groups", groups, "groups", [groups.searchBox("group")], () => table([
    { title: "group", cls: "name", cell: (g) => h("a", { href: groupPath(g.group) }, clean(g.group)) },
    { title: "state", cell: (g) => state(g) },
    { title: "protocol", cls: "wide", cell: (g) => [g.type || "–", g.assignor && ` · ${clean(g.assignor)}`] },
    { title: "coordinator", cls: "n wide", cell: (g) => (g.coordinator >= 0 ? `node ${g.coordinator}` : "–") },
    { title: "members", cls: "n wide", cell: (g) => count(g.members) },
    { title: "partitions", cls: "n wide", cell: (g) => count(g.partitions) },
    { title: "lag", cls: "n", cell: (g) => lag(g) },
    { title: "oldest unread", cls: "n", cell: (g) => lagTime(g) },
  ], groups.rows, { key: (g) => g.group, label: "Groups", rowClass: (g) => (g.problem && g.type ? "bad" : "") }),
  "No group yet. One appears when a consumer joins it, or commits its first offset.");
}

function partitionTable() {
  return paged("Partitions", partitions, "partitions", [partitions.searchBox("topic")], () => table([
    { title: "partition", cls: "name", cell: (p) => h("a", { href: partitionPath(p.topic, p.partition) }, `${clean(p.topic)}-${p.partition}`) },
    { title: "leader", cls: "n", cell: (p) => (p.offline ? h("span", { class: "tag bad", title: clean(p.offline) }, "offline") : p.leader === null ? "–" : p.leader < 0 ? h("span", { class: "tag bad" }, "none") : p.leader) },
    { title: "in sync", cls: "wide", cell: (p) => inSync(p) },
    { title: "from", cls: "n wide", cell: (p) => (p.log_start_offset < 0 ? "–" : count(p.log_start_offset)) },
    { title: "to", cls: "n", cell: (p) => (p.log_end_offset < 0 ? "–" : count(p.log_end_offset)) },
    { title: "size", cls: "n wide", cell: (p) => bytes(p.size_bytes) },
    { title: "rate", cls: "n", cell: (p) => perSecond(p.rate) },
  ], partitions.rows, { key: (p) => `${p.topic}-${p.partition}`, label: "Partitions", rowClass: (p) => (p.offline ? "bad" : "") }),
  "No topics yet.");
}

function inSync(p) {
  if (!p.replicas) return "–";
  const behind = p.replicas.filter((id) => !p.in_sync.includes(id));
  return [p.in_sync.join(", ") || "nobody", behind.length > 0 && [" ", h("span", { class: "tag warn" }, `not ${behind.join(", ")}`)]];
}

function connectionTable() {
  const it = connections;
  if (it.answer?.total === null)
    return h("section", { class: "card", key: "Connections" }, h("h2", null, "Connections"),
      h("p", { class: "dim" }, overview.is_private ? "This log does not listen: it has no connections." : "This cluster does not tell: the Kafka protocol has no question for it. The pages of a broker of streamcore list its own (streamcore broker --web-port)."));
  const order = h("select", { "aria-label": "order", onchange: (event) => it.order(event.target.value) }, Object.entries(ORDERS).map(([name, words]) => h("option", { value: name }, `by ${words}`)));
  return paged("Connections", it, "connections", [it.searchBox("client, address, software"), order], () => table([
    { title: "client", cls: "name", cell: (c) => (c.client_id ? clean(c.client_id) : h("span", { class: "dim" }, "no name")) },
    { title: "software", cls: "name wide", cell: (c) => (c.software ? clean(c.software) : "not told") },
    { title: "address", cls: "n", cell: (c) => h("span", { class: "mono" }, `${clean(c.host)}:${c.port}`) },
    { title: "since", cls: "n wide", cell: (c) => calmDuration(now - c.since_ms) },
    { title: "requests", cls: "n wide", cell: (c) => short(c.requests) },
    { title: "in", cls: "n wide", cell: (c) => bytes(c.bytes_in) },
    { title: "out", cls: "n wide", cell: (c) => bytes(c.bytes_out) },
    { title: "in flight", cls: "n", cell: (c) => count(c.in_flight) },
  ], it.rows, { key: (c) => `${c.host}:${c.port}`, label: "Connections" }), "Nobody is connected.");
}
