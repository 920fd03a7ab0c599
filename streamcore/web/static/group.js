import { h, render } from "./vdom.js";
import { main } from "./frame.js";
import { clean, count, duration, middle, partitionPath, plural } from "./format.js";
import { crumbs, empty, get, head, list, table, topicLink } from "./parts.js";
import { pager, poll, ranges } from "./paged.js";
import { lagTime, state } from "./groupstate.js";

const SIZE = 100;
const name = decodeURIComponent(location.pathname.slice("/groups/".length));
let members = 0;
let partitions = 0;
let group = null;
let problem = null;
document.title = `${clean(name)} · group`;

const again = poll(async () => {
  try {
    group = await get(`/api/cluster/group?${new URLSearchParams({ name, members_from: members, partitions_from: partitions, count: SIZE })}`);
    problem = null;
  } catch (error) {
    problem = error.message;
  }
  render(main, page());
});

/** How far a member has followed the group, and whether it still has to let go of partitions or gets more. */
function epoch(m) {
  const follows = JSON.stringify(m.assigned) === JSON.stringify(m.target);
  return h("span", { title: follows ? "it has what it shall have" : "it is on its way to what it shall have" }, `${m.epoch}${follows ? "" : " …"}`);
}

function page() {
  const path = crumbs(h("a", { href: "/cluster" }, "Cluster"), h("a", { href: "/groups" }, "Groups"), clean(name));
  if (!group) return [path, problem ? empty(`Nothing is known of ${clean(name)}`, clean(problem)) : h("p", { class: "dim" }, "Asking the cluster …")];
  const g = group;
  const facts = [g.type && `${g.type} protocol`, g.epoch !== null && `epoch ${g.epoch}`, g.assignor && `assignor ${clean(g.assignor)}`, g.coordinator >= 0 && `coordinator: node ${g.coordinator}`];
  return [
    path,
    head(clean(g.group), state(g), h("span", { class: "dim" }, facts.filter(Boolean).join(" · "))),
    (problem || g.problem) && h("div", { class: "card finding bad", role: "alert" }, h("b", null, "Not everything is known"), h("p", null, clean(problem || g.problem))),
    h("section", { class: "card flush", "aria-label": "Members" },
      h("h2", null, h("span", null, "Members"), h("span", null, g.members ? plural(g.members, "member") : "")),
      g.member_rows.length
        ? [table([
            { title: "client", cls: "name", cell: (m) => clean(m.client_id) || h("span", { class: "dim" }, "no name") },
            { title: "host", cls: "name wide", cell: (m) => h("span", { class: "mono" }, clean(m.host)) },
            { title: "assigned", cls: "name", cell: (m) => assigned(m) },
            ...(g.epoch === null ? [] : [{ title: "epoch", cls: "n", cell: (m) => epoch(m) }]),
            { title: "lag", cls: "n", cell: (m) => count(m.lag) },
            { title: "instance id", cls: "name wide", cell: (m) => (m.instance_id ? clean(m.instance_id) : "–") },
            { title: "member id", cls: "wide", cell: (m) => h("span", { class: "mono long", title: clean(m.member_id) }, middle(clean(m.member_id), 44)) },
          ], g.member_rows, { key: (m) => m.member_id, label: "Members" }),
          pager(g.members, members, SIZE, g.member_rows.length, "members", (from) => ((members = Math.max(0, from)), again()))]
        : h("p", { class: "note dim" }, g.state === "" ? "Who reads for it is not known: this log has no coordinator." : "Nobody reads for this group at the moment.")),
    h("section", { class: "card flush", "aria-label": "Partitions" },
      h("h2", null, h("span", null, "Partitions"), h("span", null, g.lag ? `${plural(g.lag, "record")} behind · ${lagTime(g)}` : g.partitions > g.uncommitted ? "up to date" : "")),
      g.partition_rows.length
        ? [table([
            { title: "partition", cls: "name", cell: (p) => h("a", { href: `${partitionPath(p.topic, p.partition)}?offset=${Math.max(0, p.committed_offset ?? 0)}` }, `${clean(p.topic)}-${p.partition}`) },
            { title: "read by", cls: "name wide", cell: (p) => (p.client_id === null ? "–" : clean(p.client_id) || "no name") },
            { title: "committed", cls: "n", cell: (p) => (p.committed_offset === null ? "nothing" : count(p.committed_offset)) },
            { title: "log end", cls: "n wide", cell: (p) => count(p.log_end_offset) },
            { title: "lag", cls: "n", cell: (p) => count(p.lag) },
            { title: "oldest unread", cls: "n", cell: (p) => (p.lag ? (p.lag_ms === null ? "not known yet" : duration(p.lag_ms)) : "–") },
          ], g.partition_rows, { key: (p) => `${p.topic}-${p.partition}`, label: "Partitions" }),
          pager(g.partitions, partitions, SIZE, g.partition_rows.length, "partitions", (from) => ((partitions = Math.max(0, from)), again()))]
        : h("p", { class: "note dim" }, "Nothing is committed, and nobody is assigned a partition.")),
    h("p", { class: "dim" }, "Lag is the records between the committed offset and the log end. Oldest unread is the age of the first record that is not committed as done, by its timestamp."),
  ];
}

function assigned(m) {
  const topics = Object.entries(m.assigned);
  if (topics.length) return list(topics.map(([topic, numbers]) => h("span", null, topicLink(topic), ` ${ranges(numbers)}`)));
  return h("span", { class: "dim" }, m.topics.length ? `nothing of ${m.topics.map(clean).join(", ")}` : "nothing");
}
