// What is said in a call, in the order in which it sounds, whenever that is known.

import { at, make } from "./dom.js";

export class Transcript {
  constructor(root, { onSeek }) {
    this.root = root;
    this.onSeek = onSeek;
    this.clear();
    const box = root.parentElement;
    box.addEventListener("scroll", () => {
      // What has grown since, or became narrower, is no reader who has scrolled up.
      if (this._sizes() === this.sizes) this.follows = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
      else if (this.follows) this._toEnd();
      this.sizes = this._sizes();
    });
    // It grows with what is said, and where the window becomes narrower.
    const sizes = new ResizeObserver(() => this.follows && this._toEnd());
    sizes.observe(root);
    sizes.observe(box);
  }

  clear() {
    this.items = []; // { at, element }, by when they sound
    this.known = new Map();
    this.latencies = new Map();
    this.played = false;
    this.current = null;
    this.follows = false;
    this.sizes = "";
    this.live = false;
    this.tools = new Map();
    this.root.replaceChildren();
  }

  /** There is sound: it can be played from each line on. */
  playable() {
    this.played = true;
    for (const button of this.root.querySelectorAll(".at")) button.disabled = false;
  }

  /** Marks what is being played. */
  playing(seconds) {
    let current = null;
    for (const each of this.items) if (each.at <= seconds + 0.05 && each.said) current = each;
    if (current === this.current) return;
    this.current?.element.removeAttribute("aria-current");
    this.current = current;
    if (!current) return;
    current.element.setAttribute("aria-current", "true");
    const [box, item] = [this.root.parentElement, current.element];
    const hidden = item.offsetTop < box.scrollTop || item.offsetTop + item.offsetHeight > box.scrollTop + box.clientHeight;
    if (hidden) box.scrollTop = item.offsetTop - box.clientHeight / 3;
  }

  add(event) {
    const seconds = event.at_s;
    switch (event.type) {
      case "stream":
        if (event.state === "live" && !this.live) {
          this.live = true;
          this.begin = seconds;
        } else if (event.state === "live") this._note(seconds, "The caller is back on the line.");
        else if (event.state === "lost") this._note(seconds, "The line is lost.", true);
        else if (event.state === "moving") this._note(seconds, "The caller is being connected to somebody else.");
        break;
      case "caller.transcript":
        this._caller(event);
        break;
      case "agent.speaking":
        this._agent(event, seconds, event.text);
        break;
      case "agent.transcript":
        this._spoken(event);
        break;
      case "agent.told":
        this._note(seconds, `Whispered to the agent: ${event.text}`);
        break;
      case "turn.measured":
        this._measured(event);
        break;
      case "tool.started":
        this.tools.set(event.call_id, this._note(seconds, `${event.name}(${event.arguments}) …`, false, "tool"));
        break;
      case "tool.ended":
        this._toolEnded(event);
        break;
      case "agent.resumed":
        this._note(seconds, "A sound without words: the agent paused and went on.");
        break;
      case "agent.handed_off":
        this._note(seconds, `${event.to} answers from here on.`);
        break;
      case "agent.idle_prompt":
        this._note(seconds, "Nobody had spoken for a while.");
        break;
      case "caller.unheard":
        this._note(seconds, "The caller's voice was heard, and no words came of it.", true);
        break;
      case "dtmf":
        this._note(seconds, `The caller pressed ${event.digit}`);
        break;
      case "call.progress":
        if (event.state !== "answered") this._note(seconds, event.state === "ringing" ? "It rings." : "It is being dialled.");
        break;
      case "call.answered_by":
        this._note(seconds, `Answered by: ${event.who}`);
        break;
      case "call.transfer":
        this._note(seconds, `Transfer to ${event.to}: ${event.state}${event.detail ? `, ${event.detail}` : ""}`, event.state === "refused");
        break;
      case "call.resumed":
        this._note(seconds, `The process that had the call was gone: ${event.agent} went on after ${event.lost_s.toFixed(1)} s.`, true);
        break;
      case "provider.switched":
        this._note(seconds, `${event.provider} takes the place of ${event.instead_of}: ${event.reason}`, true);
        break;
      case "warning":
        this._note(seconds, event.text, true);
        break;
      case "error":
        this._note(seconds, `${event.source}: ${event.text}`, true);
        break;
      case "call.ended":
        this._note(seconds, `The call ended after ${at(seconds)}.`);
        break;
    }
  }

