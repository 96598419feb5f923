// Talks to an agent over Dialog's client protocol, version 1: docs/client-protocol.md. No dependencies.
//
//   import { DialogClient } from "./dialog.js";
//
//   const client = new DialogClient({
//     url: "/ws/realtime",
//     token: async () => (await (await fetch("/token", { method: "POST" })).json()).token,
//     tools: { show_map: { description: "Shows a place.", parameters: {…}, run: ({ place }) => map.show(place) } },
//   });
//   client.addEventListener("message", ({ detail }) => …);  // every message of the server, by its type
//   client.addEventListener("state", ({ detail }) => …);    // idle, connecting, live, reconnecting, ended
//   await client.start();  // from a click: the browser asks for the microphone

const VERSION = 1;
const SUBPROTOCOL = "dialog-v1";
const RATE = 24000;
const FRAME_MS = 20;
const GAP_MS = 400;
const MOST_GAP_MS = 2000;
const RETRY_MS = [0, 250, 500, 1000, 2000];
const GIVE_UP_MS = 30000;
const PING_MS = 5000;

export class DialogClient extends EventTarget {
  /**
   * @param {object} options
   * @param {string} [options.url] Of the WebSocket; relative to the page.
   * @param {"websocket" | "webrtc" | "auto"} [options.transport] `auto`: WebRTC, and a WebSocket where that is not to be had.
   * @param {RTCIceServer[]} [options.iceServers] For WebRTC, where the page cannot reach the server directly.
   * @param {() => (string | Promise<string>)} [options.token] Gets a fresh token; asked for every attempt to begin a session.
   * @param {string} [options.agent] Which agent.
   * @param {Record<string, string>} [options.parameters] For the agent.
   * @param {Record<string, {description: string, parameters?: object, timeout_s?: number, run: Function}>} [options.tools]
   *   What the agent may do here: `run` gets the arguments, and what it returns, or resolves to, is the result.
   */
  constructor({
    url = "/ws/realtime",
    transport = "websocket",
    iceServers = [],
    token = null,
    agent = "",
    parameters = {},
    tools = {},
  } = {}) {
    super();
    this.url = new URL(url, location.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.transport = transport;
    this.iceServers = iceServers;
    this.token = token;
    this.agent = agent;
    this.parameters = parameters;
    this.tools = tools;
    this.state = "idle";
    this.session = null;
    this.muted = false;
    this.roundTripMs = null;
    /** What the session goes over: "websocket" or "webrtc"; null while there is none. */
    this.via = null;
    this._link = null;
    this._links = new Set();
    this._generation = 0;
  }

  /** Asks for the microphone and starts a session. Rejects with the reason if there is none. */
  async start() {
    if (this.state !== "idle" && this.state !== "ended") throw new Error("a session is running");
    const generation = ++this._generation;
    this.session = null;
    this._peerless = this.transport === "websocket";
    this._set("connecting");
    try {
      await this._openAudio();
      if (generation !== this._generation) throw new DOMException("stopped", "AbortError");
      await this._connect();
    } catch (error) {
      if (generation === this._generation) this._end("failed", error);
      throw error;
    }
  }

  /** Hangs up. */
  stop() {
    if (this.state === "idle" || this.state === "ended") return;
    this._send({ type: "session.end" });
    this._end("caller_hangup");
  }

  /** While muted, silence is sent: the call goes on. */
  mute(muted) {
    this.muted = muted;
    this._link?.mute(muted);
    this._tell("muted", muted);
  }

  /** Presses a key of a telephone. */
  press(digits) {
    for (const digit of digits) this._send({ type: "dtmf", digit });
  }

  // Audio.

  async _openAudio() {
    if (!navigator.mediaDevices) throw new Error("This page has no microphone: it must be served over https.");
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    this._microphone = stream;
    stream.getAudioTracks()[0].addEventListener("ended", () => this._tell("problem", "The microphone is gone."));
    const context = (this._context = new AudioContext({ latencyHint: "interactive" }));
    await context.audioWorklet.addModule(new URL("./dialog-audio.js", import.meta.url));
    await context.resume();
    const options = { processorOptions: { rate: RATE } };
    this._capture = new AudioWorkletNode(context, "dialog-capture", { ...options, numberOfOutputs: 0 });
    this._playback = new AudioWorkletNode(context, "dialog-playback", {
      ...options,
      numberOfInputs: 0,
      outputChannelCount: [2],
    });
    context.createMediaStreamSource(stream).connect(this._capture);
    this._playback.connect(context.destination);
    this._capture.port.onmessage = ({ data }) => this._heard(data);
    this._playback.port.onmessage = ({ data }) => this._played(data);
    this._sentMs = null;
    this._pacing = setInterval(() => this._pace(), 100);
  }

  _closeAudio() {
    clearInterval(this._pacing);
    this._microphone?.getTracks().forEach((track) => track.stop());
    this._context?.close().catch(() => {});
    this._microphone = this._context = this._capture = this._playback = null;
  }

  _heard(buffer) {
    const samples = new Int16Array(buffer);
    let sum = 0;
    for (const sample of samples) sum += sample * sample;
    this._tell("input", this.muted ? 0 : Math.sqrt(sum / samples.length) / 32768);
    if (this.muted) samples.fill(0);
    this._sendAudio(samples);
  }

  /** The call's clock runs by the audio that is sent: where the microphone gives none, there is silence. */
  _pace() {
    if (this._sentMs === null) return;
    const behind = performance.now() - this._since - this._sentMs;
    if (behind < GAP_MS) return;
    if (behind > MOST_GAP_MS) this._sentMs += behind - MOST_GAP_MS; // the page slept: that time is lost
    const samples = Math.round((Math.min(behind, MOST_GAP_MS) * RATE) / 1000 / 480) * 480;
    for (let left = samples; left > 0; left -= 4800) this._sendAudio(new Int16Array(Math.min(left, 4800)));
  }

  _sendAudio(samples) {
    if (this.state !== "live" || !this._link?.live) return;
    if (this._sentMs === null) {
      this._sentMs = 0;
      this._since = performance.now() - FRAME_MS;
    }
    this._sentMs += (samples.length * 1000) / RATE;
    this._link.sendAudio(samples);
  }

  _played({ marks, level, playing }) {
    if (marks) for (const name of marks) this._send({ type: "mark", name });
    if (level !== undefined) this._tell("output", { level, playing });
  }

  // The connection.

  async _connect() {
    const resume = this.session && {
      type: "session.resume",
      version: VERSION,
      session: this.session.session,
      secret: this.session.secret,
    };
    const start = resume ?? {
      type: "session.start",
      version: VERSION,
      token: this.token ? await this.token() : "",
      agent: this.agent,
      audio: [{ encoding: "s16le", sample_rate: RATE }],
      parameters: this.parameters,
      tools: Object.entries(this.tools).map(([name, { description, parameters, timeout_s }]) => ({
        name,
        description,
        ...(parameters && { parameters }),
        ...(timeout_s && { timeout_s }),
      })),
    };
    if (!this._peerless) {
      try {
        await this._open(await this._peerLink(), start);
        return;
      } catch (error) {
        if (this.transport !== "auto" || error.closeCode > 4000) throw error;
        this._peerless = true; // not in this session
        if (error.started) {
          this.session = error.started;
          await this._connect();
          return;
        }
        if (this.token && !resume) start.token = await this.token(); // the other one may have been used
      }
    }
    await this._open(new SocketLink(this.url), start);
  }

  async _peerLink() {
    const { PeerLink } = await import("./dialog-webrtc.js");
    const url = new URL(this.url);
    url.protocol = url.protocol.replace("ws", "http");
    url.pathname += "/webrtc";
    return new PeerLink({ url, iceServers: this.iceServers, microphone: this._microphone, context: this._context });
  }

  /** Begins a session, or goes on with it, over a connection. */
  async _open(link, first) {
    const generation = this._generation;
    let problem = null;
    this._link = link;
    this._links.add(link);
    await new Promise((resolve, reject) => {
      link.onAudio = (data) => link === this._link && this._playback?.port.postMessage({ audio: data }, [data]);
      link.onLevel = (data) => link === this._link && this._played(data);
      link.onMessage = (message) => {
        if (link !== this._link) return;
        if (message.type === "error" && message.fatal) problem = message;
        if (message.type === "session.started") {
          this.session = message;
          this.via = link.kind;
          this._sentMs = null;
          link.mute(this.muted);
          this._forget(link); // not before: the server would take it for hanging up
          clearInterval(this._pinging);
          this._pinging = setInterval(() => this._send({ type: "ping", id: Math.round(performance.now()) }), PING_MS);
          this._set("live");
          resolve();
        }
        this._take(message);
      };
      link.onClose = (code) => {
        clearInterval(this._pinging);
        const error = Object.assign(new Error(problem?.message ?? "The connection broke."), {
          code: problem?.code ?? "connection",
          closeCode: code,
        });
        if (link === this._link && generation === this._generation && this.state === "live") this._lost(error);
        reject(error);
      };
      link.open(first).catch(reject);
    });
  }

  /** Closes all connections, or all others. */
  _forget(but = null) {
    for (const link of this._links) if (link !== but) link.close();
    this._links = new Set(but ? [but] : []);
  }

  _take(message) {
    switch (message.type) {
      case "mark":
        this._playback?.port.postMessage({ mark: message.name });
        return;
      case "clear":
        this._playback?.port.postMessage({ clear: true });
        return;
      case "pong":
        this.roundTripMs = Math.round(performance.now() - message.id);
        break;
      case "tool.call":
        this._run(message);
        break;
      case "session.ended":
        // A server that is restarted is back in a moment, with another session.
        if (message.reason === "shutdown") this.session = null;
        else this._ending = message.reason;
        break;
    }
    this._tell("message", message);
  }

  async _run({ id, name, arguments: given }) {
    try {
      const result = await this.tools[name].run(given);
      this._send({ type: "tool.result", id, result: result ?? "ok" });
    } catch (error) {
      this._send({ type: "tool.result", id, error: String(error?.message ?? error).slice(0, 500) });
    }
  }

  /** A connection has broken: come back to the session, or begin another one if it is gone. */
  async _lost(error) {
    this._playback?.port.postMessage({ clear: true });
    if (this._ending !== undefined && this._ending !== null) return this._end(this._ending);
    if (error.closeCode >= 4000 && error.closeCode !== 4503) return this._end("refused", error);
    const generation = this._generation;
    this._set("reconnecting");
    const until = performance.now() + GIVE_UP_MS;
    for (let attempt = 0; performance.now() < until; attempt++) {
      const wait = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
      await new Promise((resolve) => setTimeout(resolve, wait * (0.8 + 0.4 * Math.random())));
      if (generation !== this._generation || this.state !== "reconnecting") return undefined;
      try {
        await this._connect();
        return undefined;
      } catch (failure) {
        error = failure;
        if (failure.closeCode === 4404) this.session = null;
        else if (failure.closeCode >= 4000 && failure.closeCode !== 4503) break;
      }
    }
    if (generation === this._generation && this.state === "reconnecting") this._end("lost", error);
    return undefined;
  }

  _end(reason, error = null) {
    this._generation++;
    clearInterval(this._pinging);
    this._link = this.via = null;
    this._forget();
    this._closeAudio();
    this._ending = null;
    this._set("ended", { reason, error });
  }

  _send(message) {
    this._link?.send(message);
  }

  _set(state, more = {}) {
    this.state = state;
    this._tell("state", { state, ...more });
  }

  _tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** A connection over a WebSocket. */
class SocketLink {
  kind = "websocket";

  constructor(url) {
    this._url = url;
  }

  get live() {
    return this._socket?.readyState === WebSocket.OPEN;
  }

  async open(first) {
    const socket = (this._socket = new WebSocket(this._url, SUBPROTOCOL));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.send(first);
    socket.onmessage = ({ data }) => (data instanceof ArrayBuffer ? this.onAudio(data) : this.onMessage(JSON.parse(data)));
    socket.onclose = ({ code }) => this.onClose(code);
  }

  send(message) {
    if (this.live) this._socket.send(JSON.stringify(message));
  }

  sendAudio(samples) {
    this._socket.send(samples);
  }

  /** The client sends silence. */
  mute() {}

  close() {
    this._socket?.close(1000);
  }
}
