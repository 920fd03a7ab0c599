// Large charts with axes, zoom and hover: plotly.js, loaded only when a page has one.
import { h } from "./vdom.js";
import { spark } from "./charts.js";

let loading = null;

function load() {
  const path = document.documentElement.dataset.plotly;
  if (!path) return Promise.resolve(null);
  loading ??= new Promise((resolve) => {
    // plotly.js puts its rules into the sheet with this id. A linked sheet can take them; an inline one, which it would
    // make itself, our content security policy refuses.
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.id = "plotly.js-style-global";
    sheet.href = "/static/plotly.css";
    sheet.onload = () => {
      const script = document.createElement("script");
      script.src = path;
      // The map library in its bundle brings an inline sheet of its own, which the policy would refuse with an error on
      // the console. We draw no maps: while the script starts, what it takes for a sheet is an element without effect.
      const create = document.createElement;
      document.createElement = (name, options) => create.call(document, name === "style" ? "template" : name, options);
      const done = (library) => {
        document.createElement = create;
        resolve(library);
      };
      script.onload = () => done(globalThis.Plotly);
      script.onerror = () => done(null);
      document.head.append(script);
    };
    sheet.onerror = () => resolve(null);
    document.head.append(sheet);
  });
  return loading;
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function layout(o) {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), tickfont: { size: 11 }, automargin: true };
  const line = (value, color, dash) => ({
    type: "line", xref: "paper", x0: 0, x1: 1, yref: "y", y0: value, y1: value, line: { color, width: 1.5, dash },
  });
  const shapes = [];
  const notes = [];
  const note = (value, text, color, yanchor, side) => notes.push({
    xref: "paper", x: side === "left" ? 0 : 1, xanchor: side, yref: "y", y: value, yanchor, text, showarrow: false, font: { size: 11, color }, borderpad: 1,
  });
  if (isNumber(o.threshold)) (shapes.push(line(o.threshold, css("--bad"), "dash")), note(o.threshold, "threshold", css("--bad"), "bottom", "left"));
  if (isNumber(o.clear) && o.clear !== o.threshold) (shapes.push(line(o.clear, css("--ok"), "dot")), note(o.clear, "clears", css("--ok"), "top", "right"));
  for (const shade of o.shades ?? [])
    shapes.push({ type: "rect", xref: "x", x0: local(shade[0]), x1: local(shade[1]), yref: "paper", y0: 0, y1: 1, fillcolor: css("--bad"), opacity: 0.09, line: { width: 0 }, layer: "below" });
  return {
    uirevision: "keep", // a zoom survives new points
    paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { family: "system-ui, sans-serif", size: 12, color: css("--dim") },
    margin: { l: 8, r: 10, t: 12, b: 8 },
    xaxis: { ...axis, type: "date", range: o.range?.map(local) },
    yaxis: { ...axis, rangemode: "tozero", range: o.yrange, ticksuffix: o.unit ?? "", fixedrange: false },
    hovermode: "x unified",
    hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--ink"), size: 12 } },
    showlegend: o.series.length > 1,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: css("--ink") } },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    shapes, annotations: notes,
  };
}

// As text, because plotly.js takes text as it is written and numbers sometimes as UTC, sometimes as local time.
const local = (ms) => new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, -1).replace("T", " ");
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const COLORS = ["--series1", "--series2", "--series3", "--series4", "--series5", "--series6"];

async function draw(element, o) {
  if (o.version !== undefined && element.$chart?.version === o.version && element.dataset.drawn) return;
  // plotly.js keeps a zoom only while the page asks for the same range as when it began.
  if (element.$zoomed) o = { ...o, range: element.$chart.range };
  element.$chart = o;
  const Plotly = await load();
  if (!element.isConnected) return;
  if (!Plotly) return;
  const now = element.$chart; // the newest, should several have waited for the script
  const data = now.series.map((series, i) => ({
    type: "scatter", mode: "lines", name: series.name, x: series.points.map((p) => local(p[0])), y: series.points.map((p) => p[1]),
    line: { color: css(COLORS[i % COLORS.length]), width: 2, shape: "linear" }, connectgaps: false,
    hovertemplate: `%{y:.4~g}${now.unit ?? ""}<extra>${series.plainName ?? ""}</extra>`,
  }));
  if (now.marks?.length) {
    data.push({
      type: "scatter", mode: "markers", name: "log lines", x: now.marks.map((m) => local(m.at)), y: now.marks.map(() => (now.yrange?.[1] ?? 0) * 0.045),
      marker: { symbol: "line-ns", size: 14, line: { width: 2, color: now.marks.map((m) => css(m.tone === "bad" ? "--bad" : m.tone === "warn" ? "--warn" : "--dim")) } },
      hoverinfo: "x", cliponaxis: false,
    });
  }
  await Plotly.react(element, data, layout(now), { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset" });
  if (!element.dataset.drawn) {
    element.dataset.drawn = "plotly";
    element.on("plotly_relayout", (change) => {
      if ("xaxis.range[0]" in change) element.$zoomed = true;
    });
    element.on("plotly_doubleclick", () => (element.$zoomed = false));
  }
}

const drawn = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const element of drawn) if (element.isConnected) draw(element, { ...element.$chart, version: undefined });
});

/**
 * A chart as a node. Series names must be our own words, never text from outside: plotly.js reads a few tags in them.
 * @param o {series: [{name, points: [[ms, value|null]]}], label, height, unit, threshold, clear, shades, marks, range, version}
 */
export function chart(o) {
  if (!document.documentElement.dataset.plotly) {
    const first = o.series[0] ?? { points: [] };
    return h("figure", { class: "chart plain", "aria-label": o.label },
      spark(first.points, { label: o.label, height: 160, threshold: o.threshold, clear: o.clear, min: 0 }),
      h("figcaption", { class: "dim" }, "A plain picture: axes, zoom and hover come with the plotly package (pip install plotly)."));
  }
  return h("div", {
    class: "chart", role: "img", "aria-label": o.label, island: true, style: { height: `${o.height ?? 300}px` },
    hook: (element) => (drawn.add(element), draw(element, o)),
    update: (element) => draw(element, o),
  });
}
