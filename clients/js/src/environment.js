export function browserEnvironment() {
  const { WebSocket, RTCPeerConnection, window, document } = globalThis;
  return {
    WebSocket,
    RTCPeerConnection,
    window,
    document,
    random: Math.random,
    now: () => performance.now(),
    newId: randomId,
    setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
  };
}

// Not crypto.randomUUID: that exists in secure contexts only.
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
