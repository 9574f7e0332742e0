/** Our own camera and microphone: which ones, how sharp, on or off. */

import { ask, byId, showText, tell } from "./view.js";

const QUALITY = "keepline quality";

export class OwnMedia {
  #call;
  #onChange;
  #stream = null;
  #isAsked = false;

  /** `onChange` is called whenever what we send has changed. */
  constructor(call, onChange) {
    this.#call = call;
    this.#onChange = onChange;
    this.#show();
    byId("mic").onclick = () => this.#toggle("audio");
    byId("camera").onclick = () => this.#toggle("video");
    byId("devices-open").onclick = () => this.#choose();
  }

  /** Whether we send anything; null until the browser's question has been answered. */
  get sends() {
    return this.#isAsked ? this.#tracks().length > 0 : null;
  }

  /** What the other side may know of it. */
  get about() {
    return { camera: this.#isOn("video"), microphone: this.#isOn("audio") };
  }

  /** Asks for camera and microphone and sends what there is. The call does not wait for it. */
  async open() {
    const stream = await this.#ask();
    this.#isAsked = true;
    if (this.#call.endedReason) return stop(stream);
    await this.#use(stream);
  }

  close() {
    stop(this.#stream);
    this.#stream = null;
    byId("local-video").srcObject = null;
  }

  async #ask() {
    if (!navigator.mediaDevices) {
      return goOnWithout("Browsers give camera and microphone only to pages on https:// or localhost.");
    }
    const video = { height: { ideal: chosenHeight() } };
    let refusal;
    for (const wish of [{ video, audio: true }, { audio: true }, { video }]) {
      try {
        return await navigator.mediaDevices.getUserMedia(wish);
      } catch (error) {
        refusal = error;
        if (error.name === "NotAllowedError") break; // The user said no: asking again would be rude.
      }
    }
    return goOnWithout(explain(refusal));
  }

  async #use(stream) {
    this.#stream = stream;
    for (const track of this.#tracks()) track.onended = () => this.#unplugged(track);
    this.#show();
    await this.#call.setMedia(stream).catch((error) => tell(`The browser does not send it: ${error.message}`));
    this.#onChange();
  }

  #tracks(kind) {
    const tracks = this.#stream?.getTracks() ?? [];
    return kind ? tracks.filter((track) => track.kind === kind) : tracks;
  }

  #isOn(kind) {
    return this.#tracks(kind).some((track) => track.enabled && track.readyState === "live");
  }

  #toggle(kind) {
    const enabled = !this.#isOn(kind);
    for (const track of this.#tracks(kind)) track.enabled = enabled;
    this.#show();
    this.#onChange();
  }

  #unplugged(track) {
    tell(`Your ${track.kind === "video" ? "camera" : "microphone"} is gone. Choose another one under Devices.`);
    this.#show();
    this.#onChange();
  }

  #show() {
    showToggle("mic", this.#tracks("audio").length, this.#isOn("audio"), "Mute", "Unmute");
    showToggle("camera", this.#tracks("video").length, this.#isOn("video"), "Camera off", "Camera on");
    const video = byId("local-video");
    if (video.srcObject !== this.#stream) video.srcObject = this.#stream;
    video.hidden = !this.#isOn("video");
    showText("own-muted", this.#stream && !this.#isOn("audio") ? "You are muted" : "");
  }

  async #choose() {
    await this.#listDevices();
    byId("choose-quality").value = String(chosenHeight());
    byId("choose-camera").onchange = ({ target }) => this.#switch("video", target.value);
    byId("choose-mic").onchange = ({ target }) => this.#switch("audio", target.value);
    byId("choose-quality").onchange = ({ target }) => this.#sharpen(Number(target.value));
    byId("devices-problem").textContent = "";
    await ask("devices-dialog");
  }

  async #listDevices() {
    const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    fill("choose-camera", devices, "videoinput", "Camera", this.#tracks("video")[0]);
    fill("choose-mic", devices, "audioinput", "Microphone", this.#tracks("audio")[0]);
  }

  async #switch(kind, deviceId) {
    const device = { deviceId: { exact: deviceId } };
    const wish = kind === "video" ? { video: { ...device, height: { ideal: chosenHeight() } } } : { audio: device };
    byId("devices-problem").textContent = "";
    try {
      const fresh = await navigator.mediaDevices.getUserMedia(wish);
      if (this.#call.endedReason) return stop(fresh);
      const kept = this.#tracks().filter((track) => track.kind !== kind);
      this.#tracks(kind).forEach((track) => track.stop());
      await this.#use(new MediaStream([...kept, ...fresh.getTracks()]));
      await this.#listDevices();
    } catch (error) {
      byId("devices-problem").textContent = explain(error);
    }
  }

  async #sharpen(height) {
    localStorage.setItem(QUALITY, String(height));
    const changes = this.#tracks("video").map((track) => track.applyConstraints({ height: { ideal: height } }));
    await Promise.all(changes).catch((error) => (byId("devices-problem").textContent = explain(error)));
  }
}

function chosenHeight() {
  return Number(localStorage.getItem(QUALITY)) || 720;
}

function stop(stream) {
  stream?.getTracks().forEach((track) => track.stop());
}

function goOnWithout(why) {
  tell(`${why} You can still see and hear the other side, and chat.`);
  return null;
}

/** Why the browser gives no camera or microphone, in words. */
function explain({ name, message }) {
  if (name === "NotAllowedError") return "The browser was told not to share camera and microphone with this page.";
  if (name === "NotFoundError") return "There is no camera and no microphone on this device.";
  if (name === "NotReadableError") return "Another program uses the camera or the microphone.";
  return `Camera and microphone cannot be used (${message || name}).`;
}

function showToggle(id, exists, isOn, whenOn, whenOff) {
  const button = byId(id);
  button.hidden = !exists;
  button.textContent = isOn ? whenOn : whenOff;
  button.classList.toggle("off", !isOn);
}

function fill(id, devices, kind, noun, track) {
  const used = track?.getSettings().deviceId;
  const options = devices.filter((device) => device.kind === kind && device.deviceId).map(
    ({ deviceId, label }, index) => new Option(label || `${noun} ${index + 1}`, deviceId, false, deviceId === used),
  );
  if (!track) options.unshift(new Option(options.length ? "Choose one" : "None found", "", true, true));
  if (!track) options[0].disabled = true;
  byId(id).replaceChildren(...options);
}
