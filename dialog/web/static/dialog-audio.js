// The sound of a call, on the audio thread: what the microphone hears, and a jitter buffer for what the agent says.

/** Converts between sample rates, chunk by chunk: a windowed sinc of 32 zero crossings' width. */
class Resampler {
  constructor(from, to) {
    this.step = from / to;
    this.same = from === to;
    const cut = Math.min(1, to / from) * 0.95;
    this.half = Math.ceil(16 / Math.min(1, to / from));
    this.phases = 64;
    this.taps = [];
    for (let phase = 0; phase <= this.phases; phase++) {
      const row = new Float32Array(2 * this.half);
      for (let tap = 0; tap < row.length; tap++) {
        const x = tap - this.half + 1 - phase / this.phases;
        const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / this.half);
        const sinc = x === 0 ? cut : Math.sin(Math.PI * cut * x) / (Math.PI * x);
        row[tap] = Math.abs(x) < this.half ? sinc * window : 0;
      }
      this.taps.push(row);
    }
    this.rest = new Float32Array(2 * this.half);
    this.at = this.half;
  }

  process(input) {
    if (this.same) return input;
    const all = new Float32Array(this.rest.length + input.length);
    all.set(this.rest);
    all.set(input, this.rest.length);
    const out = new Float32Array(Math.max(0, Math.ceil((all.length - this.half - this.at) / this.step) + 1));
    let count = 0;
    let at = this.at;
    for (; at + this.half < all.length; at += this.step) {
      const whole = Math.floor(at);
      const row = this.taps[Math.round((at - whole) * this.phases)];
      const first = whole - this.half + 1;
      let sum = 0;
      for (let tap = 0; tap < row.length; tap++) sum += all[first + tap] * row[tap];
      out[count++] = sum;
    }
    const keep = Math.max(0, Math.floor(at) - this.half + 1);
    this.rest = all.slice(keep);
    this.at = at - keep;
    return out.subarray(0, count);
  }
}

function level(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return samples.length ? Math.sqrt(sum / samples.length) : 0;
}

/** Posts 20 ms of 16-bit audio at a time, in the rate of the call. */
class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.resampler = new Resampler(sampleRate, rate);
    this.size = rate / 50;
    this.frame = new Int16Array(this.size);
    this.filled = 0;
  }

  process([input]) {
    const channel = input[0];
    if (!channel) return true;
    for (const sample of this.resampler.process(channel)) {
      this.frame[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32767)));
      if (this.filled === this.size) {
        this.port.postMessage(this.frame.buffer, [this.frame.buffer]);
        this.frame = new Int16Array(this.size);
        this.filled = 0;
      }
    }
    return true;
  }
}

const START_S = 0.06; // so much is buffered before sound begins …
const WAIT_S = 0.12; // … or so long waited for more
const MOST_START_S = 0.3;
const LATE_S = 0.1;
const FADE_S = 0.005;

/** Plays what is posted, and tells which marks it has passed. */
class Playback extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.rate = rate;
    this.port.onmessage = ({ data }) => this.take(data);
    this.start = START_S;
    this.dryAt = -Infinity;
    this.reset();
    this.loudness = 0;
    this.quanta = 0;
  }

  reset() {
    this.resampler = new Resampler(this.rate, sampleRate);
    this.queue = []; // chunks of samples, and marks
    this.buffered = 0;
    this.offset = 0;
    this.playing = false;
    this.since = null;
  }

  take(data) {
    if (data.clear) {
      const marks = this.queue.filter((each) => each.mark !== undefined).map((each) => each.mark);
      const tail = this.playing ? this.pull(Math.round(FADE_S * sampleRate)) : null;
      this.reset();
      if (tail) {
        // Cut off at once it would click.
        tail.forEach((sample, index) => (tail[index] = sample * (1 - index / tail.length)));
        this.push(tail);
        this.playing = true;
      }
      if (marks.length) this.port.postMessage({ marks });
    } else if (data.mark !== undefined) {
      this.queue.push({ mark: data.mark });
      this.pass();
    } else {
      const pcm = new Int16Array(data.audio);
      const samples = new Float32Array(pcm.length);
      for (let index = 0; index < pcm.length; index++) samples[index] = pcm[index] / 32768;
      this.push(this.resampler.process(samples).slice());
    }
  }

  push(samples) {
    if (!samples.length) return;
    this.queue.push({ samples });
    this.buffered += samples.length;
    if (this.since !== null) return;
    this.since = currentTime;
    // Dry a moment ago, in the middle of a word: who comes late again gets more room.
    if (currentTime - this.dryAt < LATE_S) this.start = Math.min(MOST_START_S, this.start + 0.02);
  }

  /** Marks at the head of the queue: all before them has sounded. */
  pass() {
    const marks = [];
    while (this.queue.length && this.queue[0].mark !== undefined) marks.push(this.queue.shift().mark);
    if (marks.length) this.port.postMessage({ marks });
  }

  pull(count) {
    const out = new Float32Array(count);
    let filled = 0;
    while (filled < count && this.buffered > 0) {
      this.pass();
      const { samples } = this.queue[0];
      const size = Math.min(count - filled, samples.length - this.offset);
      out.set(samples.subarray(this.offset, this.offset + size), filled);
      filled += size;
      this.offset += size;
      this.buffered -= size;
      if (this.offset === samples.length) {
        this.queue.shift();
        this.offset = 0;
      }
    }
    this.pass();
    return out.subarray(0, filled);
  }

  process(_, [output]) {
    const channel = output[0];
    if (!this.playing && this.since !== null) {
      const enough = this.buffered >= this.start * sampleRate || currentTime - this.since >= WAIT_S;
      this.playing = enough && this.buffered > 0;
    }
    if (this.playing) {
      const samples = this.pull(channel.length);
      channel.set(samples);
      for (let index = 1; index < output.length; index++) output[index].set(channel);
      if (samples.length < channel.length) {
        this.playing = false;
        this.since = null;
        this.dryAt = currentTime;
      }
    }
    this.loudness = Math.max(this.loudness, level(channel));
    if (++this.quanta % 20 === 0) {
      this.port.postMessage({ level: this.loudness, playing: this.playing });
      this.loudness = 0;
    }
    return true;
  }
}

/** Lets audio through, or nothing: what was cleared may still be on its way. */
class Gate extends AudioWorkletProcessor {
  constructor() {
    super();
    this.open = true;
    this.gain = 1;
    this.loudness = 0;
    this.quanta = 0;
    this.port.onmessage = ({ data }) => (this.open = data.open);
  }

  process([input], [output]) {
    const step = (this.open ? 1 : -1) / (FADE_S * sampleRate);
    const from = input[0];
    if (from) {
      for (let index = 0; index < from.length; index++) {
        this.gain = Math.max(0, Math.min(1, this.gain + step));
        output[0][index] = from[index] * this.gain;
      }
      for (let channel = 1; channel < output.length; channel++) output[channel].set(output[0]);
    } else this.gain = this.open ? 1 : 0;
    this.loudness = Math.max(this.loudness, level(output[0]));
    if (++this.quanta % 8 === 0) {
      this.port.postMessage({ level: this.loudness, playing: this.loudness > 0.001 });
      this.loudness = 0;
    }
    return true;
  }
}

registerProcessor("dialog-capture", Capture);
registerProcessor("dialog-gate", Gate);
registerProcessor("dialog-playback", Playback);
