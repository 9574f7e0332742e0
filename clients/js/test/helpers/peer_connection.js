/**
 * An RTCPeerConnection as far as signaling goes: states, implicit rollback, negotiationneeded, the rules about
 * candidates. A description lists the tracks it was made with, and its ICE generation in `ice-ufrag`.
 */
export class FakePeerConnection extends EventTarget {
  static made = [];
  static #lastUfrag = 0;

  signalingState = "stable";
  iceConnectionState = "new";
  connectionState = "new";
  localDescription = null;
  remoteDescription = null;
  candidates = [];
  configuration;
  closed = false;
  /** While true, local descriptions bring no candidates. */
  withholdCandidates = false;
  /** What a track adds to the size of a description. */
  bytesPerTrack = 0;
  #stableLocal = null;
  #stableRemote = null;
  #senders = [];
  #negotiatedTracks = [];
  #restartDue = false;
  #eventDue = false;
  #chain = Promise.resolve();

  constructor(configuration = {}) {
    super();
    this.setConfiguration(configuration);
    FakePeerConnection.made.push(this);
  }

  getConfiguration() {
    return this.configuration;
  }

  setConfiguration(configuration) {
    const bad = configuration.iceServers?.find(({ urls }) => !/^(stuns?|turns?):/.test(urls));
    if (bad) throw domException("SyntaxError", `"${bad.urls}" is not a valid stun or turn URL`);
    this.configuration = configuration;
  }

  getSenders() {
    return [...this.#senders];
  }

  addTrack(track) {
    if (this.#senders.some((sender) => sender.track === track)) throw domException("InvalidAccessError");
    const sender = {
      track,
      replaceTrack: async (other) => {
        sender.track = other;
      },
    };
    this.#senders.push(sender);
    this.#negotiateLater();
    return sender;
  }

  removeTrack(sender) {
    sender.track = null;
    this.#negotiateLater();
  }

  restartIce() {
    this.#restartDue = true;
    this.#negotiateLater();
  }

  close() {
    this.closed = true;
    this.signalingState = "closed";
  }

  setLocalDescription({ type: wanted } = {}) {
    return this.#queue(() => {
      if (wanted === "rollback") return this.#rollBack();
      const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
      const ufrag = `u${(FakePeerConnection.#lastUfrag += 1)}`;
      const tracks = this.#trackIds();
      const padding = "x".repeat(tracks.length * this.bytesPerTrack);
      const sdp = `v=0\r\na=ice-ufrag:${ufrag}\r\na=tracks:${tracks.join(",")}\r\n${padding}`;
      this.localDescription = { type, sdp };
      if (type === "answer") this.#becomeStable();
      else this.signalingState = "have-local-offer";
      const candidate = { candidate: `candidate:${ufrag}`, sdpMid: "0", usernameFragment: ufrag };
      if (!this.withholdCandidates) setImmediate(() => this.#fire("icecandidate", { candidate }));
    });
  }

  setRemoteDescription(description) {
    return this.#queue(() => {
      if (description.type === "offer") this.#acceptOffer();
      else if (this.signalingState !== "have-local-offer") throw domException("InvalidStateError");
      this.remoteDescription = description;
      if (description.type === "answer") this.#becomeStable();
    });
  }

  addIceCandidate(candidate) {
    return this.#queue(() => {
      if (!this.remoteDescription) throw domException("InvalidStateError");
      const { usernameFragment } = candidate;
      if (usernameFragment && !this.remoteDescription.sdp.includes(`ice-ufrag:${usernameFragment}\r`)) {
        throw domException("OperationError");
      }
      this.candidates.push(candidate);
    });
  }

  /** Ids of the tracks that the other side sends, after negotiation. */
  get remoteTracks() {
    return this.remoteDescription?.sdp.match(/a=tracks:(.*)\r/)[1].split(",").filter(Boolean) ?? [];
  }

  setIceState(state) {
    this.iceConnectionState = state;
    this.#fire("iceconnectionstatechange", {});
  }

  setConnectionState(state) {
    this.connectionState = state;
    this.#fire("connectionstatechange", {});
  }

  #rollBack() {
    this.localDescription = this.#stableLocal;
    this.remoteDescription = this.#stableRemote;
    this.signalingState = "stable";
    if (this.#negotiationNeeded) this.#negotiateLater();
  }

  #acceptOffer() {
    if (this.signalingState === "have-local-offer") {
      this.localDescription = this.#stableLocal;
      this.remoteDescription = this.#stableRemote;
    }
    this.signalingState = "have-remote-offer";
  }

  #becomeStable() {
    this.signalingState = "stable";
    this.#stableLocal = this.localDescription;
    this.#stableRemote = this.remoteDescription;
    this.#negotiatedTracks = this.#trackIds();
    if (this.localDescription.type === "offer") this.#restartDue = false;
    if (this.#negotiationNeeded) this.#negotiateLater();
  }

  get #negotiationNeeded() {
    return this.#restartDue || this.#trackIds().join() !== this.#negotiatedTracks.join();
  }

  #negotiateLater() {
    if (this.#eventDue) return;
    this.#eventDue = true;
    queueMicrotask(() => {
      this.#eventDue = false;
      if (this.signalingState === "stable" && this.#negotiationNeeded) this.#fire("negotiationneeded", {});
    });
  }

  #trackIds() {
    return this.#senders.filter((sender) => sender.track).map((sender) => sender.track.id);
  }

  #queue(operation) {
    const result = this.#chain.then(() => {
      if (this.closed) throw domException("InvalidStateError");
      return operation();
    });
    this.#chain = result.catch(() => {});
    return result;
  }

  #fire(name, properties) {
    if (!this.closed) this.dispatchEvent(Object.assign(new Event(name), properties));
  }
}

/** A MediaStream with tracks of the given kinds; ids are unique. */
export function fakeStream(...kinds) {
  const tracks = kinds.map((kind) => ({ kind, id: `${kind}-${(fakeStream.last += 1)}` }));
  return { getTracks: () => tracks };
}
fakeStream.last = 0;

function domException(name, message = name) {
  return new DOMException(message, name);
}
