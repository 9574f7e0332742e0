import { Emitter } from "./emitter.js";
import { checkText, MAX_REASON_LENGTH } from "./frames.js";

/**
 * A call as the app sees it: one side of a room, with its media. Created by {@link Keepline.join}. It lasts until
 * `ended`, across any number of connections.
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

  /** The last snapshot of the room, or null before the first `joined`. */
  get room() {
    return this.#active.room;
  }

  /** 1 (initiator) or 2, or null before the first `joined`. */
  get side() {
    return this.#active.side;
  }

  /** Whether this side yields when offers collide; null before the first `joined`. */
  get polite() {
    return this.#active.polite;
  }

  /** `absent`, `joined`, `reconnecting`, `away` or `left`. */
  get peerState() {
    return this.#active.peerState;
  }

  /** Why the call ended, or null. */
  get endedReason() {
    return this.#active.endedReason;
  }

  /** Resolves when the room is joined for the first time; rejects if the call ends first. */
  get ready() {
    return this.#active.ready;
  }

  /** The RTCPeerConnection in use, or null before the first `joined`. */
  get peerConnection() {
    return this.#active.media.peerConnection;
  }

  /** Adds a track. It is added to later RTCPeerConnections too, which a reloaded peer needs. */
  addTrack(track, ...streams) {
    this.#active.media.addTrack(track, streams);
  }

  /** Replaces the tracks that are sent by those of `stream` (null: none). */
  async setMedia(stream) {
    await this.#active.media.setStream(stream);
  }

  /** Continues with another RTCPeerConnection of the app, for example on `peerchanged`. */
  usePeerConnection(pc) {
    this.#active.usePeerConnection(pc);
  }

  /**
   * Sends a chat message (1 to 500 characters) and resolves with it once it is stored. It is stored exactly once, even
   * if that takes several connections and nodes, and messages are stored in the order in which they were sent. Rejects
   * if the message is not stored and never will be. If the client is closed (`closed`, `replaced`, …), the outcome is
   * unknown. Retries for as long as the cluster is unreachable. An app that passes its own `key` can send the message
   * again later to find out.
   */
  chat(text, { key } = {}) {
    return this.#active.chat(text, key);
  }

  /** Tells the peer that the user is typing: at most once a second, and only while both sides are connected. */
  typing() {
    this.#active.typing();
  }

  /**
   * Sends any JSON value to the peer, which gets it as a `data` event, exactly once and in order, even across
   * reconnects. The promise may be ignored. It resolves when the peer has the value, and rejects if it never will:
   * `room_ended`, `closed`, `peer_gone` (its page was closed or reloaded), `too_large`, or `queue_full` if 256 are
   * already waiting. A peer without an SDK, or with an older one, gets it at most once; the promise resolves when it is
   * sent.
   */
  send(data) {
    return this.#active.send(data);
  }

  /** Ends the call for both sides. Media stops at once. */
  hangUp() {
    return this.#active.depart("end", "hangup");
  }

  /** Leaves the room without ending it. Media stops at once. Join again to return. */
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
   * Reports the peer to the app's moderators (1 to 500 characters), even after the end of the call. Resolves once the
   * report is stored. Repeating the same report is harmless.
   */
  async report(reason) {
    checkText(reason, MAX_REASON_LENGTH, this.roomId);
    await this.#active.report(reason);
  }
}
