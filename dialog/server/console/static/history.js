// Calls that are over: searched on the server, shown page by page.

import { ask, find } from "./dom.js";
import { Rows } from "./list.js";

export class History {
  constructor(clock) {
    this.form = find("search");
    this.rows = new Rows(find("past"), clock);
    this.query = null;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      location.hash = this._hash();
    });
    this.form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.open(""); // now: the address changes later, when something may have been typed
      location.hash = "#/history";
    });
    find("more").addEventListener("click", () => this._page());
  }

  /** Shows what the address asks for; the same question is not asked twice, unless `anew`. */
  async open(query, anew = false) {
    if (query === this.query && !anew) return;
    if (query !== this.query) {
      const wanted = new URLSearchParams(query);
      for (const field of this.form.elements) if (field.name) field.value = wanted.get(field.name) ?? "";
    }
    this.query = query;
    this.rows.clear();
    this.last = null;
    await this._page();
  }

  _hash() {
    const wanted = new URLSearchParams();
    for (const [name, value] of new FormData(this.form)) if (value.trim()) wanted.set(name, value.trim());
    return `#/history${wanted.size ? `?${wanted}` : ""}`;
  }

  async _page() {
    const query = this.query;
    const wanted = new URLSearchParams(query);
    // Days are those of who looks, midnight to midnight.
    const day = (text, more) => {
      const [year, month, date] = text.split("-").map(Number);
      return new Date(year, month - 1, date + more).toISOString();
    };
    if (wanted.has("since")) wanted.set("since", day(wanted.get("since"), 0));
    if (wanted.has("until")) wanted.set("until", day(wanted.get("until"), 1));
    if (this.last) wanted.set("before", this.last);
    try {
      const found = await (await ask(`/history?${wanted}`)).json();
      if (this.query !== query) return;
      this.rows.put(found.calls, { older: true });
      this.last = found.calls.at(-1)?.call_id ?? this.last;
      const count = this.rows.rows.size;
      find("more").hidden = !found.more;
      find("no-past").hidden = count > 0;
      const kept = found.log ? "" : " There is no call log: these are the last calls of this process.";
      find("found").textContent = (count ? `${count}${found.more ? " and more" : ""} ${count === 1 ? "call" : "calls"}.` : "") + kept;
    } catch (problem) {
      if (this.query === query) find("found").textContent = problem.message;
    }
  }
}
