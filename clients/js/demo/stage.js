/** The stage of a call: the other side's picture, and what to know where there is none. */

import { byId, put, showState, showText } from "./view.js";
import { describeQuality, describeStage, MEDIA, PEER, SIGNALING, timer } from "./words.js";

const DRAW_MS = 250;

/** Shows a call from here on, until the function that it returns is called. */
export function showStage({ client, call, names, peer, picture, media }) {
  const remote = byId("remote-video");
  let mediaSince = performance.now();
  let graceEnds = 0;
  let mediaState = "new";
  let metAt = null;

  const draw = () => {
    const hasPicture = remote.videoWidth > 0;
    const stage = describeStage({
      name: names.peer,
      signaling: client.state,
      peer: call.peerState,
      media: mediaState,
      flows: hasPicture && picture.flows,
      picture: hasPicture,
      graceMs: graceEnds - performance.now(),
      about: peer.about,
      sends: media.sends,
      waitedMs: performance.now() - mediaSince,
    });
    drawStage(stage, names);
    drawFacts(client, call, mediaState, peer);
    byId("peer-name").hidden = !hasPicture || Boolean(stage.placard);
    byId("peer-name").textContent = names.peer + (peer.about && !peer.about.microphone ? " · muted" : "");
    showText("timer", metAt === null ? "" : timer(Date.now() - metAt));
  };

  call.on("connectionstate", ({ state }) => {
    if (state === "connecting") mediaSince = performance.now();
    mediaState = state;
    draw();
  });
  call.on("peerchanged", () => (mediaState = "new"));
  call.on("peer", ({ grace_ms = 0 }) => {
    graceEnds = performance.now() + grace_ms;
    mediaSince = performance.now();
    draw();
  });
  call.on("peer", ({ state }) => state === "joined" && (metAt ??= Date.now()));
  call.on("joined", ({ room, peer }) => {
    if (peer === "joined") metAt ??= Math.min(room.started_at, Date.now());
    draw();
  });
  client.on("state", draw);
  client.on("welcome", draw);
  call.on("track", ({ track, streams }) => playTrack(remote, track, streams));
  remote.onresize = draw;
  const drawing = setInterval(draw, DRAW_MS);
  draw();
  return () => {
    clearInterval(drawing);
    remote.srcObject = null;
    byId("unmute").hidden = true;
  };
}

function drawStage({ placard, chip, count }, names) {
  byId("placard").hidden = !placard;
  byId("avatar").textContent = [...names.peer.replace(/^The /, "")][0]?.toUpperCase() ?? "";
  byId("remote-video").classList.toggle("dim", Boolean(placard));
  byId("chip").hidden = !chip;
  put("placard-text", placard);
  put("placard-count", placard ? count : "");
  put("chip-text", chip);
  put("chip-count", chip ? count : "");
}

function drawFacts(client, call, mediaState, peer) {
  showState("signaling-state", client.state, SIGNALING[client.state]);
  put("own-node", client.node ?? "");
  showState("peer-state", call.peerState, PEER[call.peerState]);
  put("peer-node", call.peerState === "absent" || call.peerState === "left" ? "" : (peer.node ?? ""));
  showState("media-state", mediaState, MEDIA[mediaState]);
}

/** The quality of the picture, by the figures of the browser. */
export function showQuality(reading) {
  put("quality", describeQuality(reading));
}

function playTrack(remote, track, streams) {
  const stream = streams[0] ?? new MediaStream([track]);
  if (remote.srcObject !== stream) remote.srcObject = stream;
  remote.play().catch((error) => error.name === "NotAllowedError" && playMuted(remote));
}

/** Without a camera of our own and without a click, browsers play the other side only when it is muted. */
function playMuted(video) {
  const button = byId("unmute");
  video.muted = true;
  video.play().catch(() => {});
  button.hidden = false;
  button.onclick = () => {
    video.muted = false;
    button.hidden = true;
  };
}
