import { ActiveCall } from "./active_call.js";
import { Backoff } from "./backoff.js";
import { Deferred } from "./deferred.js";
import { withTimeout } from "./environment.js";
import { isPassing, KeeplineError } from "./errors.js";
import { DEFAULT_LIMITS } from "./frames.js";

const MAX_DEPARTURES = 64;
const DEPARTURE_MS = 10_000;

/**
 * The calls of a client: passes each frame to its call, and moves calls to the next connection.
 *
 * A call that was left is forgotten at once, so that its room can be joined again. Its departure remains: a `leave` or
 * `end` that still has to be sent, possibly over the next connection, because a resumed session would hold the side
 * again. A new join of the room waits until the departure is done.
 */
export class Calls {
  #environment;
  #client;
  #calls = new Map();
  #departures = new Map();
  #connection = null;
  #limits = DEFAULT_LIMITS;
  #holding = new Set(); // rooms that the server holds for this connection
  #joining = new Map(); // room → the answer to a pending `join`

  /**
   * @param {object} environment
   * @param {{user: () => string, iceServers: () => object[], suspect: () => void, requestWhenConnected: Function}} client
   */
  constructor(environment, client) {
    this.#environment = environment;
    this.#client = client;
  }

  /** A room, as a hint for load balancers. */
  get anyRoom() {
    return this.#calls.keys().next().value;
  }

