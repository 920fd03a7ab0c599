// The board as the browser keeps it: a snapshot when the stream opens, then what changed.
import { on } from "/static/frame.js";

const CARD_POINTS_MAX = 400;

export const board = { hosts: [], alarms: [], points: new Map(), kpis: null, now: 0, window: 600_000, span: 120_000 };

/** Call draw(board, status) after every tick. */
export function follow(draw) {
  let status = null;
  on("status", (fresh) => ((status = fresh), board.kpis && draw(board, status)));
  on("health", (delta) => {
    take(delta);
    badge(board.kpis.firing);
  });
}

function take(delta) {
  if (delta.full) board.points.clear();
  board.now = delta.now_ms;
  board.window = delta.window_ms;
  board.kpis = delta.kpis;
  board.hosts = delta.hosts;
  const reset = new Set(delta.reset);
  const shown = new Set(delta.hosts.map((host) => host.host));
  for (const name of board.points.keys()) if (!shown.has(name)) board.points.delete(name);
  for (const [name, fresh] of Object.entries(delta.points)) append(board.points, name, fresh, reset.has(name));
  // What the cards show of time: all there is, but no less than two minutes, so that a page just started is not empty.
  const oldest = Math.min(board.now, ...[...board.points.values()].map((points) => points[0]?.[0] ?? board.now));
  board.span = Math.max(120_000, Math.min(board.window, Math.ceil((board.now - oldest) / 60_000) * 60_000));
  if (delta.alarms) board.alarms = delta.alarms;
  for (const alarm of board.alarms) {
    const fresh = delta.alarm_points[alarm.id];
    if (fresh) alarm.points = trim([...alarm.points, ...fresh.filter((p) => p[0] > (alarm.points.at(-1)?.[0] ?? 0))]);
  }
}

function append(points, name, fresh, replaces) {
  const known = replaces ? [] : (points.get(name) ?? []);
  const last = known.at(-1)?.[0] ?? -1;
  points.set(name, trim([...known, ...fresh.filter((p) => p[0] > last)]));
}

function trim(points) {
  const from = board.now - board.window;
  const first = points.findIndex((p) => p[0] >= from);
  return points.slice(Math.max(0, first - 1)).slice(-CARD_POINTS_MAX);
}

function badge(count) {
  const link = document.querySelector('nav a[href="/alarms"]');
  if (!link) return;
  let mark = link.querySelector(".badge");
  if (!mark) {
    mark = document.createElement("span");
    mark.className = "badge";
    link.append(mark);
  }
  mark.hidden = count === 0;
  mark.textContent = count > 99 ? "99+" : String(count);
  mark.setAttribute("aria-label", `${count} firing`);
}
