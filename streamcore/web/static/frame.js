// The frame's live part: one stream of events per page, closed while nobody sees the page.
import { time, duration } from "./format.js";

const listeners = new Map();
const newest = new Map();
let source = null;
let lastEventAt = 0;
let lostAt = 0;
let retry = 0;

/** Call fn(data) for every event of that name, beginning with the newest when there is one. */
export function on(name, fn) {
  if (!listeners.has(name)) {
    listeners.set(name, []);
    source?.addEventListener(name, receive);
  }
  listeners.get(name).push(fn);
  // Later, because the page that asks is still being set up.
  queueMicrotask(() => newest.has(name) && fn(newest.get(name)));
}

function receive(event) {
  lastEventAt = Date.now();
  const data = JSON.parse(event.data);
  newest.set(event.type, data);
  if (lostAt) found();
  for (const fn of listeners.get(event.type) ?? []) fn(data);
}

function connect() {
  disconnect();
  // Only the page knows how far it has come: it may say so in the address.
  source = new EventSource(document.documentElement.dataset.events);
  for (const name of listeners.keys()) source.addEventListener(name, receive);
  source.onerror = () => {
    if (!lostAt) lostAt = Date.now();
    showLost();
    // The browser tries again by itself, unless the server answered with a refusal.
    if (source?.readyState === EventSource.CLOSED) {
      clearTimeout(retry);
      retry = setTimeout(connect, 3000);
    }
  };
}

function disconnect() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

function showLost() {
  banner(
    lastEventAt
      ? `Connection lost at ${time(lostAt)}. What you see is from then; trying again …`
      : "The worker does not answer; trying again …",
  );
  chip("bad", "not connected");
}

function found() {
  lostAt = 0;
  banner("");
}

function banner(text) {
  const element = document.getElementById("banner");
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

function chip(level, text) {
  const element = document.getElementById("state");
  element.dataset.level = level;
  const words = element.lastElementChild;
  if (words.textContent !== text) words.textContent = text;
  element.title = text;
}

on("status", (status) => {
  chip(status.summary.level, status.summary.text);
  document.documentElement.dataset.state = status.state;
});
on("problem", (problem) => banner(`The worker's state cannot be read: ${problem.reason}`));
on("status", () => {
  if (newest.has("problem")) {
    newest.delete("problem");
    if (!lostAt) banner("");
  }
});

// Silence is a loss too: a worker whose loop is blocked keeps its connections.
setInterval(() => {
  if (source && lastEventAt && Date.now() - lastEventAt > 6000 && !lostAt) {
    lostAt = lastEventAt;
    banner(`No news from the worker for ${duration(Date.now() - lastEventAt)}; it may be busy or stopped.`);
    chip("bad", "no news");
  }
}, 2000);

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
addEventListener("pagehide", disconnect);
addEventListener("pageshow", (event) => event.persisted && connect());
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
// Not before the page's own module has run and said what it listens for: the first events are the ones with everything.
document.addEventListener("DOMContentLoaded", () => !document.hidden && connect());

export const main = document.getElementById("main");
