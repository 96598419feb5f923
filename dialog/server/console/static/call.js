// One call: while it goes on, and when it is over.

import { ask, condition, duration, ending, find, make, moment, ms, party, say } from "./dom.js";
import { Ear, Recording } from "./sound.js";
import { Transcript } from "./transcript.js";
import { Waterfall } from "./waterfall.js";

const QUIET_DB = -60;

/** Where a whisper that is being written is kept. */
const draft = (id) => `whisper ${id}`;

export class CallView {
  constructor(root, live, { mayAct, onBack }) {
    this.root = root;
    this.live = live;
    this.mayAct = mayAct;
    this.id = null;
    this._build(onBack);
    live.addEventListener("message", ({ detail }) => this._take(detail));
    live.addEventListener("sound", ({ detail }) => this.ear?.play(detail));
    live.addEventListener("state", ({ detail }) => this._connection(detail));
    setInterval(() => this._tick(), 500);
  }

  /** Shows a call; `null`: none. */
  async open(id) {
    if (id === this.id) return;
    this._close();
    this.id = id;
    this.root.hidden = id === null;
    if (id === null) return;
    this._reset();
    this.words.value = sessionStorage.getItem(draft(id)) ?? "";
    await this._load();
    if (this.id === id) this.root.focus();
  }

  // The parts of the page.

  _build(onBack) {
    const button = (label, kind, act) => {
      const made = make("button", { type: "button", class: kind }, label);
      made.addEventListener("click", act);
      return made;
    };
    this.title = make("h1", { id: "call-title" });
    this.about = make("p", { class: "about soft" });
    this.state = make("span", { class: "state" });
    this.length = make("span", { class: "clock" });
    this.back = make("a", { class: "back", href: "#/live" }, "Back");
    this.back.addEventListener("click", onBack);
    this.hear = button("Listen in", "primary", () => this._listen(!this.ear));
    this.hear.setAttribute("aria-pressed", "false");
    this.move = button("Transfer …", "", () => this._transfer());
    this.end = button("Hang up …", "danger", () => this._hangUp());
    this.status = make("p", { class: "status small", role: "status" });
    this.meters = { caller: this._meter("Caller"), agent: this._meter("Agent") };
    this.words = make("input", { name: "text", maxlength: "1000", autocomplete: "off", placeholder: "The caller is a member: offer the discount.", required: true });
    this.whisper = make(
      "form",
      { class: "whisper" },
      make("label", {}, "Whisper to the agent ", make("span", { class: "soft" }, "– the caller does not hear it"), this.words),
      make("button", { type: "submit" }, "Whisper"),
    );
    // What is half written belongs to its call, and is still there when one comes back to it.
    this.words.addEventListener("input", () => sessionStorage.setItem(draft(this.id), this.words.value));
    this.whisper.addEventListener("submit", (event) => {
      event.preventDefault();
      this._whisper();
    });
    this.controls = make("div", { class: "controls" }, this.hear, this.move, this.end);
    this.desk = make(
      "section",
      { class: "desk", "aria-label": "What you can do" },
      make("div", { class: "meters" }, this.meters.caller.element, this.meters.agent.element),
      this.controls,
      this.whisper,
    );
    this.player = make("section", { class: "player", "aria-label": "Recording" });
    const lines = make("ol", { id: "transcript" });
    this.log = make("div", { class: "log", role: "log", "aria-labelledby": "transcript-title", tabindex: "0" }, lines);
    const falls = make("div", { class: "waterfall" });
    this.facts = make("dl", { class: "facts" });
    this.root.append(
      make(
        "header",
        {},
        this.back,
        make("div", { class: "heading" }, this.title, this.about),
        make("div", { class: "now" }, this.state, this.length),
      ),
      this.status,
      this.desk,
      this.player,
      make(
        "div",
        { class: "halves" },
        make("section", { class: "half", "aria-labelledby": "transcript-title" }, make("h2", { id: "transcript-title" }, "Transcript"), this.log),
        make(
          "section",
          { class: "half", "aria-labelledby": "latency-title" },
          make("h2", { id: "latency-title" }, "How long each answer took"),
          falls,
          make("h2", { id: "facts-title" }, "The call"),
          this.facts,
        ),
      ),
    );
    this.transcript = new Transcript(lines, { onSeek: (seconds) => this.recording?.seek(seconds) });
    this.waterfall = new Waterfall(falls);
  }

