// The connection to the server: everything that changes comes over one WebSocket, and it is opened again when it breaks.

import { base } from "./dom.js";

const RETRY_MS = [250, 500, 1000, 2000, 5000];
const SILENT_MS = 40000;

/** Dispatches "message" with each message of the server, "sound" with audio, and "state". */
export class Live extends EventTarget {
  constructor() {
    super();
    this.watching = null;
    this.listening = false;
    this.clock = 0; // the server's clock is so many seconds ahead of ours
    this._attempt = 0;
    this._open();
    setInterval(() => {
      if (this._socket.readyState === WebSocket.OPEN && performance.now() - this._heardAt > SILENT_MS) this._socket.close();
    }, 5000);
  }

  now() {
    return Date.now() / 1000 + this.clock;
  }

  /** Tell all of one call from now on; `after`: the last event that is known of it. */
  watch(callId, after = -1) {
    this.watching = callId;
    this.listening = false;
    this._send({ do: "watch", call_id: callId, after });
  }

  listen(on) {
    this.listening = on;
    this._send({ do: "listen", on });
  }

  _send(wish) {
    if (this._socket.readyState === WebSocket.OPEN) this._socket.send(JSON.stringify(wish));
  }

  _open() {
    const url = new URL(`${base}/live`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this._socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this._attempt = 0;
      this._heardAt = performance.now();
      this._tell("state", "open");
    };
    socket.onmessage = ({ data }) => {
      this._heardAt = performance.now();
      if (typeof data !== "string") {
        this._tell("sound", data);
        return;
      }
      const message = JSON.parse(data);
      if (message.now !== undefined) this.clock = message.now - Date.now() / 1000;
      this._tell("message", message);
    };
    socket.onclose = async () => {
      this.listening = false;
      this._tell("state", "lost");
      const wait = RETRY_MS[Math.min(this._attempt++, RETRY_MS.length - 1)];
      await new Promise((resolve) => setTimeout(resolve, wait * (0.8 + 0.4 * Math.random())));
      // A socket that is refused does not say why: an ordinary request does.
      const response = await fetch(`${base}/history?limit=1`).catch(() => null);
      if (response?.status === 401) location.reload();
      else this._open();
    };
  }

  _tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
