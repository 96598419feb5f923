// The talk page: everything that is shown comes from the server's messages, as text and never as markup.

import { DialogClient } from "./dialog.js";

const find = (id) => document.getElementById(id);
const body = document.body;
const transcript = find("transcript");
const STATES = {
  idle: "Ready when you are",
  connecting: "Connecting…",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking",
  working: "Looking something up",
  speaking: "Speaking",
  reconnecting: "Reconnecting…",
  ended: "The call has ended",
};
const ENDINGS = { agent_hangup: "The agent has hung up", caller_hangup: "You have hung up", lost: "The connection was lost" };
const STAGES = { hearing: "hearing you", dialog: "turn taking", model: "thinking", voice: "voice", line: "line" };

const VIA = { webrtc: "WebRTC", websocket: "WebSocket" };

const client = new DialogClient({ url: body.dataset.socket, transport: body.dataset.transport, token });
let shown = new Map();
let latencies = [];
let since = null;
let muted = false;
let atEnd = true; // of the transcript, unless somebody reads further up
let seen = ""; // sizes of the transcript at its last scroll event

async function token() {
  const response = await fetch(body.dataset.token, { method: "POST" });
  if (!response.ok) throw Object.assign(new Error("You may not talk to this agent."), { code: "token" });
  return (await response.json()).token;
}

find("talk").addEventListener("click", async () => {
  if (client.state !== "idle" && client.state !== "ended") {
    client.stop();
    return;
  }
  transcript.replaceChildren();
  shown = new Map();
  latencies = [];
  figures();
  problem("");
  setMuted(false);
  client.agent = find("agent").value;
  try {
    await client.start();
  } catch (error) {
    if (error.name !== "AbortError") problem(explain(error));
  }
});
find("log").addEventListener("scroll", ({ target: log }) => {
  // A phone that is turned, or shows its keyboard, is no reader who has scrolled up.
  const sizes = `${log.scrollHeight} ${log.clientHeight}`;
  if (sizes === seen) atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  else follow();
  seen = sizes;
});
const resized = new ResizeObserver(follow);
resized.observe(find("log"));
resized.observe(transcript);
find("mute").addEventListener("click", () => setMuted(!muted));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("select, input, textarea");
  if (event.key.toLowerCase() === "m" && !event.ctrlKey && !event.metaKey && !event.altKey && !typing && inCall()) {
    setMuted(!muted);
  }
});

client.addEventListener("state", ({ detail: { state, reason, error } }) => {
  body.dataset.call = inCall() ? "on" : "off";
  find("talk-label").textContent = inCall() ? "Hang up" : "Start talking";
  find("controls").hidden = !inCall();
  find("agent").disabled = inCall();
  find("hint").hidden = state !== "idle";
  if (state === "live") {
    since ??= Date.now();
    find("via").textContent = VIA[client.via];
    show("listening");
  } else if (state === "ended") {
    since = null;
    level(0);
    show("ended", ENDINGS[reason]);
    if (reason === "lost" || reason === "refused") problem(explain(error));
  } else {
    show(state);
  }
  if (state === "reconnecting") note("The connection broke. Trying to get it back.");
});
client.addEventListener("problem", ({ detail }) => problem(detail));
client.addEventListener("input", ({ detail }) => body.dataset.state !== "speaking" && level(detail * 6));
client.addEventListener("output", ({ detail }) => body.dataset.state === "speaking" && level(detail.level * 4));
client.addEventListener("message", ({ detail: message }) => {
  switch (message.type) {
    case "session.started":
      if (message.resumed) note("Connected again.");
      break;
    case "agent.state":
      show(message.state);
      break;
    case "transcript.caller":
      caller(message);
      break;
    case "transcript.agent":
      agent(message);
      break;
    case "turn.measured":
      measured(message);
      break;
    case "tool.state":
      if (message.state === "started") note(`Uses ${message.name.replaceAll("_", " ")}`);
      break;
    case "error":
      if (!message.fatal) note(message.message, true);
      break;
    case "pong":
      find("round-trip").textContent = `${client.roundTripMs} ms`;
      break;
  }
});

