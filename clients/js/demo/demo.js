/**
 * The demo page: a video call between two browsers, with the state of every connection in plain sight.
 *
 * `backend` talks to the demo's server, `stage` shows the picture, `story` writes the log, `chat`, `media` and `picture`
 * are what their names say, `words` is all that is said. Here a call begins and ends.
 */

import { Keepline } from "/keepline.js";

import { killNode, openCall, seatKey, takeSeat, watchCluster } from "./backend.js";
import { watchChat, watchTabs } from "./chat.js";
import { OwnMedia } from "./media.js";
import { PictureWatch } from "./picture.js";
import { showQuality, showStage } from "./stage.js";
import { Story } from "./story.js";
import { ask, byId, showText, showView, tell } from "./view.js";
import { describeEnd, UNNAMED } from "./words.js";

const NAME = "keepline name";
const LONGEST_NAME = 40;

byId("own-name").value = byId("guest-name").value = localStorage.getItem(NAME) ?? "";
byId("start-form").onsubmit = (event) => begin(event, "own-name", openCall);
byId("join-form").onsubmit = (event) => begin(event, "guest-name", () => takeSeat(codeInAddress()));
byId("start-again").onclick = () => location.assign("/");
byId("rejoin").onclick = () => enterBy(() => takeSeat(codeInAddress()));
watchTabs();
open();

/** A reload goes on in its call, a link leads to its invitation. */
function open() {
  const code = codeInAddress();
  if (!code) return showView("lobby");
  if (!seatKey(code)) return showView("invited");
  enterBy(() => takeSeat(code));
}

function codeInAddress() {
  return /^\/c\/(\w+)$/.exec(location.pathname)?.[1] ?? null;
}

async function begin(event, nameField, getSeat) {
  event.preventDefault();
  localStorage.setItem(NAME, byId(nameField).value.trim());
  const button = event.submitter ?? event.target.querySelector("button");
  button.disabled = true;
  await enterBy(getSeat);
  button.disabled = false;
}

async function enterBy(getSeat) {
  try {
    enter(await getSeat());
  } catch (error) {
    console.warn(error.code, error.message);
    showEnd(error.code);
  }
}

function enter(seat) {
  history.replaceState(null, "", `/c/${seat.code}`);
  showView("call", "call-title");
  byId("call").dataset.room = seat.room; // for those who look after the call with `keepline trace`
  tell("");
  const client = new Keepline({ url: seat.urls, token: seat.token, room: seat.room });
  const call = client.join(seat.room);
  const names = { own: localStorage.getItem(NAME) ?? "", peer: UNNAMED };
  const peer = { about: null, node: null };
  const picture = new PictureWatch(call, showQuality);
  const media = new OwnMedia(call, () => introduce());
  const story = new Story(client, call, names, picture);
  const introduce = introduceOurselves(client, call, names, media);
  learnOfPeer(call, names, peer);
  watchChat(call, seat.user, names);
  showInvitation(seat, call);
  offerKill(seat, client);
  byId("hang-up").onclick = () => hangUp(call);
  byId("hang-up").disabled = false;
  byId("report").onclick = () => report(call);
  call.on("ending", ({ ends_in_ms }) => tell(`The call ends in ${Math.round(ends_in_ms / 1_000)} seconds.`));
  for (const source of [client, call]) source.on("error", ({ code, message }) => console.warn(code, message));
  const closers = [
    watchCluster((event) => story.clusterTells(event)),
    showStage({ client, call, names, peer, picture, media }),
    () => picture.close(),
    () => media.close(),
    () => client.close(),
  ];
  call.on("ended", ({ reason }) => {
    closers.forEach((close) => close());
    showEnd(reason);
  });
  media.open();
}

/** Each side tells the other its name, its node and what it sends, whenever one of these may have changed. */
function introduceOurselves(client, call, names, media) {
  const introduce = () => call.room && call.send({ about: { name: names.own, node: client.node, ...media.about } });
  call.on("joined", introduce);
  call.on("peer", () => call.peerState === "joined" && introduce());
  client.on("welcome", introduce);
  return introduce;
}

/** What the other side says of itself is shown as text, and not believed to be of the right type. */
function learnOfPeer(call, names, peer) {
  call.on("data", (data) => {
    const about = data?.about;
    if (typeof about !== "object" || about === null) return;
    names.peer = (typeof about.name === "string" && about.name.trim().slice(0, LONGEST_NAME)) || UNNAMED;
    peer.node = typeof about.node === "string" ? about.node.slice(0, LONGEST_NAME) : null;
    peer.about = { camera: about.camera === true, microphone: about.microphone === true };
  });
}

function showInvitation(seat, call) {
  byId("invite").value = seat.link;
  byId("invite").onfocus = ({ target }) => target.select();
  byId("second-tab").href = `/c/${seat.code}`;
  byId("invite-far").hidden = byId("qr").hidden = !seat.shareable;
  byId("invite-near").hidden = seat.shareable;
  byId("qr").onerror = () => (byId("qr").hidden = true);
  if (seat.shareable) byId("qr").src = `/c/${seat.code}/qr.svg`;
  byId("copy").onclick = copyLink;
  byId("share").hidden = !navigator.share || !seat.shareable;
  byId("share").onclick = () => navigator.share({ title: "Join my call", url: seat.link }).catch(() => {});
  const show = () => (byId("invite-card").hidden = !["absent", "left"].includes(call.peerState));
  show();
  call.on("joined", show);
  call.on("peer", show);
}

async function copyLink() {
  const input = byId("invite");
  try {
    await navigator.clipboard.writeText(input.value);
    byId("copied").textContent = "Copied.";
  } catch {
    input.focus();
    byId("copied").textContent = "The link is selected: copy it with your keyboard or menu.";
  }
}

/** The button that kills the node we are on. Only `keepline up` gives a key for it. */
function offerKill(seat, client) {
  const button = byId("kill");
  button.hidden = !seat.kill_key;
  const update = () => (button.disabled = client.state !== "connected");
  client.on("state", update);
  update();
  button.onclick = async () => {
    button.disabled = true;
    await killNode(seat, client.node).catch((error) => tell(`Not killed: ${error.message}.`));
    update();
  };
}

async function hangUp(call) {
  byId("hang-up").disabled = true;
  await call.hangUp().catch((error) => tell(`The other side could not be told: ${error.message}`));
}

async function report(call) {
  byId("report-text").value = "";
  const pressed = await ask("report-dialog");
  const reason = byId("report-text").value.trim();
  if (pressed !== "send" || !reason) return;
  await call.report(reason).then(
    () => tell("Thank you. Your report is stored."),
    (error) => tell(`The report was not stored: ${error.message}`),
  );
}

function showEnd(reason) {
  const { title, text, wayBack } = describeEnd(reason);
  byId("ended-title").textContent = title;
  byId("ended-text").textContent = text;
  byId("ended").dataset.reason = reason;
  showText("rejoin", codeInAddress() ? wayBack : "");
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  showView("ended", "ended");
}
