// Calls as rows: the live ones, which change all the time, and those that were found.

import { condition, duration, ending, make, moment, ms, party, say } from "./dom.js";

/** One row; `update` writes what has changed. */
export class Row {
  constructor(call, clock) {
    this.parts = {};
    const part = (name, tag = "span") => (this.parts[name] = make(tag, { class: name }));
    this.link = make(
      "a",
      { class: "row", href: `#/call/${call.call_id}`, tabindex: "-1" },
      part("state"),
      part("party"),
      part("agent"),
      part("words"),
      part("latency"),
      part("when"),
      part("length"),
    );
    this.item = make("li", {}, this.link);
    this.clock = clock;
    this.update(call);
  }

  update(call) {
    this.call = call;
    const { state, party: who, agent, words, latency, when } = this.parts;
    const [kind, text] = condition(call);
    this.link.dataset.kind = kind;
    say(state, text);
    say(who, party(call));
    say(agent, [call.agent, call.tenant].filter(Boolean).join(" · "));
    const [side, said] = call.said;
    words.dataset.side = side;
    say(words, said);
    say(latency, call.latency_ms === null ? "" : ms(call.latency_ms));
    say(when, moment(call.started));
    this.link.classList.toggle("failing", call.errors > 0);
    this.tick();
  }

  tick() {
    const { call } = this;
    say(this.parts.length, duration(call.duration_s ?? this.clock() - call.started));
  }
}

/** A list in which the arrow keys move: it is one stop for the tab key, however long it is. */
export class Rows {
  constructor(root, clock) {
    this.root = root;
    this.clock = clock;
    this.rows = new Map();
    this.stop = null; // the row that the tab key comes to
    root.addEventListener("keydown", (event) => this._key(event));
    root.addEventListener("focusin", ({ target }) => target.classList.contains("row") && this._stop(target));
  }

  clear() {
    this.rows.clear();
    this.root.replaceChildren();
  }

  /** The newest are first; `older` ones are added below. */
  put(calls, { older = false } = {}) {
    for (const call of calls) {
      const row = this.rows.get(call.call_id);
      if (row) row.update(call);
      else {
        const made = new Row(call, this.clock);
        if (call.call_id === this.marked) made.link.setAttribute("aria-current", "true");
        this.rows.set(call.call_id, made);
        if (older) this.root.append(made.item);
        else this.root.prepend(made.item);
      }
    }
    this._first();
  }

  remove(ids) {
    for (const id of ids) {
      const row = this.rows.get(id);
      if (!row) continue;
      if (row.item.contains(document.activeElement)) this._move(row.link, 1) || this._move(row.link, -1);
      row.item.remove();
      this.rows.delete(id);
    }
    this._first();
  }

  /** Removes all but these. */
  keep(ids) {
    this.remove([...this.rows.keys()].filter((id) => !ids.has(id)));
  }

  tick() {
    for (const row of this.rows.values()) row.tick();
  }

  /** Marks the row of the call that is open. */
  mark(id) {
    this.rows.get(this.marked)?.link.removeAttribute("aria-current");
    this.marked = id;
    this.rows.get(id)?.link.setAttribute("aria-current", "true");
  }

  /** Shows those that `fits`. */
  filter(fits) {
    this.shown = 0;
    for (const row of this.rows.values()) {
      row.item.hidden = !fits(row.call);
      this.shown += !row.item.hidden;
    }
    this._first();
  }

  _first() {
    if (this.stop?.isConnected && !this.stop.parentElement.hidden) return;
    const first = this.root.querySelector("li:not([hidden]) > .row");
    if (first) this._stop(first);
  }

  _stop(link) {
    if (this.stop) this.stop.tabIndex = -1;
    this.stop = link;
    link.tabIndex = 0;
  }

  _move(link, step) {
    let item = link.parentElement;
    do item = step > 0 ? item.nextElementSibling : item.previousElementSibling;
    while (item?.hidden);
    item?.firstElementChild.focus();
    return Boolean(item);
  }

  _key(event) {
    const link = event.target.closest(".row");
    if (!link || event.altKey || event.ctrlKey || event.metaKey) return;
    const visible = () => [...this.root.querySelectorAll("li:not([hidden]) > .row")];
    if (event.key === "ArrowDown") this._move(link, 1);
    else if (event.key === "ArrowUp") this._move(link, -1);
    else if (event.key === "Home") visible()[0]?.focus();
    else if (event.key === "End") visible().at(-1)?.focus();
    else return;
    event.preventDefault();
  }
}

/** Whether a call has the words somewhere. */
export function matches(call, words) {
  const text = [party(call), call.from, call.to, call.agent, call.tenant, call.said[1], condition(call)[1], ending(call)];
  const whole = text.join(" ").toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => whole.includes(word));
}
