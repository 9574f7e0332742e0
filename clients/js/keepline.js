/**
 * Keepline: one-to-one video and text calls over a Keepline signaling cluster.
 *
 *     const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
 *     const client = new Keepline({ url: "wss://signal.example/v1", token: () => fetchToken() });
 *     const call = client.join(roomId, { media });
 *     call.on("track", ({ streams }) => { video.srcObject = streams[0]; });
 *     call.on("chat", ({ message }) => show(message.text));
 *
 * `Keepline` is the connection: it finds a node, comes back after every fault and answers requests. `Call` is a
 * room that is held through it: it negotiates the media and goes on across reconnects of either side. The parts
 * in `src/` each know one thing: `backoff` when to try again, `delivery` how signals are numbered, `negotiator` who may
 * offer and when. Pages without a build step load `keepline.bundle.js`, which `make bundle` writes.
 *
 * @module keepline
 */

export { Call } from "./src/call.js";
export { Keepline } from "./src/client.js";
export { KeeplineError } from "./src/errors.js";
