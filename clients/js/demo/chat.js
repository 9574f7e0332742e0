/** The chat beside the picture. */

import { byId, hidden, tell } from "./view.js";

const TYPING_SHOWN_MS = 3_000;

/** Shows the chat of a call, and sends what is written. `names`: what each side is called. */
export function watchChat(call, user, names) {
  const form = byId("chat-form");
  const text = byId("chat-text");
  byId("chat-log").replaceChildren();
  const add = (message) => addMessage(message, message.from === user, names);
  call.on("joined", ({ room }) => room.messages.forEach(add));
  call.on("chat", ({ message }) => {
    add(message);
    if (message.from !== user) countUnread();
  });
  call.on("typing", showTyping(names));
  text.oninput = () => call.typing();
  form.onsubmit = async (event) => {
    event.preventDefault();
    const written = text.value.trim();
    if (!written) return;
    text.value = "";
    try {
      add(await call.chat(written));
    } catch (error) {
      text.value ||= written;
      tell(`The message was not sent: ${error.message}`);
    }
  };
}

/** Messages come as history, as answers and as events: each is shown once, in the order of the room. */
function addMessage({ seq, text }, isOwn, names) {
  const log = byId("chat-log");
  const items = [...log.children];
  if (items.some((item) => Number(item.dataset.seq) === seq)) return;
  const item = document.createElement("li");
  item.dataset.seq = seq;
  item.className = isOwn ? "own" : "peer";
  item.append(hidden(isOwn ? "You: " : `${names.peer}: `), text);
  log.insertBefore(item, items.find((other) => Number(other.dataset.seq) > seq) ?? null);
  log.parentElement.scrollTop = log.scrollHeight;
  if (!isOwn) byId("typing").textContent = "";
}

function showTyping(names) {
  let timer;
  return () => {
    byId("typing").textContent = `${names.peer} is typing…`;
    clearTimeout(timer);
    timer = setTimeout(() => (byId("typing").textContent = ""), TYPING_SHOWN_MS);
  };
}

/** On a phone chat and events share a place: one is shown at a time, and the other's news are counted. */
export function watchTabs() {
  const tabs = [byId("tab-chat"), byId("tab-events")];
  const choose = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-pressed", String(tab === chosen));
      byId(tab.getAttribute("aria-controls")).classList.toggle("behind", tab !== chosen);
    }
    if (chosen === tabs[0]) showUnread(0);
  };
  for (const tab of tabs) tab.onclick = () => choose(tab);
  choose(tabs[0]);
}

let unread = 0;

function countUnread() {
  if (byId("chat-card").classList.contains("behind")) showUnread(unread + 1);
}

function showUnread(count) {
  unread = count;
  byId("unread").hidden = count === 0;
  byId("unread").replaceChildren(String(count), hidden(" new"));
}