setInterval(() => {
  if (since === null) return;
  const seconds = Math.floor((Date.now() - since) / 1000);
  find("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}, 250);

function inCall() {
  return client.state !== "idle" && client.state !== "ended";
}

function show(state, text = STATES[state]) {
  body.dataset.state = state;
  const label = state === "listening" && muted ? "Muted" : (text ?? STATES.ended);
  if (find("state").textContent !== label) find("state").textContent = label;
}

function setMuted(wanted) {
  muted = wanted;
  client.mute(muted);
  find("mute").setAttribute("aria-pressed", String(muted));
  find("mute").textContent = muted ? "Muted" : "Mute";
  if (inCall() && body.dataset.state === "listening") show("listening");
}

function level(value) {
  find("talk").style.setProperty("--level", Math.min(1, value).toFixed(3));
}

function problem(text) {
  find("problem").textContent = text;
  find("problem").hidden = !text;
}

function explain(error) {
  if (error?.name === "NotAllowedError") return "The microphone is blocked. Allow it in the address bar, then start again.";
  if (error?.name === "NotFoundError") return "There is no microphone. Connect one, then start again.";
  return error?.message ?? "Something went wrong.";
}

/** Makes a change, and scrolls along with it. */
function along(change) {
  change();
  find("empty").hidden = transcript.childElementCount > 0;
  follow();
}

/** Shows what is said last, unless the reader has scrolled up. */
function follow() {
  if (atEnd) find("log").scrollTop = find("log").scrollHeight;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function bubble(key, kind, who) {
  let found = shown.get(key);
  if (!found) {
    const item = element("li", `say ${kind}`);
    const head = element("p", "who", who);
    const what = element("p", "what");
    item.append(head, what);
    transcript.append(item);
    found = { item, head, what };
    shown.set(key, found);
  }
  return found;
}

function note(text, bad = false) {
  along(() => transcript.append(element("li", bad ? "event bad" : "event", text)));
}

function caller({ turn, text, final }) {
  along(() => {
    const { item, what } = bubble(`caller ${turn}`, "you interim", "You");
    // What the local recogniser says of speech that it does not know.
    what.textContent = text === "[unclear]" ? "(not understood)" : text;
    item.classList.toggle("interim", !final || text === "[unclear]");
  });
}

function agent({ turn, part, text, heard, state }) {
  if (!text) return;
  along(() => {
    const { head, what } = bubble(`agent ${turn} ${part}`, "agent", "Agent");
    if (state !== "cut" && state !== "lost") {
      what.textContent = text;
      return;
    }
    what.textContent = heard;
    if (heard.length < text.length && text.startsWith(heard)) what.append(element("span", "unheard", text.slice(heard.length)));
    if (!head.querySelector(".note")) head.append(element("span", "note cut", state === "cut" ? "interrupted" : "cut off"));
  });
}

function measured({ turn, latency_ms: latency, stages }) {
  const found = [...shown].find(([key]) => key.startsWith(`agent ${turn} `))?.[1];
  if (latency === null || !shown.has(`caller ${turn}`)) return;
  latencies.push(latency);
  figures();
  if (!found) return;
  along(() => {
    found.head.append(element("span", "latency", `answered after ${Math.round(latency)} ms`));
    const parts = Object.entries(stages).filter(([, ms]) => ms >= 1);
    const bar = element("div", "stages");
    bar.title = parts.map(([name, ms]) => `${STAGES[name] ?? name} ${Math.round(ms)} ms`).join(", ");
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", bar.title);
    for (const [name, ms] of parts) {
      const piece = element("i", name);
      piece.style.flexGrow = String(ms);
      bar.append(piece);
    }
    if (parts.length) found.item.append(bar);
  });
}

function figures() {
  const sorted = latencies.toSorted((a, b) => a - b);
  find("median").textContent = sorted.length ? `${Math.round(sorted[Math.floor(sorted.length / 2)])} ms` : "–";
  find("turns").textContent = String(sorted.length);
}
