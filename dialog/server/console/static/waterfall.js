// How long each answer took, and of what that consists.

import { make } from "./dom.js";

const KINDS = {
  hearing: "hearing",
  dialog: "Dialog",
  model: "model and tools",
  voice: "voice",
  line: "line",
};

export class Waterfall {
  constructor(root) {
    this.root = root;
    this.bars = make("ol", { class: "falls", "aria-label": "Answers, in their order" });
    const key = Object.entries(KINDS).map(([kind, name]) => make("li", {}, make("i", { class: kind }), name));
    this.empty = make("p", { class: "soft small" }, "No answer was measured yet.");
    root.append(make("ul", { class: "key", "aria-hidden": "true" }, ...key), this.bars, this.empty);
    this.clear();
  }

  clear() {
    this.latencies = [];
    this.bars.replaceChildren();
    this.empty.hidden = false;
  }

  get median() {
    const sorted = this.latencies.toSorted((a, b) => a - b);
    return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
  }

  add({ latency_ms: latency, stages, timeline }) {
    if (latency === null || timeline.final === null) return;
    const begin = timeline.end_of_speech;
    this.latencies.push(latency);
    this.empty.hidden = true;
    const bar = make("span", { class: "fall", "aria-hidden": "true" });
    const sums = {};
    for (const [kind, from, to] of stages) {
      const piece = make("i", { class: kind });
      piece.style.setProperty("--from", ((from - begin) * 1000).toFixed(1));
      piece.style.setProperty("--ms", ((to - from) * 1000).toFixed(1));
      bar.append(piece);
      sums[kind] = (sums[kind] ?? 0) + (to - from) * 1000;
    }
    const words = Object.entries(sums).map(([kind, ms]) => `${KINDS[kind]} ${Math.round(ms)} ms`).join(", ");
    this.bars.append(
      make(
        "li",
        { title: words },
        make("span", { class: "number" }, String(this.latencies.length)),
        bar,
        make("span", { class: "total" }, `${Math.round(latency)} ms`),
        make("span", { class: "visually-hidden" }, `: ${words}`),
      ),
    );
    this.root.style.setProperty("--longest", String(Math.max(...this.latencies, 100)));
  }
}
