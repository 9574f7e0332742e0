/** The log of what happens to a call, to the millisecond: who lost which node, and when they were back. */

import { byId } from "./view.js";
import { clock, describePicture, inside, seconds } from "./words.js";

const MOST_LINES = 200;
const LONGEST_GAP_MS = 3_600_000;
const PEER_EVENTS = { joined: "came", away: "is away", left: "left" };

/** Writes the log of a call. `names`: what each side is called; `picture`: the watch over the other side's picture. */
export class Story {
  #call;
  #names;
  #picture;
  #lostAt = null;
  #peerLostAt = null;

  constructor(client, call, names, picture) {
    this.#call = call;
    this.#names = names;
    this.#picture = picture;
    byId("event-log").replaceChildren();
    client.on("state", ({ state }) => state === "reconnecting" && this.#lost(client.node));
    client.on("welcome", (welcome) => this.#welcomed(welcome));
    call.on("peer", ({ state }) => this.#peerIs(state));
    call.on("data", (data) => data?.resumed && this.#peerResumed(data.resumed));
    call.on("connectionstate", ({ state }) => this.#mediaIs(state));
  }

  /** What the demo's server says of a program of the cluster. */
  clusterTells({ program, what, pid }) {
    if (what === "running") this.#tell(`${program} runs again (pid ${pid})`);
    else if (what === "killed by SIGKILL") this.#tell(`${program} killed (pid ${pid})`, "bad");
    else this.#tell(`${program} ended: ${what}`, "bad");
  }

  #lost(node) {
    this.#lostAt ??= performance.now();
    this.#tell(`connection to ${node} lost`, "bad");
  }

  #welcomed({ node, resumed }) {
    if (this.#lostAt === null) return this.#tell(`you are on ${node}`);
    const ms = Math.round(performance.now() - this.#lostAt);
    this.#lostAt = null;
    this.#tell(`${resumed ? "resumed" : "came back"} on ${node} after ${seconds(ms)}`, "good");
    this.#judgePicture(ms);
    this.#call.send({ resumed: { node, ms } });
  }

  #peerIs(state) {
    if (state === "reconnecting") {
      this.#peerLostAt = performance.now();
      return this.#tell(`${inside(this.#names.peer)} lost the connection`, "bad");
    }
    if (state !== "reconnected") return this.#tell(`${inside(this.#names.peer)} ${PEER_EVENTS[state] ?? state}`);
    if (this.#peerLostAt === null) return;
    this.#tell(`${inside(this.#names.peer)} is back after ${seconds(performance.now() - this.#peerLostAt)}`, "good");
    this.#peerLostAt = null;
  }

  /** The other side says how long it was away, which we may not even have noticed. */
  #peerResumed({ node, ms }) {
    if (typeof node !== "string" || !(ms >= 0 && ms <= LONGEST_GAP_MS)) return;
    this.#tell(`${inside(this.#names.peer)} resumed on ${node.slice(0, 64)} after ${seconds(ms)}`, "good");
    this.#judgePicture(ms);
  }

  #mediaIs(state) {
    if (state === "connected") this.#tell("picture and sound connected");
    if (state === "disconnected" || state === "failed") this.#tell("picture and sound interrupted", "bad");
  }

  async #judgePicture(ms) {
    const verdict = await this.#picture.during(ms);
    if (verdict) this.#tell(describePicture(verdict), verdict.frozenMs < 500 ? "good" : "bad");
  }

  #tell(text, kind = "") {
    const line = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = clock(new Date());
    line.append(time, ` ${text}`);
    line.className = kind;
    const log = byId("event-log");
    log.append(line);
    while (log.children.length > MOST_LINES) log.firstChild.remove();
    log.parentElement.scrollTop = log.scrollHeight;
  }
}
