// Listening in to a call that goes on, and the recording of one that is over.

import { at, base, make } from "./dom.js";

/** Plays what the server sends of a call, through the jitter buffer of the talk page. */
export class Ear {
  async open(rate) {
    const context = (this.context = new AudioContext({ latencyHint: "interactive" }));
    await context.audioWorklet.addModule(`${base}/dialog-audio.js`);
    await context.resume();
    this.node = new AudioWorkletNode(context, "dialog-playback", {
      processorOptions: { rate },
      numberOfInputs: 0,
      outputChannelCount: [2],
    });
    this.node.connect(context.destination);
  }

  play(data) {
    this.node?.port.postMessage({ audio: data }, [data]);
  }

  close() {
    this.node = null;
    this.context?.close().catch(() => {});
  }
}

/** The samples of a stereo WAV file of 16 bit; `null`: it is another kind of file. */
function read(buffer) {
  const view = new DataView(buffer);
  const name = (offset) => String.fromCharCode(...new Uint8Array(buffer, offset, 4));
  if (buffer.byteLength < 44 || name(0) !== "RIFF" || name(8) !== "WAVE") return null;
  let format = null;
  for (let offset = 12; offset + 8 <= buffer.byteLength; ) {
    const size = Math.min(view.getUint32(offset + 4, true), buffer.byteLength - offset - 8);
    if (name(offset) === "fmt ") {
      format = {
        plain: view.getUint16(offset + 8, true) === 1,
        channels: view.getUint16(offset + 10, true),
        rate: view.getUint32(offset + 12, true),
        bits: view.getUint16(offset + 22, true),
      };
    } else if (name(offset) === "data") {
      if (!format?.plain || format.bits !== 16 || format.channels !== 2) return null;
      return { ...format, samples: new Int16Array(buffer.slice(offset + 8, offset + 8 + size - (size % 4))) };
    }
    offset += 8 + size + (size % 2);
  }
  return null;
}

function peaks({ samples }, channel, columns) {
  const found = new Float32Array(columns);
  const step = samples.length / 2 / columns;
  for (let column = 0; column < columns; column++) {
    let most = 0;
    const end = Math.min(samples.length / 2, Math.ceil((column + 1) * step));
    for (let index = Math.floor(column * step); index < end; index++) most = Math.max(most, Math.abs(samples[2 * index + channel]));
    found[column] = most / 32768;
  }
  return found;
}

const COLUMNS = 1200;

/** A player with both sides drawn, which follows and leads the transcript. */
export class Recording {
  constructor(root, { onTime }) {
    this.root = root;
    this.onTime = onTime;
    this.offset = 0;
    this.marks = [];
  }

  async open(path, { offset, length, marks }) {
    this.offset = offset;
    this.marks = marks;
    this.length = length;
    const status = make("p", { class: "soft small", role: "status" }, "The recording is being fetched …");
    this.root.replaceChildren(status);
    const response = await fetch(`${base}${path}`);
    if (!response.ok) {
      const problem = await response.json().catch(() => ({}));
      status.textContent = `The recording cannot be played: ${problem.detail ?? response.status}`;
      return false;
    }
    const buffer = await response.arrayBuffer();
    this.url = URL.createObjectURL(new Blob([buffer], { type: "audio/wav" }));
    this.audio = make("audio", { controls: true, src: this.url, "aria-label": "Recording: caller left, agent right" });
    const sound = read(buffer);
    this.root.replaceChildren(this.audio);
    if (sound) this._draw(sound);
    const follow = () => {
      this._show();
      if (!this.audio.paused) this.frame = requestAnimationFrame(follow);
    };
    this.audio.addEventListener("play", follow);
    this.audio.addEventListener("seeked", () => this._show());
    this.audio.addEventListener("timeupdate", () => this._show());
    return true;
  }

  seek(seconds) {
    if (!this.audio) return;
    this.audio.currentTime = Math.max(0, seconds - this.offset);
    this.audio.play();
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.audio?.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    this.colours?.removeEventListener("change", this.repaint);
    this.audio = this.url = null;
    this.root.replaceChildren();
  }

  _show() {
    const seconds = this.audio.currentTime + this.offset;
    this.head?.style.setProperty("--at", String(seconds / this.length));
    this.onTime(seconds);
  }

  _draw(sound) {
    this.length = Math.max(this.length, this.offset + sound.samples.length / 2 / sound.rate, 0.1);
    const both = [peaks(sound, 0, COLUMNS), peaks(sound, 1, COLUMNS)];
    const loudest = Math.max(0.06, ...both[0], ...both[1]);
    const canvas = make("canvas", { width: COLUMNS, height: 160, role: "img", "aria-label": "Sound of the caller above, of the agent below, over time" });
    this.head = make("span", { class: "head" });
    this.head.style.setProperty("--at", "0");
    const marks = this.marks.map((seconds) => {
      const mark = make("span", { class: "mark", title: `interrupted at ${at(seconds)}` });
      mark.style.setProperty("--at", String(seconds / this.length));
      return mark;
    });
    const track = make("div", { class: "track" }, canvas, ...marks, this.head);
    track.addEventListener("click", ({ clientX }) => {
      const box = track.getBoundingClientRect();
      this.seek((this.length * (clientX - box.left)) / box.width);
    });
    this.root.prepend(track);
    this.repaint = () => {
      const style = getComputedStyle(track);
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, canvas.width, canvas.height);
      const seconds = sound.samples.length / 2 / sound.rate;
      const [left, width] = [(this.offset / this.length) * COLUMNS, seconds / this.length];
      both.forEach((values, channel) => {
        pen.fillStyle = style.getPropertyValue(channel ? "--agent" : "--caller");
        values.forEach((value, column) => {
          const height = Math.max(1, (value / loudest) * 74);
          pen.fillRect(left + column * width, 40 + 80 * channel - height / 2, Math.max(1, width), height);
        });
      });
    };
    this.repaint();
    this.colours = matchMedia("(prefers-color-scheme: dark)");
    this.colours.addEventListener("change", this.repaint);
  }
}
