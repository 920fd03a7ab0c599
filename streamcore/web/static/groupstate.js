// How a group is doing, in the words and colours of every page that says it.
import { h } from "./vdom.js";
import { clean, count, duration } from "./format.js";

/** Records, or whether nothing is committed at all. */
export const lag = (g) => (g.lag ? count(g.lag) : g.partitions > g.uncommitted ? "0" : "–");

export function state(g) {
  const tone = { Stable: "ok", Empty: "", Dead: "bad" }[g.state] ?? "warn";
  if (g.problem) return h("span", { class: "tag bad", title: clean(g.problem) }, g.state ? clean(g.state) : "not known");
  return h("span", { class: `tag ${g.state ? tone : ""}` }, g.state ? clean(g.state) : "offsets only");
}

export const lagTime = (g) => (g.lag ? (g.lag_ms === null ? "not known yet" : `${g.lag_ms_unknown ? "≥ " : ""}${duration(g.lag_ms)}`) : "–");
