import { Calls } from "./calls.js";
import { Connector } from "./connector.js";
import { Deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { browserEnvironment } from "./environment.js";
import { KeeplineError } from "./errors.js";
import { checkText, MAX_REASON_LENGTH } from "./frames.js";
import { ReadyEvent } from "./ready_event.js";

/**
 * The connection to the cluster. It reconnects by itself until {@link Keepline.close} or a close code that
 * forbids it, rotating over the given addresses.
 *
 * Events: `state` {state, reason?}, `welcome` (the frame, at each connection), `queued` {ahead, wait_ms} (the node is
 * busy and has us wait), `ice` {ice_servers}, `error` {@link KeeplineError}, with each attempt that failed.
 */
export class Keepline extends Emitter {
  #connector;
  #calls;
  #connected; // open while connected
  #iceServers = [];
  #first = null;

  /**
   * @param {object} options
   * @param {string | string[]} options.url WebSocket addresses of the cluster, most wanted first
   * @param {string | (() => string | Promise<string>)} options.token JWT of the user; a function is asked before
   *   every attempt, so it can hand out fresh ones
   * @param {string} [options.room] the room that will be joined first: a hint for the load balancer
   * @param {{baseMs?: number, capMs?: number}} [options.backoff]
   * @param {object} [environment] replaces parts of the browser: for tests and other runtimes
   * @throws {TypeError} when an address is not a `ws:` or `wss:` URL, or the runtime has no WebSocket
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
    /** Name of the node we are connected to, once there was a `welcome`. */
    this.node = null;
    /** UUID of the user, once there was a `welcome`. */
    this.user = null;
  }

  /** Connects and stays connected; resolves with the first `welcome`, rejects when there is no hope of one. */
  connect() {
    if (this.state !== "closed") return this.#first.promise;
    this.#first = new Deferred();
    this.#setState("connecting");
    this.#connector.start();
    return this.#first.promise;
  }

  /** Closes the connection for good; calls end here, while their rooms go on until the grace period is over. */
  close() {
    if (this.state !== "closed") this.#shut(new KeeplineError("closed", "Closed by the app"));
  }

  /**
   * Holds a room, now and after every reconnect, until the call has `ended`. Connects when that was not done yet. A room
   * that is held gives the same call, with what `options` add to it.
   * @param {string} roomId
   * @param {{media?: MediaStream, peerConnection?: RTCPeerConnection, iceServers?: RTCIceServer[]}} [options]
   * @returns {Call} at once; `call.ready` tells when the room is held
   */
  join(roomId, options = {}) {
    const call = this.#calls.join(roomId.toLowerCase(), options);
    if (this.state === "closed") this.connect();
    return call;
  }

  /**
   * Reports the other member of a room to the app's moderators, whether the room is held, has been or never was.
   * Waits for the connection; resolves once the report is stored. To repeat the same one does no harm.
   */
  async report(roomId, reason) {
    checkText(reason, MAX_REASON_LENGTH, roomId);
    await this.#requestWhenConnected({ type: "report", room: roomId.toLowerCase(), reason });
  }

  /** Makes a request about a room that need not be held. */
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
    if (this.#connector.current === connection) this.#calls.connected(connection, welcome); // no listener closed us
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
