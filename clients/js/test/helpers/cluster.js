import { settle } from "./clock.js";
import { FakePeerConnection } from "./peer_connection.js";

/** A WebSocket whose server side is in the hands of a test: `accept`, `say`, `drop`. */
export class FakeWebSocket {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 3;

  readyState = FakeWebSocket.CONNECTING;
  bufferedAmount = 0;
  /** Frames that the client sent. */
  heard = [];

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
  }

  send(text) {
    const frame = JSON.parse(text);
    this.heard.push(frame);
    this.onclientframe?.(frame);
  }

  close(code) {
    this.readyState = FakeWebSocket.CLOSED;
    this.closedWith = code;
  }

  async accept() {
    this.readyState = FakeWebSocket.OPEN;
    this.onopen();
    await settle();
  }

  async say(frame) {
    await this.sayText(JSON.stringify(frame));
  }

  async sayText(text) {
    this.onmessage?.({ data: text });
    await settle();
  }

  async drop(code = 1006) {
    this.readyState = FakeWebSocket.CLOSED;
    this.onclose?.({ code });
    await settle();
  }

  /** The last frame of a type that the client sent. */
  last(type) {
    return this.heard.findLast((frame) => frame.type === type);
  }

  all(type) {
    return this.heard.filter((frame) => frame.type === type);
  }

  async welcome(fields = {}) {
    const { id } = this.last("hello");
    const identity = { user: "alice", session: "s", resume: "r1", node: "n1" };
    await this.say({ type: "welcome", id, ...identity, resumed: false, ice_servers: [], rooms: [], ...fields });
  }

  async joined(fields = {}) {
    const { id, room } = this.last("join");
    await this.say({ type: "joined", id, ...held(room), ...fields });
  }

  async refuse(type, code, fields = {}) {
    await this.say({ type: "error", id: this.last(type).id, code, message: code, ...fields });
  }

  async ok(type, fields = {}) {
    await this.say({ type: "ok", id: this.last(type).id, ...fields });
  }
}

/** What `joined` and `welcome.rooms` say about a room. */
export function held(room, fields = {}) {
  const snapshot = { room_id: room, chat_mode: "video", messages: [] };
  return { room: snapshot, side: 1, polite: false, peer: "absent", ...fields };
}

/** The parts of a browser that the SDK uses, with every socket it opens in `sockets`. */
export function fakeBrowser(clock, { random = () => 1 } = {}) {
  const sockets = [];
  class RecordedWebSocket extends FakeWebSocket {
    constructor(url, protocols) {
      super(url, protocols);
      sockets.push(this);
    }
  }
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const { now, setTimeout, clearTimeout } = clock;
  return {
    sockets,
    get socket() {
      return sockets.at(-1);
    },
    environment: {
      WebSocket: RecordedWebSocket,
      RTCPeerConnection: FakePeerConnection,
      window: new EventTarget(),
      document,
      random,
      now,
      setTimeout,
      clearTimeout,
    },
  };
}

/** Records the details of the events called `names`, as `[name, detail]`. */
export function record(emitter, ...names) {
  const events = [];
  for (const name of names) emitter.on(name, (detail) => events.push([name, detail]));
  return events;
}
