/** The demo page: a video call between two browsers, with the state of every connection in plain sight. */

import { Keepline } from "/keepline.js";

const TYPING_SHOWN_MS = 3_000;
const STAGE_TEXTS = {
  absent: "Waiting for the other side…",
  reconnecting: "The other side lost its connection and is coming back…",
  away: "The other side is away",
  left: "The other side left",
};
const ENDED_TEXTS = {
  hangup: "One of you hung up.",
  grace_expired: "One side lost its connection and did not come back in time.",
  no_show: "The other side did not come.",
  duration: "The agreed time is over.",
  inactivity: "Nobody wrote anything for a while.",
  deleted: "The room was closed.",
  replaced: "This side of the call goes on in another tab or on another device.",
  unauthorized: "The invitation is no longer valid.",
  room_ended: "It had ended before this page came.",
  room_not_found: "There is no such call any more.",
};

const byId = (id) => document.getElementById(id);

/** What each call of this page needs to end: its connection, its camera. */
let current = null;

byId("start").addEventListener("click", startCall);
byId("start-again").addEventListener("click", startCall);
// A link pasted into this tab is another call.
addEventListener("hashchange", () => location.reload());
resumeFromAddress();

async function startCall({ currentTarget: button }) {
  button.disabled = true;
  tell("");
  try {
    const { room, sides } = await createRoom();
    const [own, invited] = sides.map((side) => ({ room, ...side }));
    history.replaceState(null, "", `#own=${encode({ own, invited })}`);
    await enterCall(own, invited);
  } catch (error) {
    tell(`The call could not be started: ${error.message}`);
  } finally {
    button.disabled = false;
  }
}

async function createRoom() {
  const request = { chat_mode: "video", duration_seconds: 0 };
  const nodes = new URLSearchParams(location.search).get("nodes");
  if (nodes) request.nodes = nodes.split(",").map(Number);
  const response = await fetch("/demo/rooms", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request),
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error?.message ?? `the server answered ${response.status}`);
  return body;
}

/** A reload and an opened invitation both find their side of the call in the address. */
function resumeFromAddress() {
  const [name, value] = location.hash.slice(1).split("=");
  if (name !== "own" && name !== "call") return;
  try {
    const sides = decode(value);
    if (name === "own") enterCall(sides.own, sides.invited);
    else enterCall(sides);
  } catch {
    tell("This link is damaged. Ask for a new one, or start a call of your own.");
  }
}

async function enterCall(own, invited) {
  byId("lobby").hidden = byId("ended").hidden = true;
  byId("call").hidden = false;
  byId("chat-log").replaceChildren();
  if (invited) showInvitation(invited);
  const client = new Keepline({ url: own.urls, token: own.token, room: own.room });
  watchConnection(client);
  const call = client.join(own.room);
  current = { client, media: null };
  watchCall(call, Boolean(invited));
  watchMedia(call);
  watchChat(call, own.user);
  shareNodes(client, call);
  byId("hang-up").onclick = () => hangUp(call);
  byId("report").onclick = () => report(call);
  await bringMedia(call);
}

/** The call does not wait for the camera: whoever hesitates at the browser's question can be seen later. */
async function bringMedia(call) {
  const media = await openCamera();
  if (call.endedReason) return stop(media);
  current.media = media;
  await call.setMedia(media);
}

function stop(media) {
  media?.getTracks().forEach((track) => track.stop());
}

async function hangUp(call) {
  byId("hang-up").disabled = true;
  await call.hangUp().catch((error) => tell(`The other side could not be told: ${error.message}`));
}

async function report(call) {
  const reason = prompt("What is wrong with the other side? Whoever runs this cluster will read it.")?.trim();
  if (!reason) return;
  await call.report(reason.slice(0, 500)).then(
    () => tell("Thank you. Your report is stored."),
    (error) => tell(`The report was not stored: ${error.message}`),
  );
}

function watchConnection(client) {
  client.on("state", ({ state }) => show("signaling-state", state));
  client.on("welcome", ({ node }) => show("own-node", node));
  client.on("error", (error) => console.warn(error.code, error.message));
}

function watchCall(call, invites) {
  const showStage = () => (byId("stage-text").textContent = STAGE_TEXTS[call.peerState] ?? describePicture(call));
  const showPeer = () => {
    show("peer-state", call.peerState);
    showStage();
    byId("invite-card").hidden = !invites || call.peerState !== "absent";
  };
  showPeer();
  call.on("joined", showPeer);
  call.on("peer", showPeer);
  call.on("connectionstate", showStage);
  byId("remote-video").onresize = showStage;
  call.on("ending", ({ ends_in_ms }) => tell(`The call ends in ${Math.round(ends_in_ms / 1000)} seconds.`));
  call.on("error", (error) => console.warn(error.code, error.message));
  call.on("ended", ({ reason }) => showEnd(reason));
}

function describePicture(call) {
  if (byId("remote-video").videoWidth) return "";
  return call.peerConnection?.connectionState === "connected" ? "No picture from the other side" : "Connecting…";
}

