import { h, render } from "/static/vdom.js";
import { main } from "/static/frame.js";
import { empty, head } from "/static/parts.js";
import { count } from "/static/format.js";
import { follow } from "./state.js";
import { alarmCard } from "./story.js";

let show = new URLSearchParams(location.search).get("show") ?? "all";
let last = null;
follow((board) => draw((last = board)));

function draw(board) {
  const kinds = {
    all: board.alarms,
    active: board.alarms.filter((a) => a.state !== "resolved"),
    resolved: board.alarms.filter((a) => a.state === "resolved"),
  };
  const shown = kinds[show] ?? kinds.all;
  const choose = (name) => h("button", { type: "button", "aria-pressed": String(show === name), onclick: () => {
    show = name;
    history.replaceState(null, "", name === "all" ? location.pathname : `?show=${name}`);
    draw(last);
  } }, `${name} ${count(kinds[name].length)}`);
  render(main, [
    head("Alarms", Object.keys(kinds).map(choose)),
    shown.length
      ? h("section", { class: "card alarms-page", "aria-label": "Alarms" }, h("div", { class: "alarms" }, shown.map((a, i) => alarmCard(a, { now: board.now, open: i < 3 && a.state !== "pending" }))))
      : empty(board.alarms.length ? `No alarm is ${show}` : "No alarm since the start", "When a rule's condition holds long enough, its alarm appears here with its whole story."),
  ]);
}
