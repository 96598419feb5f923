// A connection to an agent over WebRTC: audio tracks each way, and a data channel for the messages. No dependencies.

const SUBPROTOCOL = "dialog-v1";
const GATHER_MS = 1000;
const CONNECT_MS = 5000;
const BACK_MS = 3000;
const LEAVE_MS = 500;

/** Whether timestamp `a` is at `b` or behind it; they wrap. */
const reached = (a, b) => (a - b) >>> 0 < 0x80000000;

const within = (promise, ms, error) =>
  Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(error), ms))]);

export class PeerLink {
  /**
   * @param {object} options
   * @param {URL} options.url Where offers are posted.
   * @param {RTCIceServer[]} options.iceServers
   * @param {MediaStream} options.microphone
   * @param {AudioContext} options.context With the module of `dialog-audio.js`.
   *
   * `onMessage`, `onLevel` and `onClose` are set by whoever uses it.
   */
  constructor({ url, iceServers, microphone, context }) {
    this.kind = "webrtc";
    this.live = false;
    this._url = url;
    this._iceServers = iceServers;
    this._microphone = microphone;
    this._context = context;
    this._marks = [];
    this._silentUntil = null;
    this._code = 1006;
  }

  /** Connects. The error of what fails has a `closeCode` if the server refused, `started` if only the network is in the way. */
  async open(session) {
    const peer = (this._peer = new RTCPeerConnection({ iceServers: this._iceServers, bundlePolicy: "max-bundle" }));
    const channel = (this._channel = peer.createDataChannel(SUBPROTOCOL));
    const opened = new Promise((resolve) => (channel.onopen = resolve));
    channel.onmessage = ({ data }) => this._take(JSON.parse(data));
    channel.onclose = () => this._closed();
    peer.onconnectionstatechange = () => this._changed();
    peer.ontrack = ({ receiver, track }) => this._hear(receiver, track);
    peer.addTrack(this._microphone.getAudioTracks()[0], this._microphone);
    try {
      await peer.setLocalDescription();
      const gathered = new Promise((resolve) => {
        peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
        if (peer.iceGatheringState === "complete") resolve();
      });
      await Promise.race([gathered, new Promise((resolve) => setTimeout(resolve, GATHER_MS))]);
      const answer = await this._post({ sdp: peer.localDescription.sdp, session });
      const error = Object.assign(new Error("The connection could not be made."), { started: answer.started });
      await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
      await within(opened, CONNECT_MS, error);
      this.live = true;
    } catch (error) {
      this._closed();
      throw error;
    }
  }

  send(message) {
    if (this._channel?.readyState === "open") this._channel.send(JSON.stringify(message));
  }

  /** The microphone's track carries it. */
  sendAudio() {}

  /** While muted, the track is silence. */
  mute(muted) {
    for (const track of this._microphone.getAudioTracks()) track.enabled = !muted;
  }

  /** Closes it, once what was said last has had the time to arrive. */
  close() {
    this.live = false;
    this.onClose = () => {};
    setTimeout(() => this._closed(), LEAVE_MS);
    this._gate?.port.postMessage({ open: false });
  }

  async _post(offer) {
    const response = await fetch(this._url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(offer),
    });
    const type = response.headers.get("content-type") ?? "";
    const body = type.startsWith("application/json") ? await response.json() : null;
    if (response.ok && body) return body;
    if (body?.type !== "error") throw new Error("The server does not speak WebRTC.");
    const closeCode = response.status === 500 ? 1011 : 4000 + response.status;
    throw Object.assign(new Error(body.message), { code: body.code, closeCode });
  }

  _hear(receiver, track) {
    this._receiver = receiver;
    const stream = new MediaStream([track]);
    // Chromium plays a remote track into a graph only while an element plays it, too.
    this._element = new Audio();
    this._element.muted = true;
    this._element.srcObject = stream;
    this._element.play().catch(() => {});
    this._gate = new AudioWorkletNode(this._context, "dialog-gate", { outputChannelCount: [2] });
    this._gate.port.onmessage = ({ data }) => {
      this._pass();
      this.onLevel(data);
    };
    this._source = this._context.createMediaStreamSource(stream);
    this._source.connect(this._gate);
    this._gate.connect(this._context.destination);
  }

  _take(message) {
    switch (message.type) {
      case "mark":
        this._marks.push(message);
        this._pass();
        break;
      case "clear":
        for (const { name } of this._marks.splice(0)) this.send({ type: "mark", name });
        this._silentUntil = message.rtp;
        this._gate?.port.postMessage({ open: false });
        break;
      case "close":
        this._code = message.code;
        this._closed();
        break;
      default:
        this.onMessage(message);
    }
  }

  /** What sounds now tells which marks are behind us, and when a clear is over. */
  _pass() {
    const position = this._receiver?.getSynchronizationSources()[0]?.rtpTimestamp;
    if (position === undefined) return;
    while (this._marks.length && reached(position, this._marks[0].rtp)) {
      this.send({ type: "mark", name: this._marks.shift().name });
    }
    if (this._silentUntil !== null && reached(position, this._silentUntil)) {
      this._silentUntil = null;
      this._gate.port.postMessage({ open: true });
    }
  }

  _changed() {
    const state = this._peer.connectionState;
    clearTimeout(this._patience);
    if (state === "failed" || state === "closed") this._lost();
    else if (state === "disconnected") this._patience = setTimeout(() => this._lost(), BACK_MS);
  }

  /** It is of no use any more, but stays: the server takes a connection that is closed for somebody who hangs up. */
  _lost() {
    if (!this.live) return;
    this.live = false;
    this.onClose(this._code);
  }

  _closed() {
    clearTimeout(this._patience);
    this._gate?.disconnect();
    this._source?.disconnect();
    if (this._element) this._element.srcObject = null;
    this._gate = this._source = this._element = null;
    this._peer?.close();
    this._lost();
  }
}