  _meter(name) {
    const bar = make("i");
    const meter = make("span", { class: "meter", role: "meter", "aria-label": `Level of the ${name.toLowerCase()}`, "aria-valuemin": QUIET_DB, "aria-valuemax": "0", "aria-valuenow": QUIET_DB }, bar);
    return { element: make("div", { class: name.toLowerCase() }, make("span", {}, name), meter), meter, bar };
  }

  // What is known.

  _reset() {
    this.call = null;
    this.over = false;
    this.last = -1;
    this.marks = [];
    this.paused = new Map();
    this.interruptions = this.tools = 0;
    this.begin = null;
    this.metrics = null;
    this.transcript.clear();
    this.waterfall.clear();
    this.root.dataset.kind = "";
    this.root.dataset.live = "";
    for (const element of [this.title, this.about, this.state, this.length, this.status]) element.textContent = "";
    this.facts.replaceChildren();
    this.desk.hidden = this.player.hidden = true;
    this.hear.disabled = true;
    this._levels({ caller: QUIET_DB, agent: QUIET_DB });
  }

  async _load() {
    const id = this.id;
    try {
      const found = await (await ask(`/calls/${id}`)).json();
      if (this.id !== id) return;
      this.recordings = found.recordings;
      this._apply(found.events);
      this._show(found.call);
      if (found.call.state === "ended") {
        this._over();
        return;
      }
      this.live.watch(id, this.last);
      this.transcript.follow();
    } catch (problem) {
      if (this.id === id) this._say(problem.message, true);
    }
  }

  _take(message) {
    if (this.id === null) return;
    if (message.type === "events" && message.call.call_id === this.id) {
      this._apply(message.events);
      this._show(message.call);
      if (message.call.state === "ended" && !this.over) this._over();
    } else if (message.type === "watching" && message.call_id === this.id) {
      this.hear.disabled = !message.sound;
      this.rate = message.rate;
      this.hear.title = message.sound ? "" : "This call is in another process: its sound cannot be heard from here.";
    } else if (message.type === "reload" && message.call_id === this.id) {
      const id = this.id;
      this._close();
      this.id = id;
      this._reset();
      this._load();
    } else if (message.type === "levels" && this.live.watching === this.id) {
      this._levels(message);
    } else if (message.type === "list" && this.call && this.call.state !== "ended") {
      this._quiet();
      this.live.watch(this.id, this.last); // the connection is another one
    }
  }

  _apply(events) {
    for (const event of events) {
      if (event.seq <= this.last) continue;
      this.last = event.seq;
      this.transcript.add(event);
      if (event.type === "turn.measured") this.waterfall.add(event);
      else if (event.type === "stream" && event.state === "live") this.begin ??= event.at_s;
      else if (event.type === "call.measured") this.metrics = event.metrics;
      else if (event.type === "tool.ended") this.tools++;
      else if (event.type === "agent.paused") this.paused.set(event.turn, event.at_s);
      else if (event.type === "agent.interrupted") {
        this.interruptions++;
        this.marks.push(this.paused.get(event.turn) ?? event.at_s);
      } else if (event.type === "call.recording" && this.call?.state === "ended") this._recorded();
    }
  }

  _show(call) {
    this.call = call;
    const [kind, text] = condition(call);
    this.root.dataset.kind = kind;
    this.root.dataset.live = call.state === "ended" ? "no" : "yes";
    say(this.title, party(call));
    const direction = call.direction === "outbound" ? `called from ${call.from || "here"}` : `to ${call.to || "here"}`;
    say(this.about, [direction, call.agent, call.tenant, call.carrier, moment(call.started)].filter(Boolean).join(" · "));
    say(this.state, text);
    this.desk.hidden = call.state === "ended";
    this.controls.hidden = false;
    this.move.hidden = this.end.hidden = this.whisper.hidden = !this.mayAct;
    this.move.hidden ||= call.carrier === "web";
    this._tick();
    this._facts();
  }

  _facts() {
    const { call, metrics } = this;
    const facts = [
      ["Turns", call.turns],
      ["Median answer", ms(this.waterfall.median)],
      ["Interruptions", this.interruptions],
      ["Tools used", this.tools],
      ["Errors", call.errors],
    ];
    if (metrics) {
      facts.push(["Tokens in, out", `${metrics.input_tokens}, ${metrics.output_tokens}`]);
      if (metrics.cost_usd !== null) facts.push(["Cost of models", metrics.cost_usd ? `$${metrics.cost_usd.toFixed(4)}` : "$0"]);
      if (metrics.longest_silence) facts.push(["Longest silence", `${metrics.longest_silence.seconds.toFixed(1)} s`]);
    }
    if (call.state === "ended") facts.push(["Ended", [ending(call), call.end_detail].filter(Boolean).join(": ")]);
    facts.push(["Call id", call.call_id]);
    this.facts.replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
  }

