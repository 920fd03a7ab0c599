// Sparklines: one line, one threshold, readable at a glance. Stretched to their box, so no text inside.
import { h } from "./vdom.js";

/** A line through points [[t, value|null], …], broken where readings are missing. */
function paths(points, x, y) {
  const gaps = [];
  for (let i = 1; i < points.length; i++) gaps.push(points[i][0] - points[i - 1][0]);
  const usual = gaps.length ? [...gaps].sort((a, b) => a - b)[gaps.length >> 1] : 0;
  const lines = [];
  let line = [];
  let before = null;
  for (const [t, value] of points) {
    if (value === null || (before !== null && usual && t - before > 4 * usual)) {
      if (line.length) lines.push(line);
      line = [];
    }
    if (value !== null) line.push(`${x(t).toFixed(1)} ${y(value).toFixed(1)}`);
    before = t;
  }
  if (line.length) lines.push(line);
  return lines;
}

/**
 * @param points [[t, value|null], …] oldest first
 * @param o {from, to, min, max, threshold, clear, shade: [from, to|null], ticks: [t], label, tone, height, area}
 */
export function spark(points, o) {
  const width = 240;
  const height = o.height ?? 48;
  const values = points.map((p) => p[1]).filter((v) => v !== null);
  const from = o.from ?? points[0]?.[0] ?? 0;
  const to = Math.max(o.to ?? points.at(-1)?.[0] ?? 1, from + 1);
  let low = o.min ?? Math.min(...values, 0);
  let high = o.max ?? Math.max(...values, o.threshold ?? -Infinity, low + 1e-9) * 1.08;
  if (!Number.isFinite(low)) low = 0;
  if (!Number.isFinite(high) || high <= low) high = low + 1;
  const x = (t) => ((t - from) / (to - from)) * width;
  const y = (v) => height - 2 - ((Math.min(Math.max(v, low), high) - low) / (high - low)) * (height - 4);
  const across = (value, cls) =>
    value !== null && value !== undefined && value >= low && value <= high &&
    h("line", { class: cls, x1: 0, x2: width, y1: y(value).toFixed(1), y2: y(value).toFixed(1) });
  const shown = points.filter((p) => p[0] >= from - (to - from) * 0.02);
  const lines = paths(shown, x, y);
  const last = [...shown].reverse().find((p) => p[1] !== null);
  return h(
    "svg",
    { class: `spark ${o.tone ?? ""}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": o.label },
    o.shade && h("rect", {
      class: "shade", y: 0, height,
      x: Math.max(0, x(o.shade[0])).toFixed(1),
      width: Math.max(0, (o.shade[1] === null ? width : x(o.shade[1])) - Math.max(0, x(o.shade[0]))).toFixed(1),
    }),
    across(o.clear, "clear"),
    across(o.threshold, "threshold"),
    o.area !== false && lines.map((line) => line.length > 1 && h("path", { class: "area", d: `M${line[0].split(" ")[0]} ${height}L${line.join("L")}L${line.at(-1).split(" ")[0]} ${height}Z` })),
    lines.map((line) => h("path", { class: "line", d: `M${line.join("L")}${line.length === 1 ? "l.1 0" : ""}` })),
    (o.ticks ?? []).filter((t) => t.at >= from && t.at <= to).map((t) =>
      h("line", { class: `tick ${t.tone}`, x1: x(t.at).toFixed(1), x2: x(t.at).toFixed(1), y1: height - (t.tone === "bad" ? 14 : 9), y2: height })),
    last && h("path", { class: "end", d: `M${x(last[0]).toFixed(1)} ${y(last[1]).toFixed(1)}l.1 0` }),
  );
}
