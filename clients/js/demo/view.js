/** Small things that every part of the page needs of the document. */

const NOTICE_MS = 8_000;

export const byId = (id) => document.getElementById(id);

/** Shows one of the page's views and puts the focus where its reader begins. */
export function showView(name, focus) {
  for (const view of ["lobby", "invited", "ended", "call"]) byId(view).hidden = view !== name;
  document.body.classList.toggle("in-call", name === "call");
  byId("timer").hidden = true;
  if (focus) byId(focus).focus();
}

/** A state in words, with its name for styles and programs. */
export function showState(id, state, words) {
  if (byId(id).dataset.state !== state) byId(id).dataset.state = state;
  put(id, words);
}

/** Text that screen readers read out is touched only when it is another one. */
export function put(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

/** Text that may not be there: an empty one takes no room. */
export function showText(id, text) {
  put(id, text);
  byId(id).hidden = !text;
}

let noticeTimer;

/** Tells something over the picture, where it moves nothing, for a while or until it is closed. */
export function tell(text) {
  byId("notice-text").textContent = text;
  byId("notice").hidden = !text;
  clearTimeout(noticeTimer);
  if (text) noticeTimer = setTimeout(() => tell(""), NOTICE_MS);
}

byId("notice-close").onclick = () => tell("");
byId("notice").onpointerenter = byId("notice").onfocus = () => clearTimeout(noticeTimer);

/** Opens a dialog; resolves with what was pressed in it, "" for Escape. */
export function ask(id) {
  const dialog = byId(id);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

/** Text for screen readers only. */
export function hidden(text) {
  const span = document.createElement("span");
  span.className = "visually-hidden";
  span.textContent = text;
  return span;
}