  /** Shows what is said last from now on, unless somebody reads further up. */
  follow() {
    this.follows = true;
    this._toEnd();
  }

  _toEnd() {
    const box = this.root.parentElement;
    box.scrollTop = box.scrollHeight;
    this.sizes = this._sizes();
  }

  _sizes() {
    const box = this.root.parentElement;
    return `${box.scrollHeight} ${box.clientHeight}`;
  }

  _caller(event) {
    const seconds = event.end_ms ? (this.begin ?? 0) + event.start_ms / 1000 : event.at_s;
    const found = this._bubble(`caller ${event.turn}`, "caller", "Caller", seconds);
    if (found.final && !event.final) return;
    found.final ||= event.final;
    found.text.textContent = event.text;
    found.element.classList.toggle("interim", !event.final);
    if (event.speaker) found.who.textContent = `Caller ${event.speaker}`;
  }

  _agent(event, seconds, text) {
    const found = this._bubble(`agent ${event.turn} ${event.part}`, "agent", "Agent", seconds);
    found.text.textContent = text;
    return found;
  }

  _spoken(event) {
    if (!event.text.trim() && !event.heard.trim()) return;
    const found = this._agent(event, event.at_s - event.heard_ms / 1000, event.text.trim());
    const [text, heard] = [event.text.trim(), event.heard.trim()];
    if (event.state !== "played") {
      found.text.textContent = heard;
      if (text.startsWith(heard)) found.text.append(make("span", { class: "unheard", title: "not heard" }, text.slice(heard.length)));
      this._tag(found, event.state === "cut" ? "interrupted" : "the line went away", "cut");
    }
    if (event.filler) this._tag(found, "filler");
    this._timed(found, event.turn);
  }

  /** A turn is measured before or after its last words are known: whichever comes second tells. */
  _measured({ timeline: { turn }, latency_ms: latency }) {
    if (latency === null) return;
    this.latencies.set(turn, latency);
    const first = [...this.known].find(([key]) => key.startsWith(`agent ${turn} `))?.[1];
    if (first) this._timed(first, turn);
  }

  _timed(found, turn) {
    const latency = this.latencies.get(turn);
    if (latency === undefined || !this.known.has(`caller ${turn}`)) return;
    this.latencies.delete(turn);
    this._tag(found, `after ${Math.round(latency)} ms`);
  }

  _toolEnded(event) {
    const shown = this.tools.get(event.call_id);
    if (!shown) return;
    const call = shown.textContent.replace(/ …$/, "");
    shown.textContent = `${call} → ${event.result} (${Math.round(event.took_s * 1000)} ms)`;
    shown.classList.toggle("bad", event.state !== "done");
  }

  _tag(found, text, kind = "") {
    for (const each of found.tags.children) if (each.textContent === text) return;
    found.tags.append(make("span", { class: `tag ${kind}` }, text));
  }

  _bubble(key, side, name, seconds) {
    let found = this.known.get(key);
    if (found) return found;
    const who = make("span", { class: "who" }, name);
    const tags = make("span", { class: "tags" });
    const text = make("p", { class: "text" });
    const time = make("button", { type: "button", class: "at", disabled: !this.played, "aria-label": `Play from ${at(seconds)}` }, at(seconds));
    time.addEventListener("click", () => this.onSeek(seconds));
    const element = make("li", { class: `said ${side}` }, make("div", { class: "head" }, time, who, tags), text);
    found = { element, who, tags, text, final: false };
    this.known.set(key, found);
    this._place(seconds, element, true);
    return found;
  }

  _note(seconds, text, bad = false, kind = "") {
    const element = make("li", { class: `note ${bad ? "bad" : ""} ${kind}` }, text);
    this._place(seconds, element, false);
    return element;
  }

  _place(seconds, element, said) {
    let index = this.items.length;
    while (index > 0 && this.items[index - 1].at > seconds) index--;
    this.root.insertBefore(element, this.items[index]?.element ?? null);
    this.items.splice(index, 0, { at: seconds, element, said });
  }
}
