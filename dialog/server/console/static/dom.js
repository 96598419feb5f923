// Elements are made here, of text and never of markup: a caller can say HTML.

export const find = (id) => document.getElementById(id);
export const base = document.body.dataset.base;

/** `make("li", { class: "row", hidden: true }, "text", otherElement)` */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((each) => each !== null));
  return made;
}

/** Sets the text only where it changes: most of a row stays as it is. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

export function at(seconds) {
  const safe = Math.max(0, seconds);
  return `${Math.floor(safe / 60)}:${(safe % 60).toFixed(1).padStart(4, "0")}`;
}

const today = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const other = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const past = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

export function moment(epoch) {
  const when = new Date(epoch * 1000);
  const now = new Date();
  if (when.toDateString() === now.toDateString()) return today.format(when);
  return (now - when < 300 * 86400000 ? other : past).format(when);
}

export function ms(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value)} ms`;
}

/** The other side: who calls, or who was called. */
export function party(call) {
  const number = call.direction === "outbound" ? call.to : call.from;
  return number || (call.carrier === "web" ? "Browser" : "Number withheld");
}

const ENDS = {
  caller_hangup: "Caller hung up",
  agent_hangup: "Agent hung up",
  api_hangup: "Hung up from outside",
  transferred: "Transferred",
  declined: "Not taken",
  no_answer: "Not answered",
  lost_process: "Lost",
};

export function ending(call) {
  const reason = ENDS[call.end_reason] ?? call.end_reason.replaceAll("_", " ");
  return reason ? reason[0].toUpperCase() + reason.slice(1) : "Ended";
}

const STATES = { offered: "Connecting", moving: "Being transferred", lost: "Line lost", ended: "Ended" };
const ACTIVITIES = { caller: "Caller speaks", answering: "Agent answers", tool: "Looks something up", "": "Listening" };

/** What goes on in a call, for people and for the style sheet. */
export function condition(call) {
  if (call.state === "live") return [call.activity || "listening", ACTIVITIES[call.activity]];
  return [call.state, call.state === "ended" ? ending(call) : STATES[call.state]];
}

/** Asks the server; who is not signed in any more is asked to. */
export async function ask(path, options = {}) {
  const response = await fetch(`${base}${path}`, { ...options, headers: { Accept: "application/json", ...options.headers } });
  if (response.status === 401) {
    location.reload();
    return new Promise(() => {});
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ?? `The server answers ${response.status}.`);
  }
  return response;
}
