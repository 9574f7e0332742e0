import { KeeplineError } from "./errors.js";

/** Limits unless the `welcome` says otherwise. Without `ping_ms`, because older nodes do not support `ping`. */
export const DEFAULT_LIMITS = {
  frames_per_second: 50,
  frames_burst: 200,
  frame_bytes: 64 * 1024,
  chat_length: 500,
};
export const MAX_REASON_LENGTH = 500;

/** Parses a message from the server; null if it is not a frame. */
export function parseFrame(text) {
  try {
    const frame = JSON.parse(text);
    return typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}

/** The text of a frame. Throws a KeeplineError if the server would refuse it. */
export function encodeFrame(frame, { frame_bytes: maxBytes } = DEFAULT_LIMITS) {
  const text = JSON.stringify(frame);
  if (HALF_CHARACTER.test(text)) {
    throw new KeeplineError("bad_request", `A ${frame.type} cannot hold half a surrogate pair`, { room: frame.room });
  }
  if (utf8Length(text, maxBytes) > maxBytes) {
    throw new KeeplineError("too_large", `A frame is limited to ${maxBytes} bytes`, { room: frame.room });
  }
  return text;
}

/** Throws a KeeplineError if the server would refuse `text` as chat or as the reason of a report. */
export function checkText(text, maxLength, room) {
  const refuse = (why) => {
    throw new KeeplineError("bad_request", `The text ${why}`, { room });
  };
  if (typeof text !== "string") refuse("is not a string");
  const length = [...text].length; // in code points, like the server
  if (length === 0 || length > maxLength) refuse(`has ${length} characters; 1 to ${maxLength} are allowed`);
  if (text.includes("\0")) refuse("contains U+0000");
}

// JSON.stringify escapes only lone surrogates in this way; a backslash in the text is doubled.
const HALF_CHARACTER = /(^|[^\\])(\\\\)*\\ud[89a-f]/;

/** Size of `text` in UTF-8: exact if it may exceed `enough`, otherwise an estimate below that. */
export function utf8Length(text, enough) {
  if (text.length * 3 <= enough) return text.length;
  let bytes = text.length;
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit > 0x7f) bytes += isSurrogate(unit) || unit <= 0x7ff ? 1 : 2; // a pair is four bytes
  }
  return bytes;
}

function isSurrogate(unit) {
  return unit >= 0xd800 && unit <= 0xdfff;
}
