import { h, render } from "./vdom.js";
import { main, on } from "./frame.js";
import { clean, count, iso, partitionPath, plural, time, topicPath } from "./format.js";
import { crumbs, empty, get, head, json } from "./parts.js";

const COUNT = 50;
const [, , rawTopic, rawPartition] = location.pathname.split("/");
const topic = decodeURIComponent(rawTopic);
const partition = Number(rawPartition);
let marked = null; // [first, last] offsets that a link points at
let data = null;
let problem = "";
let end = null;
document.title = `${topic}-${partition} · records`;

on("status", (status) => {
  const found = status.topics.find((t) => t.name === topic)?.partitions.find((p) => p.partition === partition);
  if (found && data && found.log_end_offset !== end) {
    end = found.log_end_offset;
    draw();
  }
});

function readAddress() {
  const query = new URLSearchParams(location.search);
  const at = query.get("at");
  marked = at === null ? null : [Number(at), Number(query.get("to") ?? at)];
  if (at !== null) return Math.max(0, Number(at) - 5); // a little of what came before
  return query.get("offset") === null ? null : Number(query.get("offset"));
}

async function load(offset) {
  try {
    data = await get(`/api${partitionPath(topic, encodeURIComponent(decodeURIComponent(rawPartition)))}/records?count=${COUNT}${offset === null ? "" : `&offset=${offset}`}`);
    end = Math.max(end ?? 0, data.log_end_offset);
    problem = "";
  } catch (error) {
    problem = error.message;
  }
  draw();
  if (marked) document.querySelector(".marked summary")?.scrollIntoView({ block: "center" });
}

function go(offset) {
  marked = null;
  history.pushState(null, "", offset === null ? location.pathname : `?offset=${offset}`);
  load(offset);
}
addEventListener("popstate", () => load(readAddress()));

function draw() {
  const path = crumbs(h("a", { href: "/topics" }, "Topics"), h("a", { href: topicPath(topic) }, clean(topic)), `partition ${rawPartition}`);
  if (problem && !data)
    return render(main, [path, empty("Nothing to show", problem, h("br"), h("a", { href: "/topics" }, "See the topics there are"))]);
  if (!data) return render(main, [path]);
  const { log_start_offset: start, records } = data;
  const first = records[0]?.offset ?? data.offset;
  const next = records.length ? records.at(-1).offset + 1 : data.offset;
  const newer = Math.max(0, end - next);
  const pager = (key) => h("div", { class: "tools", key, role: "group", "aria-label": "Paging" },
    h("button", { type: "button", disabled: first <= start, onclick: () => go(start) }, "⇤ Oldest"),
    h("button", { type: "button", disabled: first <= start, onclick: () => go(Math.max(start, first - COUNT)) }, "← Earlier"),
    h("button", { type: "button", disabled: newer === 0, onclick: () => go(next) }, "Later →"),
    h("button", { type: "button", disabled: newer === 0, onclick: () => go(null) }, "Newest ⇥"));
  render(main, [
    path,
    head(`${topic}-${partition}`, h("span", { class: "dim" }, `offsets ${count(start)} to ${count(end)}`)),
    h("div", { class: "head" }, pager("top"),
      h("form", { onsubmit: (e) => (e.preventDefault(), /^\d+$/.test(e.target.offset.value) && go(Number(e.target.offset.value))) },
        h("label", null, "offset", h("input", { name: "offset", inputmode: "numeric", pattern: "[0-9]+", size: 10, required: true })), h("button", null, "Go"))),
    problem && h("p", { class: "bad-ink", role: "alert" }, problem),
    data.asked < start && h("p", { class: "dim", role: "status" }, `Offset ${count(data.asked)} is gone: retention has moved the start of the log to ${count(start)}.`),
    data.asked > data.log_end_offset && h("p", { class: "dim", role: "status" }, `Offset ${count(data.asked)} has not been written yet.`),
    records.length
      ? h("section", { class: "card flush", "aria-label": "Records" }, h("ol", { class: "records" }, records.map(record)))
      : empty("No records here", end > start ? "The log goes on elsewhere: " : "Nothing has been written to this partition. Try: ",
          end > start ? h("button", { onclick: () => go(null) }, "Show the newest") : h("code", null, `streamcore produce ${topic} --partition ${partition} …`)),
    records.length > 12 && h("div", { class: "head" }, pager("bottom"), h("span", { class: "dim" }, newer ? `${plural(newer, "record")} after these` : "these are the newest")),
  ]);
}

function record(r) {
  const hit = marked && r.offset >= marked[0] && r.offset <= marked[1];
  return h("li", { key: r.offset, class: hit ? "marked" : "" },
    h("details", { open: hit && r.offset === marked[0] },
      h("summary", { "aria-label": `Record ${r.offset}` },
        h("span", { class: "offset" }, count(r.offset)), h("time", { class: "dim", datetime: iso(r.timestamp) }, time(r.timestamp, { millis: true })),
        h("span", { class: "mono wide" }, clean(r.key.summary)), h("span", { class: "mono value" }, clean(r.value.summary))),
      h("div", { class: "body" },
        h("dl", null, h("dt", null, "key"), h("dd", { class: "mono" }, clean(r.key.text)), h("dt", null, "time"), h("dd", null, iso(r.timestamp)),
          r.headers.map(([name, value], i) => [h("dt", { key: `t${i}` }, clean(name)), h("dd", { class: "mono", key: `d${i}` }, clean(value.text))])),
        r.value.kind === "json" ? json(clean(r.value.text)) : h("pre", null, clean(r.value.text)),
        r.value.cut > 0 && h("p", { class: "dim" }, `… and ${plural(r.value.cut, "more character")}: streamcore consume ${topic} --partition ${partition} --from ${r.offset}`))));
}

load(readAddress());
