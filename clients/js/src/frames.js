import { KeeplineError } from "./errors.js";

const MAX_FRAME_BYTES = 64 * 1024;

export function parseFrame(text) {
  try {
    const frame = JSON.parse(text);
    return typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}

export function encodeFrame(frame) {
  const text = JSON.stringify(frame);
  const mayExceed = text.length * 3 > MAX_FRAME_BYTES; // A UTF-16 unit takes at most three bytes.
  if (mayExceed && new TextEncoder().encode(text).length > MAX_FRAME_BYTES) {
    throw new KeeplineError("too_large", `A frame is limited to ${MAX_FRAME_BYTES} bytes`, { room: frame.room });
  }
  return text;
}
