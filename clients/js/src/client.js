import { Calls } from "./calls.js";
import { Connector } from "./connector.js";
import { Deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { browserEnvironment } from "./environment.js";
import { KeeplineError } from "./errors.js";
import { checkText, MAX_REASON_LENGTH } from "./frames.js";
import { ReadyEvent } from "./ready_event.js";

/**
 * The connection to the cluster. It reconnects automatically, rotating over the given addresses, until
 * {@link Keepline.close} or a close code that forbids it.
 *
 * Events: `state` {state, reason?}, `welcome` (the frame, on each connection), `queued` {ahead, wait_ms} (the node is
 * busy, so the client waits), `ice` {ice_servers}, `error` {@link KeeplineError}, for each failed attempt too.
 */
export class Keepline extends Emitter {
  #connector;
  #calls;
  #connected; // open while connected
  #iceServers = [];
  #first = null;

  /**
   * @param {object} options
   * @param {string | string[]} options.url WebSocket addresses of the cluster, preferred ones first
   * @param {string | (() => string | Promise<string>)} options.token JWT of the user; a function is called before
   *   every attempt, so it can return a fresh token
   * @param {string} [options.room] the room that will be joined first: a hint for the load balancer
   * @param {{baseMs?: number, capMs?: number}} [options.backoff]
   * @param {object} [environment] replaces parts of the browser, for tests and other runtimes
   * @throws {TypeError} if an address is not a `ws:` or `wss:` URL, or the runtime has no WebSocket
   */
  constructor({ url, token, room, backoff }, environment = {}) {
    super();
    const whole = { ...browserEnvironment(), ...environment };
    if (!whole.WebSocket) {
      throw new TypeError("This runtime has no WebSocket: pass one, new Keepline(options, { WebSocket })");
    }
    const urls = [url].flat().map(parseSocketUrl);
    if (urls.length === 0) throw new TypeError("At least one url is needed");
    this.#connected = new ReadyEvent(whole);
    this.#calls = new Calls(whole, {
      user: () => this.user,
      iceServers: () => this.#iceServers,
      suspect: () => this.#connector.current?.suspect(),
      requestWhenConnected: (frame) => this.#requestWhenConnected(frame),
    });
    this.#connector = new Connector(whole, { urls, token, backoff }, {
      roomHint: () => this.#calls.anyRoom ?? room,
      probe: () => this.#calls.probe(),
      onWelcome: (connection, welcome) => this.#welcome(connection, welcome),
      onFrame: (frame) => this.#receive(frame),
      onQueued: ({ ahead, wait_ms }) => this.emit("queued", { ahead, wait_ms }),
      onLeaving: () => this.#calls.pause(),
      onStaying: () => this.#calls.goOn(),
      onDisconnected: () => this.#calls.disconnected(),
      onFailure: (error) => this.emit("error", error),
      onRetry: ({ code }) => this.#setState(this.state === "connecting" ? "connecting" : "reconnecting", code),
      onEnd: (error) => this.#shut(error),
    });
    /** `connecting`, `connected`, `reconnecting` or `closed`. */
    this.state = "closed";
    /** Name of the node that sent the last `welcome`. */
    this.node = null;
    /** UUID of the user, known after the first `welcome`. */
    this.user = null;
  }

  /** Connects and stays connected. Resolves with the first `welcome`; rejects if the client gives up. */
  connect() {
    if (this.state !== "closed") return this.#first.promise;
    this.#first = new Deferred();
    this.#setState("connecting");
    this.#connector.start();
    return this.#first.promise;
  }

  /** Closes the connection for good. Calls end on this side; their rooms last until the grace period is over. */
  close() {
    if (this.state !== "closed") this.#shut(new KeeplineError("closed", "Closed by the app"));
  }

  /**
   * Joins a room, and again after every reconnect, until the call has `ended`. Connects if necessary. For a room that
   * was joined already, returns the same call and applies `options` to it.
   * @param {string} roomId
   * @param {{media?: MediaStream, peerConnection?: RTCPeerConnection, iceServers?: RTCIceServer[]}} [options]
   * @returns {Call} at once; `call.ready` resolves when the room is joined
   */
  join(roomId, options = {}) {
    const call = this.#calls.join(roomId.toLowerCase(), options);
    if (this.state === "closed") this.connect();
    return call;
  }

  /**
   * Reports the other member of a room to the app's moderators, whether or not this client has joined the room. Waits
   * for the connection, and resolves once the report is stored. Repeating the same report is harmless.
   */
  async report(roomId, reason) {
    checkText(reason, MAX_REASON_LENGTH, roomId);
    await this.#requestWhenConnected({ type: "report", room: roomId.toLowerCase(), reason });
  }

  /** Makes a request about a room that this client need not have joined. */
  async #requestWhenConnected(frame) {
    const { room } = frame;
    if (this.state === "closed") throw new KeeplineError("closed", "Not connected", { room });
    await this.#connected.wait();
    const { current } = this.#connector;
    if (!current) throw new KeeplineError("connection_lost", "Not connected", { room });
    return current.request(frame);
  }

  #setState(state, reason) {
    if (this.state === state) return;
    this.state = state;
    if (state === "connected") this.#connected.set();
    else this.#connected.clear();
    this.emit("state", { state, reason });
  }

  #welcome(connection, welcome) {
    this.node = welcome.node;
    this.user = welcome.user;
    this.#refreshIce(welcome.ice_servers);
    this.#setState("connected");
    this.emit("welcome", welcome);
    this.#first.resolve(welcome);
    // A listener may have closed the client.
    if (this.#connector.current === connection) this.#calls.connected(connection, welcome);
  }

  #refreshIce(iceServers = []) {
    this.#iceServers = iceServers;
    this.#calls.refreshIce();
  }

  #receive(frame) {
    if (frame.type === "goodbye") return this.#connector.heedGoodbye(frame);
    if (frame.type === "ice") {
      this.#refreshIce(frame.ice_servers);
      return this.emit("ice", { ice_servers: frame.ice_servers });
    }
    if (frame.room !== undefined) return this.#calls.receive(frame);
    if (frame.type === "error") this.emit("error", KeeplineError.fromFrame(frame));
  }

  #shut(error) {
    this.#connector.stop(error);
    this.#first.reject(error);
    this.#connected.fail(error);
    this.#setState("closed", error.code);
    this.#calls.close(error);
  }
}

function parseSocketUrl(text) {
  if (!/^wss?:\/\/[^\s/?#]+[^\s#]*$/i.test(text)) throw new TypeError(`Not a WebSocket address: ${text}`);
  return new URL(text) && String(text);
}