  /** A request without effect: a join of a room that is held already. Null if there is none. */
  probe() {
    const room = [...this.#calls.keys()].find((held) => this.#holding.has(held));
    return room === undefined ? null : { type: "join", room };
  }

  /** The call in a room. If there is one already, applies `options` to it. */
  join(roomId, options) {
    const known = this.#calls.get(roomId);
    const active = known ?? new ActiveCall(this.#link(), roomId);
    active.adopt(options);
    if (!known) {
      this.#calls.set(roomId, active);
      this.#hold(active);
    }
    return active.call;
  }

  /** The connection was welcomed: all calls continue over it. */
  connected(connection, { resumed, rooms }) {
    this.#connection = connection;
    this.#limits = connection.limits;
    const held = new Map(resumed ? rooms.map((entry) => [entry.room.room_id, entry]) : []);
    this.#holding = new Set(held.keys());
    this.#joining.clear();
    for (const room of held.keys()) if (!this.#calls.has(room)) this.#expectDeparture(room);
    for (const departure of this.#departures.values()) this.#carryOut(departure);
    for (const call of [...this.#calls.values()]) {
      if (held.has(call.roomId) && !this.#departures.has(call.roomId)) call.joined(held.get(call.roomId));
      else this.#hold(call);
    }
  }

  /** The connection is lost or about to be replaced: requests and signals wait for the next one. */
  pause() {
    for (const call of this.#calls.values()) call.pause();
  }

  /** The connection is not replaced after all. */
  goOn() {
    for (const call of this.#calls.values()) if (this.#holding.has(call.roomId)) call.goOn();
  }

  disconnected() {
    this.#connection = null;
    this.#holding.clear();
    this.pause();
  }

  receive(frame) {
    if (frame.type === "ended") this.#holding.delete(frame.room);
    this.#calls.get(frame.room)?.receive(frame);
  }

  refreshIce() {
    for (const call of this.#calls.values()) call.refreshIce();
  }

  /** The client is closed for good. */
  close(error) {
    this.disconnected();
    for (const { done } of this.#departures.values()) done.reject(error);
    this.#departures.clear();
    for (const call of [...this.#calls.values()]) call.finish(error.code, error);
  }

  #link() {
    return {
      ...this.#client,
      environment: this.#environment,
      limits: () => this.#limits,
      request: (frame) => this.#request(frame),
      whenFree: (send) => this.#connection?.whenFree(send),
      write: (text) => this.#connection?.write(text),
      forget: (call) => this.#forget(call),
      depart: (call, type) => this.#depart(call, type),
    };
  }

  #request(frame, options) {
    if (this.#connection) return this.#connection.request(frame, options);
    return Promise.reject(new KeeplineError("connection_lost", "Not connected", { room: frame.room }));
  }

  #forget(call) {
    if (this.#calls.get(call.roomId) === call) this.#calls.delete(call.roomId);
  }

  async #hold(call, backoff = this.#backoff()) {
    const { roomId } = call;
    const connection = this.#connection;
    const isCurrent = () => this.#connection === connection && this.#calls.get(roomId) === call;
    if (!connection) return;
    let joined;
    try {
      while (this.#departures.has(roomId)) await this.#departures.get(roomId).done.promise;
      if (!isCurrent()) return;
      joined = await this.#join(roomId);
    } catch (error) {
      if (!isCurrent()) return;
      if (!isPassing(error)) return call.finish(error.reason ?? error.code, error);
      const again = () => isCurrent() && this.#hold(call, backoff);
      return this.#environment.setTimeout(again, (error.retryAfterMs ?? 0) + backoff.next());
    }
    if (isCurrent()) call.joined(joined);
  }

  /** Joins a room over this connection. */
  async #join(roomId) {
    const connection = this.#connection;
    const answer = this.#request({ type: "join", room: roomId }, { urgent: true });
    this.#joining.set(roomId, answer);
    try {
      const joined = await answer;
      if (this.#connection === connection) this.#holding.add(roomId);
      return joined;
    } finally {
      if (this.#joining.get(roomId) === answer) this.#joining.delete(roomId);
    }
  }

  /** The server holds a side that has no call here: the call was left while its join was pending. Leave it. */
  #expectDeparture(room) {
    if (!this.#departures.has(room)) this.#departures.set(room, { room, type: "leave", done: new Deferred() });
  }

  /** Forgets the call. Resolves once the server knows that it was left; rejects if that takes too long. */
  #depart(call, type) {
    const room = call.roomId;
    this.#forget(call);
    const earlier = this.#departures.get(room);
    const untold = this.#holding.has(room) || this.#joining.has(room) || call.side !== null;
    if (!earlier && !untold && type === "leave") return Promise.resolve();
    const departure = earlier ?? { room, type, done: new Deferred() };
    if (type === "end") departure.type = type;
    if (!earlier) this.#remember(departure);
    const late = () => new KeeplineError("timeout", "The server will be told when it can be reached", { room });
    return withTimeout(departure.done.promise, DEPARTURE_MS, late, this.#environment);
  }

  #remember(departure) {
    const [oldest] = this.#departures.keys();
    if (this.#departures.size >= MAX_DEPARTURES) this.#departures.delete(oldest);
    this.#departures.set(departure.room, departure);
    if (this.#connection) this.#carryOut(departure);
  }

  async #carryOut(departure, backoff = this.#backoff()) {
    const { room, done } = departure;
    const connection = this.#connection;
    const isCurrent = () => this.#connection === connection && this.#departures.get(room) === departure;
    try {
      if (this.#joining.has(room)) await this.#joining.get(room);
      // Not resumed: join in order to leave, so that the peer does not wait for the end of the grace period.
      else if (!this.#holding.has(room)) await this.#join(room);
      if (!isCurrent()) return;
      const { type } = departure;
      await this.#request({ type, room }, { urgent: true });
      if (isCurrent()) this.#holding.delete(room);
      if (departure.type !== type) return isCurrent() && this.#carryOut(departure, backoff);
    } catch (error) {
      if (!isCurrent()) return;
      if (isPassing(error)) {
        const again = () => isCurrent() && this.#carryOut(departure, backoff);
        return this.#environment.setTimeout(again, (error.retryAfterMs ?? 0) + backoff.next());
      }
    }
    // If the server refused it for good, the call is over too.
    if (this.#connection === connection) this.#holding.delete(room);
    this.#departures.delete(room);
    done.resolve();
  }

  #backoff() {
    return new Backoff({}, this.#environment.random);
  }
}