function showEnd(reason) {
  current.client.close();
  stop(current.media);
  byId("remote-video").srcObject = byId("local-video").srcObject = null;
  byId("hang-up").disabled = false;
  byId("call").hidden = byId("unmute").hidden = true;
  byId("ended-text").textContent = ENDED_TEXTS[reason] ?? "";
  byId("ended-reason").textContent = reason;
  byId("ended").hidden = false;
  byId("ended").focus();
  show("media-state", "new");
  show("peer-node", "–");
  history.replaceState(null, "", location.pathname + location.search);
}

function watchMedia(call) {
  const remote = byId("remote-video");
  call.on("connectionstate", ({ state }) => show("media-state", state));
  call.on("peerchanged", () => show("media-state", "new"));
  call.on("track", ({ track, streams }) => {
    const stream = streams[0] ?? new MediaStream([track]);
    if (remote.srcObject !== stream) remote.srcObject = stream;
    remote.play().catch((error) => error.name === "NotAllowedError" && playMuted(remote));
  });
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

/** Each side tells the other which node it is on, whenever either of them may have moved. */
function shareNodes(client, call) {
  const tellNode = () => call.send({ node: client.node });
  call.on("joined", tellNode);
  call.on("peer", () => call.peerState === "joined" && tellNode());
  call.on("data", ({ node } = {}) => typeof node === "string" && show("peer-node", node));
}

function watchChat(call, user) {
  const form = byId("chat-form");
  const text = byId("chat-text");
  call.on("joined", ({ room }) => room.messages.forEach((message) => addMessage(message, user)));
  call.on("chat", ({ message }) => addMessage(message, user));
  call.on("typing", showTyping());
  text.oninput = () => call.typing();
  form.onsubmit = async (event) => {
    event.preventDefault();
    const written = text.value.trim();
    if (!written) return;
    text.value = "";
    try {
      addMessage(await call.chat(written), user);
    } catch (error) {
      text.value ||= written;
      tell(`The message was not sent: ${error.message}`);
    }
  };
}

/** Messages come as history, as answers and as events: each is shown once, in the order of the room. */
function addMessage({ seq, from, text }, user) {
  const log = byId("chat-log");
  const items = [...log.children];
  if (items.some((item) => Number(item.dataset.seq) === seq)) return;
  const item = document.createElement("li");
  item.dataset.seq = seq;
  item.className = from === user ? "own" : "peer";
  item.append(hidden(from === user ? "You: " : "Other side: "), text);
  log.insertBefore(item, items.find((other) => Number(other.dataset.seq) > seq) ?? null);
  log.scrollTop = log.scrollHeight;
  if (from !== user) byId("typing").textContent = "";
}

function hidden(text) {
  const span = document.createElement("span");
  span.className = "visually-hidden";
  span.textContent = text;
  return span;
}

function showTyping() {
  let timer;
  return () => {
    byId("typing").textContent = "The other side is typing…";
    clearTimeout(timer);
    timer = setTimeout(() => (byId("typing").textContent = ""), TYPING_SHOWN_MS);
  };
}

async function openCamera() {
  const media = await askForMedia();
  byId("local-video").srcObject = media;
  byId("local-video").hidden = !media?.getVideoTracks().length;
  bindToggle("mic", media?.getAudioTracks() ?? [], "Mute", "Unmute");
  bindToggle("camera", media?.getVideoTracks() ?? [], "Camera off", "Camera on");
  return media;
}

async function askForMedia() {
  if (!navigator.mediaDevices) {
    return goOnWithout("Browsers give camera and microphone only to pages on https:// or localhost.");
  }
  const wishes = [{ video: true, audio: true }, { audio: true }, { video: true }];
  let refusal;
  for (const wish of wishes) {
    try {
      return await navigator.mediaDevices.getUserMedia(wish);
    } catch (error) {
      refusal = error;
      if (error.name === "NotAllowedError") break; // The user said no: asking again would be rude.
    }
  }
  return goOnWithout(`Camera and microphone cannot be used (${refusal.message || refusal.name}).`);
}

function goOnWithout(why) {
  tell(`${why} You can still see and hear the other side, and chat.`);
  return null;
}

function bindToggle(id, tracks, whenOn, whenOff) {
  const button = byId(id);
  button.hidden = tracks.length === 0;
  const update = (enabled) => {
    for (const track of tracks) track.enabled = enabled;
    button.classList.toggle("off", !enabled);
    button.textContent = enabled ? whenOn : whenOff;
  };
  update(true);
  button.onclick = () => update(!tracks[0].enabled);
}

function showInvitation(side) {
  const link = `${location.origin}/#call=${encode(side)}`;
  const input = byId("invite");
  input.value = link;
  input.onfocus = () => input.select();
  byId("second-tab").href = link;
  byId("copy").onclick = () => copyLink(input);
  byId("share").hidden = !navigator.share;
  byId("share").onclick = () => navigator.share({ title: "Join my call", url: link }).catch(() => {});
}

async function copyLink(input) {
  try {
    await navigator.clipboard.writeText(input.value);
    byId("copied").textContent = "Copied.";
  } catch {
    input.focus();
    byId("copied").textContent = "The link is selected: copy it with your keyboard or menu.";
  }
}

function show(id, text) {
  byId(id).textContent = text;
  byId(id).dataset.state = text;
}

function tell(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

function encode(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function decode(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}
