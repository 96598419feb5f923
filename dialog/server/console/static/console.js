// The console: which view is shown is in the address, what it shows comes from the server.

import { CallView } from "./call.js";
import { find, ms, say } from "./dom.js";
import { History } from "./history.js";
import { Rows, matches } from "./list.js";
import { Live } from "./live.js";

const body = document.body;
const live = new Live();
const clock = () => live.now();
const rows = new Rows(find("calls"), clock);
const history = new History(clock);
const call = new CallView(find("call"), live, { mayAct: body.dataset.act === "yes", onBack: back });
let list = "#/live"; // where "back" leads to
let filtered = false;

live.addEventListener("state", ({ detail }) => {
  find("connection").dataset.state = detail;
  say(find("connection"), detail === "open" ? "Connected" : "Reconnecting …");
});

live.addEventListener("message", ({ detail: message }) => {
  switch (message.type) {
    case "list":
      rows.keep(new Set(message.calls.map((each) => each.call_id)));
      rows.put(message.calls);
      break;
    case "changes":
      rows.put(message.calls);
      rows.remove(message.gone);
      break;
    default:
      return;
  }
  filter();
  if (message.type === "list") figures();
});

// Hundreds of calls change all the time: what is counted over all of them can wait a moment.
setInterval(() => {
  rows.tick();
  figures();
}, 1000);

function figures() {
  const calls = [...rows.rows.values()].map((row) => row.call);
  const latencies = calls.map((each) => each.latency_ms).filter((each) => each !== null).sort((a, b) => a - b);
  say(find("median"), latencies.length ? ms(latencies[Math.floor(latencies.length / 2)]) : "–");
  say(find("with-errors"), String(calls.filter((each) => each.errors > 0).length));
}

function filter() {
  const words = find("filter").value.trim();
  if (words || filtered) rows.filter((each) => !words || matches(each, words));
  filtered = words !== "";
  const shown = filtered ? rows.shown : rows.rows.size;
  find("no-calls").hidden = shown > 0;
  say(find("count"), String(rows.rows.size));
  say(find("going-on"), String(rows.rows.size));
  say(find("no-calls"), words && rows.rows.size ? "No live call fits." : "No call goes on. When somebody calls, they appear here.");
}
find("filter").addEventListener("input", filter);
// What was half written is nothing for whoever signs in next.
document.querySelector('form[action$="sign-out"]').addEventListener("submit", () => sessionStorage.clear());

function back(event) {
  event.preventDefault();
  const id = call.id;
  location.hash = list;
  const row = rows.rows.get(id) ?? history.rows.rows.get(id);
  setTimeout(() => row?.link.focus());
}

function route() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const [, view, id] = path.split("/");
  const past = view === "history" || (view === "call" && list.startsWith("#/history"));
  if (view !== "call") list = past ? location.hash : "#/live";
  const open = view === "call" && /^[0-9a-f-]{36}$/.test(id ?? "");
  body.dataset.view = past ? "history" : "live";
  body.dataset.open = open ? "yes" : "no";
  find("live").hidden = past;
  find("history").hidden = !past;
  for (const [name, current] of [["to-live", !past], ["to-history", past]]) {
    if (current) find(name).setAttribute("aria-current", "page");
    else find(name).removeAttribute("aria-current");
  }
  if (view === "history") history.open(query, call.id === null);
  call.open(open ? id : null);
  rows.mark(call.id);
  history.rows.mark(call.id);
  document.title = `${open ? "Call" : past ? "History" : "Live calls"} · Dialog Console`;
}
addEventListener("hashchange", route);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && call.id !== null && !document.querySelector("dialog[open]") && !event.target.closest("input, select")) back(event);
});
route();