  _tick() {
    if (this.id === null || !this.call) return;
    say(this.length, duration(this.call.duration_s ?? this.live.now() - this.call.started));
  }

  _say(text, bad = false) {
    this.status.textContent = text;
    this.status.classList.toggle("bad", bad);
  }

  // While it goes on.

  _connection(state) {
    if (state === "lost") {
      this._quiet();
      this.hear.disabled = true;
      this._levels({ caller: QUIET_DB, agent: QUIET_DB });
    }
  }

  _levels(levels) {
    for (const side of ["caller", "agent"]) {
      const { meter, bar } = this.meters[side];
      const db = Math.max(QUIET_DB, levels[side]);
      bar.style.setProperty("--level", ((db - QUIET_DB) / -QUIET_DB).toFixed(3));
      meter.setAttribute("aria-valuenow", String(Math.round(db)));
    }
  }

  async _listen(on) {
    if (!on) {
      this._quiet();
      return;
    }
    const ear = (this.ear = new Ear());
    this._pressed(true);
    try {
      await ear.open(this.rate);
      if (this.ear === ear) this.live.listen(true);
      else ear.close();
    } catch (problem) {
      this._quiet();
      this._say(`Nothing can be heard here: ${problem.message}`, true);
    }
  }

  _quiet() {
    if (!this.ear) return;
    this.ear.close();
    this.ear = null;
    if (this.live.listening) this.live.listen(false);
    this._pressed(false);
  }

  _pressed(on) {
    this.hear.setAttribute("aria-pressed", String(on));
    say(this.hear, on ? "Stop listening" : "Listen in");
  }

  async _command(name, body, done) {
    const id = this.id;
    this._say("");
    try {
      await ask(`/calls/${id}/${name}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      if (this.id === id) this._say(done);
      return true;
    } catch (problem) {
      if (this.id === id) this._say(problem.message, true);
      return false;
    }
  }

  async _whisper() {
    const [id, text] = [this.id, this.words.value.trim()];
    if (!text || !(await this._command("whisper", { text }, "The agent knows it from its next answer on."))) return;
    sessionStorage.removeItem(draft(id));
    if (this.id === id) this.words.value = "";
  }

  async _hangUp() {
    if ((await answer(find("hang-up-dialog"))) === "yes") await this._command("hangup", {}, "The call was ended.");
  }

  async _transfer() {
    const dialog = find("transfer-dialog");
    const form = dialog.querySelector("form");
    form.reset();
    if ((await answer(dialog)) !== "yes") return;
    const { to, back } = Object.fromEntries(new FormData(form));
    await this._command("transfer", { to, ...(back && { back_within_s: Number(back) }) }, `The caller is being connected to ${to}.`);
  }

  // When it is over.

  _over() {
    this.over = true;
    this._quiet();
    this.live.watch(this.id, this.last); // a recording may come later
    this.desk.hidden = true;
    this._recorded();
  }

  async _recorded() {
    const id = this.id;
    this.player.hidden = false;
    if (this.recording) return;
    if (!this.recordings) {
      const found = await (await ask(`/calls/${id}`)).json().catch(() => ({ recordings: 0 }));
      if (this.id !== id) return;
      this.recordings = found.recordings;
    }
    if (this.recording) return;
    if (!this.recordings) {
      this.player.replaceChildren(make("p", { class: "soft small" }, "There is no recording of this call."));
      return;
    }
    const recording = (this.recording = new Recording(this.player, { onTime: (seconds) => this.transcript.playing(seconds) }));
    const shape = { offset: this.begin ?? 0, length: this.call.duration_s ?? 0, marks: this.marks };
    const opened = await recording.open(`/calls/${id}/recordings/0`, shape);
    if (this.recording !== recording) recording.close();
    else if (opened) this.transcript.playable();
  }

  _close() {
    this._quiet();
    if (this.live.watching !== null) this.live.watch(null);
    this.recording?.close();
    this.recording = null;
    this.recordings = 0;
    this.player.replaceChildren();
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close("no");
    this.words.value = "";
    this.id = null;
  }
}

/** What a dialog was closed with. */
function answer(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
  });
}
