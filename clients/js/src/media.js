import { listen } from "./emitter.js";
import { KeeplineError } from "./errors.js";
import { Negotiator } from "./negotiator.js";

/** The media of one call: its tracks, and the current RTCPeerConnection, which sends them. */
export class Media {
  #environment;
  #options = {};
  #tracks = new Map(); // track → the streams it belongs to
  #pc = null;
  #isOurs = true;
  #polite = null;
  #negotiator = null;
  #stopListening = null;
  #signal;
  #emit;
  #suspect;
  #iceServers;

  /**
   * @param {object} environment
   * @param {object} call
   * @param {(data: object) => void} call.signal sends negotiation data to the peer
   * @param {(name: string, detail: object) => void} call.emit
   * @param {() => void} call.suspect media has failed; the whole network may have
   * @param {() => RTCIceServer[]} call.iceServers the cluster's ICE servers
   */
  constructor(environment, { signal, emit, suspect, iceServers }) {
    this.#environment = environment;
    this.#signal = signal;
    this.#emit = emit;
    this.#suspect = suspect;
    this.#iceServers = iceServers;
  }

  get peerConnection() {
    return this.#pc;
  }

  /** Whether a description of the peer was accepted. */
  get isAgreed() {
    return Boolean(this.#pc?.remoteDescription);
  }

  get negotiator() {
    return this.#negotiator;
  }

  /** Sets the app's `iceServers` and `peerConnection`, which take effect with the next RTCPeerConnection. */
  configure(options) {
    this.#options = { ...this.#options, ...options };
  }

  /** Adds a track. No effect if it is sent already. */
  addTrack(track, streams) {
    this.#tracks.set(track, streams);
    this.#sendMissing();
  }

  /** Replaces the tracks that are sent by those of `stream` (null: none). */
  async setStream(stream) {
    this.#tracks = new Map((stream?.getTracks() ?? []).map((track) => [track, [stream]]));
    if (!this.#pc) return;
    const senders = this.#pc.getSenders().filter(({ track }) => track && !this.#tracks.has(track));
    const replacements = [];
    for (const track of this.#missing()) {
      const index = senders.findIndex((sender) => sender.track.kind === track.kind);
      if (index < 0) this.#pc.addTrack(track, stream);
      else replacements.push(senders.splice(index, 1)[0].replaceTrack(track));
    }
    for (const sender of senders) this.#pc.removeTrack(sender);
    await Promise.all(replacements);
    this.#negotiator?.reconsider();
  }

  /** Starts with a new RTCPeerConnection. Throws a KeeplineError if the browser cannot create or use it. */
  open(polite = this.#polite) {
    this.close();
    this.#polite = polite;
    const { peerConnection, iceServers = this.#iceServers() } = this.#options;
    const { RTCPeerConnection } = this.#environment;
    if (!peerConnection && !RTCPeerConnection) return;
    try {
      this.#use(peerConnection ?? new RTCPeerConnection({ iceServers }));
    } catch (cause) {
      this.close();
      throw new KeeplineError("media_failed", `The browser refuses this RTCPeerConnection: ${cause.message}`, { cause });
    }
    this.#emit("peerconnection", { peerConnection: this.#pc });
  }

  /** Replaces the RTCPeerConnection, unless it is the app's. Returns whether it was replaced. */
  renew() {
    const renewed = this.#pc !== null && this.#isOurs;
    if (renewed) this.open();
    return renewed;
  }

  close() {
    if (!this.#pc) return;
    this.#negotiator?.close();
    this.#stopListening();
    if (this.#isOurs) this.#pc.close();
    this.#negotiator = null;
    this.#pc = null;
  }

  /** New TURN credentials of the cluster. */
  refreshIce() {
    if (!this.#pc || !this.#isOurs || this.#options.iceServers) return;
    this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), iceServers: this.#iceServers() });
  }

  #use(pc) {
    this.#pc = pc;
    this.#isOurs = pc !== this.#options.peerConnection;
    this.#stopListening = listen(pc, {
      track: ({ track, streams, transceiver }) => this.#emit("track", { track, streams, transceiver }),
      connectionstatechange: () => this.#emit("connectionstate", { state: pc.connectionState }),
    });
    this.#negotiator = new Negotiator(pc, {
      polite: this.#polite,
      send: this.#signal,
      report: (cause) => this.#report(cause),
      suspect: this.#suspect,
      timers: this.#environment,
      renew: () => (this.renew() ? this.#negotiator : null),
    });
    this.#sendMissing();
  }

  #missing() {
    const sent = new Set(this.#pc.getSenders().map(({ track }) => track));
    return [...this.#tracks.keys()].filter((track) => !sent.has(track));
  }

  #sendMissing() {
    if (!this.#pc) return;
    for (const track of this.#missing()) this.#pc.addTrack(track, ...this.#tracks.get(track));
    this.#negotiator?.reconsider();
  }

  #report(cause) {
    if (cause instanceof KeeplineError) return this.#emit("error", cause);
    const message = `Negotiating media failed: ${cause?.message ?? cause}`;
    this.#emit("error", new KeeplineError("negotiation_failed", message, { cause }));
  }
}
