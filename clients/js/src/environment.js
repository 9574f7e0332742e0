/** The parts of the runtime that the SDK uses, as far as they exist. */
export function browserEnvironment() {
  const { WebSocket, RTCPeerConnection, window, document } = globalThis;
  return {
    WebSocket,
    RTCPeerConnection,
    window,
    document,
    random: Math.random,
    now: () => globalThis.performance?.now() ?? Date.now(),
    newId: randomId,
    setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
  };
}

/** Rejects with `error()` if `promise` does not settle in time. */
export function withTimeout(promise, ms, error, { setTimeout, clearTimeout }) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(error()), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Not crypto.randomUUID, which exists in secure contexts only. React Native has no `crypto` at all. Ids must be unique,
// but need not be secret.
function randomId() {
  const bytes = new Uint8Array(12);
  if (globalThis.crypto?.getRandomValues) crypto.getRandomValues(bytes);
  else bytes.forEach((_, index) => (bytes[index] = Math.random() * 256));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
