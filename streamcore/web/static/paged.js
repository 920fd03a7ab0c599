// Tables that the server gives out in pages, asked for again every two seconds while somebody looks.
import { h } from "./vdom.js";
import { count } from "./format.js";
import { get } from "./parts.js";

const EVERY_MS = 2000;

/** Calls ask() now, and again after each answer; never two at once, never while the page is hidden. */
export function poll(ask) {
  let timer = 0;
  let running = false;
  let again = false;
  const run = async () => {
    clearTimeout(timer);
    if (running) return void (again = true);
    running = true;
    try {
      do {
        again = false;
        await ask();
      } while (again);
    } finally {
      running = false;
    }
    if (!document.hidden) timer = setTimeout(run, EVERY_MS);
  };
  document.addEventListener("visibilitychange", () => !document.hidden && run());
  run();
  return run;
}

/** One table's place: what is searched, ordered, shown; rows as they came. */
export class Paged {
  constructor(path, size, { changed, params = {} }) {
    Object.assign(this, { path, size, changed, params, from: 0, search: "", answer: null, problem: null });
  }
  async ask() {
    const query = new URLSearchParams({ ...this.params, from: this.from, count: this.size, search: this.search });
    try {
      this.answer = await get(`${this.path}?${query}`);
      this.problem = null;
      // What was on the last page may be gone.
      if (this.answer.total !== null && this.from >= this.answer.total && this.from > 0) {
        this.from = Math.max(0, Math.floor((this.answer.total - 1) / this.size) * this.size);
        await this.ask();
      }
    } catch (error) {
      this.problem = error.message;
    }
  }
  get rows() {
    return this.answer?.rows ?? [];
  }
  go(from) {
    this.from = Math.max(0, from);
    this.changed();
  }
  find(text) {
    this.search = text.slice(0, 200);
    this.go(0);
  }
  order(name) {
    this.params.order = name;
    this.go(0);
  }
  searchBox(label) {
    return h("input", { type: "search", value: this.search, placeholder: label, "aria-label": label, oninput: (event) => this.find(event.target.value) });
  }
  pager(noun) {
    return pager(this.answer?.total, this.from, this.size, this.rows.length, noun, (from) => this.go(from));
  }
}

/** "1 – 50 of 1 000 partitions", and the way to the others; nothing where all are shown. */
export function pager(total, from, size, shown, noun, go) {
  if (!total || (total <= size && from === 0)) return null;
  return h("div", { class: "pager" },
    h("span", { class: "dim", role: "status" }, `${count(from + 1)} – ${count(from + shown)} of ${count(total)} ${noun}`),
    h("span", { class: "tools" },
      h("button", { type: "button", disabled: from === 0, onclick: () => go(from - size) }, "← before"),
      h("button", { type: "button", disabled: from + shown >= total, onclick: () => go(from + size) }, "after →")));
}

/** Numbers as ranges: 0–3, 7 */
export function ranges(numbers) {
  const parts = [];
  for (let i = 0; i < numbers.length; ) {
    let j = i;
    while (j + 1 < numbers.length && numbers[j + 1] === numbers[j] + 1) j += 1;
    parts.push(j > i ? `${numbers[i]}–${numbers[j]}` : `${numbers[i]}`);
    i = j + 1;
  }
  return parts.join(", ");
}
