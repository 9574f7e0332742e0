import { Emitter } from "./emitter.js";
import { checkText, MAX_REASON_LENGTH } from "./frames.js";

/**
 * A call, as the app sees it: one room, held by one side, with its media. Made by {@link Keepline.join}; it lives until
 * `ended`, whatever happens to connections meanwhile.
 *
 * Events (`on(name, detail => …)` or `addEventListener` with `event.detail`):
 * `joined` {room, side, polite, peer, again}, `peer` {state, grace_ms?}, `peerchanged` {stream},
 * `peerconnection` {peerConnection}, `track` {track, streams, transceiver}, `connectionstate` {state},
 * `chat` {message, own}, `typing`, `data` (what the peer sent), `mode` {action}, `inactivity` {state, ends_in_ms?},
 * `ending` {ends_in_ms}, `ended` {reason}, `error` {@link KeeplineError}.
 */
export class Call extends Emitter {
  #active;

  /** @internal */
  constructor(active) {
    super();
    this.#active = active;
  }

  /** The room's id. */
  get roomId() {
    return this.#active.roomId;
  }

  /** The room as the cluster last told it, or null before the first `joined`. */
  get room() {
    return this.#active.room;
  }

  /** 1 (initiator) or 2, or null before the first `joined`. */
  get side() {
    return this.#active.side;
  }

  /** Whether we give way when two offers meet; null before the first `joined`. */
  get polite() {
    return this.#active.polite;
  }

  /** `absent`, `joined`, `reconnecting`, `away` or `left`. */
  get peerState() {
    return this.#active.peerState;
  }

  /** Why the call is over, or null. */
  get endedReason() {
    return this.#active.endedReason;
  }

  /** Resolves when the room is held for the first time; rejects when the call ends before that. */
  get ready() {
    return this.#active.ready;
  }

  /** The RTCPeerConnection in use, or null before the first `joined`. */
  get peerConnection() {
    return this.#active.media.peerConnection;
  }

  /** Adds a track; kept for the RTCPeerConnection that a reloaded peer will need. */
  addTrack(track, ...streams) {
    this.#active.media.addTrack(track, streams);
  }

  /** Sends the tracks of `stream` (null: none) in place of those sent until now. */
  async setMedia(stream) {
    await this.#active.media.setStream(stream);
  }

  /** Goes on with another RTCPeerConnection of the app's own; meant for `peerchanged`. */
  usePeerConnection(pc) {
    this.#active.usePeerConnection(pc);
  }

  /**
   * Sends a chat message (1 to 500 characters); resolves with it once it is stored, which is exactly once, however many
   * connections and nodes that takes. Messages of one call are stored in the order in which they were sent. Rejects when
   * the message is not stored and never will be; only the end of the client (`closed`, `replaced`, …) leaves that open.
   * It is sent again for as long as the cluster cannot be reached. With a `key` of its own the app can ask later.
   */
  chat(text, { key } = {}) {
    return this.#active.chat(text, key);
  }

  /** Tells the peer that the user is typing; at most once a second, and only while both are connected. */
  typing() {
    this.#active.typing();
  }

  /**
   * Sends any JSON value to the peer, who gets it as a `data` event, once and in order, also after reconnects. The
   * promise, which may be ignored, resolves when the peer has it, and rejects when it never will: `room_ended`, `closed`,
   * `peer_gone` (its page was closed or loaded again), `too_large`, or `queue_full` when 256 wait already. A peer without
   * an SDK, or with one of an older release, gets it at most once, and counts as having it when it was sent.
   */
  send(data) {
    return this.#active.send(data);
  }

  /** Ends the call for both sides. Media stops at once. */
  hangUp() {
    return this.#active.depart("end", "hangup");
  }

  /** Steps out of the room without ending it. Media stops at once; join again to come back. */
  leave() {
    return this.#active.depart("leave", "left");
  }

  /** Asks the peer to turn a text call into a video call. */
  async requestVideo() {
    await this.#active.ask({ type: "mode", action: "request" });
  }

  /** Accepts the peer's request for video. */
  async acceptVideo() {
    await this.#active.ask({ type: "mode", action: "accept" });
    this.#active.becomeVideo();
  }

  /** Declines the peer's request for video. */
  async declineVideo() {
    await this.#active.ask({ type: "mode", action: "decline" });
  }

  /**
   * Reports the peer to the app's moderators (1 to 500 characters), also when the call has ended; resolves once the
   * report is stored. To repeat the same one does no harm.
   */
  async report(reason) {
    checkText(reason, MAX_REASON_LENGTH, this.roomId);
    await this.#active.report(reason);
  }
}
