/** What the page says in which state. Nothing here touches the document: `test/demo_words.test.js` reads it too. */

/** What the other side is called until it says its name. */
export const UNNAMED = "The other side";

export const SIGNALING = {
  connecting: "connecting",
  connected: "connected to",
  reconnecting: "reconnecting, was on",
  closed: "not connected",
};

export const PEER = {
  absent: "not here yet",
  joined: "connected to",
  reconnecting: "reconnecting, was on",
  away: "away",
  left: "left",
};

export const MEDIA = {
  new: "not yet",
  connecting: "connecting",
  connected: "connected",
  disconnected: "interrupted",
  failed: "cannot connect",
  closed: "ended",
};

const ENDS = {
  hangup: ["The call is over", "One of you hung up."],
  grace_expired: ["The call is over", "One side lost its connection and did not come back in time."],
  no_show: ["Nobody came", "The other side did not open the link in time."],
  duration: ["The call is over", "The agreed time is up."],
  inactivity: ["The call is over", "Nobody wrote anything for a while."],
  deleted: ["The call is over", "The room was closed by the people who run this cluster."],
  replaced: ["The call continues elsewhere", "You opened it in another tab or on another device."],
  left: ["You left the call", "It goes on without you for a moment: you can come back."],
  unauthorized: ["You cannot come in", "This invitation is no longer valid."],
  room_ended: ["The call is over", "It had ended before you came."],
  room_not_found: ["There is no such call", "The link is mistyped, or the call ended long ago."],
  not_found: ["There is no such call", "The link is mistyped, or the demo was started again since."],
  call_full: ["This call is full", "Two people are in it already. A call has two sides; start one of your own."],
  unavailable: ["The demo is not ready", "No node of the cluster answers yet."],
  unreachable: ["The demo does not answer", "Is `keepline up` still running?"],
};
const OVER = ["The call is over", "It ended for a reason that this page does not know."];

const WAYS_BACK = {
  replaced: "Continue here",
  left: "Come back",
  call_full: "Try again",
  unavailable: "Try again",
  unreachable: "Try again",
};

/** Title and text of the page after a call, and what the button says that leads back into it, if any does. */
export function describeEnd(reason) {
  const [title, text] = ENDS[reason] ?? OVER;
  return { title, text, wayBack: WAYS_BACK[reason] ?? "" };
}

const SLOW_MEDIA_MS = 15_000;

/**
 * What stands on the stage: `placard` in the middle in place of the picture, or `chip` beside a picture that goes on, and
 * `count`, the seconds that are left.
 *
 * `name`: of the other side. `signaling`, `peer`, `media`: states. `flows`: frames arrive now. `picture`: there has
 * been one. `graceMs`: how long the other side may still take. `about`: what it said of its devices, null for nothing.
 * `sends`: whether we send anything; null while the camera is being asked for. `waitedMs`: for media.
 */
export function describeStage(now) {
  const text = whileApart(now);
  if (!text) return { chip: "", placard: whileTogether(now), count: "" };
  const count = now.peer === "reconnecting" && now.graceMs > 0 ? inSeconds(now.graceMs) : "";
  return now.flows ? { chip: text, placard: "", count } : { chip: "", placard: text, count };
}

function whileApart({ name, signaling, peer }) {
  if (peer === "reconnecting") return `${name} lost the connection. Waiting for them to come back…`;
  if (peer === "away") return `${name} is away.`;
  if (peer === "left") return `${name} left. They can come back with the same link.`;
  if (signaling === "reconnecting") return "Your connection was lost. Coming back…";
  if (signaling !== "connected") return "Connecting…";
  return peer === "absent" ? `Waiting for ${inside(name)}…` : "";
}

function whileTogether({ name, media, picture, about, sends, waitedMs }) {
  if (media === "failed") return "Picture and sound cannot get through. A TURN server would help.";
  if (media === "disconnected") return "Picture and sound are interrupted. Looking for another way…";
  if (media === "connected") return withMedia(name, picture, about);
  if (sends === null) return "Waiting for your camera: answer the browser's question.";
  if (sends === false && about && !about.camera && !about.microphone) {
    return "Neither side has a camera or a microphone. You can chat.";
  }
  return waitedMs > SLOW_MEDIA_MS
    ? "Picture and sound still do not get through. A firewall may be in the way."
    : "Connecting picture and sound…";
}

function withMedia(name, picture, about) {
  if (about && !about.camera) return `${name} has no camera on.`;
  return picture ? "" : `No picture from ${inside(name)} yet.`;
}

/** A name in the middle of a sentence. */
export function inside(name) {
  return name === UNNAMED ? UNNAMED.toLowerCase() : name;
}

/** Whole seconds that are left, "9 s". */
export function inSeconds(ms) {
  return `${Math.max(0, Math.ceil((ms ?? 0) / 1_000))} s`;
}

/** A length of time in seconds, "0.58 s". */
export function seconds(ms) {
  return `${(ms / 1_000).toFixed(2)} s`;
}

/** A length of time as a call's timer shows it: "0:07", "12:03", "1:02:03". */
export function timer(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** A time of day with its milliseconds. */
export function clock(date) {
  const two = (number) => String(number).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

/** The quality of a picture in a word and its figures. */
export function describeQuality({ width, height, fps, rttMs, lost }) {
  const figures = [];
  if (height) figures.push(`${width}×${height}`);
  if (height && fps !== undefined) figures.push(`${Math.round(fps)} fps`);
  if (rttMs !== undefined) figures.push(`${Math.round(rttMs)} ms`);
  if (figures.length === 0) return "–";
  const poor = rttMs > 400 || lost > 0.05;
  const fair = rttMs > 200 || lost > 0.02 || (height && fps < 12);
  return `${poor ? "poor" : fair ? "fair" : "good"} · ${figures.join(" · ")}`;
}

/** What became of the picture while a connection was away. */
export function describePicture({ frames, overMs, frozenMs }) {
  if (frames > 0 && frozenMs < 500) return `picture never stopped: ${frames} frames in ${seconds(overMs)}`;
  return `picture stood still for ${seconds(frozenMs)}`;
}
